"""Keeps the id index level with the log: from the store's segments where they fit, from the
entries otherwise; and saves new segments.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumer.errors import Conflict, Permanent
from consumer.log.index import IdIndex, id_digest
from consumer.log.keys import ids_key
from consumer.log.merkle import combine
from consumer.log.read import parse_entry, read_bundle, read_edge, read_hashes
from consumer.log.segment import SEGMENT, decode_segment, encode_segment
from consumer.log.tiles import WIDTH, Edge, Tile, width_at
from consumer.ports import Store


def _shrunk(known: int, found: int) -> Permanent:
    said = (
        f"This machine knows {known} entries of the log, and the lake has {found}. Is its disk "
        "mounted, and is it the right bucket? If it was replaced on purpose, remove the index "
        "(log.index in the configuration) and start again."
    )
    return Permanent("log-shrunk", said)


class IndexKeeper:
    """The index of one log."""

    def __init__(self, store: Store, index: IdIndex) -> None:
        self._store = store
        self.index = index
        self._saved = 0  # segments known to be in the store

    async def cover(self, edge: Edge) -> None:
        """Brings the index up to a published tree, whatever it was before.

        Raises ``Permanent`` when the index knows more entries than the log has: a log never
        shrinks, so this is another place, or an old copy, and nothing may be appended to it.
        """
        size, root = self.index.covered()
        if size > edge.size:
            raise _shrunk(size, edge.size)
        if size and root != await self._root(size, edge):
            self.index.clear()
            size = 0
        if size == 0:
            size = await self._load_segments(edge)
        while size < edge.size:
            size = await self._read_on(size, edge)
        await self._save_segments(edge.size)

    async def extend(self, start: int, ids: Sequence[str], edge: Edge) -> None:
        """Adds the ids of a batch that led from ``start`` entries to this edge."""
        self.index.extend(start, [id_digest(one) for one in ids], edge.root)
        await self._save_segments(edge.size)

    async def _root(self, size: int, edge: Edge) -> bytes:
        if size == edge.size:
            return edge.root
        return (await read_edge(self._store, size, edge.size)).root

    async def _read_on(self, size: int, edge: Edge) -> int:
        """Up to one segment's worth of entries, at most to the next segment's start."""
        end = min(edge.size, (size // SEGMENT + 1) * SEGMENT)
        digests: list[bytes] = []
        for number in range(size // WIDTH, -(-end // WIDTH)):
            first = number * WIDTH
            for offset, raw in enumerate(await read_bundle(self._store, number, edge.size)):
                if size <= first + offset < end:
                    entry = parse_entry(first + offset, raw)
                    digests.append(id_digest(str(entry.get("id"))))
        self.index.extend(size, digests, await self._root(end, edge))
        return end

    async def _load_segments(self, edge: Edge) -> int:
        for number in range(edge.size // SEGMENT):
            stored = await self._store.read(ids_key(number))
            root = await self._subtree(number, edge.size)
            digests = decode_segment(number, root, stored.data) if stored else None
            if digests is None:
                return number * SEGMENT
            end = (number + 1) * SEGMENT
            self.index.extend(number * SEGMENT, digests, await self._root(end, edge))
            self._saved = number + 1
        return edge.size // SEGMENT * SEGMENT

    async def _save_segments(self, size: int) -> None:
        for number in range(self._saved, size // SEGMENT):
            digests = self.index.digests(number * SEGMENT, (number + 1) * SEGMENT)
            if len(digests) == SEGMENT:
                root = await self._subtree(number, size)
                await self._save(number, encode_segment(number, root, digests))
            self._saved = number + 1

    async def _save(self, number: int, data: bytes) -> None:
        """One that is there already in other bytes is damaged: it is not used, ``verify`` names
        it, and the log goes on without it."""
        try:
            await self._store.create(ids_key(number), data)
        except Conflict:
            return

    async def _subtree(self, number: int, size: int) -> bytes:
        """The root of a segment's entries: so many neighbours of one level-1 tile."""
        first = number * SEGMENT // WIDTH
        tile = first // WIDTH
        hashes = await read_hashes(self._store, Tile(1, tile, width_at(1, tile, size)))
        start = first % WIDTH
        return combine(hashes[start : start + SEGMENT // WIDTH])
