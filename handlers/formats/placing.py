"""A label map on the very grid of its image: the same voxels, or none. Nothing is resampled.

A label map that is placed has its image's shape and affine by construction, so the two are equal
to the last bit.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Refused
from handlers.formats.grid import Grid
from handlers.formats.label_map import Affine, LabelMap

TOLERANCE_MM = 1e-3

Shape = tuple[int, int, int]


def placed(label_map: LabelMap, grid: Grid, *, tolerance_mm: float = TOLERANCE_MM) -> LabelMap:
    """The label map with ``grid``'s shape and affine, its voxels where they were.

    Its axes may be in another order, or run the other way round. Raises ``Refused``
    (``geometry-mismatch``) with the largest distance between the corners of both, in millimetres,
    where that is over ``tolerance_mm``, and for a label map that does not tell where it lies.
    """
    if label_map.geometry == "pixdim":
        raise Refused(
            "geometry-mismatch",
            "the mask tells the sizes of its voxels only, not where they lie",
            shape=label_map.shape,
        )
    turned = _turned(label_map, grid) or label_map
    distance = _corner_distance_mm(turned, grid)
    if turned.shape != grid.shape or distance > tolerance_mm:
        sizes = f"the mask's {_text(label_map.shape)} voxels are not the image's"
        said = f"{sizes} {_text(grid.shape)}" if turned.shape != grid.shape else f"{sizes} own"
        raise Refused(
            "geometry-mismatch",
            f"{said}: their corners are up to {distance:.4g} mm apart",
            shape=label_map.shape,
        )
    return LabelMap(turned.array, grid.affine)


def _turned(label_map: LabelMap, grid: Grid) -> LabelMap | None:
    """With its axes along the grid's, as nearly as they can be; None where two of its axes are
    nearest to the same one of the grid's."""
    own = np.asarray(label_map.affine, np.float64)
    across = np.linalg.inv(np.asarray(grid.affine, np.float64))[:3, :3] @ own[:3, :3]
    # Each of our axes in the grid's voxels, by its share along each of the grid's axes.
    across = across / np.abs(across).sum(axis=0)
    axes = np.abs(across).argmax(axis=0)  # the grid's axis, by ours
    if sorted(axes.tolist()) != [0, 1, 2]:
        return None
    ours = [int(np.flatnonzero(axes == axis)[0]) for axis in range(3)]  # ours, by the grid's
    backwards = [bool(across[axis, mine] < 0) for axis, mine in enumerate(ours)]
    if ours == [0, 1, 2] and not any(backwards):
        return label_map
    steps = tuple(slice(None, None, -1 if turn else 1) for turn in backwards)
    array = np.asfortranarray(label_map.array.transpose(ours)[steps])
    to_own = np.zeros((4, 4))
    to_own[3, 3] = 1
    for axis, (mine, turn) in enumerate(zip(ours, backwards, strict=True)):
        to_own[mine, axis] = -1 if turn else 1
        to_own[mine, 3] = label_map.shape[mine] - 1 if turn else 0
    affine = tuple(tuple(float(value) for value in row) for row in own @ to_own)
    return LabelMap(array, affine)


def _corner_distance_mm(label_map: LabelMap, grid: Grid) -> float:
    apart = _corners(label_map.shape, label_map.affine) - _corners(grid.shape, grid.affine)
    return float(np.sqrt((apart**2).sum(axis=1)).max())


def _corners(shape: Shape, affine: Affine) -> NDArray[np.float64]:
    """The outer corners of the outermost voxels, in millimetres, 8 x 3: a single slice has a
    thickness, too."""
    matrix = np.asarray(affine, np.float64)
    corners = np.array(list(itertools.product(*((-0.5, size - 0.5) for size in shape))))
    placed_at: NDArray[np.float64] = corners @ matrix[:3, :3].T + matrix[:3, 3]
    return placed_at


def _text(shape: Shape) -> str:
    return " x ".join(str(size) for size in shape)
