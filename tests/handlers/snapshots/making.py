"""Snapshots of a lake in memory, for tests."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.log.tail import LogTail
from consumer.model import Pointer, decode
from consumer.ports import LogReader, Store
from handlers import audit
from handlers.snapshots.create import Snapshot, Wanted, create
from tests.fakes_clock import FakeClock
from tests.fakes_store import FakeStore
from tests.handlers.lake_house import ORIGIN, LakeHouse
from tests.handlers.pull.lakes import Lake, no_sleep

SHARES: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


async def made(
    house: LakeHouse,
    name: str = "lungs",
    *,
    store: Store | None = None,
    log: LogReader | None = None,
    **wanted: Any,
) -> Snapshot:
    return await create(
        Wanted(**{"name": name, "split": dict(SHARES), **wanted}),
        store=store or house.store,
        log=log or house.tail,
        sleep=no_sleep,
    )


def rows(house: LakeHouse, snapshot: Snapshot) -> list[dict[str, Any]]:
    """As anybody's JSON reads them."""
    data = house.store.objects[f"{snapshot.folder}manifest.jsonl"]
    return [json.loads(line) for line in data.decode().splitlines()]


def parquet_rows(house: LakeHouse, snapshot: Snapshot) -> list[dict[str, Any]]:
    data = house.store.objects[f"{snapshot.folder}manifest.parquet"]
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return found


def snapshot_objects(house: LakeHouse) -> dict[str, bytes]:
    objects = house.store.objects.items()
    return {key: data for key, data in objects if key.startswith("snapshots/")}


@dataclass
class LoggedLake:
    """Lakes for pulls, with the log that an export would have written."""

    store: FakeStore = field(default_factory=FakeStore)

    def __post_init__(self) -> None:
        self.lakes = {name: Lake(self.store, name) for name in ("project-1", "project-2")}
        self.log = TileLog(
            self.store,
            signer=Signer.from_seed(ORIGIN, b"s" * 32),
            origin=ORIGIN,
            index_path=None,
            clock=FakeClock(),
        )

    @property
    def lake(self) -> Lake:
        return self.lakes["project-1"]

    async def see(self) -> None:
        """Every pointer's last move is in the log."""
        for key, data in sorted(self.store.objects.items()):
            if key.endswith("/current.json"):
                entries = audit.entries_of(decode(data, Pointer).outcome)
                # As an export's, the id names the project.
                own = [{**entry, "id": f"{key.split('/')[0]} {entry['id']}"} for entry in entries]
                await self.log.append(own)

    async def snapshot(self, name: str = "lungs", **wanted: Any) -> Snapshot:
        await self.see()
        told = {"name": name, "split": dict(SHARES), **wanted}
        return await create(
            Wanted(**told), store=self.store, log=LogTail(self.store), sleep=no_sleep
        )
