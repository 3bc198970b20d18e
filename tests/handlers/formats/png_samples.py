"""Writes PNGs of every colour type, depth and filter, interlaced or not, from the samples that
they shall hold: the other side of what is read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(
    samples: NDArray[np.integer],
    colour_type: int,
    depth: int = 8,
    *,
    interlaced: bool = False,
    palette: bytes = b"",
    transparency: bytes | None = None,
    extra: bytes = b"",
    filters: tuple[int, ...] = (0, 1, 2, 3, 4),
) -> bytes:
    """``samples`` is (row, column, channel); each row is filtered in another way, in turn."""
    height, width, channels = samples.shape
    assert channels == CHANNELS[colour_type]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    steps = PASSES if interlaced else ((0, 0, 1, 1),)
    raw = b"".join(
        row
        for x, y, across, down in steps
        if samples[y::down, x::across].size
        for row in _rows(samples[y::down, x::across], depth, filters)
    )
    parts = [chunk(b"IHDR", header), extra]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", transparency)] if transparency is not None else []
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [*parts, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND")]
    )


def _rows(samples: NDArray[np.integer], depth: int, filters: tuple[int, ...]) -> Iterator[bytes]:
    step = max(1, samples.shape[2] * depth // 8)  # bytes from pixel to pixel
    above: bytes | None = None
    for number, row in enumerate(samples):
        packed = _packed(row, depth)
        kind = filters[number % len(filters)]
        yield bytes([kind]) + _filtered(packed, above or bytes(len(packed)), step, kind)
        above = packed


def _packed(row: NDArray[np.integer], depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = ((row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
    return np.packbits(bits.reshape(-1)).tobytes()


def _filtered(row: bytes, above: bytes, step: int, kind: int) -> bytes:
    out = bytearray()
    for at, value in enumerate(row):
        a, c = (row[at - step], above[at - step]) if at >= step else (0, 0)
        guess = (0, a, above[at], (a + above[at]) // 2, _paeth(a, above[at], c))[kind]
        out.append((value - guess) % 256)
    return bytes(out)


def _paeth(a: int, b: int, c: int) -> int:
    if abs(b - c) <= abs(a - c) and abs(b - c) <= abs(a + b - 2 * c):
        return a
    return b if abs(a - c) <= abs(a + b - 2 * c) else c
