"""A snapshot's two manifests on this machine's disk, and from there into the lake."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from consumer.errors import Conflict, Permanent
from consumer.ports import Sleep, Store
from handlers.pull.folder import sha256_of
from handlers.pull.together import retried
from handlers.snapshots.described import PARQUET, ROWS, StoredFile
from handlers.snapshots.rows import Row


class Manifests:
    """Takes in rows in order; never holds them all."""

    def __init__(self, folder: Path) -> None:
        from handlers.snapshots.parquet import ParquetFile  # slow to import, and rarely needed

        self._folder = folder
        self._lines = (folder / ROWS).open("wb")
        self._parquet = ParquetFile(folder / PARQUET)
        self._encoder = msgspec.json.Encoder()

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._lines.write(self._encoder.encode(row) + b"\n")
        self._parquet.add(rows)

    def close(self) -> None:
        self._lines.close()
        self._parquet.close()

    async def store(self, store: Store, prefix: str, sleep: Sleep) -> dict[str, StoredFile]:
        """Both in the lake on return, and what they are. Raises ``Permanent``
        (``snapshot-differs``) when other rows lie there."""
        stored = {}
        for name in (ROWS, PARQUET):
            file = await self._stored(name, store, f"{prefix}{name}", sleep)
            sha256 = await asyncio.to_thread(sha256_of, file)
            stored[name] = StoredFile(sha256=sha256, size=_size_of(file))
        return stored

    async def _stored(self, name: str, store: Store, key: str, sleep: Sleep) -> Path:
        """The file that the lake holds. One that was begun with another version of the Parquet
        library is left as it is if its rows are the same."""
        file, there = self._folder / name, self._folder / f"{name}.there"
        try:
            await retried(lambda: store.upload(key, file), sleep)
            return file
        except Conflict:
            await retried(lambda: store.download(key, there), sleep)
        from handlers.snapshots.parquet import same_rows

        if name == PARQUET and await asyncio.to_thread(same_rows, file, there):
            return there
        said = f"{key} holds other rows: it was begun by another version, or changed by somebody"
        raise Permanent("snapshot-differs", f"{said}; take another name")


def _size_of(file: Path) -> int:
    return file.stat().st_size
