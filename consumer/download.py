"""The one HTTP client for what platforms point us at: masks, images, label files, export files.

Whoever can write an annotation can choose these URLs, so each is checked before a byte is asked
for, redirects again; credentials go to no other host than the one they were given for; size and
time are bounded; bytes are given as they are stored, never unpacked. No error names more of a URL
than its host.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from consumer.errors import Permanent, Transient

MAX_REDIRECTS = 3
CHUNK = 1 << 16
SLOWEST = 1 << 17  # bytes a second of a large file, once the time of a small one is over
_BLOCK = 1 << 20  # that goes to the disk at once
_MAX_WAIT_S = 3600  # that another side may ask for
_AS_IT_IS = re.compile(r"[!-~]+")  # signatures may cover a URL's very characters

T = TypeVar("T")
Take = Callable[[aiohttp.ClientResponse], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


class Downloader:
    """GETs within limits. ``hosts`` are the only hosts asked (empty: any).

    Bodies in memory are at most ``max_bytes`` and take at most ``timeout_s`` in all. Files are at
    most ``max_file_bytes``; of them ``timeout_s`` is what any may take, and each second more must
    have brought ``SLOWEST`` bytes. Nobody is waited for longer than ``stall_s`` without a byte.
    """

    def __init__(
        self,
        *,
        hosts: frozenset[str] = frozenset(),
        max_bytes: int = 1 << 30,
        max_file_bytes: int = 16 << 30,
        timeout_s: float = 120.0,
        stall_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts = frozenset(host.casefold() for host in hosts)
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes
        self._timeout_s = timeout_s
        self._clock = clock
        self._stalling = aiohttp.ClientTimeout(sock_connect=stall_s, sock_read=stall_s)
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

        async def take(response: aiohttp.ClientResponse) -> bytes:
            data = bytearray()
            async for chunk in _chunks(response, limit):
                data += chunk
            return bytes(data)

        return await self._followed(url, authorization, take, whole=True)

    async def save(
        self,
        url: str,
        path: Path,
        *,
        authorization: str | None = None,
        max_bytes: int | None = None,
        spend: Callable[[int], None] | None = None,
    ) -> tuple[str, int]:
        """As ``get``, streamed into a new file, never whole in memory: the SHA-256 of its bytes and
        their number. ``spend`` is told of bytes before they are kept, and may raise. After a
        failure there is no file."""
        limit = self._max_file_bytes if max_bytes is None else min(max_bytes, self._max_file_bytes)

        async def take(response: aiohttp.ClientResponse) -> tuple[str, int]:
            async with _NewFile.at(path) as file:
                async for chunk in self._paced(_chunks(response, limit)):
                    if spend is not None:
                        spend(len(chunk))
                    await file.keep(chunk)
                return await file.finish()

        return await self._followed(url, authorization, take, whole=False)

    async def _followed(
        self, url: str, authorization: str | None, take: Take[T], *, whole: bool
    ) -> T:
        """What is taken where redirects end; ``whole``: within the whole time."""
        origin = _origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            self._check(url)
            headers = {"Accept-Encoding": "identity"}
            if _origin(url) != origin:
                authorization = None
            if authorization:
                headers["Authorization"] = authorization
            answer = await self._once(url, headers, take, whole=whole)
            if not isinstance(answer, _Redirect):
                return answer
            url = _redirected(url, answer.location)
        raise Permanent("download-redirects", f"more than {MAX_REDIRECTS} redirects")

    async def _paced(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Gives up a body that trickles."""
        began, came = self._clock(), 0
        async for chunk in chunks:
            came += len(chunk)
            if self._clock() - began > self._timeout_s + came / SLOWEST:
                raise TimeoutError
            yield chunk

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

    async def _once(
        self, url: str, headers: Mapping[str, str], take: Take[T], *, whole: bool
    ) -> T | _Redirect:
        host = urlsplit(url).hostname
        try:
            asked = URL(url, encoded=_AS_IT_IS.fullmatch(url) is not None)
            async with (
                asyncio.timeout(self._timeout_s) as deadline,
                self._client().get(
                    asked, headers=headers, allow_redirects=False, timeout=self._stalling
                ) as response,
            ):
                if response.status in (301, 302, 303, 307, 308):
                    return _Redirect(response.headers.get("Location", ""))
                _check_status(response)
                if not whole:
                    deadline.reschedule(None)
                return await take(response)
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


async def _chunks(response: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
    declared = response.content_length
    if declared is not None and declared > limit:
        raise Permanent("download-too-large", f"{declared} bytes; the limit is {limit}")
    came = 0
    async for chunk in response.content.iter_chunked(CHUNK):
        came += len(chunk)
        if came > limit:
            raise Permanent("download-too-large", f"more than {limit} bytes")
        yield chunk
    if declared is not None and came != declared:
        raise Transient("download-truncated", f"{came} of {declared} bytes came")


class _NewFile:
    """A file that is written and hashed in a thread, block by block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self._waiting = bytearray()
        self._size = 0

    @classmethod
    @asynccontextmanager
    async def at(cls, path: Path) -> AsyncIterator[_NewFile]:
        """Removed after a failure."""
        with _on_disk():
            file = await asyncio.to_thread(cls, path)
        try:
            yield file
        except BaseException:
            with suppress(OSError):
                await asyncio.shield(asyncio.to_thread(file._remove))
            raise

    async def keep(self, chunk: bytes) -> None:
        self._waiting += chunk
        if len(self._waiting) >= _BLOCK:
            await self._flush()

    async def finish(self) -> tuple[str, int]:
        """The SHA-256 of the bytes, and their number."""
        await self._flush()
        with _on_disk():
            await asyncio.to_thread(self._file.close)
        return self._hash.hexdigest(), self._size

    async def _flush(self) -> None:
        block, self._waiting = self._waiting, bytearray()
        with _on_disk():
            await asyncio.to_thread(self._write, block)

    def _write(self, block: bytearray) -> None:
        self._file.write(block)
        self._hash.update(block)
        self._size += len(block)

    def _remove(self) -> None:
        try:
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)


@contextmanager
def _on_disk() -> Iterator[None]:
    """What this machine's disk refuses is not the other side's fault."""
    try:
        yield
    except OSError as error:
        text = f"a file on this machine cannot be written: {os.strerror(error.errno or 0)}"
        raise Transient("download-disk", text) from None


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
