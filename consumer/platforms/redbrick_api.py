"""RedBrick's GraphQL endpoint: its odd encoding, and what each of its failures means.

An error is never an empty result: whatever is not a clean answer is raised. No error text holds
what the platform wrote, because that may name people.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from consumer.errors import Permanent, Transient
from consumer.platforms.headers import clock_of, wait_s

MAX_ANSWER_BYTES = 64 << 20
_SDK_VERSION = "2.35.4"  # the vendor's SDK whose protocol this is
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,40}", re.ASCII)


class RedBrickApi:
    """Asks ``{api_url}/graphql/`` with the key; it is sent nowhere else, redirects included. A
    key that is called is asked for anew with each question, since it may be rotated."""

    def __init__(
        self,
        api_url: str,
        api_key: str | Callable[[], str],
        *,
        timeout_s: float = 30.0,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._key = api_key if callable(api_key) else lambda: api_key
        self._url = f"{api_url.rstrip('/')}/graphql/"
        self._headers = {
            "RB-SDK-Version": _SDK_VERSION,
            "Content-Type": "application/json",
            "Content-Encoding-RB": "gzip",
            "Accept": "application/json",
        }
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """What stands under ``data``. Raises ``Transient`` (``shared`` where other questions would
        fail the same way) or ``Permanent``."""
        data, _ = await self._asked(query, variables)
        return data

    async def ask_when(
        self, query: str, variables: Mapping[str, Any]
    ) -> tuple[dict[str, Any], str]:
        """As `ask`, with the platform's time when it answered, as `timestamp`."""
        data, headers = await self._asked(query, variables)
        return data, clock_of(headers)

    async def _asked(
        self, query: str, variables: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        if not (key := self._key()):
            raise Transient("platform-refused", "there is no API key at present", shared=True)
        try:
            async with self._client().post(
                self._url,
                data=encoded(query, variables),
                headers={**self._headers, "ApiKey": key},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                _check_status(response)
                body = await _body(response, self._max_bytes)
        except TimeoutError as error:
            raise Transient("platform-timeout", "RedBrick did not answer in time") from error
        except aiohttp.ClientPayloadError as error:
            raise Transient("platform-truncated", "RedBrick broke off its answer") from error
        except (aiohttp.ClientError, OSError) as error:
            said = f"RedBrick cannot be reached: {type(error).__name__}"
            raise Transient("platform-unreachable", said, shared=True) from error
        return _data(body), response.headers

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:  # made inside the loop that uses it
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def encoded(query: str, variables: Mapping[str, Any]) -> bytes:
    """base64 of gzip of JSON, though the content type says JSON: what the API expects."""
    text = json.dumps({"query": query, "variables": variables}, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0))


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > max_bytes:
            raise Permanent("platform-answer-too-large", f"more than {max_bytes} bytes")
    return bytes(body)


def _check_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status == 200:
        return
    said = f"RedBrick answered {status}"
    after_s = wait_s(response.headers)
    if status in (401, 403):
        raise Transient("platform-refused", f"{said}: look at the API key", shared=True)
    if status == 429:
        raise Transient("platform-rate-limited", said, after_s=after_s, shared=True)
    if status == 400:
        raise Permanent("platform-query-refused", said)
    if status in (502, 503, 504):
        raise Transient("platform-down", said, after_s=after_s, shared=True)
    if status == 413 or status >= 500:
        raise Transient("platform-failed", said, after_s=after_s)
    raise Transient("platform-address", f"{said}: look at api_url", shared=True)


def _data(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Transient("platform-answer-malformed", "RedBrick's answer is not JSON") from error
    if not isinstance(answer, dict):
        raise Transient("platform-answer-malformed", "RedBrick's answer is not an object")
    if answer.get("errors"):
        raise Transient("platform-graphql-error", f"GraphQL errors{_codes(answer['errors'])}")
    data = answer.get("data")
    if not isinstance(data, dict):
        raise Transient("platform-answer-malformed", "RedBrick's answer has no data")
    return data


def _refuse(constant: str) -> Any:
    """NaN and the infinities are no JSON, and none may read as null: that says there is nothing."""
    raise ValueError(constant)


def _codes(errors: Any) -> str:
    """The errors' codes, where they are plain ones; their messages may name people."""
    found = [
        code
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
        and isinstance(extensions := error.get("extensions"), dict)
        and isinstance(code := extensions.get("code"), str)
        and _CODE.fullmatch(code)
    ]
    return f": {', '.join(found[:3])}" if found else ""
