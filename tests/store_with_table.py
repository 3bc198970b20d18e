"""A lake in any store, whose table lies in a folder, where delta-rs and other engines reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from consumer.ports import Listed, Store, Stored
from handlers.table_schema import TABLE


class StoreWithTable:
    """Implements ``Store``; of the table's files only what is asked by their keys."""

    def __init__(self, lake: Store, table: Path) -> None:
        self._lake = lake
        self._table = table

    def _file(self, key: str) -> Path | None:
        inside = key.removeprefix(f"{TABLE}/")
        return None if inside == key else self._table / inside

    async def read(self, key: str) -> Stored | None:
        file = self._file(key)
        return await self._lake.read(key) if file is None else _stored(file)

    async def create(self, key: str, data: bytes) -> None:
        file = self._file(key)
        if file is None:
            await self._lake.create(key, data)
        else:
            file.write_bytes(data)

    async def upload(self, key: str, file: Path) -> None:
        await self._lake.upload(key, file)

    async def download(self, key: str, file: Path) -> str | None:
        return await self._lake.download(key, file)

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        return await self._lake.swap(key, data, if_match=if_match)

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        async for item in self._lake.list(prefix):
            yield item

    async def copy(self, source: str, target: str) -> str | None:
        return await self._lake.copy(source, target)

    async def delete(self, key: str) -> None:
        await self._lake.delete(key)


def _stored(file: Path) -> Stored | None:
    return Stored(file.read_bytes(), "") if file.exists() else None
