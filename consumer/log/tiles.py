"""C2SP tlog-tiles: paths, bundles, and which tiles a growth makes. Pure.

https://c2sp.org/tlog-tiles: a tile holds 256 hashes of one level, a bundle 256 entries. The
rightmost of each level may be partial; a partial one is never hashed into the level above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from consumer.log.merkle import EMPTY_ROOT, combine, leaf_hash

WIDTH = 256
MAX_ENTRY = 0xFFFF  # bytes of an entry: its length is a big-endian uint16
MAX_LEVEL = 63
ENTRIES = -1  # the "level" of entry bundles

_PATH = re.compile(
    r"tile/(entries|0|[1-9]\d?)/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile, or with ``level == ENTRIES`` one bundle; ``width`` is how many it holds."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def full(self) -> Tile:
        return Tile(self.level, self.index)

    @property
    def path(self) -> str:
        level = "entries" if self.level == ENTRIES else str(self.level)
        suffix = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{grouped(self.index)}{suffix}"

    @property
    def partials(self) -> str:
        """The prefix under which its partial forms lie."""
        return f"{self.full.path}.p/"


def grouped(index: int) -> str:
    """1234067 is ``x001/x234/067``."""
    text = str(index)
    text = text.zfill(-(-len(text) // 3) * 3)
    groups = [text[i : i + 3] for i in range(0, len(text), 3)]
    return "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])


def parse_path(path: str) -> Tile | None:
    """The inverse of ``Tile.path``; None for every other text."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    name, groups, partial = match.groups()
    level = ENTRIES if name == "entries" else int(name)
    tile = Tile(level, int(groups.replace("x", "").replace("/", "")), int(partial or WIDTH))
    known = level <= MAX_LEVEL and tile.width <= WIDTH and tile.path == path
    return tile if known else None


def span(level: int) -> int:
    """How many entries one hash of a level stands for; one for the bundles."""
    return 1 << 8 * max(level, 0)


def width_at(level: int, index: int, size: int) -> int:
    """How many hashes (entries) the tile holds in a tree of ``size`` entries; 0: there is none."""
    hashes = size // span(level)
    return max(0, min(WIDTH, hashes - index * WIDTH))


def right_edge(size: int) -> list[Tile]:
    """The partial tiles of a tree, from the bottom; the partial bundle, if any, comes first."""
    edge = []
    for level in (ENTRIES, *range(MAX_LEVEL + 1)):
        count = size // span(level)
        if count == 0:
            break
        if count % WIDTH:
            edge.append(Tile(level, count // WIDTH, count % WIDTH))
    return edge


def completed(old: int, new: int) -> list[Tile]:
    """The tiles and bundles that are full at size ``new`` and were not at ``old``: their partial
    forms may go (tlog-tiles, "Partial Tiles")."""
    full = []
    for level in (ENTRIES, *range(MAX_LEVEL + 1)):
        step = WIDTH * span(level)
        if new < step:
            break
        full += [Tile(level, index) for index in range(old // step, new // step)]
    return full


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Each entry with its length before it. Raises ``ValueError`` for one over 65,535 bytes."""
    parts = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise ValueError(f"an entry of {len(entry)} bytes does not fit a bundle")
        parts += [len(entry).to_bytes(2, "big"), entry]
    return b"".join(parts)


def decode_bundle(data: bytes, count: int | None = None) -> list[bytes]:
    """Raises ``ValueError`` when the bundle is cut short, or holds not ``count`` entries."""
    entries = []
    position = 0
    while position < len(data):
        start = position + 2
        end = start + int.from_bytes(data[position:start], "big")
        if end > len(data):
            raise ValueError("the bundle is cut short")
        entries.append(data[start:end])
        position = end
    if count is not None and len(entries) != count:
        raise ValueError(f"the bundle holds {len(entries)} entries, not {count}")
    return entries


@dataclass(frozen=True, slots=True)
class Edge:
    """What of a tree of ``size`` entries is needed to grow it: its partial tiles and bundle.

    ``levels[L]`` are the hashes of the rightmost tile of level L, fewer than 256.
    """

    size: int = 0
    levels: tuple[tuple[bytes, ...], ...] = ()
    entries: tuple[bytes, ...] = ()

    @property
    def root(self) -> bytes:
        below: tuple[bytes, ...] = ()
        for hashes in self.levels:
            row = (*hashes, *below)
            below = (combine(row),) if row else ()
        return below[0] if below else EMPTY_ROOT


Made = list[tuple[Tile, bytes]]


def grow(edge: Edge, entries: Sequence[bytes]) -> tuple[Edge, Made]:
    """The edge after these entries, and every tile and bundle that this growth makes or widens.

    The same entries in other portions end in the same edge and the same full tiles.
    """
    size, levels, made = edge.size, edge.levels, Made()
    bundle = edge.entries
    for start in _portions(len(bundle), len(entries)):
        part = entries[max(start, 0) : start + WIDTH]
        bundle = (*bundle, *part) if start < 0 else tuple(part)
        levels, tiles = extend(levels, size, [leaf_hash(entry) for entry in part])
        size += len(part)
        made.append((Tile(ENTRIES, (size - 1) // WIDTH, len(bundle)), encode_bundle(bundle)))
        made += tiles
        if len(bundle) == WIDTH:
            bundle = ()
    return Edge(size, levels, bundle), _last_forms(made)


def _portions(held: int, count: int) -> range:
    """Where in ``count`` entries each bundle begins, the first of which holds ``held`` already."""
    return range(-held, count, WIDTH) if count else range(0)


def _last_forms(made: Made) -> Made:
    """A tile that grew several times is made once, at its last width."""
    return list({(tile.level, tile.index): (tile, data) for tile, data in made}.values())


def extend(
    levels: Sequence[Sequence[bytes]], size: int, leaves: Sequence[bytes]
) -> tuple[tuple[tuple[bytes, ...], ...], Made]:
    """The partial tiles of a tree of ``size`` entries after the hashes of at most as many entries
    as fill its level-0 tile, and the tiles of all levels that they make or widen."""
    grown = [tuple(hashes) for hashes in levels]
    made: Made = []
    level, new = 0, list(leaves)
    while new:
        if level == len(grown):
            grown.append(())
        row = (*grown[level], *new)
        index = (size + len(leaves) - 1) // span(level + 1)
        made.append((Tile(level, index, len(row)), b"".join(row)))
        full = len(row) == WIDTH
        grown[level] = () if full else row
        level, new = level + 1, [combine(row)] if full else []
    return tuple(grown), made
