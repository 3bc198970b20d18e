"""The one HTTP client for what platforms point us at: masks, label files, export files.

Whoever can write an annotation can choose these URLs, so each is checked before a byte is asked
for, redirects again; credentials go to no other host than the one they were given for; size and
time are bounded; bytes are given as they are stored, never unpacked. No error names more of a URL
than its host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from consumer.errors import Permanent, Transient

MAX_REDIRECTS = 3
CHUNK = 1 << 16
_MAX_WAIT_S = 3600  # that another side may ask for
_AS_IT_IS = re.compile(r"[!-~]+")  # signatures may cover a URL's very characters


class Downloader:
    """GETs within limits. ``hosts`` are the only hosts asked (empty: any)."""

    def __init__(
        self,
        *,
        hosts: frozenset[str] = frozenset(),
        max_bytes: int = 1 << 30,
        timeout_s: float = 120.0,
        stall_s: float = 20.0,
    ) -> None:
        self._hosts = frozenset(host.casefold() for host in hosts)
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_s, sock_connect=stall_s, sock_read=stall_s
        )
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self, url: str, *, authorization: str | None = None, max_bytes: int | None = None
    ) -> bytes:
        """The whole body. ``authorization`` is the header's value, sent to ``url``'s own origin
        only, and no more once a redirect has left it. Raises ``Transient`` for what may pass,
        ``Permanent`` for what never will."""
        limit = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)
        origin = _origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            self._check(url)
            headers = {"Accept-Encoding": "identity"}
            if _origin(url) != origin:
                authorization = None
            if authorization:
                headers["Authorization"] = authorization
            body = await self._once(url, headers, limit)
            if isinstance(body, bytes):
                return body
            url = _redirected(url, body)
        raise Permanent("download-redirects", f"more than {MAX_REDIRECTS} redirects")

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise _no_url() from error
        host = (parts.hostname or "").casefold()
        if parts.scheme not in ("http", "https") or not host:
            raise Permanent("download-scheme", "only http and https URLs are fetched")
        if not host.isprintable() or " " in host:
            raise _no_url()
        if "@" in parts.netloc:
            raise Permanent("download-scheme", "a URL that holds a user's name is not fetched")
        if self._hosts and host not in self._hosts:
            raise Permanent(
                "download-host",
                f"the host {host[:100]!r} is not among the source's download_hosts",
            )

    async def _once(self, url: str, headers: Mapping[str, str], limit: int) -> bytes | str:
        """The body, or where a redirect leads."""
        host = urlsplit(url).hostname
        try:
            asked = URL(url, encoded=_AS_IT_IS.fullmatch(url) is not None)
            async with self._client().get(
                asked, headers=headers, allow_redirects=False, timeout=self._timeout
            ) as response:
                if response.status in (301, 302, 303, 307, 308):
                    return response.headers.get("Location", "")
                _check_status(response)
                return await _body(response, limit)
        except TimeoutError as error:
            raise Transient("download-timeout", f"{host} did not answer in time") from error
        except aiohttp.ClientPayloadError as error:
            raise Transient("download-truncated", f"{host} broke off its answer") from error
        except ValueError as error:  # a port, a host's name, an ``InvalidURL``
            raise _no_url() from error
        except (aiohttp.ClientError, OSError) as error:
            raise Transient(
                "download-failed", f"{host} cannot be reached: {type(error).__name__}"
            ) from error

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:  # made inside the loop that uses it
            self._session = aiohttp.ClientSession(
                auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a ``Retry-After`` header (RFC 9110, 10.2.3); a date or nonsense is None."""
    text = headers.get("Retry-After", "")
    if not (text.isascii() and text.isdigit()):
        return None
    return float(_MAX_WAIT_S if len(text) > 9 else min(int(text), _MAX_WAIT_S))


def _check_status(response: aiohttp.ClientResponse) -> None:
    status, host = response.status, response.url.host
    if status == 200:
        return
    said = f"{host} answered {status}"
    if status == 429:
        raise Transient(
            "download-rate-limited", said, after_s=retry_after_s(response.headers), shared=True
        )
    if status in (401, 403):
        raise Transient("download-refused", said)  # a presigned URL that expired, mostly
    if status in (404, 410):
        raise Transient("download-missing", said)
    raise Transient("download-failed", said, after_s=retry_after_s(response.headers))


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    declared = response.content_length
    if declared is not None and declared > limit:
        raise Permanent("download-too-large", f"{declared} bytes; the limit is {limit}")
    data = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK):
        data += chunk
        if len(data) > limit:
            raise Permanent("download-too-large", f"more than {limit} bytes")
    if declared is not None and len(data) != declared:
        raise Transient("download-truncated", f"{len(data)} of {declared} bytes came")
    return bytes(data)


def _redirected(url: str, location: str) -> str:
    if not location:
        raise Permanent("download-redirects", "a redirect leads nowhere")
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise _no_url() from error


def _no_url() -> Permanent:
    return Permanent("download-scheme", "not a URL")


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return None
