"""Which pixels a polygon covers, by the pixel-centre rule: a pixel belongs to it when its centre
lies inside or on the outline. Whole numbers are pixel centres, and a line that crosses itself
encloses what it winds around an odd number of times, as in scikit-image's ``polygon2mask``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Permanent

MAX_POINTS = 10_000  # of one line
MAX_COORDINATE = 1e6  # pixels: far outside any picture

_ON_VERTEX = 1e-12  # pixels


def fill(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The (row, column) mask of a picture of ``size`` (width, height); ``points`` are (x, y), the
    last joined to the first. What lies outside the picture is cut off.

    Crossings are counted to both sides of each pixel (O'Rourke, Computational Geometry in C,
    7.4): odd to one side is inside, different parities are on the outline. Raises ``Permanent``
    (``line-unusable``) beyond `MAX_POINTS` and for positions that are not finite or too far away.
    """
    line = checked_points(points)
    width, height = size
    mask = np.zeros((height, width), np.bool_)
    if not len(line):
        return mask
    left, top = (max(0, math.floor(v)) for v in line.min(0))
    right = min(width, math.ceil(line[:, 0].max()) + 1)
    bottom = min(height, math.ceil(line[:, 1].max()) + 1)
    if left < right and top < bottom:
        columns, rows = np.arange(left, right, dtype=float), np.arange(top, bottom, dtype=float)
        mask[top:bottom, left:right] = _covered(line, columns, rows)
    return mask


def checked_points(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """The points as n x 2 numbers; raises ``Permanent`` as `fill`."""
    if len(points) > MAX_POINTS:
        raise Permanent("line-unusable", f"a line has more than {MAX_POINTS} points")
    line = np.asarray(points, np.float64).reshape(-1, 2)
    if not (np.abs(line) <= MAX_COORDINATE).all():  # NaN is not, either
        raise Permanent("line-unusable", f"a line leaves {MAX_COORDINATE:.0f} pixels")
    return line


def _covered(
    line: NDArray[np.float64], columns: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Edge by edge, only over the rows that an edge meets."""
    right = np.zeros((len(rows), len(columns)), np.bool_)  # parities of crossings
    left = np.zeros_like(right)
    for (x0, y0), (x1, y1) in zip(line, np.roll(line, 1, axis=0), strict=True):
        if y0 == y1:
            continue
        start, end = np.searchsorted(rows, (min(y0, y1), max(y0, y1) + 1))
        row = rows[start:end]
        above0, above1 = y0 - row, y1 - row
        # Where the edge meets the row, as seen from each pixel.
        cross = (x0 - columns) * above1[:, None] - (x1 - columns) * above0[:, None]
        meets = cross / (above1 - above0)[:, None]
        right[start:end] ^= ((above0 > 0) != (above1 > 0))[:, None] & (meets > 0)
        left[start:end] ^= ((above0 < 0) != (above1 < 0))[:, None] & (meets < 0)
    covered = right | left
    nearest = np.rint(line)
    for x, y in nearest[(np.abs(line - nearest) < _ON_VERTEX).all(1)]:
        if columns[0] <= x <= columns[-1] and rows[0] <= y <= rows[-1]:
            covered[int(y - rows[0]), int(x - columns[0])] = True
    return covered
