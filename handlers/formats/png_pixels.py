"""The pixels of a PNG that `check_png` accepts, and which of them are drawn.

A pixel is drawn when any of its colour channels is not zero and it is not wholly transparent:
grey is one channel, a palette's index stands for its colour, and transparency is the alpha
channel or what the tRNS chunk says (ISO/IEC 15948, 11.3.2). A picture in which that rule would
leave nothing, though its pixels do differ, is refused: perhaps it was drawn in black, or in alpha.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.errors import Permanent, Refused
from handlers.formats.png import PngInfo

Color = tuple[int, int, int]
Mask = NDArray[np.bool_]

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
_MODES = {_GREY: "L", _RGB: "RGB", _PALETTE: "P", _GREY_ALPHA: "LA", _RGB_ALPHA: "RGBA"}
_OPAQUE = 255
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NAMED = 5  # colours that an error names
# First column and row, column and row step, of each pass of an interlaced image (section 8.2).
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: ``colour`` is (row, column, 1 or 3 channels) of 8 or 16 bits, ``opaque``
    (row, column) or None where all of it is."""

    colour: NDArray[Any]
    opaque: Mask | None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        height, width = self.colour.shape[:2]
        return width, height


def read_pixels(data: bytes, info: PngInfo) -> Pixels:
    """The pixels of a PNG of which `check_png` gave ``info``. Raises ``Permanent``
    (mask-not-png) for a palette or a transparency that does not fit the picture."""
    if info.bit_depth == 16:
        stored: NDArray[Any] = _wide(data, info)
    else:
        kept = [part for part in _chunks(data) if part[0] in (b"PLTE", b"IDAT")]
        stored = _decoded(info, kept)
    palette, key = _chunk(data, b"PLTE"), _chunk(data, b"tRNS")
    if info.colour_type == _PALETTE:
        return _from_palette(stored[:, :, 0], palette or b"", key or b"")
    if info.colour_type in (_GREY_ALPHA, _RGB_ALPHA):
        return Pixels(stored[:, :, :-1], stored[:, :, -1] != 0)
    return Pixels(stored, _keyed(stored, info, key))


def drawn(pixels: Pixels) -> Mask:
    """The (row, column) mask of what is drawn.

    Raises ``Refused`` (picture-ambiguous) where nothing would be drawn although pixels differ in
    their transparency, or have a colour that is transparent everywhere.
    """
    coloured = np.asarray(pixels.colour.any(2), np.bool_)
    if pixels.opaque is None:
        return coloured
    mask = coloured & pixels.opaque
    if not mask.any() and (coloured.any() or pixels.opaque.any() != pixels.opaque.all()):
        raise Refused(
            "picture-ambiguous",
            f"nothing opaque has a colour, yet {int(coloured.sum())} transparent pixels have one "
            f"and {int(pixels.opaque.sum())} of {pixels.opaque.size} are opaque",
        )
    return mask


def drawn_in(pixels: Pixels, colours: Collection[Color]) -> dict[Color, Mask]:
    """Of each claimed colour the (row, column) mask of exactly its pixels, empty where it does
    not occur.

    Raises ``Refused``: composite-unclaimed-color for drawn pixels in a colour that nobody claims
    (with the counts), picture-ambiguous as `drawn` and for a claim of black, which is background.
    """
    if (0, 0, 0) in colours:
        raise Refused("picture-ambiguous", "an object claims black, which is the background")
    left = drawn(pixels)
    codes = _codes(pixels.colour)
    full = 257 if pixels.colour.dtype.itemsize == 2 else 1  # 255 * 257 is 65,535
    wanted = {colour: _codes(np.array(colour, np.uint64) * np.uint64(full)) for colour in colours}
    unclaimed = left & ~np.isin(codes, list(wanted.values()))
    if unclaimed.any():
        raise _unclaimed(pixels.colour[unclaimed])
    return {colour: (codes == code) & left for colour, code in wanted.items()}


def _codes(colours: NDArray[Any]) -> NDArray[np.uint64]:
    """One number for each colour of 1 or 3 channels in the last axis."""
    red, green, blue = (colours[..., n % colours.shape[-1]].astype(np.uint64) for n in range(3))
    codes: NDArray[np.uint64] = np.asarray(
        (red << np.uint64(32)) | (green << np.uint64(16)) | blue, np.uint64
    )
    return codes


def _unclaimed(pixels: NDArray[Any]) -> Refused:
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_NAMED]
    named = ", ".join(f"{tuple(colours[n].tolist())} ({counts[n]} pixels)" for n in most)
    more = f" and {len(colours) - _NAMED} more" if len(colours) > _NAMED else ""
    return Refused("composite-unclaimed-color", f"no object claims the colour {named}{more}")


def _decoded(info: PngInfo, parts: Sequence[tuple[bytes, bytes]]) -> NDArray[np.uint8]:
    """(row, column, channel) of 8 bits, by Pillow from a PNG of only these chunks (no text, no
    profile); grey of fewer bits is stretched to 8."""
    header = struct.pack(
        ">IIBBBBB", info.width, info.height, info.bit_depth, info.colour_type, 0, 0, info.interlaced
    )
    whole = ((b"IHDR", header), *parts, (b"IEND", b""))
    png = _SIGNATURE + b"".join(_framed(kind, body) for kind, body in whole)
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        mode = _MODES[info.colour_type]
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(info.height, info.width, -1)


def _wide(data: bytes, info: PngInfo) -> NDArray[np.uint16]:
    """(row, column, channel) of 16 bits, which Pillow cuts to 8 where there are colours.

    A filter relates a byte only to the same byte of neighbouring pixels (section 9.2), so the
    bytes of each pixel may be dealt to two pictures of 8 bits that Pillow reads whole.
    """
    count = _CHANNELS[info.colour_type]
    raw = zlib.decompress(b"".join(body for kind, body in _chunks(data) if kind == b"IDAT"))
    half = replace(info, bit_depth=8)
    halves = []
    for first in (0, count):
        rows = b"".join(_dealt(raw, info, first, count))
        halves.append(_decoded(half, [(b"IDAT", zlib.compress(rows, 0))]))
    both = np.ascontiguousarray(np.concatenate(halves, axis=2))
    return both.view(">u2").astype(np.uint16)


def _dealt(raw: bytes, info: PngInfo, first: int, count: int) -> Iterator[bytes]:
    """The rows with only bytes ``first`` to ``first + count`` of the 2 * count of each pixel."""
    position = 0
    for column, row, across, down in _ADAM7 if info.interlaced else ((0, 0, 1, 1),):
        width, height = -(-(info.width - column) // across), -(-(info.height - row) // down)
        if width < 1 or height < 1:
            continue
        stride = 1 + width * 2 * count
        rows = np.frombuffer(raw, np.uint8, height * stride, position).reshape(height, stride)
        position += height * stride
        pixels = rows[:, 1:].reshape(height, width, 2 * count)[:, :, first : first + count]
        yield np.hstack([rows[:, :1], pixels.reshape(height, -1)]).tobytes()


def _from_palette(index: NDArray[np.uint8], colours: bytes, transparency: bytes) -> Pixels:
    palette = np.frombuffer(colours, np.uint8).reshape(-1, 3)
    if index.max() >= len(palette) or len(transparency) > len(palette):
        raise Permanent("mask-not-png", "the PNG's palette is too short for it")
    alpha = np.full(len(palette), _OPAQUE, np.uint8)
    alpha[: len(transparency)] = np.frombuffer(transparency, np.uint8)
    return Pixels(palette[index], alpha[index] != 0)


def _keyed(stored: NDArray[Any], info: PngInfo, key: bytes | None) -> Mask | None:
    """Opaque is what has not exactly the one colour that tRNS names."""
    if key is None:
        return None
    count = _CHANNELS[info.colour_type]
    if len(key) != 2 * count:
        raise Permanent("mask-not-png", "the PNG's transparency is not valid")
    stretch = _OPAQUE // (2**info.bit_depth - 1) if info.bit_depth < 8 else 1
    wanted = np.frombuffer(key, ">u2").astype(np.uint32) * stretch
    opaque: Mask = ~(stored == wanted).all(2)
    return opaque


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of every chunk of a PNG that was checked."""
    position = len(_SIGNATURE)
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + size]
        position += 12 + size


def _chunk(data: bytes, wanted: bytes) -> bytes | None:
    return next((body for kind, body in _chunks(data) if kind == wanted), None)


def _framed(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
