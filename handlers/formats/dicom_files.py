"""A DICOM file up to its pixel data: what it is, how it is encoded, where the pixels begin.

Nothing that a file claims is believed before it is there: no read goes beyond the end of the
file or beyond what a header may take, deflated data included (DICOM PS3.5, sections 7 and 10,
PS3.10, section 7).
"""

from __future__ import annotations

import io
import zlib  # before gdcm, whose own zlib would take the place of this one's symbols
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from consumer.errors import GroundwireError, Refused, Transient
from handlers.formats.dicom_tags import ITEM, MAX_ITEMS, Tags, shown

MAX_HEADER = 32 * 1024 * 1024  # bytes read for a header: 6,000 frames of 5 kB fit
MAX_READS = 2_000_000  # one or two for each element

UNDEFINED = 0xFFFFFFFF  # the length of encapsulated pixel data
_MAGIC_AT, _MAGIC = 128, b"DICM"
_FIRST_PIXELS = 0x7FE00008  # float, double or whole pixel data
_ITEMS = 0xFFFE0000  # what sequences are made of
_PIXEL_DATA = b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"  # little and big endian
_FEED = 1 << 16


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A file whose header was read. ``pixels_at`` is the offset of the pixel data's value in the
    body (the file, or what it inflates to), ``length`` its length in bytes or `UNDEFINED`; both
    are None where the file has none. ``words`` says that they are words of 16 bits, which hold
    two pixels of 8 each."""

    name: str
    path: Path
    syntax: str
    sop_class: str  # as the file meta information has it; empty where it does not
    little_endian: bool
    pixels_at: int | None
    length: int | None
    words: bool

    @property
    def shown(self) -> str:
        """Its name for errors."""
        return shown(self.name)

    @contextmanager
    def body(self, limit: int) -> Iterator[BinaryIO]:
        """The file, or its first ``limit`` bytes inflated. Raises ``Transient`` when it cannot
        be read."""
        try:
            with self.path.open("rb") as file:
                if self.syntax == DeflatedExplicitVRLittleEndian:
                    yield _inflated(file, _meta(self.name, file)[1], limit)
                else:
                    yield file
        except OSError as error:
            raise Transient("image-unreadable", f"{self.shown} cannot be read") from error


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does: by preamble, or with a first element as old files
    without one have it. Raises ``Transient`` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return _start(file) is not None
    except OSError as error:
        raise Transient("image-unreadable", "an image file cannot be read") from error


def read_header(
    name: str, path: Path, wanted: list[BaseTag | int] | None = None
) -> tuple[DicomFile, Tags]:
    """The file and its elements before the pixel data, or those ``wanted`` of them.

    Raises ``Refused`` (``not-dicom``, ``dicom-damaged``, ``dicom-header-too-large``), and
    ``Transient`` when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _read(name, path, file, wanted)
    except GroundwireError:
        raise
    except (OSError, MemoryError) as error:
        raise Transient("image-unreadable", f"{shown(name)} cannot be read") from error


def _read(
    name: str, path: Path, file: BinaryIO, wanted: list[BaseTag | int] | None
) -> tuple[DicomFile, Tags]:
    if _start(file) is None:
        raise Refused("not-dicom", f"{shown(name)} is not a DICOM file")
    try:
        meta, begins = _meta(name, file)
        syntax = meta.text("TransferSyntaxUID") or ImplicitVRLittleEndian
        body = Bounded(name, file)
        if syntax == DeflatedExplicitVRLittleEndian:
            body = Bounded(name, _inflated(file, begins, MAX_HEADER))
            begins = 0
        body.seek(begins)
        little = syntax != ExplicitVRBigEndian
        dataset = read_dataset(
            cast(BinaryIO, body),
            syntax == ImplicitVRLittleEndian,
            little,
            stop_when=_at_pixels,
            specific_tags=wanted,
        )
        at, length, words = _pixels(body, little)
    except (GroundwireError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes of the parser
        raise Refused("dicom-damaged", f"{shown(name)}: the header cannot be parsed") from error
    sop_class = meta.text("MediaStorageSOPClassUID") or ""
    read = DicomFile(name, path, syntax, sop_class, little, at, length, words)
    return read, Tags(name, dataset)


class Bounded:
    """A file that is never asked for more than it has, nor for more than a header may take."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name, self._file = name, file
        self._size = file.seek(0, io.SEEK_END)
        self._left = MAX_HEADER
        self._reads = self._items = 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 16:  # what element headers are made of is not worth asking
            rest = max(0, self._size - self._file.tell())
            size = rest if size < 0 else min(size, rest)
        self._left -= size
        self._reads += 1
        if self._left < 0 or self._reads > MAX_READS or self._items > MAX_ITEMS:
            what = f"over {MAX_HEADER} bytes, {MAX_READS} elements or {MAX_ITEMS} items"
            raise Refused("dicom-header-too-large", f"{shown(self._name)}: a header of {what}")
        try:
            data = self._file.read(size)
        except OSError as error:  # before the parser's own errors of this type
            raise Transient("image-unreadable", f"{shown(self._name)} cannot be read") from error
        self._items += size == 8 and data[:4] in ITEM
        return data


def _start(file: BinaryIO) -> int | None:
    """Where the first element is; None: not DICOM."""
    start = file.read(_MAGIC_AT + 8)
    if start[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC:
        return _MAGIC_AT + 4
    group, element = start[:2], start[2:4]
    plain = group in (b"\x02\x00", b"\x08\x00") and element[1:] == b"\x00" and len(start) > 8
    return 0 if plain and element[0] <= 0x18 else None


def _meta(name: str, file: BinaryIO) -> tuple[Tags, int]:
    """The file meta information, and where the body begins. Without it a body is little endian,
    as DICOM's default is; which VRs it has, is seen when it is read."""
    file.seek(0)
    begins = _start(file) or 0
    body = Bounded(name, file)
    body.seek(begins)
    meta = Dataset()
    if body.read(2) == b"\x02\x00":
        body.seek(begins)
        meta = read_dataset(cast(BinaryIO, body), False, True, stop_when=_after_meta)
        begins = body.tell()
    return Tags("", meta), begins


def _inflated(file: BinaryIO, begins: int, limit: int) -> BinaryIO:
    """Up to ``limit`` bytes of the deflated body."""
    file.seek(begins)
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    pieces, left = [], limit
    while left and not unpack.eof:
        feed = unpack.unconsumed_tail or file.read(_FEED)
        if not feed:
            break
        pieces.append(unpack.decompress(feed, left))
        left -= len(pieces[-1])
    return io.BytesIO(b"".join(pieces))


def _after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    number = int(tag)  # a tag compares slowly
    return _FIRST_PIXELS <= number < _ITEMS  # after tables of offsets, before pixels


def _pixels(body: Bounded, little: bool) -> tuple[int | None, int | None, bool]:
    """Offset and length of the pixel data's value, and whether it is of words. An explicit VR is
    told from a length by its letters: their first as a length's lowest byte would make it odd,
    which no length is."""
    head = body.read(12)
    if len(head) < 12 or head[:4] != _PIXEL_DATA[0 if little else 1]:
        return None, None, False
    explicit = head[4:6] in (b"OB", b"OW", b"UN")
    begins = body.tell() - (0 if explicit else 4)
    field = head[8:12] if explicit else head[4:8]
    length = int.from_bytes(field, "little" if little else "big")
    return begins, length, not explicit or head[4:6] == b"OW"
