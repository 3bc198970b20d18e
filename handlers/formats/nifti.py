"""Label maps as NIfTI: read from what any platform writes, written in one form only.

Equal voxels in an equal place give equal bytes, whoever wrote the source. What a source claims
is believed only within limits, and nothing is unpacked or allocated beyond them.
"""

from __future__ import annotations

import io
from typing import Any, Protocol

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from consumer.errors import Permanent, Transient
from handlers.formats.gunzip import MAGIC, Gunzip
from handlers.formats.label_map import (
    MAX_LABEL,
    Affine,
    Geometry,
    LabelMap,
    check_label_map,
    count_labels,
    empty_label_map,
    smallest_type,
)
from handlers.formats.nifti_header import Header, header_bytes, layout_of, parse_header

__all__ = [
    "MAX_UNPACKED",
    "Affine",
    "Geometry",
    "LabelMap",
    "check_label_map",
    "count_labels",
    "empty_label_map",
    "read_label_map",
    "write_label_map",
]

MAX_UNPACKED = 768 * 1024 * 1024  # bytes: 512 x 512 x 300 voxels of eight bytes fit

_BLOCK = 1 << 20  # voxels read and checked at a time


def read_label_map(data: bytes, *, max_bytes: int = MAX_UNPACKED) -> LabelMap:
    """A ``.nii`` or ``.nii.gz`` file of whole, non-negative voxels: NIfTI-1 or NIfTI-2.

    ``max_bytes`` limits header, extensions and voxels, unpacked. Raises ``Transient`` when the
    data is cut off or damaged (a download may have torn), ``Permanent`` for everything else that
    is not such a file.
    """
    stream: _Stream = Gunzip(data) if data[:2] == MAGIC else io.BytesIO(data)
    header, position = _read_header(stream)
    voxels = header.shape[0] * header.shape[1] * header.shape[2]
    size = header.offset + voxels * header.dtype.itemsize
    if size > max_bytes:
        raise Permanent("mask-too-large", f"{size} bytes unpacked, {max_bytes} are allowed")
    while position < header.offset:
        position += len(_exactly(stream, min(_BLOCK, header.offset - position)))
    flat = _read_voxels(stream, header, voxels)
    if stream.read(1):
        raise Permanent("mask-trailing-bytes", "bytes follow the last voxel")
    return LabelMap(flat.reshape(header.shape, order="F"), header.affine, header.geometry)


def write_label_map(label_map: LabelMap) -> bytes:
    """A ``.nii.gz`` whose bytes follow from voxels and place alone: NIfTI-1, little endian,
    Fortran order, no time and no name in the gzip header."""
    voxels = np.ascontiguousarray(label_map.array.T, label_map.array.dtype.newbyteorder("<"))
    pack = isal_zlib.compressobj(level=1, wbits=31)
    return b"".join(
        (pack.compress(header_bytes(label_map)), pack.compress(voxels.data), pack.flush())
    )


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _exactly(stream: _Stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise Transient("mask-truncated", "the NIfTI data ends before its end")
    return data


def _read_header(stream: _Stream) -> tuple[Header, int]:
    """The header, and how many bytes of the stream it took."""
    start = _exactly(stream, 4)
    layout = layout_of(start)
    if layout is None:
        raise Permanent("mask-not-nifti", "the data does not begin as NIfTI does")
    block = start + _exactly(stream, layout.itemsize - len(start))
    return parse_header(block, layout), len(block)


def _read_voxels(stream: _Stream, header: Header, voxels: int) -> NDArray[Any]:
    """Labels in the smallest type that holds them, widened when a block needs it, so that wide
    voxels never lie in memory all at once."""
    labels: NDArray[Any] = np.empty(voxels, np.uint8)
    for start in range(0, voxels, _BLOCK):
        count = min(_BLOCK, voxels - start)
        raw = np.frombuffer(_exactly(stream, count * header.dtype.itemsize), header.dtype)
        block, largest = _whole(raw, header.scaling)
        needed = smallest_type(largest)
        if needed.itemsize > labels.dtype.itemsize:
            labels = _widened(labels, start, needed)
        labels[start : start + count] = block
    return labels


def _whole(raw: NDArray[Any], scaling: tuple[float, float] | None) -> tuple[NDArray[Any], int]:
    """The block's labels and the largest of them; raises ``Permanent`` if they are no labels."""
    if scaling is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            raw = raw.astype(np.float64) * scaling[0] + scaling[1]
    if raw.dtype.kind == "f" and not (np.isfinite(raw) & (raw == np.rint(raw))).all():
        raise Permanent("mask-not-integer", "a voxel is not a whole number")
    if raw.dtype.kind != "u" and raw.min() < 0:
        raise Permanent("mask-negative-label", "a voxel is below zero")
    largest = int(raw.max())
    if largest > MAX_LABEL:
        raise Permanent("mask-label-too-large", f"a voxel is above {MAX_LABEL}")
    return raw, largest


def _widened(labels: NDArray[Any], filled: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    wide = np.empty(labels.size, dtype)
    wide[:filled] = labels[:filled]
    return wide
