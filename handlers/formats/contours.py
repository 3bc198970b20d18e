"""A mask of one slice as closed polygons that every reader fills alike.

Polygons run along pixel edges, drawn in by a thousandth of a pixel, so that the centre of every
pixel is well inside or well outside, also after rounding to whole pixels. No two polygons touch
or overlap, and none touches itself: even-odd and non-zero filling, union and exclusive-or give
the same. A hole is joined to the outside by a channel two thousandths of a pixel wide between
two rows of pixel centres (the keyhole technique of DICOM PS3.3 C.8.8.6.3), as readers differ
about contours that lie within each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INSET = 1e-3  # of a pixel

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

# The sides of a pixel in the order in which its border is walked: along its top to the right,
# its right side down, its bottom to the left, its left side up (x along columns, y down rows).
_AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # (x, y) along each side
_OUT = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])  # (x, y) across each side


def trace(mask: Mask) -> list[Points]:
    """The polygons of a (row, column) mask, each n x 2 (x, y) with (0, 0) the centre of the first
    pixel, not closed, without points on a straight line. Pixels that touch only at a corner are
    in different polygons."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return []
    columns = np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    inside = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    cuts = np.zeros_like(inside)  # between a pixel and the one above it
    loops, hole = _loops(inside, cuts)
    if hole.any():
        for loop in (loop for loop, is_hole in zip(loops, hole, strict=True) if is_hole):
            _cut(inside, cuts, loop)
        loops, hole = _loops(inside, cuts)
    first = np.array((left - 1, top - 1))
    return [loop + first for loop in loops]


def _cut(inside: Mask, cuts: Mask, hole: Points) -> None:
    """Cuts from the top left corner of a hole to the left, until the next hole or the outside:
    nothing else of this hole is further left, so cuts never form a ring."""
    leftmost = hole[np.lexsort((hole[:, 1], hole[:, 0]))][0]
    row, column = int(np.ceil(leftmost[1])), int(np.floor(leftmost[0]))
    while inside[row, column] and inside[row - 1, column]:
        cuts[row, column] = True
        column -= 1


def _loops(inside: Mask, cuts: Mask) -> tuple[list[Points], Mask]:
    """The borders of the pixels inside, and which of them are of holes."""
    following, corners = _walk(inside, cuts)
    loops, holes = [], []
    seen = bytearray(len(following))
    for start in range(len(following)):
        if seen[start]:
            continue
        walked, side = [], start
        while not seen[side]:
            seen[side] = 1
            walked.append(side)
            side = following[side]
        points = corners[walked]
        loops.append(points[~np.isnan(points[:, 0])])
        holes.append(_area(loops[-1]) < 0)
    return loops, np.array(holes, np.bool_)


def _walk(inside: Mask, cuts: Mask) -> tuple[list[int], Points]:
    """For every pixel side that is border: which border side follows, and the polygon's point
    between the two, not a number where they lie on one line.

    Walking with the inside on the right: where the way ahead is closed, turn right around this
    pixel; where the pixel ahead has the same side closed, go straight; else turn left. So pixels
    that touch at a corner stay apart.
    """
    width = inside.shape[1]
    border = _borders(inside, cuts).reshape(4, -1)
    side, pixel = np.nonzero(border)
    number = np.zeros(border.shape, np.intp)
    number[side, pixel] = np.arange(side.size)
    ahead, out = _AHEAD[side], _OUT[side]
    step, across = ahead @ (1, width), out @ (1, width)
    right = border[(side + 1) % 4, pixel]
    straight = ~right & border[side, np.where(right, pixel, pixel + step)]
    left = ~right & ~straight
    next_side = (side + right + 3 * left) % 4
    next_pixel = pixel + np.where(right, 0, step) + np.where(left, across, 0)
    centre = np.column_stack((pixel % width, pixel // width)) + np.where(left[:, None], ahead, 0)
    corners = centre + (0.5 - INSET) * (out + np.where(left[:, None], -ahead, ahead))
    corners[straight] = np.nan
    return number[next_side, next_pixel].tolist(), corners


def _borders(inside: Mask, cuts: Mask) -> Mask:
    """Whether each of the four sides of each pixel is border; the margin is outside."""
    border = np.zeros((4, *inside.shape), np.bool_)
    border[0, 1:] = inside[1:] & (~inside[:-1] | cuts[1:])
    border[1, :, :-1] = inside[:, :-1] & ~inside[:, 1:]
    border[2, :-1] = inside[:-1] & (~inside[1:] | cuts[1:])
    border[3, :, 1:] = inside[:, 1:] & ~inside[:, :-1]
    return border


def _area(points: Points) -> float:
    """Positive where the polygon is walked with its inside on the right, y pointing down."""
    x, y = points.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
