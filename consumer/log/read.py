"""Reading the published log from a store: checkpoint, tiles, and the entries in their order.

Nothing here checks hashes: that is ``verify``'s work. What is read is what was published.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from consumer.errors import Permanent, Transient
from consumer.log.keys import CHECKPOINT, tile_key
from consumer.log.merkle import HASH_BYTES
from consumer.log.note import BadNote, Checkpoint, read_checkpoint
from consumer.log.tiles import (
    ENTRIES,
    MAX_LEVEL,
    WIDTH,
    Edge,
    Tile,
    decode_bundle,
    right_edge,
    width_at,
)
from consumer.ports import LogEntry, Store


async def published(store: Store) -> Checkpoint | None:
    """What the log's checkpoint says, its signature not looked at; None when there is no log.

    Raises ``Permanent`` when it cannot be understood.
    """
    stored = await store.read(CHECKPOINT)
    if stored is None:
        return None
    try:
        return read_checkpoint(stored.data)
    except BadNote as error:
        raise damaged(CHECKPOINT, str(error)) from None


async def entries(store: Store, start: int = 0, end: int | None = None) -> AsyncIterator[LogEntry]:
    """The entries ``start <= index < end`` of the published log, by default to its end.

    Raises ``Transient`` and ``Permanent`` as the store does, and ``Permanent`` for a log that
    cannot be read.
    """
    head = await published(store)
    size = head.size if head else 0
    stop = size if end is None else min(end, size)
    for number in range(start // WIDTH, -(-stop // WIDTH)):
        first = number * WIDTH
        for offset, raw in enumerate(await read_bundle(store, number, size)):
            if start <= first + offset < stop:
                yield LogEntry(first + offset, parse_entry(first + offset, raw))


async def read_bundle(store: Store, index: int, size: int) -> list[bytes]:
    """The entries that the bundle holds in a tree of ``size`` entries."""
    tile = Tile(ENTRIES, index, width_at(ENTRIES, index, size))
    key, data = await read_tile(store, tile)
    try:
        found = decode_bundle(data)
    except ValueError as error:
        raise damaged(key, str(error)) from None
    if len(found) < tile.width:
        raise damaged(key, f"it holds {len(found)} entries, not {tile.width}")
    return found[: tile.width]


async def read_hashes(store: Store, tile: Tile) -> tuple[bytes, ...]:
    """The tile's hashes, ``tile.width`` of them."""
    key, data = await read_tile(store, tile)
    if len(data) % HASH_BYTES or len(data) < tile.width * HASH_BYTES:
        raise damaged(key, f"it holds {len(data)} bytes")
    steps = range(0, tile.width * HASH_BYTES, HASH_BYTES)
    return tuple(data[i : i + HASH_BYTES] for i in steps)


async def read_tile(store: Store, tile: Tile) -> tuple[str, bytes]:
    """Where a tile was found, and its bytes: a partial one may have gone when the full one came.

    Raises ``Transient`` when it is not there: a reader may be behind a writer, or ahead of one.
    """
    for form in dict.fromkeys((tile, tile.full)):
        stored = await store.read(tile_key(form))
        if stored is not None:
            return tile_key(form), stored.data
    raise Transient(
        "log-incomplete", f"{tile_key(tile)} is not there; groundwire verify tells more"
    )


async def read_edge(store: Store, size: int, tree: int) -> Edge:
    """The edge of the first ``size`` entries of a published tree of ``tree`` entries."""
    levels: list[tuple[bytes, ...]] = []
    bundle: tuple[bytes, ...] = ()
    partial = {tile.level: tile for tile in right_edge(size)}
    for level in range(MAX_LEVEL + 1):
        if size // WIDTH**level == 0:
            break
        tile = partial.get(level)
        levels.append(() if tile is None else await _prefix(store, tile, tree))
    if ENTRIES in partial:
        part = partial[ENTRIES]
        bundle = tuple((await read_bundle(store, part.index, tree))[: part.width])
    return Edge(size, tuple(levels), bundle)


async def _prefix(store: Store, part: Tile, tree: int) -> tuple[bytes, ...]:
    whole = Tile(part.level, part.index, width_at(part.level, part.index, tree))
    return (await read_hashes(store, whole))[: part.width]


def parse_entry(index: int, raw: bytes) -> dict[str, Any]:
    """Raises ``Permanent``."""
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise damaged(f"entry {index}", "it is no JSON object") from None


def damaged(place: str, what: str) -> Permanent:
    message = f"The log is damaged at {place}: {what}. Run groundwire verify before anything else."
    return Permanent("log-damaged", message)
