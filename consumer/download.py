"""The one HTTP client for what platforms point us at: masks, images, label files, export files.

Whoever can write an annotation can choose these URLs, so each is checked before a byte is asked
for, redirects again; every address that a host has is judged, and the connection is made to one of
those and to nothing else; credentials go to no other origin than the one they were given for; size
and time are bounded; bytes are given as they are stored, never unpacked. No error names more of a
URL than its host.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from consumer.addresses import Admitted, Network, Origin, Target, host_name, no_url
from consumer.errors import Permanent, Transient
from consumer.new_file import NewFile

MAX_REDIRECTS = 3
CHUNK = 1 << 16
SLOWEST = 1 << 17  # bytes a second of a large file, once the time of a small one is over
_MAX_WAIT_S = 3600  # that another side may ask for

T = TypeVar("T")
Take = Callable[[aiohttp.ClientResponse], Awaitable[T]]
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


class Downloader:
    """GETs within limits.

    ``hosts`` are the only hosts asked (empty: any). The origin of ``own_url``, which is the
    platform's API, may lie at any address. Any other host is asked over https, at public addresses
    and those in ``networks``; over http only in ``networks``, or when it is in ``hosts``. A host
    with one address that may not be asked is not asked at all: else who answers for its name could
    hide a private one among public ones.

    Bodies in memory are at most ``max_bytes`` and take at most ``timeout_s`` in all. Files are at
    most ``max_file_bytes``; of them ``timeout_s`` is what any may take, and each second more must
    have brought ``SLOWEST`` bytes. Nobody is waited for longer than ``stall_s`` without a byte.
    """

    def __init__(
        self,
        *,
        hosts: frozenset[str] = frozenset(),
        networks: Sequence[Network] = (),
        own_url: str | None = None,
        max_bytes: int = 1 << 30,
        max_file_bytes: int = 16 << 30,
        timeout_s: float = 120.0,
        stall_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
        lookup: Lookup | None = None,
    ) -> None:
        self._hosts = frozenset(map(host_name, hosts))
        self._networks = tuple(networks)
        self._own = Target.read(own_url).origin if own_url else None
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes
        self._timeout_s = timeout_s
        self._clock = clock
        self._lookup = lookup or _looked_up
        self._stalling = aiohttp.ClientTimeout(sock_connect=stall_s, sock_read=stall_s)
        self._sessions: dict[Admitted | None, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def get(
        self, url: str, *, authorization: str | None = None, max_bytes: int | None = None
    ) -> bytes:
        """The whole body. ``authorization`` is the header's value, sent to ``url``'s own origin
        only (to ``own_url``'s only, where there is one), and no more once a redirect has left it.
        Raises ``Transient`` for what may pass, ``Permanent`` for what never will."""
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
            async with NewFile.at(path) as file:
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
        target = Target.read(url)
        origin = target.origin if self._own is None else self._own
        for _ in range(MAX_REDIRECTS + 1):
            self._check(target.origin)
            headers = {"Accept-Encoding": "identity"}
            if target.origin != origin:
                authorization = None
            if authorization:
                headers["Authorization"] = authorization
            answer = await self._once(target, headers, take, whole=whole)
            if not isinstance(answer, _Redirect):
                return answer
            target = _redirected(target, answer.location)
        raise Permanent("download-redirects", f"more than {MAX_REDIRECTS} redirects")

    async def _paced(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Gives up a body that trickles."""
        began, came = self._clock(), 0
        async for chunk in chunks:
            came += len(chunk)
            if self._clock() - began > self._timeout_s + came / SLOWEST:
                raise TimeoutError
            yield chunk

    def _check(self, origin: Origin) -> None:
        if self._hosts and origin.host not in self._hosts:
            raise Permanent(
                "download-host",
                f"the host {origin.host[:100]!r} is not among the source's download_hosts",
            )

    async def _once(
        self, target: Target, headers: Mapping[str, str], take: Take[T], *, whole: bool
    ) -> T | _Redirect:
        host = target.origin.host[:100]
        try:
            async with (
                asyncio.timeout(self._timeout_s) as deadline,
                self._session(target.origin).get(
                    target.url, headers=headers, allow_redirects=False, timeout=self._stalling
                ) as response,
            ):
                if response.status in (301, 302, 303, 307, 308):
                    return _Redirect(response.headers.get("Location", ""))
                _check_status(response)
                if not whole:
                    deadline.reschedule(None)
                return await take(response)
        except _AddressRefused as error:
            raise Permanent(error.reason, f"{host} {_REFUSED[error.reason]}") from None
        except TimeoutError as error:
            raise Transient("download-timeout", f"{host} did not answer in time") from error
        except aiohttp.ClientPayloadError as error:
            raise Transient("download-truncated", f"{host} broke off its answer") from error
        except ValueError as error:  # a port, a host's name, an ``InvalidURL``
            raise no_url() from error
        except (aiohttp.ClientError, OSError) as error:
            raise Transient(
                "download-failed", f"{host} cannot be reached: {type(error).__name__}"
            ) from error

    def _session(self, origin: Origin) -> aiohttp.ClientSession:
        """One for each way of judging, so that no connection is used again that another admitted;
        made inside the loop that uses it."""
        admitted = None
        if origin != self._own:
            plain = origin.scheme == "http" and origin.host not in self._hosts
            admitted = Admitted(self._networks, plain)
        if admitted not in self._sessions:
            self._sessions[admitted] = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=_connector(admitted, self._lookup),
            )
        return self._sessions[admitted]


class _AddressRefused(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_REFUSED = {
    "download-address": "lies at an address that is not public: if it should, name its network in "
    "the source's private_networks",
    "download-plain-http": "is asked over plain http: that is for download_hosts and "
    "private_networks",
}


def _connector(admitted: Admitted | None, lookup: Lookup) -> aiohttp.TCPConnector:
    """Judges every address that a name has, and once more each that a socket is made for, which
    takes in the addresses that a URL spells itself. ``None`` judges nothing."""
    if admitted is None:
        return aiohttp.TCPConnector(resolver=_Judging(lookup, lambda _: None), use_dns_cache=False)

    def judge(address: str) -> None:
        if reason := admitted.refusal(address):
            raise _AddressRefused(reason)

    def judged_socket(about: aiohttp.AddrInfoType) -> socket.socket:
        judge(about[4][0])
        return socket.socket(family=about[0], type=about[1], proto=about[2])

    return aiohttp.TCPConnector(
        resolver=_Judging(lookup, judge), use_dns_cache=False, socket_factory=judged_socket
    )


class _Judging(AbstractResolver):
    """Gives numbers, all of them admitted; what is connected to is never looked up again."""

    def __init__(self, lookup: Lookup, judge: Callable[[str], None]) -> None:
        self._lookup, self._judge = lookup, judge

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = list(dict.fromkeys(await self._lookup(host, port)))
        if not addresses:
            raise OSError("no address")
        for address in addresses:
            self._judge(address)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _looked_up(host: str, port: int) -> Sequence[str]:
    """Every address of a name, as this machine's resolver has it."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(about[4][0]) for about in found]


def retry_after_s(
    headers: Mapping[str, str], *, now: Callable[[], float] = time.time
) -> float | None:
    """Seconds of a ``Retry-After`` header (RFC 9110, 10.2.3), at most an hour; nonsense is None.
    ``now`` is the time since 1970 that a date is counted from."""
    text = headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(_MAX_WAIT_S if len(text) > 9 else min(int(text), _MAX_WAIT_S))
    try:
        until = parsedate_to_datetime(text)
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        left_s = until.timestamp() - now()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(left_s, 0.0), float(_MAX_WAIT_S))


def _check_status(response: aiohttp.ClientResponse) -> None:
    status, host = response.status, response.url.host
    if status == 200:
        return
    said = f"{host} answered {status}"
    if status == 429:
        raise Transient(
            "download-rate-limited", said, after_s=retry_after_s(response.headers), shared=True
        )
    if status in (400, 401, 403, 410):
        raise Transient("download-refused", said)  # a presigned URL that expired, mostly
    if status == 404:
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


def _redirected(target: Target, location: str) -> Target:
    """Raises ``Permanent``. What was asked over https is never asked over http."""
    if not location:
        raise Permanent("download-redirects", "a redirect leads nowhere")
    try:
        to = Target.read(urljoin(target.text, location))
    except ValueError as error:
        raise no_url() from error
    if target.origin.scheme == "https" and to.origin.scheme != "https":
        raise Permanent("download-plain-http", "a redirect leads from https to http")
    return to
