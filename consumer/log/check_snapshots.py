"""Verifies that each snapshot is what the log says: ``snapshot.json``, the files it names, and the
root of the log that it is pinned to."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Collection

import msgspec

from consumer.errors import Permanent, Transient
from consumer.log.finding import Findings
from consumer.log.read import read_edge
from consumer.model import decode, digest
from consumer.ports import LogEntry, Store

PREFIX = "snapshots/"
DESCRIPTION = "snapshot.json"  # stored last: without it there is no snapshot

Hashed = Callable[[str], Awaitable[tuple[str, int] | None]]
Missing = Callable[[str, str, int | None], None]


class _File(msgspec.Struct, frozen=True):
    sha256: str
    size: int


class _Described(msgspec.Struct, frozen=True):
    """Of a ``snapshot.json``, what it says of its files and of the log."""

    files: dict[str, _File]
    root: str
    size: int


class SnapshotCheck:
    """Takes the log's entries in order, then looks at the snapshots. ``referenced`` are the keys
    of whole snapshots; what else lies there is left over from a crash."""

    def __init__(self, store: Store, findings: Findings, hashed: Hashed, missing: Missing) -> None:
        self.referenced: set[str] = set()
        self._store, self._findings = store, findings
        self._hashed, self._missing = hashed, missing
        self._logged: dict[str, tuple[str, int]] = {}  # sha256, index of the entry
        self._size = 0  # of the log

    def add(self, entry: LogEntry) -> None:
        key, sha256 = entry.data.get("key"), entry.data.get("sha256")
        if isinstance(key, str) and key.startswith(PREFIX) and isinstance(sha256, str):
            self._logged.setdefault(key, (sha256, entry.index))
        else:
            self._findings.add("log", "an entry of a snapshot names none", entry=entry.index)

    async def finish(self, keys: Collection[str], size: int) -> None:
        """``size`` is the log's."""
        self._size = size
        there = {key for key in keys if is_description(key)}
        for key in sorted(there | self._logged.keys()):
            sha256, index = self._logged.get(key, (None, None))
            with self._findings.told_of(key, entry=index):
                await self._snapshot(key, sha256, index)

    async def _snapshot(self, key: str, sha256: str | None, entry: int | None) -> None:
        self.referenced.add(key)
        stored = await self._store.read(key)
        if stored is None:
            self._missing(key, "the log names this snapshot, and it is missing", entry)
            return
        if sha256 is None:
            self._findings.note(f"{key} is not in the log yet; creating it again brings it there")
        elif digest(stored.data) != sha256:
            self._findings.add(key, "it does not have the hash in the log", entry=entry)
            return
        try:
            described = decode(stored.data, _Described)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._findings.add(key, "it is no snapshot", entry=entry)
            return
        await self._pinned(described, key, entry)
        for name, file in described.files.items():
            place = key.removesuffix(DESCRIPTION) + name
            with self._findings.told_of(place):
                await self._file(place, file, key)

    async def _pinned(self, described: _Described, key: str, entry: int | None) -> None:
        """Its root is the log's at its size; a damaged log has its own findings."""
        if not 0 < described.size <= self._size:
            self._findings.add(key, "it is of a size that the log has not", entry=entry)
            return
        try:
            edge = await read_edge(self._store, described.size, self._size)
        except (Transient, Permanent) as error:
            if error.reason in ("log-damaged", "log-incomplete"):
                return
            raise
        if base64.b64encode(edge.root).decode() != described.root:
            self._findings.add(key, "its root is not the log's at its size", entry=entry)

    async def _file(self, key: str, file: _File, snapshot: str) -> None:
        self.referenced.add(key)
        found = await self._hashed(key)
        if found is None:
            self._missing(key, f"{snapshot} names it, and it is missing", None)
        elif found != (file.sha256, file.size):
            self._findings.add(key, f"it does not have the hash and size in {snapshot}")


def is_description(key: str) -> bool:
    parts = key.split("/")
    return key.startswith(PREFIX) and len(parts) == 4 and parts[3] == DESCRIPTION
