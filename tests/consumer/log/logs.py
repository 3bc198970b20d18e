"""Logs for tests: a clock that a test moves, a key that never changes, entries by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.log.read import entries
from consumer.ports import Store
from tests.fakes_store import FakeStore

ORIGIN = "example.org/lake"
SIGNER = Signer.from_seed(ORIGIN, bytes(range(32)))
STRANGER = Signer.from_seed(ORIGIN, bytes(32))


@dataclass
class HandClock:
    """Stands still until it is moved."""

    now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def writer(
    store: Store,
    *,
    signer: Signer = SIGNER,
    origin: str = ORIGIN,
    index: Path | None = None,
    clock: HandClock | None = None,
) -> TileLog:
    return TileLog(
        store, signer=signer, origin=origin, index_path=index, clock=clock or HandClock()
    )


def entry(number: int) -> dict[str, Any]:
    return {"id": f"receipt:{number}", "kind": "receipt", "task": f"task-{number}"}


def numbered(numbers: Iterable[int]) -> list[dict[str, Any]]:
    return [entry(number) for number in numbers]


async def ids(store: Store) -> list[str]:
    return [str(one.data["id"]) async for one in entries(store)]


async def restored(objects: Mapping[str, bytes]) -> FakeStore:
    """A store with these objects, as from a backup."""
    store = FakeStore()
    for key, data in objects.items():
        if key in ("log/head", "log/checkpoint"):
            await store.swap(key, data, if_match=None)
        else:
            await store.create(key, data)
    return store


async def filled(store: Store, *sizes: int) -> TileLog:
    """A log grown by batches of these sizes, with entries numbered from 0."""
    log = writer(store)
    start = 0
    for size in sizes:
        await log.append(numbered(range(start, start + size)))
        start += size
    return log
