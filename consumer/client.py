"""A reader of ``GET /changes`` that never loses its place: each change once, in order, across lost
connections and restarts on both sides.

It stands on aiohttp and msgspec and needs nothing of Groundwire but what a change is.
"""

from __future__ import annotations

import asyncio
import logging
import random as chance
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import msgspec

from consumer.changes import TaskChange, read_position
from consumer.errors import Permanent, Transient

__all__ = ["AnotherLog", "IndexAhead", "StreamMalformed", "StreamRefused", "TaskChange", "changes"]

MAX_EVENT_BYTES = 1 << 18  # of one line, and of one event's data; a log entry is below 64 KiB
MAX_WAIT_S = 3600.0  # that the server may ask for
SILENT_S = 60.0  # without a byte, from a server that does not tell its heartbeat
HEARTBEATS = 3  # that may be missing
CONNECT_S = 15.0

_LINE_END = re.compile(rb"\r\n|\r|\n")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_log = logging.getLogger("groundwire.client")


class StreamRefused(Permanent):
    """The server will not tell these changes, however often it is asked; ``status`` says more."""

    def __init__(self, status: int, reason: str, message: str = "") -> None:
        super().__init__(reason, message)
        self.status = status


class AnotherLog(StreamRefused):
    """The place to go on from is of another log: the lake was begun anew, or the URL is another's.
    Begin without ``after``, and forget what was made from the old one."""


class IndexAhead(StreamRefused):
    """The log ends before the place to go on from: it was restored from an older copy."""


class StreamMalformed(Permanent):
    """What came is no stream of changes."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a blank line completes. ``data`` is None when nothing is dispatched, and only the place
    to go on from has moved."""

    id: str
    type: str
    data: str | None


class EventParser:
    """Server-sent events of bytes that come in any pieces (WHATWG HTML, 9.2.6, but for ``retry``).

    Raises `StreamMalformed` for a line or an event over the limit.
    """

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()  # what came of it so far
        self._first = True
        self._after_return = False  # a line feed now belongs to the line before
        self._id = ""
        self._type = ""
        self._data: list[str] = []
        self._size = 0
        self.last_id = ""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that ``piece`` completes."""
        if piece and self._after_return:
            piece = piece.removeprefix(b"\n")
            self._after_return = False
        if not piece:
            return
        *ended, rest = _LINE_END.split(piece)
        self._after_return = piece.endswith(b"\r")
        for part in ended:
            line = self._complete(part)
            if (event := self._take(line)) is not None:
                yield event
        self._line += rest
        self._bound(len(self._line))

    def _complete(self, part: bytes) -> str:
        self._line += part
        self._bound(len(self._line))
        line = self._line.decode("utf-8", "replace")
        self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix("\ufeff")
        return line

    def _take(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")  # a comment has no name
        value = value.removeprefix(" ")
        if name == "data":
            self._size += len(value) + 1
            self._bound(self._size)
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Event | None:
        type_, data, moved = self._type, self._data, self._id != self.last_id
        self._type, self._data, self._size = "", [], 0
        self.last_id = self._id
        if data:
            return Event(self.last_id, type_ or "message", "\n".join(data))
        return Event(self.last_id, "", None) if moved else None

    def _bound(self, size: int) -> None:
        if size > self._max_bytes:
            said = f"an event of more than {self._max_bytes} bytes"
            raise StreamMalformed("stream-malformed", said)


async def changes(
    url: str,
    *,
    after: str | int | None = None,
    ground_truth: bool = True,
    projects: Sequence[str] = (),
    token: str | None = None,
    silent_s: float | None = None,
    base_s: float = 0.5,
    cap_s: float = 30.0,
    session: aiohttp.ClientSession | None = None,
    random: Callable[[], float] = chance.random,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[TaskChange]:
    """Every change after ``after`` (a change's ``id``, or an index; None: from the first), each
    once, in order, and then whatever comes; it reconnects for as long as it is iterated over.

    ``url`` is the admin listener's. ``ground_truth`` False gives every move of a task's pointer.
    A connection that is silent for ``silent_s`` (three of the server's heartbeats) counts as lost;
    waits grow from ``base_s`` to ``cap_s`` seconds, or are what the server asks for. ``session``
    is for TLS and proxies of your own.

    Raises ``ValueError`` for what is no URL or position, `StreamRefused` (`AnotherLog`,
    `IndexAhead`) when asking again is useless, `StreamMalformed` when something else answers.
    """
    reading = _Reading(_endpoint(url), _query(ground_truth, projects), silent_s, token)
    if after is not None:
        reading.start_after(str(after))
    failures = 0
    async with _session(session) as http:
        while True:
            asked_s = 0.0
            try:
                async with aclosing(reading.connection(http)) as connection:
                    async for change in connection:
                        yield change
            except Transient as lost:
                _log.warning("changes: %s; reconnecting", lost.message)
                asked_s = lost.after_s or 0.0
            failures = 1 if reading.take_progress() else failures + 1
            full_s = min(cap_s, base_s * 2.0 ** min(failures - 1, 30))
            await sleep(max(asked_s, full_s * (0.5 + random() / 2)))


@dataclass(slots=True)
class _Reading:
    """Where one reader is, over all its connections."""

    url: str
    query: Sequence[tuple[str, str]]
    silent_s: float | None
    token: str | None
    last_id: str = ""
    index: int = -1
    log: str | None = None
    _progress: bool = field(default=False)

    def start_after(self, text: str) -> None:
        self.index, self.log = read_position(text)
        self.last_id = text

    def take_progress(self) -> bool:
        """Whether anything came since the last call."""
        progress, self._progress = self._progress, False
        return progress

    async def connection(self, http: aiohttp.ClientSession) -> AsyncGenerator[TaskChange]:
        """What one connection brings. Raises ``Transient`` when it is lost."""
        parser = EventParser()
        try:
            async with asyncio.timeout(self.silent_s or SILENT_S):
                response = await self._open(http)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _lost(error) from error
        try:
            await _check(response)
            silent_s = self.silent_s or _silent_s(response)
            while piece := await _next(response, silent_s):
                for event in parser.feed(piece):
                    if (change := self._take(event)) is not None:
                        yield change
        finally:
            response.close()

    async def _open(self, http: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S)
        return await http.get(
            self.url, params=self.query, headers=headers, timeout=timeout, allow_redirects=False
        )

    def _take(self, event: Event) -> TaskChange | None:
        """The event's change, unless it was seen before."""
        try:
            index, log = read_position(event.id)
        except ValueError:
            raise StreamMalformed("stream-malformed", "an event's id is no position") from None
        if self.log not in (None, log):
            raise AnotherLog(200, "another-log", "the server now tells of another log")
        self._progress = True
        if index <= self.index:
            return None
        change = None if event.data is None else _change(event.data)
        self.index, self.log, self.last_id = index, log, event.id
        return change


def _change(data: str) -> TaskChange:
    try:
        return msgspec.json.decode(data, type=TaskChange)
    except (msgspec.MsgspecError, RecursionError) as error:
        said = f"an event tells of no change that this version knows: {error}"
        raise StreamMalformed("stream-malformed", said) from error


async def _next(response: aiohttp.ClientResponse, silent_s: float) -> bytes:
    """The next bytes; none at the end. Only waiting counts as silence, not what the iterator's user
    does meanwhile."""
    try:
        async with asyncio.timeout(silent_s):
            return await response.content.readany()
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise _lost(error) from error


def _lost(error: Exception) -> Transient:
    silent = isinstance(error, TimeoutError)
    said = "the server is silent" if silent else f"no connection: {type(error).__name__}"
    return Transient("stream-silent" if silent else "stream-lost", said)


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raises unless this is the stream."""
    status = response.status
    if status == 200:
        if response.content_type != "text/event-stream":
            raise StreamMalformed("stream-malformed", "what answers there is no stream of changes")
        return
    if status in (408, 425, 429) or status >= 500:
        after_s = _retry_after_s(response.headers.get("Retry-After", ""))
        raise Transient("stream-unavailable", f"the server answered {status}", after_s=after_s)
    reason, message = await _said(response)
    kinds = {"another-log": AnotherLog, "index-ahead": IndexAhead}
    raise kinds.get(reason, StreamRefused)(status, reason, f"the server answered {message}")


async def _said(response: aiohttp.ClientResponse) -> tuple[str, str]:
    """Reason and sentence of a refusal, as far as it is one of Groundwire's."""
    plain = str(response.status)
    try:
        async with asyncio.timeout(CONNECT_S):
            body = await response.content.read(4096)
        told = msgspec.json.decode(body, type=dict[str, str])
    except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError, RecursionError):
        told = {}
    reason, message = told.get("error", ""), told.get("message", "")
    if not _SLUG.fullmatch(reason):
        reason = "stream-refused"
    return reason, f"{plain}: {message[:300]}" if message.isprintable() and message else plain


def _silent_s(response: aiohttp.ClientResponse) -> float:
    try:
        beat_s = float(response.headers.get("Groundwire-Heartbeat", ""))
    except ValueError:
        return SILENT_S
    return max(1.0, HEARTBEATS * beat_s) if 0 < beat_s <= MAX_WAIT_S else SILENT_S


def _retry_after_s(text: str) -> float | None:
    known = text.isascii() and text.isdigit() and len(text) < 9
    return min(float(text), MAX_WAIT_S) if known else None


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("must be the admin listener's URL, such as http://127.0.0.1:9090")
    if parts.port == 0 or parts.query or parts.fragment:
        raise ValueError("the URL must have no query: what is asked for are arguments")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith("/changes") else f"{path}/changes").geturl()


def _query(ground_truth: bool, projects: Sequence[str]) -> list[tuple[str, str]]:
    if isinstance(projects, str):
        raise TypeError("projects is a list of them")
    truth = ("ground_truth", "true" if ground_truth else "false")
    return [truth, *(("project", project) for project in projects)]


@asynccontextmanager
async def _session(given: aiohttp.ClientSession | None) -> AsyncIterator[aiohttp.ClientSession]:
    if given is not None:
        yield given
        return
    cookies = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=cookies) as own:
        yield own
