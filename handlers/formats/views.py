"""How the pictures of a group (Axial, Sagittal, Coronal) lie in a volume of (i, j, k).

`ViewConvention` says in words what `plane_of` does in code: the picture's pixels are a window
into the volume's array, so what is written there is written into the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Refused
from consumer.model import ViewConvention

Shape = tuple[int, int, int]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class View:
    """Which axis of (i, j, k) a group's frames, x and y count."""

    frame: int
    x: int
    y: int


VIEWS = {
    "Axial": View(frame=2, x=0, y=1),
    "Sagittal": View(frame=0, x=1, y=2),
    "Coronal": View(frame=1, x=0, y=2),
}
DEFAULT = ViewConvention()


def view_of(group: str | None) -> View:
    """Raises ``Refused`` (unknown-group): how other groups' pictures lie, nobody has said."""
    view = VIEWS.get(group or "")
    if view is None:
        known = ", ".join(VIEWS)
        raise Refused("unknown-group", f"the group {group!r:.60} is none of {known}")
    return view


def picture_size(shape: Shape, group: str) -> tuple[int, int]:
    """(width, height) that every picture of the group must have."""
    view = view_of(group)
    return shape[view.x], shape[view.y]


def check_size(size: tuple[int, int], shape: Shape, group: str, frame: int) -> None:
    """Raises ``Refused`` (picture-wrong-size) with both sizes: nothing is ever resized."""
    wanted = picture_size(shape, group)
    if size != wanted:
        raise Refused(
            "picture-wrong-size",
            f"{group} frame {frame} is {size[0]} x {size[1]} pixels, the volume's plane "
            f"{wanted[0]} x {wanted[1]}",
            shape=shape,
        )


def frame_index(shape: Shape, group: str, convention: ViewConvention, frame: int) -> int:
    """The voxel index that a frame has along the group's frame axis.

    Raises ``Refused`` (frame-outside-volume) with the numbers.
    """
    size = shape[view_of(group).frame]
    index = frame - convention.frame_base
    if not 0 <= index < size:
        first, last = convention.frame_base, convention.frame_base + size - 1
        raise Refused(
            "frame-outside-volume",
            f"{group} frame {frame} is outside the volume, whose {size} frames "
            f"count from {first} to {last}",
            shape=shape,
        )
    return size - 1 - index if convention.flip_frame else index


def plane_of(array: NDArray[T], group: str, convention: ViewConvention, frame: int) -> NDArray[T]:
    """The (row, column) pixels of a frame as a window into the (i, j, k) array.

    Raises ``Refused``: unknown-group, frame-outside-volume.
    """
    i, j, k = array.shape
    place: list[Any] = [slice(None)] * 3
    place[view_of(group).frame] = frame_index((i, j, k), group, convention, frame)
    # Of the two axes left, x always comes first.
    plane: NDArray[T] = array[tuple(place)].T
    if convention.flip_x:
        plane = plane[:, ::-1]
    return plane[::-1] if convention.flip_y else plane


def voxels_of(
    points: NDArray[np.float64],
    shape: Shape,
    group: str,
    convention: ViewConvention,
    frame: int,
) -> NDArray[np.float64]:
    """Voxel indices (i, j, k), n x 3 and with fractions, of n pixel positions (x, y) in a frame;
    whole numbers are the centres of pixels and of voxels. Raises ``Refused`` as `plane_of`."""
    view = view_of(group)
    voxels = np.empty((len(points), 3))
    voxels[:, view.frame] = frame_index(shape, group, convention, frame)
    for axis, position, flip in (
        (view.x, points[:, 0], convention.flip_x),
        (view.y, points[:, 1], convention.flip_y),
    ):
        voxels[:, axis] = shape[axis] - 1 - position if flip else position
    return voxels
