"""``GET /changes``: what moved in the lake, as server-sent events, from any place of the log on.

Each reader has a place of its own and takes what the log holds from there: nothing is queued for
anybody, so whoever reads slowly delays no other and costs a few buffers. An event's ``id`` is its
place, which names the log; the same place always tells the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import msgspec
from aiohttp import hdrs, web
from multidict import MultiMapping

from consumer.changes import TaskChange, position, read_position
from consumer.errors import GroundwireError, Rejected, Transient
from consumer.log.walk import Place, Wanted, begin, changes_between, stretch_end
from consumer.ports import LogReader
from consumer.telemetry import Metrics, logger

STRETCHES = 16  # kept, encoded, for whoever reads the same next
STRETCH_BYTES = 8 << 20  # kept, all together
PIECE_BYTES = 1 << 15  # written at once
WAITING_BYTES = 1 << 15  # of one reader, before no more is written
SEND_BYTES = 1 << 17  # the kernel's, for one reader: what it holds hides that nobody reads
MAX_PROJECTS = 100  # of one request
MAX_PROJECT = 250  # characters
RETRY_AFTER_S = 5
RECONNECT_MS = 1000  # what a browser waits
HEARTBEAT = "Groundwire-Heartbeat"  # a header: seconds after which silence means a lost connection


def read_query(query: MultiMapping[str], last_ids: Sequence[str]) -> tuple[Wanted, Place | None]:
    """What a request asks for. ``last_ids`` are its ``Last-Event-ID`` headers, which win over
    ``after``: a browser repeats its URL. Raises ``Rejected`` without repeating what was given."""
    if not {"after", "ground_truth", "project"}.issuperset(query.keys()):
        raise _bad("unknown-parameter", "the parameters are after, ground_truth and project")
    truth = _one(query, "ground_truth")
    if truth not in (None, "true", "false"):
        raise _bad("bad-ground-truth", "ground_truth must be true or false")
    projects = query.getall("project", [])
    if len(projects) > MAX_PROJECTS or not all(0 < len(one) <= MAX_PROJECT for one in projects):
        said = f"at most {MAX_PROJECTS} projects, each of 1 to {MAX_PROJECT} characters"
        raise _bad("bad-project", said)
    if len(last_ids) > 1:
        raise _bad("bad-position", "there is more than one Last-Event-ID")
    after, last_id = _one(query, "after"), "".join(last_ids)
    place = read_after(after) if after is not None else None
    if last_id:  # an empty one is none, by the standard
        place = read_after(last_id)
    return Wanted(truth == "true", frozenset(projects)), place


def read_after(text: str) -> Place:
    """Raises ``Rejected``."""
    try:
        return read_position(text)
    except ValueError as error:
        raise _bad("bad-position", f"a position {error}") from None


class ChangeStream:
    """Answers ``GET /changes``. A reader that takes nothing for ``stalled_s`` is let go; one that
    hears nothing hears where it is every ``heartbeat_s``."""

    def __init__(
        self,
        log: LogReader,
        metrics: Metrics,
        *,
        max_readers: int,
        heartbeat_s: float,
        stalled_s: float,
    ) -> None:
        self._log = log
        self._shared = _Shared(log)
        self._metrics = metrics
        self._max_readers = max_readers
        self._heartbeat_s = heartbeat_s
        self._stalled_s = stalled_s
        self._streams: set[asyncio.Task[None]] = set()
        self._readers = 0
        self._closed = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Admits one more reader and tells it until it goes or stalls, the log cannot be read, or
        the process stops."""
        if self._closed or self._readers >= self._max_readers:
            reason = "stopping" if self._closed else "too-many-readers"
            return _refuse(Transient(reason, f"at most {self._max_readers} read at once"))
        self._readers += 1
        self._metrics.stream_readers(self._readers)
        try:
            return await self._admitted(request)
        finally:
            self._readers -= 1
            self._metrics.stream_readers(self._readers)

    async def close(self) -> None:
        """Ends every stream now, in order; whoever comes later is sent away."""
        self._closed = True
        for stream in self._streams:
            stream.cancel()

    async def until(self, stop: asyncio.Event) -> None:
        """Closes as soon as the process is to stop."""
        await stop.wait()
        await self.close()

    async def _admitted(self, request: web.Request) -> web.StreamResponse:
        try:
            last_ids = request.headers.getall("Last-Event-ID", [])
            wanted, after = read_query(request.query, last_ids)
            start = await begin(self._log, after)
        except GroundwireError as error:
            return _refuse(error)
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "text/event-stream",
                hdrs.CACHE_CONTROL: "no-store",
                "X-Accel-Buffering": "no",  # nginx would hold events back
                HEARTBEAT: f"{self._heartbeat_s:g}",
            }
        )
        _bound(request.transport, self._stalled_s)
        await response.prepare(request)
        stream = asyncio.create_task(self._tell(response, wanted, start))
        self._streams.add(stream)
        try:
            await self._watch(request, stream)
        finally:
            stream.cancel()
            await asyncio.wait({stream})
            self._streams.discard(stream)
            _say_end(stream)
        return response

    async def _tell(self, response: web.StreamResponse, wanted: Wanted, at: int) -> None:
        """Everything from index ``at`` on, for ever; raises what the log and the connection do."""
        now = asyncio.get_running_loop().time
        await response.write(b"retry: %d\n\n" % RECONNECT_MS)
        beat_at = now() + self._heartbeat_s
        while True:
            size = await self._log.wait(at, max(0.0, beat_at - now()))
            end = stretch_end(at, size)
            told = await self._shared.told(at, end) if end > at else ()
            at = max(at, end)
            for piece in _pieces(told, wanted):
                await response.write(piece)
                beat_at = now() + self._heartbeat_s
            if now() >= beat_at:
                await response.write(self._beat(at, await self._log.identity()))
                beat_at = now() + self._heartbeat_s
            await asyncio.sleep(0)  # whoever catches up leaves room for the others

    def _beat(self, at: int, identity: str) -> bytes:
        """A block that dispatches nothing, but moves where the reader will go on (WHATWG HTML,
        9.2.6): a filter may have passed over much."""
        place = f"id: {position(at - 1, identity)}\n" if at and identity else ""
        return f": nothing else\n{place}\n".encode()

    async def _watch(self, request: web.Request, stream: asyncio.Task[None]) -> None:
        """Until the stream ends, or its reader takes nothing for too long."""
        now = asyncio.get_running_loop().time
        most, since = -1, now()
        while not stream.done():
            await asyncio.wait({stream}, timeout=self._stalled_s / 4)
            transport = request.transport
            if transport is None:
                return  # it has gone
            waiting = transport.get_write_buffer_size()
            taken = request.writer.output_size - waiting
            if taken > most or not waiting:
                most, since = max(most, taken), now()
            elif now() - since >= self._stalled_s:
                logger().warning("reader let go", reason="stalled", remote=request.remote)
                transport.abort()
                return


class _Told(msgspec.Struct, frozen=True):
    """A change and its text, made once for all readers."""

    change: TaskChange
    data: bytes

    def event(self, wanted: Wanted) -> bytes:
        change = self.change
        word = change.ground_truth if wanted.ground_truth else change.change
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (
            change.id.encode(),
            (word or change.change).encode(),
            self.data,
        )


class _Shared:
    """Stretches of the log, each read and encoded once for all who are at the same place."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._kept: OrderedDict[tuple[int, int], asyncio.Task[list[_Told]]] = OrderedDict()
        self._weights: dict[tuple[int, int], int] = {}  # of those that have been read

    async def told(self, start: int, end: int) -> list[_Told]:
        """One reader's leaving does not stop the others' reading."""
        key = start, end
        if key not in self._kept:
            reading = asyncio.create_task(self._read(start, end))
            reading.add_done_callback(lambda _: self._settle(key))
            self._kept[key] = reading
        self._kept.move_to_end(key)
        return await asyncio.shield(self._kept[key])

    async def _read(self, start: int, end: int) -> list[_Told]:
        found = await changes_between(self._log, start, end)
        return [_Told(change, msgspec.json.encode(change)) for change in found]

    def _settle(self, key: tuple[int, int]) -> None:
        reading = self._kept[key]
        if reading.cancelled() or reading.exception() is not None:
            del self._kept[key]
            return
        self._weights[key] = _weight(reading)
        while len(self._kept) > STRETCHES or sum(self._weights.values()) > STRETCH_BYTES:
            oldest = next((one for one in self._kept if one in self._weights), None)
            if oldest is None:
                return
            del self._kept[oldest], self._weights[oldest]


def _weight(reading: asyncio.Task[list[_Told]]) -> int:
    return sum(2 * len(one.data) for one in reading.result())  # the change itself, and its text


def _pieces(told: Sequence[_Told], wanted: Wanted) -> Iterator[bytes]:
    """The wanted events' bytes, in pieces of some `PIECE_BYTES`: only one is this reader's own."""
    piece = bytearray()
    for one in told:
        if wanted.includes(one.change):
            piece += one.event(wanted)
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _bound(transport: asyncio.Transport | None, stalled_s: float) -> None:
    """Keeps what waits for one reader small, and has the kernel notice one that vanished."""
    if transport is None:
        return
    transport.set_write_buffer_limits(high=WAITING_BYTES)
    wire = transport.get_extra_info("socket")
    if wire is None:
        return
    with contextlib.suppress(OSError):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            timeout_ms = max(1000, int(stalled_s * 1000))
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def _say_end(stream: asyncio.Task[None]) -> None:
    """A reader that has gone is no news; a log that cannot be read is. The reader comes again, and
    goes on where it was."""
    if stream.cancelled():
        return
    error = stream.exception()
    if isinstance(error, GroundwireError):
        logger().error("stream ended", reason=error.reason, detail=error.message)
    elif error is not None and not isinstance(error, ConnectionError):
        logger().error("stream ended", reason="stream-crashed", exc_info=error)


def _refuse(error: GroundwireError) -> web.Response:
    """Says who has to change what: the reader (4xx), or nobody but time (503)."""
    if isinstance(error, Rejected):
        said = {"error": error.reason, "message": error.message}
        return web.json_response(said, status=error.status)
    logger().warning("reader sent away", reason=error.reason, detail=error.message)
    said = {"error": error.reason, "message": "try again later"}
    return web.json_response(said, status=503, headers={hdrs.RETRY_AFTER: str(RETRY_AFTER_S)})


def _one(query: MultiMapping[str], name: str) -> str | None:
    given = query.getall(name, [])
    if len(given) > 1:
        raise _bad("repeated-parameter", f"{name} stands there more than once")
    return given[0] if given else None


def _bad(reason: str, message: str) -> Rejected:
    return Rejected(400, reason, message)
