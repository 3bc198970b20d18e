"""A process that follows the log of a lake in a folder with the table, until it is killed or has
all there is: ``python -m tests.faults.table_child LAKE TABLE``. It says when it began."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from consumer.follow import Following
from consumer.log.tail import LogTail
from consumer.model import LaneSpec
from consumer.ports import Batch, Cursor, FollowPorts, Step
from consumer.serve import pause
from consumer.stores.directory import DirectoryStore
from consumer.telemetry import Metrics
from handlers.table import Table, TablePlace, Tuning
from tests.fakes_queue import FakeQueue

TUNING = Tuning(rows=1, commit_every_s=0.0, upkeep_every=4, many=2)
AUDIT = LaneSpec(name="audit", wants=("outcome", "record"))


@dataclass
class Told:
    """The table, telling what it does; it stops when there is nothing left."""

    table: Table
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    name: str = "table"
    kinds: frozenset[str] = Table.kinds

    async def start(self, cursor: Cursor) -> Cursor:
        begin = await self.table.start(cursor)
        sys.stdout.write("began\n")
        sys.stdout.flush()
        return begin

    async def follow(self, batch: Batch) -> Step:
        step = await self.table.follow(batch)
        if step.cursor.next >= batch.size:
            self.stop.set()
        return step


async def main(lake: Path, place: Path) -> None:
    store = DirectoryStore(lake)
    log = LogTail(store, poll_s=0.01)
    ports = FollowPorts(
        store=store,
        queue=cast(Any, FakeQueue((AUDIT,), opened=True)),
        log=log,
        clock=lambda: datetime.now(UTC),
    )
    told = Told(Table(ports, lambda: TablePlace(str(place)), TUNING))
    following = Following(told, log=log, store=store, metrics=Metrics(), pause=pause)
    await following.run(told.stop)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
