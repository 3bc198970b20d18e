"""Labelbox's GraphQL endpoint: an answer's data, or the one error that it means.

An error is never an empty answer: credentials, limits, outages and errors inside a 200 are each
raised under a name of their own. No text of the platform's gets into ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from consumer.errors import Permanent, Transient
from consumer.platforms.headers import clock_of, wait_s

_CODE = re.compile(r"[A-Z_]{1,64}")

Json = dict[str, Any]


class ProjectUnreadable(Transient):
    """The project is not there, or not ours to read: no word about any task of it."""

    def __init__(self) -> None:
        super().__init__(
            "project-unreadable", "the project is not there, or the key may not read it"
        )


class GraphQL:
    """One account at one endpoint. ``authorization`` gives the header's value, which may change."""

    def __init__(
        self, *, url: str, authorization: Callable[[], str], timeout_s: float, max_bytes: int
    ) -> None:
        self._url = url
        self._authorization = authorization
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, query: str, variables: Json) -> Json:
        """The answer's ``data``. Raises ``ProjectUnreadable``, ``Transient`` (``shared`` for
        credentials, rate limits and outages) or ``Permanent`` (an answer over the limit)."""
        data, _ = await self._asked(query, variables)
        return data

    async def time(self, query: str) -> str:
        """The platform's time when it answered a question, as `timestamp`. Raises as `ask`."""
        _, headers = await self._asked(query, {})
        return clock_of(headers)

    async def _asked(self, query: str, variables: Json) -> tuple[Json, Mapping[str, str]]:
        status, headers, body = await self._post({"query": query, "variables": variables})
        after_s = wait_s(headers)
        if status in (401, 403):
            raise Transient("platform-credentials", f"Labelbox answered {status}", shared=True)
        if status == 429:
            raise Transient(
                "platform-rate-limited", "Labelbox answered 429", after_s=after_s, shared=True
            )
        if status >= 500:
            said = f"Labelbox answered {status}"
            raise Transient("platform-down", said, after_s=after_s, shared=True)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise unreadable()
        _check_errors(answer, after_s)
        data = answer.get("data")
        if status != 200 or not isinstance(data, dict):
            raise unreadable()
        return data, headers

    async def _post(self, content: Json) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Authorization": self._authorization(), "Accept": "application/json"}
        try:
            async with self._client().post(
                self._url, json=content, headers=headers, timeout=self._timeout,
                allow_redirects=False,
            ) as response:  # fmt: skip
                body = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise Permanent("platform-answer-too-large")
                return response.status, response.headers, bytes(body)
        except TimeoutError as error:
            raise Transient("platform-timeout", "no answer in time", shared=True) from error
        except aiohttp.ClientError as error:
            kind = type(error).__name__
            raise Transient("platform-unreachable", f"Labelbox: {kind}", shared=True) from error

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:  # made inside the loop that uses it
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def _check_errors(answer: Json, after_s: float | None) -> None:
    """Raises what a GraphQL answer's errors mean; their texts stay out of ours."""
    errors = answer.get("errors")
    codes: set[str] = set()
    texts = [answer.get("message")]
    for error in errors if isinstance(errors, list) else [errors] if errors else []:
        extensions = error.get("extensions") if isinstance(error, dict) else None
        code = extensions.get("code") if isinstance(extensions, dict) else None
        codes.add(code if isinstance(code, str) and _CODE.fullmatch(code) else "UNNAMED")
        texts.append(error.get("message") if isinstance(error, dict) else None)
    if any(isinstance(text, str) and text.startswith("You have exceeded") for text in texts):
        said = "Labelbox says that a limit is exceeded"
        raise Transient("platform-rate-limited", said, after_s=after_s, shared=True)
    if "AUTHENTICATION_ERROR" in codes:
        raise Transient("platform-credentials", "Labelbox refuses the API key", shared=True)
    if codes & {"RESOURCE_NOT_FOUND", "AUTHORIZATION_ERROR"}:
        raise ProjectUnreadable
    if codes:
        raise Transient("platform-error", f"GraphQL error {', '.join(sorted(codes))[:200]}")


def child(value: Json, name: str) -> Json:
    """The object under a name; raises ``Transient`` (platform-unreadable), as its kin below."""
    found = value.get(name)
    if not isinstance(found, dict):
        raise unreadable()
    return found


def text_of(value: Json, name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise unreadable()
    return text


def count_of(value: Json, name: str) -> int:
    count = value.get(name)
    if isinstance(count, str) and re.fullmatch(r"[0-9]{1,18}", count):
        count = int(count)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise unreadable()
    return count


def unreadable() -> Transient:
    return Transient(
        "platform-unreadable", "Labelbox's answer is not what it should be", shared=True
    )
