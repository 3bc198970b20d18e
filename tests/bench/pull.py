"""A pull of 2,000 tasks, the first time and after one in a hundred changed, beside what moves the
same lake without knowing what changed: a copy of every file that the lake names.

Bytes are counted in the store: what was read and downloaded, and what listings told (as S3 would
write them, about 300 bytes an object).
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from consumer.ports import Listed, Store, Stored
from consumer.stores.directory import DirectoryStore
from handlers.formats.label_map import LabelMap
from handlers.formats.nifti import write_label_map
from tests.bench.table import Candidate, Result
from tests.handlers.pull.lakes import AFFINE, Lake, Mask, pulled

LISTED_BYTES = 300
SHAPE = (96, 96, 40)
COLUMNS = ("bytes", "listed", "calls", "share of all bytes")


@dataclass
class Counted:
    """A store that counts what it gives."""

    inner: Store
    size: int = 0
    listed: int = 0
    calls: int = 0
    verbs: list[str] = field(default_factory=list)

    async def read(self, key: str) -> Stored | None:
        found = await self.inner.read(key)
        self.calls, self.size = self.calls + 1, self.size + (len(found.data) if found else 0)
        return found

    async def download(self, key: str, file: Path) -> str | None:
        sha256 = await self.inner.download(key, file)
        self.calls, self.size = self.calls + 1, self.size + _size(file)
        return sha256

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        async for one in self.inner.list(prefix):
            self.listed += LISTED_BYTES
            yield one

    async def create(self, key: str, data: bytes) -> None:
        await self.inner.create(key, data)

    async def upload(self, key: str, file: Path) -> None:
        await self.inner.upload(key, file)

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        return await self.inner.swap(key, data, if_match=if_match)

    async def delete(self, key: str) -> None:
        await self.inner.delete(key)


@dataclass(frozen=True)
class Measured:
    name: str
    seconds: float
    size: int
    listed: int
    calls: int


def run(*, quick: bool) -> Iterator[Result]:
    number = 200 if quick else 2000
    with tempfile.TemporaryDirectory(prefix="groundwire-bench-") as name:
        measured = asyncio.run(_measure(Path(name), number))
    whole = measured[0].size
    yield Result(
        f"A pull of {number} tasks, of which {max(1, number // 100)} changed before the last",
        "seconds",
        [
            Candidate(
                one.name,
                [one.seconds],
                [f"{one.size:,}", f"{one.listed:,}", f"{one.calls:,}", f"{one.size / whole:.2%}"],
            )
            for one in measured
        ],
        columns=COLUMNS,
        remark="The vendor's SDK fetches every mask again when nothing changed: see `export`.",
    )


async def _measure(folder: Path, number: int) -> list[Measured]:
    store = DirectoryStore(folder / "lake")
    lake = Lake(store=store)
    for n in range(number):
        await _draw(lake, n, seed=n)
    made = [await _copied(folder, store)]
    made.append(await _pulled(lake, folder, "groundwire pull, the first"))
    made.append(await _pulled(lake, folder, "groundwire pull, nothing changed"))
    for n in random.Random(0).sample(range(number), max(1, number // 100)):
        await _draw(lake, n, seed=number + n)
    made.append(await _pulled(lake, folder, "groundwire pull, 1 % changed"))
    return made


async def _draw(lake: Lake, number: int, *, seed: int) -> None:
    """A mask of some tens of kB, other for every seed."""
    noise = np.random.default_rng(seed).random(SHAPE) < 0.1
    data = write_label_map(LabelMap(noise.astype(np.uint8), AFFINE))
    await lake.task(f"task-{number:05d}", Mask("ct", {1: "liver"}, data=data, shape=SHAPE))


async def _copied(folder: Path, store: Store) -> Measured:
    counted = Counted(store)
    began = time.perf_counter()
    copy = folder / "copy"
    copy.mkdir()
    number = 0
    async for one in counted.list(""):
        number += 1
        await counted.download(one.key, copy / f"{number}")
    seconds = time.perf_counter() - began
    shutil.rmtree(copy)
    return Measured("every file, one by one", seconds, counted.size, counted.listed, counted.calls)


async def _pulled(lake: Lake, folder: Path, name: str) -> Measured:
    counted = Counted(lake.store)
    began = time.perf_counter()
    await pulled(lake, folder / "pulled", store=counted)
    seconds = time.perf_counter() - began
    return Measured(name, seconds, counted.size, counted.listed, counted.calls)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
