"""A process that is told to stop at any moment, with requests half answered and work half done:
what it answered 202 is done or in the queue, with no attempt burned, and nothing stays leased,
unless the queue's file cannot be written just then: then the next process sees who has died."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from consumer.dispatch import Dispatcher
from consumer.gather import Gatherer
from consumer.listener import Listener
from consumer.model import ExportRules, LaneSpec, Record
from consumer.ports import Ports, Result, Work
from consumer.queues.sqlite import SqliteQueue
from consumer.receive import Receiver
from consumer.serve import Process
from consumer.settings_values import Address
from consumer.telemetry import Metrics
from handlers import layout
from tests.fakes_platform import SOURCE, FakePlatform
from tests.fakes_store import FakeStore
from tests.seeds import seeds

STOP_S = 1.2
LATEST_S = 20.0  # on a machine that has other things to do
AUDIT = LaneSpec(name="audit", wants=("record",))
LEASE_S = 3.0  # what a dying process leased with its last write lapses by time
POSTS = 60
# Who connected in the very moment of the stop is cut off when the process is gone: here it stays.
PATIENCE = aiohttp.ClientTimeout(total=STOP_S)


@dataclass
class Worker:
    """A handler that is quick, slow, or waits for a platform for ever."""

    LANE: LaneSpec
    chance: random.Random | None = None  # None: always quick
    done: set[str] = field(default_factory=set)

    async def handle(
        self, batch: Sequence[Work], ports: Ports
    ) -> AsyncIterator[tuple[Work, Result]]:
        for work in batch:
            lot = self.chance.random() if self.chance else 1.0
            if lot < 0.03:
                await asyncio.Event().wait()
            if lot < 0.3:
                await asyncio.sleep(lot / 10)
            self.done.add(work.message.id)
            yield work, None


@dataclass
class Installation:
    """One process after the other, on one queue."""

    folder: Path
    chance: random.Random
    lane: LaneSpec
    answered: set[str] = field(default_factory=set)
    port: int = 0
    stranger: sqlite3.Connection | None = None  # who has locked the queue's file

    def process(self, worker: Worker) -> Process:
        queue = SqliteQueue(self.folder / "queue.db", [self.lane, AUDIT], lease_s=LEASE_S)
        metrics = Metrics([SOURCE])
        platform = cast(Any, FakePlatform())
        ports = Ports(
            platforms={SOURCE: platform},
            queue=queue,
            store=FakeStore(),
            log=cast(Any, None),
            rules={SOURCE: ExportRules()},
            project_key=lambda key: layout.project_key(key.source, key.project, unique=True),
            clock=lambda: datetime.now(UTC),
        )
        receiver = Receiver({SOURCE: platform}, Gatherer(queue).put, metrics)
        hooks = Listener(receiver.application(), header_timeout_s=5.0, stop_s=STOP_S / 2)
        lane = Dispatcher(cast(Any, worker), queue, ports, metrics, concurrency=2)
        return Process(
            queue=queue,
            started=Record(id=str(self.chance.random()), kind="started"),
            stop_s=STOP_S,
            hooks=(hooks, Address("127.0.0.1", 0)),
            lanes={"export": lane.run},
            announce=self._announce,
        )

    def _announce(self, _: str, where: Address) -> None:
        self.port = where.port

    async def posts(self, stop: asyncio.Event) -> None:
        """Some at once; the process is told to stop when so many were answered."""
        last = self.chance.randint(0, POSTS - 1)
        gate = asyncio.Semaphore(self.chance.choice([1, 4, 16]))
        async with aiohttp.ClientSession(timeout=PATIENCE) as session:

            async def one(number: int) -> None:
                async with gate:
                    if len(self.answered) >= last and not stop.is_set():
                        self._lock_perhaps()
                        stop.set()
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        await self._post(session, number)

            await asyncio.gather(*(one(number) for number in range(POSTS)))
        stop.set()

    def _lock_perhaps(self) -> None:
        """Then nothing more is durable, nor given back in order."""
        if self.chance.random() < 0.3:
            self.stranger = sqlite3.connect(self.folder / "queue.db", isolation_level=None)
            self.stranger.execute("BEGIN IMMEDIATE")

    def unlock(self) -> None:
        if self.stranger is not None:
            self.stranger.execute("ROLLBACK")
            self.stranger.close()

    async def _post(self, session: aiohttp.ClientSession, number: int) -> None:
        url = f"http://127.0.0.1:{self.port}/hooks/{SOURCE}"
        body = f"task-{number}".encode()
        async with session.post(url, params={"token": "right"}, data=body) as got:
            await got.read()
            assert got.status in (202, 503)
            if got.status == 202:
                self.answered.add(f"task-{number}-e1")

    def left(self) -> list[tuple[str, int, str | None]]:
        """Id, attempt and token of what is in the queue."""
        with contextlib.closing(sqlite3.connect(self.folder / "queue.db")) as db:
            return db.execute(
                "SELECT id, attempt, token FROM messages WHERE lane = 'export'"
            ).fetchall()


async def listens(place: Installation) -> None:
    async with asyncio.timeout(LATEST_S):
        while not place.port:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("seed", seeds())
async def test_what_was_answered_is_done_or_waits_and_the_next_process_does_it(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    lane = LaneSpec(name="export", wants=("event",), batch=chance.choice([1, 8]), linger_s=0.01)
    place = Installation(tmp_path, chance, lane)
    worker = Worker(lane, chance)
    process = place.process(worker)
    running = asyncio.create_task(process.run())
    await listens(place)
    await place.posts(process.stop)
    began = time.monotonic()
    await running
    assert time.monotonic() - began < LATEST_S

    left = place.left()
    assert place.answered <= worker.done | {name for name, _, _ in left}
    assert {attempt for _, attempt, _ in left} <= {1}
    assert place.stranger or {token for _, _, token in left} <= {None}

    place.unlock()
    next_one = Worker(lane)
    process = place.process(next_one)
    running = asyncio.create_task(process.run())
    async with asyncio.timeout(LATEST_S):
        while place.left():
            await asyncio.sleep(0.01)
    process.stop.set()
    await running
    assert next_one.done >= {name for name, _, _ in left} - worker.done
