"""What the queue contract does to an adapter from outside: another process, a fault, foreign bytes.

One harness per adapter; the contract itself knows the port only.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import aio_pika

from consumer.model import LaneSpec
from consumer.ports import DeadLetters, Queue
from consumer.queues.rabbitmq import RabbitQueue
from consumer.queues.sqlite import SqliteQueue
from tests.proxy import Proxy
from tests.servers_rabbitmq import RabbitServer

EXPORT = LaneSpec(name="export", wants=("event",), batch=10, linger_s=0.02)
AUDIT = LaneSpec(
    name="audit", wants=("event", "outcome", "record"), batch=10, linger_s=0.02, exclusive=True
)
LANES = (EXPORT, AUDIT)
DELAY_S = 0.2  # the shortest wait between tries


class FullQueue(Queue, DeadLetters, Protocol):
    """Both ports of an adapter."""


class Harness(Protocol):
    """An adapter and the world around it."""

    def queue(self, *, put_deadline_s: float = 5.0) -> FullQueue:
        """A queue as another process would make it, not yet open."""

    async def lose_leases(self) -> None:
        """What is leased now is somebody else's from now on."""

    async def freeze(self) -> None:
        """The other side is there and does not answer."""

    async def thaw(self) -> None: ...

    async def remove(self, lane: LaneSpec) -> None:
        """Somebody deletes what holds the lane."""

    async def poison(self, lane: LaneSpec, data: bytes) -> None:
        """Somebody else puts these bytes into the lane."""


class RabbitHarness:
    """RabbitMQ behind a proxy, in queues of its own."""

    def __init__(self, server: RabbitServer, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self.prefix = f"test-{secrets.token_hex(4)}"

    def queue(
        self,
        *,
        put_deadline_s: float = 5.0,
        declare: bool = True,
        lanes: Sequence[LaneSpec] = LANES,
    ) -> RabbitQueue:
        return RabbitQueue(
            f"amqp://guest@127.0.0.1:{self.proxy.port}/",
            lanes,
            prefix=self.prefix,
            declare=declare,
            put_deadline_s=put_deadline_s,
            password="guest",
            steps_s=(DELAY_S, 1.0, 30.0),
        )

    async def lose_leases(self) -> None:
        self.proxy.cut()

    async def freeze(self) -> None:
        self.proxy.swallow()

    async def thaw(self) -> None:
        self.proxy.restore()

    async def remove(self, lane: LaneSpec) -> None:
        async with self.channel() as channel:
            await channel.queue_delete(self.name(lane))

    async def poison(self, lane: LaneSpec, data: bytes) -> None:
        async with self.channel() as channel:
            await channel.default_exchange.publish(aio_pika.Message(data), self.name(lane))

    def name(self, lane: LaneSpec) -> str:
        return f"{self.prefix}.{lane.name}"

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
        """A channel straight to the server, as an operator has it."""
        async with await aio_pika.connect(self.server.url) as connection:
            yield await connection.channel()

    async def sweep(self) -> None:
        """Removes the test's queues: dozens of them cost a small server its time."""
        topologies = [f"{self.prefix}.{lane.name}" for lane in LANES]
        ends = ("", ".killed", ".dead", ".wait.200ms", ".wait.1000ms", ".wait.30000ms")
        async with self.channel() as channel:
            for name in (f"{topology}{end}" for topology in topologies for end in ends):
                await channel.queue_delete(name)


class SqliteHarness:
    """A file, and a clock that can be moved."""

    LEASE_S = 30.0

    def __init__(self, folder: Path) -> None:
        self.path = folder / "new" / "queue.db"
        self._ahead = timedelta()
        self._lock: sqlite3.Connection | None = None

    def queue(
        self, *, put_deadline_s: float = 5.0, lanes: Sequence[LaneSpec] = LANES
    ) -> SqliteQueue:
        return SqliteQueue(
            self.path,
            lanes,
            clock=self.clock,
            lease_s=self.LEASE_S,
            put_deadline_s=put_deadline_s,
        )

    def clock(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    async def lose_leases(self) -> None:
        self._ahead += timedelta(seconds=self.LEASE_S + 1)

    async def freeze(self) -> None:
        self._lock = self.connect()
        self._lock.execute("BEGIN EXCLUSIVE")

    async def thaw(self) -> None:
        assert self._lock is not None
        self._lock.execute("ROLLBACK")
        self._lock.close()

    async def remove(self, lane: LaneSpec) -> None:
        self.path.unlink()

    async def poison(self, lane: LaneSpec, data: bytes) -> None:
        now = self.clock().timestamp()
        with contextlib.closing(self.connect()) as db:
            db.execute(
                "INSERT INTO messages (lane, id, body, put_at, due_at) VALUES (?, 'x', ?, ?, ?)",
                (lane.name, data, now, now),
            )

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, timeout=5)


async def eventually(
    check: Callable[[], Awaitable[bool]], *, within_s: float = 15.0, every_s: float = 0.02
) -> None:
    """Returns when the check holds; fails when it does not in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not await check():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(every_s)
