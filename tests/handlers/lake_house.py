"""A lake with its log, both real, in one store in memory: what followers are tested against."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec

from consumer.follow import read_cursor
from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.log.tail import LogTail
from consumer.model import (
    Action,
    EventType,
    LaneSpec,
    Message,
    Outcome,
    Record,
    TaskSnapshot,
    encode,
)
from consumer.ports import Batch, Cursor, Follower, FollowPorts, LogEntry, Step, Store
from handlers import audit
from tests.fakes_platform import NOON, event, history_item, label_map_bytes, nifti_label
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore
from tests.handlers.export_house import House

AUDIT = LaneSpec(name="audit", wants=("outcome", "record"), exclusive=True)
ORIGIN = "example.org/ground-truth"
BEGAN = datetime(2026, 1, 2, tzinfo=UTC)


def is_mirrored(key: str) -> bool:
    """Keys that hold copies, which may go back to bytes that they held before."""
    return key.split("/")[1:2] in (["segmentations"], ["masks"], ["geometry"]) or key.endswith(
        ("/tasks.json", "/export.ndjson")
    )


@dataclass
class LakeHouse(House):
    """`see` changes a task at the platform, exports it and logs what happened; ``tail`` reads the
    log; ``now`` is the clock's time, which only `pass_time` moves."""

    origin: str = ORIGIN
    now: datetime = BEGAN
    _folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="lake-house-")))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.store = FakeStore(may_recur=is_mirrored)
        self.queue = FakeQueue((AUDIT,), opened=True)
        self.log = TileLog(
            self.store,
            signer=Signer.from_seed(self.origin, b"s" * 32),
            origin=self.origin,
            index_path=self._folder / "index.db",
            clock=self.clock,
        )
        self.tail = LogTail(self.store, poll_s=0.001)

    def clock(self) -> datetime:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def close(self) -> None:
        await self.log.close()
        shutil.rmtree(self._folder)

    async def see(self, task: str = "task-1", **changes: Any) -> Any:
        result = await super().see(task, **changes)
        if isinstance(result, Outcome):
            await self.queue.put([result])
        await self.write_log()
        return result

    async def approve(
        self, task: str = "task-1", *, version: str = "v1", value: int = 1, **changes: Any
    ) -> Any:
        """The task is ground truth, with one label map whose voxels have ``value`` (1 is liver,
        2 spleen); another ``version`` is another drawing."""
        reference = f"mask-{value}"
        self.platform.masks[reference] = label_map_bytes(value)
        label = nifti_label(f"label-{task}", version=version, reference=reference)
        item = history_item(EventType.ACCEPTED, NOON, action=Action.APPROVE)
        fields: dict[str, Any] = {
            "stage": "END",
            "ground_truth": True,
            "ground_truth_label": label.id,
            "labels": (label,),
            "history": (msgspec.structs.replace(item, id=f"approval-{task}", final=True),),
        }
        return await self.see(task, **{**fields, **changes})

    async def send_back(self, task: str = "task-1", **changes: Any) -> Any:
        """The task as it is, back at labelling and out of the ground truth."""
        now = self.platform.tasks[task]
        assert isinstance(now, TaskSnapshot)
        kept = {"labels": now.labels, "history": now.history, "name": now.name}
        return await self.see(task, **{**kept, "stage": "Label", **changes})

    async def remove(self, task: str = "task-1") -> None:
        """The platform has the task no longer, and says so."""
        del self.platform.tasks[task]
        (result,) = await self.handle(event(task, name="gone", action=Action.DELETE))
        if isinstance(result, Outcome):
            await self.queue.put([result])
        await self.write_log()

    async def write_log(self) -> list[LogEntry]:
        """Everything that waits for the log is appended; the new entries."""
        before = await self.tail.size()
        while messages := await self._waiting():
            await self.log.append(
                [one for message in messages for one in audit.entries_of(message)]
            )
        return list(await self.tail.read(before, await self.tail.size()))

    async def _waiting(self) -> list[Message]:
        if (await self.queue.depth(AUDIT)).ready == 0:
            return []
        leases = await self.queue.take(AUDIT)
        for lease in leases:
            await lease.ack()
        return [lease.message for lease in leases]

    async def say(self, kind: str, name: str, **fields: Any) -> None:
        """A record in the log."""
        await self.queue.put([Record(id=name, kind=kind, fields=fields)])
        await self.write_log()

    def follow_ports(self, store: Store | None = None, queue: Any = None) -> FollowPorts:
        """With another store or queue, such as ones that fail."""
        return FollowPorts(
            store=store or self.store,
            queue=cast(Any, queue or self.queue),
            log=self.tail if store is None else LogTail(store, poll_s=0.001),
            clock=self.clock,
        )

    async def catch_up(
        self, follower: Follower, *, cursor: Cursor | None = None, batch: int = 1000
    ) -> Step:
        """The follower takes in all there is from ``cursor`` on (None: from its start), in batches
        of so many entries; the last step. The cursor is not stored."""
        begin = await follower.start(cursor or Cursor())
        position, step = begin.next, Step(begin)
        while True:
            size = await self.tail.size()
            end = min(size, position + batch)
            entries = await self.tail.read(position, end)
            wanted = [one for one in entries if one.data["kind"] in follower.kinds]
            step = await follower.follow(Batch(wanted, position, end, size))
            position = end
            if position >= size:
                return step

    async def cursor(self, name: str) -> Cursor:
        stored, _ = await read_cursor(self.store, name)
        return Cursor(stored.next, stored.state) if stored else Cursor()

    async def objects(self, *, but: Sequence[str] = ()) -> dict[str, bytes]:
        """The lake's bytes by key, without those below the prefixes ``but``."""
        objects = sorted(self.store.objects.items())
        return {key: data for key, data in objects if not key.startswith(tuple(but))}


@asynccontextmanager
async def lake_house(**settings: Any) -> AsyncIterator[LakeHouse]:
    house = LakeHouse(**settings)
    try:
        yield house
    finally:
        await house.close()


def plain(step: Step) -> tuple[int, bytes]:
    """A step's cursor, to compare."""
    return step.cursor.next, encode(dict(step.cursor.state))
