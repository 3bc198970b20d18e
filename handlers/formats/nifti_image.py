"""Images as NIfTI: stored values become those of the modality's unit, in the smallest type that
holds them, and are packed slab by slab.

Equal pixels in an equal place give equal bytes. An image and a label map on one `Grid` have the
same shape and affine, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from consumer.errors import Refused
from handlers.formats.grid import Grid
from handlers.formats.nifti_header import data_type_code, volume_header

Scaling = tuple[float, float]  # slope, intercept

_SLAB = 4 * 1024 * 1024  # voxels' bytes converted and packed at a time
_WHOLE_IN_FLOAT32 = 2**24  # above, not every whole number has a float32
_INTEGERS = (np.int16, np.uint16, np.int32, np.uint32)  # in order of preference


@dataclass(frozen=True, slots=True)
class Values:
    """How stored values become those of the file: a slope and an intercept for each frame, and
    the type of the result."""

    scalings: tuple[Scaling, ...]
    dtype: np.dtype[Any]


def values_of(scalings: Sequence[Scaling], ranges: NDArray[np.int64]) -> Values:
    """``ranges`` is the least and the largest stored value of each frame.

    One whole slope and intercept give whole numbers: int16 where they fit, else the smallest
    type that does. Everything else is float32, or float64 where that would lose a whole number.
    Raises ``Refused`` (``bad-rescale``) for values beyond any type.
    """
    slopes, intercepts = np.array(scalings, np.float64).T
    ends = ranges * slopes[:, None] + intercepts[:, None]
    least, largest = float(ends.min()), float(ends.max())
    if not max(-least, largest) < float(np.finfo(np.float32).max):
        raise Refused("bad-rescale", f"rescaled values from {least:g} to {largest:g}")
    whole = bool((slopes == np.rint(slopes)).all() and (intercepts == np.rint(intercepts)).all())
    alike = len(set(scalings)) == 1
    return Values(tuple(scalings), _type(least, largest, whole=whole, alike=alike))


def write_image(
    out: BinaryIO, grid: Grid, array: NDArray[Any], values: Values, *, times: int = 1
) -> None:
    """A ``.nii.gz`` of ``array``, (time x slice, row, column): NIfTI-1, little endian, no time
    and no name in the gzip header."""
    pack = isal_zlib.compressobj(level=1, wbits=31)
    code = data_type_code(values.dtype)
    out.write(pack.compress(volume_header(grid.shape, grid.affine, code, times=times)))
    at_once = max(1, _SLAB // (array[0].size * values.dtype.itemsize))
    for start in range(0, len(array), at_once):
        scalings = values.scalings[start : start + at_once]
        slab = _scaled(array[start : start + at_once], scalings, values.dtype)
        out.write(pack.compress(slab.data))
    out.write(pack.flush())


def _type(least: float, largest: float, *, whole: bool, alike: bool) -> np.dtype[Any]:
    if whole and alike:
        for integer in _INTEGERS:
            if np.iinfo(integer).min <= least and largest <= np.iinfo(integer).max:
                return np.dtype(integer)
    exact = not whole or max(-least, largest) <= _WHOLE_IN_FLOAT32
    return np.dtype(np.float32 if exact else np.float64)


def _scaled(slab: NDArray[Any], scalings: Sequence[Scaling], dtype: np.dtype[Any]) -> NDArray[Any]:
    little = dtype.newbyteorder("<")
    if set(scalings) == {(1.0, 0.0)}:
        return np.ascontiguousarray(slab, little)
    if dtype.kind in "iu":
        slope, intercept = (int(value) for value in scalings[0])
        return _scaled_whole(slab, slope, intercept, little)
    slopes, intercepts = np.array(scalings, np.float64).T[:, :, None, None]
    return np.ascontiguousarray(slab * slopes + intercepts, little)


def _scaled_whole(
    slab: NDArray[Any], slope: int, intercept: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """All results fit, so that wrapping sums are right: modulo two to the type's bits."""
    bits = np.dtype(f"u{dtype.itemsize}")
    modulus = 1 << (8 * dtype.itemsize)
    result = slab.astype(bits)
    if slope != 1:
        result *= bits.type(slope % modulus)
    result += bits.type(intercept % modulus)
    return np.ascontiguousarray(result.view(dtype.newbyteorder("=")), dtype)
