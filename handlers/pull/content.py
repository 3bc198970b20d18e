"""Manifests and documents of the lake, each read once: kept in the folder under their hash."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Protocol

from consumer.errors import Permanent
from consumer.model import digest
from consumer.ports import Sleep, Store
from handlers.pull import state
from handlers.pull.together import retried


class Reads(Protocol):
    """What gives the lake's immutable objects, checked against their hashes."""

    async def read(self, key: str, sha256: str) -> bytes:
        """Raises ``Transient``; ``Permanent`` (``lake-file-missing``, ``lake-file-damaged``)."""


class Contents:
    """``used`` names the files of the cache that are still needed; ``fetched`` counts bytes."""

    def __init__(self, store: Store, cache: Path, sleep: Sleep) -> None:
        self.used: set[str] = set()
        self.fetched = 0
        self._store, self._cache, self._sleep = store, cache, sleep

    async def bring(self, key: str, sha256: str) -> None:
        """So that `read` need not ask the lake. Raises as `read` does."""
        name = _name(key, sha256)
        self.used.add(name)
        if not (self._cache / name).is_file():
            await self.read(key, sha256)

    async def read(self, key: str, sha256: str) -> bytes:
        """Raises ``Transient``; ``Permanent`` (``lake-file-missing``, ``lake-file-damaged``)."""
        name = _name(key, sha256)
        self.used.add(name)
        file = self._cache / name
        with suppress(FileNotFoundError):
            kept = _read(file)
            if digest(kept) == sha256:
                return kept
        stored = await retried(lambda: self._store.read(key), self._sleep)
        if stored is None:
            raise missing(key)
        self.fetched += len(stored.data)
        if digest(stored.data) != sha256:
            raise damaged(key)
        state.write(file, stored.data)
        return stored.data


def _read(file: Path) -> bytes:
    return file.read_bytes()


def _name(key: str, sha256: str) -> str:
    return digest(f"{sha256} {key}".encode())


def missing(key: str) -> Permanent:
    said = f"{key} is not in the lake: it was erased or lost; groundwire verify tells more"
    return Permanent("lake-file-missing", said)


def damaged(key: str) -> Permanent:
    said = f"{key} has not the hash that the lake says it has; groundwire verify tells more"
    return Permanent("lake-file-damaged", said)
