"""The pixels of frames as numbers: read straight into one array, frame after frame.

What comes out is the stored value (DICOM PS3.5, section 8): only the bits that are stored count,
whatever lies above them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from consumer.errors import GroundwireError, Refused, Transient
from handlers.formats.dicom_codestream import Coded, decode, frames_of, missing
from handlers.formats.dicom_files import UNDEFINED, DicomFile
from handlers.formats.dicom_image import DicomImage, Frame, Stored
from handlers.formats.dicom_tags import shown

NATIVE = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """``array`` is (frame, row, column) of stored values, ``ranges`` the least and the largest of
    each frame."""

    array: NDArray[Any]
    ranges: NDArray[np.int64]


def read_pixels(frames: Sequence[Frame], images: dict[DicomFile, DicomImage]) -> Pixels:
    """The frames' pixels in the order given; the images are of one size, of as many bits and
    signed alike. How many of the bits are stored, each tells for itself.

    Raises ``Refused`` (``truncated-pixels``, ``undecodable-pixels``,
    ``unsupported-transfer-syntax``), ``Transient`` when a file cannot be read.
    """
    first = images[frames[0].file]
    columns, rows = first.size
    array = np.empty((len(frames), rows, columns), _dtype(first.stored))
    ranges = np.empty((len(frames), 2), np.int64)
    numbered = enumerate(frames)
    for file, group in groupby(numbered, key=lambda pair: pair[1].file):
        _fill(array, ranges, list(group), images[file])
    return Pixels(array, ranges)


def _dtype(stored: Stored) -> np.dtype[Any]:
    return np.dtype(f"{'i' if stored.signed else 'u'}{stored.bits_allocated // 8}")


def _fill(
    array: NDArray[Any],
    ranges: NDArray[np.int64],
    group: list[tuple[int, Frame]],
    image: DicomImage,
) -> None:
    """Frames that follow one another in the volume and lie in one file."""
    file, count, stored = image.file, len(image.frames), image.stored
    frame_bytes = array[0].nbytes
    native = file.syntax in NATIVE
    begins = file.pixels_at or 0
    try:
        with file.body(begins + count * frame_bytes) as body:
            coded = None if native else frames_of(body, file, count)
            if native:
                _check_length(body, file, count, frame_bytes)
            for number, frame in group:
                target = array[number]
                if coded is None:
                    _read_native(body, frame, target)
                else:
                    _decode(coded, frame, target, stored)
                _keep_stored_bits(target, stored)
                ranges[number] = target.min(), target.max()
    except MemoryError as error:
        raise Transient("image-memory", f"{group[0][1].name}: out of memory") from error


def _check_length(body: BinaryIO, file: DicomFile, count: int, frame_bytes: int) -> None:
    """The pixel data is all frames, with little behind it."""
    wanted = count * frame_bytes
    size = (
        body.seek(0, io.SEEK_END)
        if isinstance(body, io.BytesIO)
        else os.fstat(body.fileno()).st_size
    )
    there = min(file.length or 0, size - (file.pixels_at or 0))
    deflated = file.syntax == DeflatedExplicitVRLittleEndian
    if there < wanted:
        what = f"{there} bytes of pixel data, {wanted} are needed"
        raise Refused("truncated-pixels", f"{file.shown}: {what}")
    if file.length == UNDEFINED or ((file.length or 0) >= wanted + frame_bytes and not deflated):
        what = f"{file.length} bytes of pixel data, {wanted} are those of the image"
        raise Refused("undecodable-pixels", f"{file.shown}: {what}")


def _read_native(body: BinaryIO, frame: Frame, target: NDArray[Any]) -> None:
    view = target.data.cast("B")
    begins = (frame.file.pixels_at or 0) + frame.index * len(view)
    big = not frame.file.little_endian
    if big and frame.file.words and target.itemsize == 1:
        read = _read_words(body, begins, begins - (frame.file.pixels_at or 0), view)
    else:
        body.seek(begins)
        read = body.readinto(view)  # type: ignore[attr-defined]  # files and BytesIO have it
    if read != len(view):
        raise Refused("truncated-pixels", f"{frame.name}: {read} of {len(view)} bytes")
    if big:
        target.byteswap(inplace=True)


def _read_words(body: BinaryIO, begins: int, before: int, view: memoryview) -> int:
    """Pixels of 8 bits, two to a big endian word, the first in its lower byte (PS3.5, annex D);
    ``before`` bytes of them lie ahead. How many were read."""
    odd = before % 2
    body.seek(begins - odd)
    data = np.frombuffer(body.read((len(view) + odd + 1) // 2 * 2), np.uint8)
    pixels = data[: data.size // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()[odd : odd + len(view)]
    view[: pixels.size] = pixels.tobytes()
    return int(pixels.size)


def _decode(coded: Coded, frame: Frame, target: NDArray[Any], stored: Stored) -> None:
    try:
        target[:] = decode(coded, frame.index, target.shape, stored)
    except (GroundwireError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # whatever damaged data makes of a decoder; Rust's panic, too
        what = f"cannot be decoded from {shown(coded.syntax.name)}{missing(coded.syntax)}"
        raise Refused("undecodable-pixels", f"{frame.name}: {what}") from error


def _keep_stored_bits(values: NDArray[Any], stored: Stored) -> None:
    """In place: the bits above are not the value's; the highest stored bit is its sign."""
    spare = stored.bits_allocated - stored.bits_stored
    if spare and stored.signed:
        values <<= spare
        values >>= spare
    elif spare:
        values &= (1 << stored.bits_stored) - 1
