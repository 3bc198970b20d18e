"""The lines of a series as a document: geometry, in pixels and in the patient.

A line is open unless its class is configured as closed. Whole numbers are pixel centres, as in
`polygon.fill`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from consumer.errors import Refused
from consumer.model import FORMAT, ClassRule, Polyline, ViewConvention
from handlers.formats.grid import Grid
from handlers.formats.label_map import grid
from handlers.formats.polygon import checked_points
from handlers.formats.views import DEFAULT, voxels_of

MAX_LINES = 50_000  # of one series
DECIMALS = 4  # of a millimetre


def lines_document(
    lines: Sequence[Polyline],
    place: Grid | Sequence[int] | None,
    *,
    views: Mapping[str, ViewConvention],
    classes: Sequence[ClassRule],
) -> dict[str, Any]:
    """The JSON of a series' lines, in the order given.

    ``pixels`` are (x, y) as the platform gives them, ``patient`` the same points in DICOM patient
    coordinates (LPS, millimetres), null where ``place`` is only a shape, or not known at all.

    Raises ``Refused``: too-many-lines, unknown-group, frame-outside-volume; ``Permanent`` as
    `polygon.fill`.
    """
    if len(lines) > MAX_LINES:
        raise Refused("too-many-lines", f"more than {MAX_LINES} lines in one series")
    closed = {rule.name for rule in classes if rule.closed}
    used = sorted({line.group for line in lines})
    return {
        "format": FORMAT,
        "pixels": "x along columns, y along rows, whole numbers at pixel centres",
        "patient": "DICOM patient coordinates (LPS), millimetres",
        "views": {group: _convention(views.get(group, DEFAULT)) for group in used},
        "lines": [
            {
                "group": line.group,
                "feature": line.feature,
                "frame": line.frame,
                "category": line.category,
                "closed": line.category in closed,
                "pixels": [list(point) for point in line.points],
                "patient": _patient(line, place, views.get(line.group, DEFAULT)),
            }
            for line in lines
        ],
    }


def _patient(
    line: Polyline, place: Grid | Sequence[int] | None, convention: ViewConvention
) -> list[list[float]] | None:
    if place is None:
        return None
    shape = place.shape if isinstance(place, Grid) else grid(place)
    points = checked_points(line.points)
    voxels = voxels_of(points, shape, line.group, convention, line.frame)
    if not isinstance(place, Grid):
        return None
    rounded: list[list[float]] = (np.round(place.patient(voxels), DECIMALS) + 0.0).tolist()
    return rounded


def _convention(convention: ViewConvention) -> dict[str, int | bool]:
    return {
        "frame_base": convention.frame_base,
        "flip_x": convention.flip_x,
        "flip_y": convention.flip_y,
        "flip_frame": convention.flip_frame,
    }
