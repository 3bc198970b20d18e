"""One machine's workers over real files: queue and log index in SQLite, the lake in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from consumer.dispatch import Dispatcher
from consumer.errors import GroundwireError
from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.log.read import entries
from consumer.log.verify import verify
from consumer.model import ExportRules, Pointer, decode
from consumer.ports import Ports
from consumer.queues.sqlite import SqliteQueue
from consumer.retry import Policy
from consumer.stores.directory import DirectoryStore
from consumer.telemetry import Metrics
from handlers import audit, export, layout
from tests.fakes_platform import PROJECT, SOURCE, FakePlatform

ORIGIN = "example.org/shop"
SIGNER = Signer.from_seed(ORIGIN, b"s" * 32)
LANES = (export.LANE, audit.LANE)
POLICY = Policy(attempts=1_000, base_s=0.01, cap_s=0.05)
LEASE_S = 0.6  # what a full disk could not settle comes back so soon
WITHIN_S = 30.0


@dataclass
class Shop:
    """The processes' parts, as the composition root puts them together."""

    folder: Path
    platform: FakePlatform = field(default_factory=FakePlatform)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        self.store = DirectoryStore(self.folder / "lake")
        path = self.folder / "queue" / "queue.db"
        self.queue = SqliteQueue(path, LANES, lease_s=LEASE_S, clock=self.clock)
        self.log = TileLog(
            self.store,
            signer=SIGNER,
            origin=ORIGIN,
            index_path=self.folder / "index" / "index.db",
            clock=self.clock,
        )

    @property
    def ports(self) -> Ports:
        return Ports(
            platforms={SOURCE: self.platform},
            queue=self.queue,
            store=self.store,
            log=self.log,
            rules={SOURCE: ExportRules()},
            project_key=lambda key: layout.project_key(key.source, key.project, unique=True),
            clock=self.clock,
        )

    def dispatcher(self, handler: ModuleType) -> Dispatcher:
        return Dispatcher(cast(Any, handler), self.queue, self.ports, Metrics(()), POLICY)

    async def idle(self) -> None:
        """Until nothing is left in any lane."""
        deadline = time.monotonic() + WITHIN_S
        while left := [await self._left(lane) for lane in LANES]:
            if not any(left):
                return
            assert time.monotonic() < deadline, f"left in the lanes: {left}"
            await asyncio.sleep(0.02)

    async def _left(self, lane: Any) -> int:
        try:
            found = await self.queue.depth(lane)
        except GroundwireError:
            return 1
        return found.ready + found.leased + found.waiting

    async def dead(self) -> list[Any]:
        return [one for lane in LANES for one in await self.queue.dead(lane, limit=100)]

    async def pointer(self, task: str) -> Pointer:
        stored = await self.store.read(layout.pointer_key(PROJECT, task))
        assert stored is not None, f"{task} has no pointer"
        return decode(stored.data, Pointer)

    async def assert_nothing_lost(self, accepted: set[str], tasks: dict[str, str]) -> None:
        """Every accepted event has its entry, once; each task is at its stage; the log is sound."""
        log = [one.data async for one in entries(self.store)]
        ids = Counter(entry["id"] for entry in log)
        assert max(ids.values()) == 1
        assert {f"receipt:{one}" for one in accepted} <= ids.keys()
        times = [entry["logged_at"] for entry in log]
        assert times == sorted(times)
        for task, stage in tasks.items():
            pointer = await self.pointer(task)
            assert pointer.stage == stage
            moves = [e["sequence"] for e in log if e["kind"] == "lake" and e["task"] == task]
            assert moves == list(range(1, pointer.sequence + 1))
        assert (await verify(self.store, vkey=SIGNER.verifier.vkey)).ok
        assert await self.dead() == []


@contextlib.asynccontextmanager
async def working(shop: Shop) -> AsyncIterator[None]:
    """Both lanes run meanwhile."""
    stop = asyncio.Event()
    await shop.queue.open()
    running = [
        asyncio.create_task(shop.dispatcher(handler).run(stop)) for handler in (export, audit)
    ]
    try:
        yield
        assert not any(lane.done() for lane in running), "a lane ended by itself"
    finally:
        stop.set()
        await asyncio.wait(running)
        await shop.queue.close()
        await shop.log.close()
        shop.store.close()
    for lane in running:
        lane.result()
