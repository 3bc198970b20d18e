"""Recomputes a log from its entries: every tile of every level, every root, every entry's rules.

Two trees are grown side by side, one from the entries, one from the stored leaf hashes. They differ
only where something was changed, and the one that gives the checkpoint's root tells which side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from consumer.log.check_entries import EntryRules, SegmentCheck
from consumer.log.finding import Findings
from consumer.log.keys import CHECKPOINT, LOG, TILES, tile_key
from consumer.log.merkle import HASH_BYTES, leaf_hash
from consumer.log.note import Checkpoint
from consumer.log.tiles import (
    ENTRIES,
    WIDTH,
    Edge,
    Made,
    Tile,
    decode_bundle,
    encode_bundle,
    extend,
    parse_path,
    right_edge,
    width_at,
)
from consumer.ports import LogEntry, Store

Levels = tuple[tuple[bytes, ...], ...]
OLDER = "your checkpoint"


class TreeCheck:
    """One pass over a log, in memory that does not grow with it."""

    def __init__(
        self, store: Store, tree: Checkpoint, older: Checkpoint | None, findings: Findings
    ) -> None:
        self._store = store
        self._tree = tree
        self._older = older
        self._findings = findings
        self._edge = set(right_edge(tree.size))
        self._by_entries: Levels = ()
        self._by_hashes: Levels = ()
        self._suspects: list[int] = []  # entries that do not have their stored hash
        self._partials: dict[Tile, list[int]] = {}  # widths of the partial forms that are there
        self.strays: list[str] = []  # objects under log/tile/ that the tree does not have

    async def entries(self) -> AsyncIterator[LogEntry]:
        """The log's entries in order, those that cannot be read left out. When it ends, all of
        the log has been checked."""
        await self._list_tiles()
        rules = EntryRules(self._findings)
        segments = SegmentCheck(self._store, self._findings)
        try:
            for number in range(-(-self._tree.size // WIDTH)):
                place, raw = await self._bundle(number)
                leaves = await self._grow(number, raw)
                found = rules.check(place, number * WIDTH, raw or [])
                await segments.add(number, found, leaves)
                for entry in found:
                    yield entry
        finally:
            rules.close()
        self._conclude()

    async def _list_tiles(self) -> None:
        async for listed in self._store.list(TILES):
            tile = parse_path(listed.key.removeprefix(LOG))
            if tile is None or tile.width > width_at(tile.level, tile.index, self._tree.size):
                self.strays.append(listed.key)
            elif tile.width < WIDTH:
                self._partials.setdefault(tile.full, []).append(tile.width)

    async def _bundle(self, number: int) -> tuple[str, list[bytes] | None]:
        """Where a bundle lies and what it holds; None when it cannot be read."""
        tile = Tile(ENTRIES, number, width_at(ENTRIES, number, self._tree.size))
        key, data = await self._fetch(tile)
        if data is None:
            return key, None
        try:
            raw = decode_bundle(data, WIDTH if key == tile_key(tile.full) else tile.width)
        except ValueError as error:
            self._findings.add(key, str(error))
            return key, None
        raw = raw[: tile.width]
        await self._compare_older_forms(tile, [encode_bundle([entry]) for entry in raw])
        return key, raw

    async def _grow(self, number: int, raw: list[bytes] | None) -> list[bytes]:
        """Grows both trees by a bundle; returns its leaf hashes. Where neither entries nor hashes
        can be read, zeros stand in, and the roots will not fit."""
        tile = Tile(0, number, width_at(0, number, self._tree.size))
        stored = await self._hashes(tile)
        zeros = [bytes(HASH_BYTES)] * tile.width
        computed = [leaf_hash(entry) for entry in raw] if raw is not None else stored or zeros
        hashes = stored or computed
        start = number * WIDTH
        self._suspects += [start + i for i in range(tile.width) if computed[i] != hashes[i]]
        await self._compare_older_forms(tile, hashes)
        self._compare_with_older(start, computed)
        self._by_entries, made = extend(self._by_entries, start, computed)
        self._by_hashes, others = extend(self._by_hashes, start, hashes)
        await self._compare_upper(made[1:], others[1:])
        return computed

    async def _hashes(self, tile: Tile) -> list[bytes] | None:
        key, data = await self._fetch(tile)
        if data is None:
            return None
        width = WIDTH if key == tile_key(tile.full) else tile.width
        if len(data) != width * HASH_BYTES:
            self._findings.add(key, f"it holds {len(data)} bytes, not {width * HASH_BYTES}")
            return None
        return [data[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(tile.width)]

    async def _fetch(self, tile: Tile) -> tuple[str, bytes | None]:
        """A tile, in its full form if the log has grown meanwhile."""
        for form in dict.fromkeys((tile, tile.full)):
            stored = await self._store.read(tile_key(form))
            if stored is not None:
                return tile_key(form), stored.data
        self._findings.add(tile_key(tile), "it is missing")
        return tile_key(tile), None

    async def _compare_older_forms(self, tile: Tile, items: Sequence[bytes]) -> None:
        """Partial forms of earlier sizes must hold the same, as far as they go."""
        for width in self._partials.get(tile.full, []):
            form = Tile(tile.level, tile.index, width)
            stored = await self._store.read(tile_key(form)) if form != tile else None
            if stored is not None and stored.data != b"".join(items[:width]):
                self._findings.add(tile_key(form), "it differs from the tile that it became")

    async def _compare_upper(self, made: Made, others: Made) -> None:
        """Tiles above level 0 must hold what either tree gives: which one is right comes later."""
        for (tile, by_entries), (_, by_hashes) in zip(made, others, strict=True):
            needed = tile.width == WIDTH or tile in self._edge
            if not needed and tile.width not in self._partials.get(tile.full, []):
                continue
            key, data = await self._fetch(tile) if needed else await self._maybe(tile)
            if data is not None and data[: len(by_entries)] not in (by_entries, by_hashes):
                self._findings.add(key, "its hashes are not those of the tiles below")
            elif data is not None and key == tile_key(tile) and len(data) != len(by_entries):
                self._findings.add(key, f"it holds {len(data)} bytes, not {len(by_entries)}")

    async def _maybe(self, tile: Tile) -> tuple[str, bytes | None]:
        stored = await self._store.read(tile_key(tile))
        return tile_key(tile), stored.data if stored else None

    def _compare_with_older(self, start: int, leaves: Sequence[bytes]) -> None:
        if self._older is None or not start < self._older.size <= start + len(leaves):
            return
        levels, _ = extend(self._by_entries, start, leaves[: self._older.size - start])
        if Edge(self._older.size, levels).root != self._older.root:
            problem = f"the log's first {self._older.size} entries are not those it was made for"
            self._findings.add(OLDER, problem)

    def _conclude(self) -> None:
        size, root = self._tree.size, self._tree.root
        by_entries = Edge(size, self._by_entries).root
        by_hashes = Edge(size, self._by_hashes).root
        for index in self._suspects:
            number = index // WIDTH
            bundle, leaves = (
                tile_key(Tile(level, number, width_at(level, number, size)))
                for level in (ENTRIES, 0)
            )
            if by_entries == root:
                self._findings.add(leaves, "the hash is not the entry's", entry=index)
            elif by_hashes == root:
                self._findings.add(bundle, "it is not the entry that was logged", entry=index)
            else:
                problem = f"it does not have its hash in {leaves}, and neither gives the root"
                self._findings.add(bundle, problem, entry=index)
        if root not in (by_entries, by_hashes):
            problem = f"it says the root {root.hex()}, the entries give {by_entries.hex()}"
            self._findings.add(CHECKPOINT, problem)
