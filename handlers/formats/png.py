"""Whether bytes are a complete, real PNG (ISO/IEC 15948), by the standard library alone.

A mask that passes is kept byte for byte. Its pixels are unpacked in small pieces that are thrown
away, and never more of them than the header announces.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from consumer.errors import Permanent, Transient

MAX_PIXELS = 1 << 26  # 8192 x 8192: no medical frame comes near
MAX_SIDE = 1 << 15
MAX_CHUNKS = 100_000

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_LAST_FILTER = 4
_PIECE = 64 * 1024  # bytes given to, and taken from, zlib at a time

# First column and row, column and row step, of each pass of an interlaced image (section 8.2).
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_ONE_PASS = ((0, 0, 1, 1),)


@dataclass(frozen=True, slots=True)
class PngInfo:
    """What the header says; ``colour_type`` as in section 11.2.2 (0 grey, 2 RGB, 3 palette,
    4 grey with alpha, 6 RGB with alpha)."""

    width: int
    height: int
    bit_depth: int
    colour_type: int
    interlaced: bool


def check_png(data: bytes, *, max_pixels: int = MAX_PIXELS) -> PngInfo:
    """The header of a PNG whose chunks, checksums and amount of pixels are all right.

    Raises ``Transient`` when the data is cut off or a checksum fails (a download may have torn),
    ``Permanent`` for everything else that is not a PNG within the limits.
    """
    if data[:8] != _SIGNATURE:
        if data == _SIGNATURE[: len(data)]:
            raise Transient("mask-truncated", "the PNG ends before its end")
        raise Permanent("mask-not-png", "the data does not begin as a PNG does")
    chunks = _chunks(data)
    info = _header(*next(chunks), max_pixels)
    _check_pixels(_Pixels(_image_data(chunks, info)), info)
    return info


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(type, body) of every chunk up to and with IEND, with which the data must end."""
    view, position = memoryview(data), len(_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if len(data) - position < 12:
            raise Transient("mask-truncated", "the PNG ends before its end")
        size, kind = struct.unpack_from(">I4s", data, position)
        if not (kind.isalpha() and kind.isascii()) or size >= 2**31:
            raise Permanent("mask-not-png", "a PNG chunk has no valid type or length")
        if len(data) - position < 12 + size:
            raise Transient("mask-truncated", "the PNG ends before its end")
        body = view[position + 8 : position + 8 + size]
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(view[position + 8 + size :][:4]):
            raise Transient("mask-damaged", "a PNG chunk's checksum is wrong")
        position += 12 + size
        yield kind, body
        if kind == b"IEND":
            if position != len(data):
                raise Permanent("mask-trailing-bytes", "bytes follow the PNG's end")
            return
    raise Permanent("mask-too-large", f"more than {MAX_CHUNKS} PNG chunks")


def _header(kind: bytes, body: memoryview, max_pixels: int) -> PngInfo:
    if kind != b"IHDR" or len(body) != 13:
        raise Permanent("mask-not-png", "the PNG does not begin with its header")
    width, height, depth, colour, method, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= max_pixels):
        raise Permanent("mask-too-large", f"a PNG of {width} x {height} pixels is out of bounds")
    if depth not in _DEPTHS.get(colour, ()) or (method, filtering) != (0, 0) or interlace > 1:
        raise Permanent("mask-not-png", "the PNG's header says what no PNG may say")
    return PngInfo(width, height, depth, colour, bool(interlace))


def _image_data(chunks: Iterator[tuple[bytes, memoryview]], info: PngInfo) -> list[memoryview]:
    """The bodies of the image data chunks, whose order among the others is checked (table 7)."""
    found: list[memoryview] = []
    palette, last = False, b"IHDR"
    for kind, body in chunks:
        if kind == b"IDAT":
            if found and last != b"IDAT":
                raise Permanent("mask-not-png", "the PNG's image data is interrupted")
            found.append(body)
        elif kind == b"PLTE":
            if palette or found or info.colour_type in (0, 4) or len(body) not in range(3, 769, 3):
                raise Permanent("mask-not-png", "the PNG's palette is not valid")
            palette = True
        elif kind[:1].isupper() and kind != b"IEND":
            raise Permanent("mask-not-png", "the PNG has a critical chunk that nobody knows")
        last = kind
    if info.colour_type == 3 and not palette:
        raise Permanent("mask-not-png", "the PNG's palette is missing")
    return found


class _Pixels:
    """The unpacked image data, by as many bytes as are wanted."""

    def __init__(self, bodies: list[memoryview]) -> None:
        self._pieces = (
            body[at : at + _PIECE] for body in bodies for at in range(0, len(body), _PIECE)
        )
        self._inflate = zlib.decompressobj()

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only where the data ends."""
        out = bytearray()
        while len(out) < size and not self._inflate.eof:
            feed = self._inflate.unconsumed_tail or next(self._pieces, b"")
            try:
                piece = self._inflate.decompress(feed, size - len(out))
            except zlib.error as error:
                raise Permanent(
                    "mask-not-png", "the PNG's image data cannot be unpacked"
                ) from error
            if not piece and not feed:
                break
            out += piece
        return bytes(out)

    def ended(self) -> bool:
        """Whether the data ends here, checksum and all."""
        more = self.read(1) or self._inflate.unused_data or next(self._pieces, b"")
        return self._inflate.eof and not more


def _check_pixels(pixels: _Pixels, info: PngInfo) -> None:
    bits = _CHANNELS[info.colour_type] * info.bit_depth
    for column, row, across, down in _ADAM7 if info.interlaced else _ONE_PASS:
        width, height = -(-(info.width - column) // across), -(-(info.height - row) // down)
        if width < 1 or height < 1:
            continue
        stride = 1 + (width * bits + 7) // 8  # a filter's number before each row
        for first in range(0, height, at_once := max(1, _PIECE // stride)):
            wanted = min(at_once, height - first) * stride
            rows = pixels.read(wanted)
            if len(rows) < wanted or max(rows[::stride]) > _LAST_FILTER:
                raise Permanent("mask-not-png", "the PNG's image data is not its image")
    if not pixels.ended():
        raise Permanent("mask-not-png", "the PNG's image data is not its image")
