"""The log's writer: stage, swap, publish; a crash anywhere is finished by whoever comes next.

Invariants: ``log/head`` is the only commit point, and moves only when the checkpoint has caught up
with it; nothing signed is stored before that move; so a writer that lost has published nothing,
and one that was paused can only repeat what is published already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from consumer.errors import Conflict, Permanent, Transient
from consumer.log.catch_up import IndexKeeper
from consumer.log.head import sign_head, write_stage
from consumer.log.index import IdIndex
from consumer.log.keys import HEAD
from consumer.log.locate import Place, locate
from consumer.log.note import Signer
from consumer.log.publish import ATTEMPTS, publish
from consumer.log.tiles import MAX_ENTRY, grow
from consumer.model import FORMAT, canonical, timestamp
from consumer.ports import Clock, Store

MAX_BATCH = 1_000  # entries of one swap
MAX_BATCH_BYTES = 8 << 20
RESERVED = frozenset({"format", "logged_at"})


@dataclass(frozen=True, slots=True)
class LogState:
    """For metrics: how long the log is, and how old its newest entry."""

    size: int
    newest_at: str | None
    age_s: float | None


class TileLog:
    """The append-only log in a store; implements ``ports.Log``.

    ``index_path`` is a local file that may be lost at any time (None: a temporary one). Any number
    of writers with the same key may append to one log.
    """

    def __init__(
        self, store: Store, *, signer: Signer, origin: str, index_path: Path | None, clock: Clock
    ) -> None:
        self._store = store
        self._signer = signer
        self._origin = origin
        self._clock = clock
        self._keeper = IndexKeeper(store, IdIndex(index_path))
        self._lock = asyncio.Lock()
        self._place: Place | None = None  # None: to be read again
        self._staged: dict[str, str | None] = {}  # our stages, and the head each was made for
        self._seen = LogState(0, None, None)

    async def open(self) -> None:
        """Finishes what a crash left and brings the index up to date; a log that is not there is
        made by the first append.

        Raises ``Permanent`` for a log of another key or origin, and for a damaged one.
        """
        async with self._lock:
            await self._here()

    async def close(self) -> None:
        self._keeper.index.close()

    async def append(self, entries: Sequence[Mapping[str, Any]]) -> int:
        """As ``ports.Log`` says. ``Permanent`` for an entry (``entry-too-large``, ``bad-entry``)
        is raised before anything is stored; after ``Transient`` some may be in the log."""
        async with self._lock:
            for _ in range(ATTEMPTS):
                try:
                    return await self._append(entries)
                except Conflict:
                    continue  # another writer was first: read anew, skip what it appended
        raise Transient("log-contended", "Other writers were first each time; try again.")

    def state(self) -> LogState:
        """As this writer last saw the log."""
        if self._seen.newest_at is None:
            return self._seen
        age = (self._clock() - datetime.fromisoformat(self._seen.newest_at)).total_seconds()
        return LogState(self._seen.size, self._seen.newest_at, max(0.0, age))

    async def _append(self, entries: Sequence[Mapping[str, Any]]) -> int:
        place = await self._here()
        fresh = self._unknown(entries)
        logged_at = max(place.logged_at, timestamp(self._clock()))
        encoded = [(entry["id"], _encode(entry, logged_at)) for entry in fresh]
        for batch in _batches(encoded):
            place = await self._commit(place, batch, logged_at)
        return place.edge.size

    async def _commit(
        self, place: Place, batch: Sequence[tuple[str, bytes]], logged_at: str
    ) -> Place:
        self._place = None  # until it is published: whatever goes wrong is read from the store
        raw = [entry for _, entry in batch]
        edge, made = grow(place.edge, raw)
        stage, staged = write_stage(place.edge, raw)
        head = sign_head(self._signer, self._origin, edge, stage)
        self._staged[stage] = place.head_etag
        await self._store.create(stage, staged)
        head_etag = await self._store.swap(HEAD, head.data, if_match=place.head_etag)  # commits
        tag = await publish(self._store, head, place.edge.size, made, place.checkpoint_etag)
        del self._staged[stage]
        after = Place(edge, head_etag, tag, logged_at)
        await self._drop_stages(after)
        await self._keeper.extend(place.edge.size, [entry_id for entry_id, _ in batch], edge)
        return self._arrive(after)

    async def _here(self) -> Place:
        """Where the log is, published up to head, with an index that covers it."""
        if self._place is not None:
            return self._place
        place = await locate(self._store, self._signer.verifier, self._origin)
        await self._drop_stages(place)
        await self._keeper.cover(place.edge)
        return self._arrive(place)

    def _arrive(self, place: Place) -> Place:
        self._place = place
        self._seen = LogState(place.edge.size, place.logged_at or None, None)
        return place

    async def _drop_stages(self, place: Place) -> None:
        """Removes stages of ours that can no longer be committed: head went on from where they
        were made for. While it stands there, a swap that is still on its way may need them."""
        for stage, head_etag in list(self._staged.items()):
            if head_etag != place.head_etag:
                await self._store.delete(stage)
                del self._staged[stage]

    def _unknown(self, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those whose id is new, the first of equal ids, in order."""
        first: dict[str, Mapping[str, Any]] = {}
        for entry in entries:
            first.setdefault(_entry_id(entry), entry)
        known = self._keeper.index.known(first)
        return [entry for entry_id, entry in first.items() if entry_id not in known]


def _entry_id(entry: Mapping[str, Any]) -> str:
    entry_id, kind = entry.get("id"), entry.get("kind")
    if not (isinstance(entry_id, str) and entry_id and isinstance(kind, str) and kind):
        raise Permanent("bad-entry", "A log entry needs an id and a kind.")
    if not RESERVED.isdisjoint(entry):
        raise Permanent("bad-entry", "The log itself adds format and logged_at to an entry.")
    return entry_id


def _encode(entry: Mapping[str, Any], logged_at: str) -> bytes:
    try:
        data = canonical({**entry, "format": FORMAT, "logged_at": logged_at})
    except (ValueError, TypeError, RecursionError):
        raise Permanent("bad-entry", "A log entry must be plain JSON.") from None
    if len(data) > MAX_ENTRY:
        message = f"A log entry of {len(data)} bytes is over {MAX_ENTRY}."
        raise Permanent("entry-too-large", message)
    return data


def _batches(entries: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """In order, each within the limits of one swap."""
    batch: list[tuple[str, bytes]] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == MAX_BATCH or size + len(entry[1]) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry[1])
    if batch:
        yield batch
