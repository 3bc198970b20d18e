"""Compressed frames: found in their encapsulation, checked to be of the image's size, decoded.

A decoder sees a codestream only when what it says of itself agrees with the header, so that it
never allocates by what a file claims (DICOM PS3.5, annex A.4; ITU-T T.81, T.87, T.800).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    RLELossless,
)

from consumer.errors import Refused
from handlers.formats.dicom_files import UNDEFINED, DicomFile
from handlers.formats.dicom_image import Stored
from handlers.formats.dicom_tags import shown

MAX_FRAGMENTS = 1 << 20
MAX_TILES = 4096  # of a JPEG 2000 image: a decoder sets up each of them

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_NO_SIZE = {0xC4, 0xC8, 0xCC}  # among the start-of-frame markers: tables
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_JPEG_2000 = {*JPEG2000TransferSyntaxes, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL}
_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike
_SIZ = b"\xff\x4f\xff\x51"  # the first two markers of JPEG 2000
_SIZ_WITHIN = 512  # bytes: some writers put boxes before them

Span = tuple[int, int]  # offset and length, in bytes


@dataclass(frozen=True, slots=True)
class Coded:
    """The frames of one file, each the spans of its fragments."""

    file: DicomFile
    syntax: UID
    body: BinaryIO
    frames: tuple[tuple[Span, ...], ...]


def frames_of(body: BinaryIO, file: DicomFile, count: int) -> Coded:
    """Raises ``Refused``: a transfer syntax without a decoder, or frames that cannot be told
    apart."""
    syntax = UID(file.syntax)
    _check_decoder(file, syntax)
    if file.length != UNDEFINED:
        what = f"{shown(syntax.name)}, and yet its pixel data is not encapsulated"
        raise Refused("undecodable-pixels", f"{file.shown}: {what}")
    table, fragments = _fragments(body, file)
    return Coded(file, syntax, body, _by_frame(file, table, fragments, count))


def decode(coded: Coded, index: int, shape: tuple[int, ...], stored: Stored) -> NDArray[Any]:
    """The frame as (row, column); may raise anything for damaged data."""
    pieces = []
    for offset, length in coded.frames[index]:
        coded.body.seek(offset)
        pieces.append(coded.body.read(length))
    data = b"".join(pieces)
    _check_codestream(coded, data, shape, stored)
    options: Any = {  # pydicom's type for them leaves out all that are plain values
        "rows": shape[0],
        "columns": shape[1],
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": stored.bits_allocated,
        "bits_stored": stored.bits_stored,
        "pixel_representation": int(stored.signed),
        "photometric_interpretation": stored.photometric,
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(coded.syntax)
    return decoder.as_array(encapsulate([data]), index=0, raw=True, **options)[0]


def missing(syntax: UID) -> str:
    """What could decode it and is not installed, as a clause for an error; may be empty."""
    needed = "; ".join(get_decoder(syntax).missing_dependencies)
    return f" (not installed: {shown(needed)})" if needed else ""


def _check_decoder(file: DicomFile, syntax: UID) -> None:
    name = shown(syntax.name)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        what = f"there is no decoder for {name}"
        raise Refused("unsupported-transfer-syntax", f"{file.shown}: {what}") from error
    if not decoder.is_available:
        what = f"nothing here decodes {name}{missing(syntax)}"
        raise Refused("unsupported-transfer-syntax", f"{file.shown}: {what}")


def _fragments(body: BinaryIO, file: DicomFile) -> tuple[tuple[int, ...], list[Span]]:
    """The offsets of the basic offset table, and the fragments, whole."""
    body.seek(0, io.SEEK_END)
    size = body.tell()
    at = file.pixels_at or 0
    spans: list[Span] = []
    while True:
        body.seek(at)
        head = body.read(8)
        if head[:4] == _END:
            break
        length = int.from_bytes(head[4:], "little")
        if len(head) < 8 or head[:4] != _ITEM or at + 8 + length > size:
            what = f"the encapsulated pixel data breaks off at byte {at}"
            raise Refused("truncated-pixels", f"{file.shown}: {what}")
        spans.append((at + 8, length))
        at += 8 + length
        if len(spans) > MAX_FRAGMENTS:
            what = f"over {MAX_FRAGMENTS} fragments of pixel data"
            raise Refused("undecodable-pixels", f"{file.shown}: {what}")
    if not spans:
        raise Refused("truncated-pixels", f"{file.shown}: no fragments of pixel data")
    body.seek(spans[0][0])
    table = body.read(spans[0][1] // 4 * 4)
    return struct.unpack(f"<{len(table) // 4}I", table), spans[1:]


def _by_frame(
    file: DicomFile, table: tuple[int, ...], fragments: list[Span], count: int
) -> tuple[tuple[Span, ...], ...]:
    if count == 1 and fragments:
        return (tuple(fragments),)
    if len(fragments) == count:
        return tuple((fragment,) for fragment in fragments)
    if len(table) == count and fragments:
        first = fragments[0][0] - 8
        groups: dict[int, list[Span]] = {first + offset: [] for offset in table}
        current: list[Span] = []
        for offset, length in fragments:
            current = groups.get(offset - 8, current)
            current.append((offset, length))
        if len(groups) == count and all(groups.values()):
            return tuple(tuple(groups[first + offset]) for offset in table)
    what = f"{len(fragments)} fragments and {len(table)} offsets do not make {count} frames"
    raise Refused("undecodable-pixels", f"{file.shown}: {what}")


def _check_codestream(coded: Coded, data: bytes, shape: tuple[int, ...], stored: Stored) -> None:
    if coded.syntax == RLELossless:
        return  # has no size of its own
    if not data.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):  # decoders make up what is missing
        what = "a compressed frame breaks off before its end"
        raise Refused("truncated-pixels", f"{coded.file.shown}: {what}")
    said = (_size_of_jpeg_2000 if coded.syntax in _JPEG_2000 else _size_of_jpeg)(data)
    rows, columns = shape[:2]
    if said is None or said[:3] != (rows, columns, 1) or said[3] > stored.bits_allocated:
        what = f"(rows, columns, samples, bits) are {said}, the header has {rows} x {columns}"
        raise Refused("undecodable-pixels", f"{coded.file.shown}: {shown(what)}")


def _size_of_jpeg(data: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, samples and bits by the first start-of-frame segment, JPEG-LS's too."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NO_SIZE):
            segment = data[at + 4 : at + 10]
            if len(segment) < 6:
                return None
            bits, rows, columns, samples = struct.unpack(">BHHB", segment)
            return rows, columns, samples, bits
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _size_of_jpeg_2000(data: bytes) -> tuple[int, int, int, int] | None:
    """By the SIZ segment; None also for more tiles than are worth a slice."""
    at = data.find(_SIZ, 0, _SIZ_WITHIN)
    segment = data[at + 8 : at + 8 + 35]
    if at < 0 or len(segment) < 35:
        return None
    x, y, x0, y0, tile_x, tile_y, _, _, samples, bits = struct.unpack(">8IHB", segment)
    if not (tile_x and tile_y) or -(-x // tile_x) * -(-y // tile_y) > MAX_TILES:
        return None
    return y - y0, x - x0, samples, (bits & 0x7F) + 1
