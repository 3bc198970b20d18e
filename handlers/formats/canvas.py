"""One volume into which objects are laid, one after another; where they meet, the later wins.

The array holds each object's number in order, and only at the end its value, so that voxels which
several objects claimed are counted even where the objects share a value. Beside it there is at
most one byte for each voxel, and none as long as nothing overlaps and no object is seen twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.formats.label_map import smallest_type
from handlers.formats.views import Shape

Window = Callable[[NDArray[Any]], NDArray[Any]]  # a view of a part of a volume
_CONTESTED = np.uint8(0x80)  # a mark; the others are the groups' in which an object was seen


class Canvas:
    """``array`` is (i, j, k) in Fortran order; ``marks`` likewise, of uint8, made when needed."""

    def __init__(self, shape: Shape, values: Sequence[int]) -> None:
        """``values`` are the objects' voxel values, in the order in which they will be laid."""
        self._values = values
        dtype = smallest_type(max([len(values), *values]))
        self.array: NDArray[Any] = np.zeros(shape, dtype, order="F")
        self._marks: NDArray[np.uint8] | None = None

    @property
    def marks(self) -> NDArray[np.uint8]:
        if self._marks is None:  # the system gives pages only where something is written
            self._marks = np.zeros(self.array.shape, np.uint8, order="F")
        return self._marks

    def lay(self, position: int, window: Window, mask: NDArray[np.bool_]) -> None:
        """Gives an object the voxels where ``mask`` is set, in a window of its shape."""
        number = position + 1
        place = window(self.array)
        before = place[mask]
        taken = (before != 0) & (before != number)
        if taken.any():
            contested = np.zeros(mask.shape, np.bool_)
            contested[mask] = taken
            window(self.marks)[contested] |= _CONTESTED
        place[mask] = number

    def finish(self) -> tuple[NDArray[Any], tuple[int, ...], int]:
        """The label map's array, the voxels that each object kept, and how many voxels more than
        one object claimed. The canvas is used up."""
        voxels = np.zeros(len(self._values) + 1, np.int64)
        values = np.array([0, *self._values], self.array.dtype)
        overlaps = 0
        for k in range(self.array.shape[2]):
            plane = self.array[:, :, k]
            voxels += np.bincount(plane.ravel(order="K"), minlength=len(voxels))
            plane[...] = values[plane]
            if self._marks is not None:
                overlaps += int(np.count_nonzero(self._marks[:, :, k] & _CONTESTED))
        self._marks = None
        return self.array, tuple(voxels[1:].tolist()), overlaps
