"""How the targets that are asked by HTTP are asked: one request, within one deadline.

No redirect is followed, no proxy or cookie is used, and an answer is read only as far as
`MAX_ANSWER_BYTES`. No error names more of a URL than its host, and none repeats what was answered.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from consumer.errors import Permanent, Transient

MAX_ANSWER_BYTES = 1 << 16
_MAX_WAIT_S = 3600  # that another side may ask for
_AS_IT_IS = re.compile(r"[!-~]+")  # quoting a quoted URL again would change it


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """``body`` is its beginning, where it was longer than `MAX_ANSWER_BYTES`."""

    host: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class Caller:
    """Asks. ``timeout_s`` is for the whole of an answer, connecting and its last byte included."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """What is answered, whatever its status. Raises ``Transient`` where nothing is, and
        ``Permanent`` for what is no request."""
        allowed = self._timeout_s if timeout_s is None else timeout_s
        host = _host(url)
        try:
            async with (
                asyncio.timeout(max(allowed, 0.0)),
                self._client().request(
                    method,
                    URL(url, encoded=_AS_IT_IS.fullmatch(url) is not None),
                    data=body,
                    headers={"Accept-Encoding": "identity", "User-Agent": "groundwire", **headers},
                    allow_redirects=False,
                ) as response,
            ):
                return Answer(host, response.status, response.headers, await _beginning(response))
        except TimeoutError:
            said = f"{host} did not answer within {self._timeout_s:g} s"
            raise Transient("target-timeout", said) from None
        except (ssl.SSLError, aiohttp.ClientSSLError):
            said = f"no trusted TLS connection to {host}: check its certificate"
            raise Transient("target-tls", said) from None
        except (ValueError, aiohttp.InvalidURL):  # a host's name, a header
            raise Permanent("target-request", f"{host} cannot be asked so") from None
        except (aiohttp.ClientError, OSError) as error:
            said = f"{host} cannot be reached: {type(error).__name__}"
            raise Transient("target-unreachable", said) from None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:  # made inside the loop that uses it
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(force_close=True),  # a kept one may be half dead
                timeout=aiohttp.ClientTimeout(total=None),  # the deadline is ours
            )
        return self._session


def refusal(answer: Answer) -> Transient | Permanent:
    """The error for a status that does not say that it began."""
    status, after_s = answer.status, retry_after_s(answer.headers)
    said = f"{answer.host} answered {status}"
    if status == 429 or (status == 403 and after_s is not None):  # GitHub says 403, and when
        return Transient("target-rate-limited", said, after_s=after_s)
    if status in (408, 425) or status >= 500:
        return Transient("target-failed", said, after_s=after_s)
    if status in (401, 403, 407):
        return Permanent("target-refused", f"{said}: look at the credentials and what they allow")
    if status in (404, 410):
        return Permanent("target-missing", f"{said}: look at the address")
    if 300 <= status < 400:
        return Permanent("target-redirects", f"{said}: write the address that it leads to")
    return Permanent("target-rejected", f"{said}: it does not want the request as it is configured")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a ``Retry-After`` header (RFC 9110, 10.2.3), up to an hour; a date is None."""
    text = headers.get("Retry-After", "")
    if not (text.isascii() and text.isdigit()):
        return None
    return float(_MAX_WAIT_S if len(text) > 9 else min(int(text), _MAX_WAIT_S))


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            break
    return bytes(body[:MAX_ANSWER_BYTES])


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the target"
    except ValueError:
        return "the target"
