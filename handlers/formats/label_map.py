"""A label map: one whole number for each voxel, and where the voxels lie.

Holding a `LabelMap` proves that its labels are whole, at least 0 and below 2**32, stored in the
smallest type that holds them, and that its affine is finite and invertible.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Permanent
from consumer.model import LabelCount, Segment

Affine = tuple[tuple[float, ...], ...]
Geometry = Literal["sform", "qform", "pixdim"]

MAX_LABEL = 2**32 - 1
MAX_SIDE = 2**15 - 1  # a NIfTI-1 dimension is a signed 16-bit number
MAX_VOXELS = 1 << 30
MAX_DISTINCT = 2**16  # labels of one map

_BLOCK = 1 << 20  # voxels counted at a time
_NAMED = 5  # unknown values that an error names


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """``array`` is (i, j, k) = (column, row, slice): uint8, uint16 or uint32, not writeable.

    ``affine`` is 4 x 4, voxel index to RAS+ millimetres, rounded to float32 (what NIfTI-1 keeps).
    ``geometry`` is where it came from; ``pixdim`` means that the source told only voxel sizes, so
    position and orientation are unknown.
    """

    array: NDArray[Any]
    affine: Affine
    geometry: Geometry = "sform"

    def __post_init__(self) -> None:
        array = _narrowest(self.array).view()
        array.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", rounded(self.affine))

    @property
    def shape(self) -> tuple[int, int, int]:
        i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel along i, j and k."""
        x, y, z = self.affine[:3]
        i, j, k = (math.sqrt(x[a] * x[a] + y[a] * y[a] + z[a] * z[a]) for a in range(3))
        return i, j, k


def empty_label_map(dimensions: Sequence[int], affine: Affine | None) -> LabelMap:
    """Nothing drawn, on a grid of (columns, rows[, slices]); without an affine, of 1 mm voxels
    whose place is unknown. Raises ``Permanent`` for a grid that no NIfTI-1 file can have."""
    shape = grid(dimensions)
    if affine is None:
        unit = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))
        return LabelMap(np.zeros(shape, np.uint8, order="F"), unit, "pixdim")
    return LabelMap(np.zeros(shape, np.uint8, order="F"), affine)


def grid(dimensions: Sequence[int]) -> tuple[int, int, int]:
    """(i, j, k) of dimensions with one slice or trailing ones left out or added.

    Raises ``Permanent`` for fewer than two or more than three of them, and outside the limits.
    """
    if len(dimensions) < 2 or any(size != 1 for size in dimensions[3:]):
        raise Permanent("mask-not-a-volume", f"dimensions {_text(dimensions)} are no volume")
    i, j, k = (*dimensions[:3], 1)[:3]
    if not all(1 <= size <= MAX_SIDE for size in (i, j, k)) or i * j * k > MAX_VOXELS:
        raise Permanent("mask-too-large", f"dimensions {_text(dimensions)} are out of bounds")
    return i, j, k


def count_labels(label_map: LabelMap, segments: Sequence[Segment]) -> tuple[LabelCount, ...]:
    """How many voxels each value but 0 has, ascending, with the category of its segment.

    A value by which segments overlap is counted as itself and has no category of its own; a
    segment that has no other voxels is told with none. Raises ``Permanent``
    (``mask-too-many-labels``) beyond 65,536 of them.
    """
    known = {segment.value: segment for segment in reversed(segments)}
    voxels = {value: count for value, count in _voxels_by_value(label_map.array) if value}
    shared = {one.value: 0 for one in segments if not voxels.keys().isdisjoint(one.overlaps)}
    return tuple(
        LabelCount(
            value=value,
            voxels=count,
            category=known[value].category if value in known else None,
            overlaps=known[value].overlaps if value in known else (),
        )
        for value, count in sorted({**shared, **voxels}.items())
        if value
    )


def check_label_map(
    label_map: LabelMap, segments: Sequence[Segment], dimensions: Sequence[int] | None
) -> tuple[LabelCount, ...]:
    """The label counts of a mask that fits its series; `None` dimensions are not compared.

    Raises ``Permanent``: ``mask-wrong-dimensions``, or ``mask-unknown-label`` for a voxel value
    that is neither a segment nor one of a segment's overlaps.
    """
    if dimensions is not None and grid(dimensions) != label_map.shape:
        raise Permanent(
            "mask-wrong-dimensions",
            f"the mask has {_text(label_map.shape)} voxels, its series {_text(dimensions)}",
        )
    counts = count_labels(label_map, segments)
    known = {value for s in segments for value in (s.value, *s.overlaps)}
    unknown = [count for count in counts if count.value not in known]
    if unknown:
        named = ", ".join(f"{c.value} ({c.voxels} voxels)" for c in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise Permanent("mask-unknown-label", f"no segment has the value {named}{more}")
    return counts


def smallest_type(largest: int) -> np.dtype[Any]:
    """The smallest of uint8, uint16 and uint32 that holds labels up to ``largest``."""
    return np.dtype(np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.uint32)


def _voxels_by_value(array: NDArray[Any]) -> list[tuple[int, int]]:
    """Ascending (value, voxels): by counting where the type is small, by sorting where not."""
    if array.dtype.itemsize < 4:
        sums = np.zeros(2 ** (8 * array.dtype.itemsize))  # exact: far below 2**53
        for values, lengths in _runs(array):
            sums += np.bincount(values, weights=lengths, minlength=sums.size)
        return [(int(value), int(sums[value])) for value in np.flatnonzero(sums)]
    total: dict[int, int] = {}
    for values, lengths in _runs(array):
        distinct, places = np.unique(values, return_inverse=True)
        counts = np.bincount(places, weights=lengths).astype(np.int64)
        for value, voxels in zip(distinct.tolist(), counts.tolist(), strict=True):
            total[value] = total.get(value, 0) + voxels
        if len(total) > MAX_DISTINCT:
            raise Permanent("mask-too-many-labels", f"more than {MAX_DISTINCT} labels in one mask")
    return sorted(total.items())


def _runs(array: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Values and lengths of runs of equal voxels, which are far fewer than voxels; block by
    block, so that it takes no memory of the array's size."""
    flat = array.reshape(-1, order="A")
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        starts = np.concatenate(([0], np.flatnonzero(block[1:] != block[:-1]) + 1))
        yield block[starts], np.diff(starts, append=block.size)


def _narrowest(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 3 or array.dtype.kind not in "bui":
        raise Permanent("mask-not-a-volume", "a label map is three-dimensional and of integers")
    if array.dtype.kind == "i" and array.min(initial=0) < 0:
        raise Permanent("mask-negative-label", "a voxel is below zero")
    if array.dtype == np.uint8:
        return array
    largest = int(array.max(initial=0))
    if largest > MAX_LABEL:
        raise Permanent("mask-label-too-large", f"a voxel is above {MAX_LABEL}")
    return array.astype(smallest_type(largest), order="K", copy=False)


def rounded(affine: Affine) -> Affine:
    """To float32, with no negative zeros, so that equal geometry has one form."""
    with np.errstate(over="ignore"):
        matrix = np.asarray(affine, np.float64).astype(np.float32).astype(np.float64) + 0.0
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise Permanent("mask-bad-geometry", "the affine is not 4 x 4 finite numbers")
    if not np.array_equal(matrix[3], (0, 0, 0, 1)) or not _invertible(matrix):
        raise Permanent("mask-bad-geometry", "the affine does not place voxels in space")
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _invertible(matrix: NDArray[np.float64]) -> bool:
    """Whether the voxel axes span a volume: of unit axes, over a millionth of a cube."""
    lengths = np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    if not (lengths > 0).all():
        return False
    return bool(abs(np.linalg.det(matrix[:3, :3] / lengths)) > 1e-6)


def _text(dimensions: Sequence[int]) -> str:
    return " x ".join(str(size) for size in dimensions[:8])
