"""The queue in one SQLite file: the same lanes without a server, for one machine.

At least once, by leases with an expiry: a lease is renewed while its process lives. When that is
killed, the next take sees it by the free lock (`sqlite_holders`) and has the messages at once; when
it is stopped, or locks do not work, they lapse by time. Verbs match the lease's token and expiry in
the statement that acts, so a stale one changes nothing. Several processes may share the file: puts
of the same process wake a waiting take at once, those of others are seen within ``POLL_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import structlog

from consumer.errors import Transient
from consumer.model import DeadLetter, Failure, LaneSpec, Message, timestamp
from consumer.ports import ALONE_AFTER, Clock, LaneDepth, Lease
from consumer.queues import sqlite_rows as rows
from consumer.queues.body import UNREADABLE, readable, to_bytes
from consumer.queues.sqlite_file import SqliteFile
from consumer.queues.sqlite_holders import Holders
from consumer.queues.sqlite_rows import Row

LEASE_S = 30.0
POLL_S = 0.2  # how late another process's put or death, or a retry, may be seen

Verb = Callable[[sqlite3.Connection, float], None]  # the second is the time now

_log = structlog.get_logger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(eq=False, slots=True)
class SqliteLease:
    """A leased row, until its verb is called or its time is over."""

    message: Message
    row: Row
    _queue: SqliteQueue

    @property
    def attempt(self) -> int:
        return self.row.attempt

    @property
    def failure(self) -> Failure | None:
        return self.row.failure

    @property
    def losses(self) -> int:
        return self.row.losses

    async def ack(self) -> None:
        await self._queue.settle(self.row, lambda db, now: rows.remove(db, self.row, now))

    async def retry(self, after_s: float, failure: Failure, *, counted: bool = True) -> None:
        await self._queue.settle(
            self.row,
            lambda db, now: rows.postpone(
                db, self.row, now=now, after_s=after_s, failure=failure, counted=counted
            ),
        )

    async def bury(self, failure: Failure) -> None:
        await self._queue.settle(
            self.row, lambda db, now: rows.bury(db, self.row, now=now, failure=failure)
        )


class SqliteQueue:
    """`consumer.ports.Queue` and `DeadLetters` in one file.

    A lease lasts until its process dies, and at most ``lease_s`` beyond its last renewal. Putting
    an id again while its row waits unleased leaves one row, whose next try keeps its time.
    """

    def __init__(
        self,
        path: Path,
        lanes: Sequence[LaneSpec],
        *,
        clock: Clock = _now,
        lease_s: float = LEASE_S,
        put_deadline_s: float = 5.0,
    ) -> None:
        self._lanes = {lane.name: lane for lane in lanes}
        self._clock = clock
        self._lease_s = lease_s
        self._deadline_s = put_deadline_s
        self._file = SqliteFile(path, rows.SCHEMA, busy_s=put_deadline_s)
        self._holder = secrets.token_hex(8)
        self._holders = Holders(path.with_name(f"{path.name}-holders"), self._holder)
        self._claims = count(1)
        self._held: dict[int, Row] = {}
        self._alone: Row | None = None  # the last that was leased by itself
        self._woken = {name: asyncio.Event() for name in self._lanes}
        self._renewal: asyncio.Task[None] | None = None
        self._unclaims: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        await self._file.open()
        await self._file.write(rows.complete)
        await self._file.read(lambda _: self._holders.enter())
        self._renewal = asyncio.create_task(self._stay_alive())

    async def close(self) -> None:
        """Gives back what is leased; who waits in `take` gets ``Transient``."""
        self._closed = True
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, *self._unclaims, return_exceptions=True)
        held = tuple(self._held.values())
        self._held.clear()
        gave_back = False
        with contextlib.suppress(Transient):
            await self._file.write(lambda db: self._leave(db, held))
            gave_back = True
        self._holders.leave(keep_file=not gave_back)
        await self._file.close()

    async def ready(self) -> None:
        async with self._deadline():
            await self._file.write(lambda db: None)

    async def put(self, messages: Sequence[Message]) -> None:
        """See the port. Raises ``Permanent`` for a message over 8 MiB, before anything is put."""
        work = [
            (lane.name, message.id, to_bytes(message))
            for message in messages
            for lane in self._lanes.values()
            if lane.takes(message)
        ]

        def insert(db: sqlite3.Connection) -> None:
            now = self._time()
            for lane, message_id, body in work:
                rows.insert(db, lane, message_id, body, now)

        async with self._deadline():
            await self._file.write(insert)
        for lane in {lane for lane, _, _ in work}:
            self._woken[lane].set()

    async def take(self, lane: LaneSpec) -> Sequence[Lease]:
        troubled = False
        while not self._closed:
            woken = self._woken[lane.name]
            woken.clear()
            try:
                await self._end_the_dead()
                if await self._due(lane, 1):
                    await self._linger(lane)
                    if leases := await self._claim(lane):
                        return leases
            except Transient as error:
                if not troubled:
                    _log.warning("lane-lost", lane=lane.name, error=error.message)
                troubled = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), POLL_S)
        raise Transient("queue-unavailable", "the queue is closed")

    async def depth(self, lane: LaneSpec) -> LaneDepth:
        async with self._deadline():
            return await self._file.read(lambda db: rows.depth(db, lane.name, self._time()))

    async def dead(self, lane: LaneSpec, *, limit: int) -> list[DeadLetter]:
        return await self._file.read(lambda db: rows.dead(db, lane.name, limit))

    async def replay(self, lane: LaneSpec, message_id: str) -> DeadLetter | None:
        letter = await self._file.write(
            lambda db: rows.exhume(db, lane.name, message_id, replay_at=self._time())
        )
        self._woken[lane.name].set()
        return letter

    async def drop(self, lane: LaneSpec, message_id: str) -> DeadLetter | None:
        return await self._file.write(
            lambda db: rows.exhume(db, lane.name, message_id, replay_at=None)
        )

    async def settle(self, row: Row, verb: Verb) -> None:
        """Does a lease's verb, the first time it is asked to. When the file cannot take it, the
        lease is no longer renewed and so given back."""
        if self._held.get(row.seq) is not row:
            return
        del self._held[row.seq]
        try:
            await self._file.write(lambda db: verb(db, self._time()))
        except Transient as error:
            _log.warning("message-kept", reason=error.reason, error=error.message)

    async def _end_the_dead(self) -> None:
        """What dead processes had leased is free from here on."""
        if await self._file.read(lambda _: self._holders.gone()):
            ended = await self._file.write(self._lapse)
            await self._file.read(lambda _: self._holders.forget(ended))

    def _lapse(self, db: sqlite3.Connection) -> list[str]:
        gone = self._holders.gone()  # again: in the transaction nobody can lease who just enters
        for holder in gone:
            rows.lapse(db, holder)
        return gone

    async def _linger(self, lane: LaneSpec) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(lane.linger_s):
                while await self._due(lane, lane.batch) < lane.batch:
                    self._woken[lane.name].clear()
                    await self._woken[lane.name].wait()

    async def _due(self, lane: LaneSpec, limit: int) -> int:
        return await self._file.read(lambda db: rows.due(db, lane.name, limit, self._time()))

    async def _claim(self, lane: LaneSpec) -> list[SqliteLease]:
        token = f"{self._holder}-{next(self._claims)}"
        claim = asyncio.ensure_future(self._file.write(lambda db: self._lease(db, lane, token)))
        try:
            found = await asyncio.shield(claim)
        except asyncio.CancelledError:
            task = asyncio.create_task(self._unclaim(claim))
            self._unclaims.add(task)
            task.add_done_callback(self._unclaims.discard)
            raise
        self._held.update((row.seq, row) for row, _ in found)
        return [SqliteLease(message, row, self) for row, message in found]

    def _lease(
        self, db: sqlite3.Connection, lane: LaneSpec, token: str
    ) -> list[tuple[Row, Message]]:
        """Leases a batch; bytes that are no message go to the dead letters instead."""
        now = self._time()
        until = now + self._lease_s
        if lane.exclusive and not rows.hold(
            db, lane.name, holder=self._holder, now=now, until=until
        ):
            return []
        limit, most_losses = self._portion(db, lane, now)
        found: list[tuple[Row, Message]] = []
        for row in rows.lease(
            db, lane.name, limit, token=token, now=now, until=until, most_losses=most_losses
        ):
            if row.alone and not lane.exclusive:
                self._alone = row
            message = readable(row.body)
            if message is None:
                rows.bury(db, row, now=now, failure=self._unreadable())
            else:
                found.append((row, message))
        return found

    def _portion(
        self, db: sqlite3.Connection, lane: LaneSpec, now: float
    ) -> tuple[int, int | None]:
        """How many rows to lease, and how often those may have been lost: what was lost too often
        comes by itself, and not while another such is out. An exclusive lane keeps its order."""
        if lane.exclusive:
            return lane.batch, None
        out = self._alone is not None and rows.is_leased(db, self._alone, now)
        if not out and rows.next_losses(db, lane.name, now) >= ALONE_AFTER:
            return 1, None
        return lane.batch, ALONE_AFTER - 1

    async def _unclaim(self, claim: asyncio.Future[list[tuple[Row, Message]]]) -> None:
        """Gives back what a cancelled `take` was about to return."""
        with contextlib.suppress(Transient):  # not given back, it lapses
            found = [row for row, _ in await claim]
            await self._file.write(lambda db: rows.give_back(db, found))

    async def _stay_alive(self) -> None:
        """Renews what this process holds, three times within the life of a lease."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            held = tuple(self._held.values())
            try:
                await self._file.write(functools.partial(self._renew, held=held))
            except Transient as error:
                _log.warning("leases-not-renewed", reason=error.reason, error=error.message)

    def _renew(self, db: sqlite3.Connection, *, held: Sequence[Row]) -> None:
        rows.renew(db, held, holder=self._holder, until=self._time() + self._lease_s)

    def _leave(self, db: sqlite3.Connection, held: Sequence[Row]) -> None:
        rows.give_back(db, held)
        rows.leave(db, self._holder)

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._deadline_s):
                yield
        except TimeoutError:
            text = "the queue's file did not answer in time"
            raise Transient("queue-unavailable", text, shared=True) from None

    def _unreadable(self) -> Failure:
        text = "the bytes in the queue are not a message"
        return Failure(reason=UNREADABLE, message=text, at=timestamp(self._clock()))

    def _time(self) -> float:
        return self._clock().timestamp()
