"""Lines as geometry: in pixels, and in the patient."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from consumer.demo.phantom import Phantom
from consumer.errors import Permanent, Refused
from consumer.model import ClassRule, Polyline, ViewConvention
from handlers.formats import polylines
from handlers.formats.grid import Grid
from handlers.formats.polylines import lines_document
from tests.handlers.formats.frame_samples import EVERY, GROUPS, pictures

PHANTOM = Phantom(shape=(9, 8, 7))
GRID = Grid(PHANTOM.shape, PHANTOM.affine)


def line(**given: Any) -> Polyline:
    about: dict[str, Any] = {
        "group": "Axial",
        "feature": "f",
        "frame": 3,
        "category": "axis",
        "points": ((1.25, 2.5), (3.0, 4.0)),
    }
    return Polyline(**{**about, **given})


def document(*lines: Polyline, **given: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"views": {}, "classes": (), **given}
    return lines_document(lines, options.pop("place", GRID), **options)


def test_a_line_tells_all_that_is_known_of_it() -> None:
    (told,) = document(line())["lines"]

    assert told["pixels"] == [[1.25, 2.5], [3.0, 4.0]]
    assert (told["group"], told["feature"], told["frame"]) == ("Axial", "f", 3)
    assert (told["category"], told["closed"]) == ("axis", False)


def test_points_lie_in_the_patient_where_the_scanner_says() -> None:
    """LPS by the phantom's own origin and spacing: slice 2 is frame 3."""
    (told,) = document(line())["lines"]
    (x, y, z), (dx, dy, dz) = PHANTOM.origin, PHANTOM.spacing

    assert told["patient"] == [
        [x + 1.25 * dx, y + 2.5 * dy, z + 2 * dz],
        [x + 3 * dx, y + 4 * dy, z + 2 * dz],
    ]


@pytest.mark.parametrize("convention", EVERY, ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_a_pixel_and_its_voxel_are_one_place(group: str, convention: ViewConvention) -> None:
    voxel = (2, 5, 1)
    volume = np.zeros(GRID.shape, np.bool_)
    volume[voxel] = True
    ((frame, picture),) = pictures(volume, group, convention).items()
    ((row, column),) = np.argwhere(picture)

    (told,) = document(
        line(group=group, frame=frame, points=((float(column), float(row)),)),
        views={group: convention},
    )["lines"]

    expected = [o + n * s for o, n, s in zip(PHANTOM.origin, voxel, PHANTOM.spacing, strict=True)]
    assert told["patient"] == [expected]


def test_only_lines_of_classes_configured_as_closed_are_closed() -> None:
    classes = (ClassRule(name="axis", value=1, closed=True), ClassRule(name="duct", value=2))

    told = document(line(), line(category="duct"), line(category=None), classes=classes)["lines"]

    assert [one["closed"] for one in told] == [True, False, False]


def test_without_geometry_there_are_pixels_only() -> None:
    (told,) = document(line(), place=(9, 8, 7))["lines"]

    assert told["patient"] is None
    assert told["pixels"]


def test_the_conventions_by_which_points_were_placed_are_told() -> None:
    made = document(line(group="Coronal"), views={"Coronal": ViewConvention(frame_base=0)})

    assert made["views"]["Coronal"]["frame_base"] == 0
    assert json.loads(json.dumps(made)) == made


def test_a_line_on_a_frame_outside_the_volume_is_refused() -> None:
    with pytest.raises(Refused, match="frame 8"):
        document(line(frame=8))


def test_a_line_in_another_group_is_refused() -> None:
    with pytest.raises(Refused, match="Oblique"):
        document(line(group="Oblique"))


def test_a_line_that_is_not_finite_is_refused() -> None:
    with pytest.raises(Permanent):
        document(line(points=((float("nan"), 0.0),)))


def test_a_series_may_have_so_many_lines_and_no_more() -> None:
    short = line(points=((1.0, 1.0),))

    assert len(document(*[short] * polylines.MAX_LINES, place=(9, 8, 7))["lines"])
    with pytest.raises(Refused, match="lines in one series"):
        document(*[short] * (polylines.MAX_LINES + 1))
