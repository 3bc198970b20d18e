"""A voxel grid in space: what an image and the label maps drawn on it have in common.

An image and its label map are placed by one `Grid`, so their shape and affine are equal by
construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handlers.formats.label_map import Affine, rounded


@dataclass(frozen=True, slots=True)
class Grid:
    """``shape`` is (i, j, k) = (columns, rows, slices); ``affine`` is 4 x 4, voxel index to RAS+
    millimetres, rounded to float32 (what NIfTI-1 keeps). Raises ``Permanent`` for an affine that
    is not finite or does not span a volume."""

    shape: tuple[int, int, int]
    affine: Affine

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", rounded(self.affine))

    def patient(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """DICOM patient coordinates (LPS, millimetres), n x 3, of n voxel indices (i, j, k)."""
        matrix = np.asarray(self.affine, np.float64)
        ras = voxels @ matrix[:3, :3].T + matrix[:3, 3]
        lps: NDArray[np.float64] = ras * np.array([-1.0, -1.0, 1.0])
        return lps
