"""Snapshots of a lake in memory, for tests."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from consumer.ports import LogReader, Store
from handlers.snapshots.create import Snapshot, Wanted, create
from tests.handlers.lake_house import LakeHouse
from tests.handlers.pull.lakes import no_sleep

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
