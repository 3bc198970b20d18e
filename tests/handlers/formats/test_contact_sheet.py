"""The picture of a mask over its image shows what is there, the right way round."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from consumer.model import LabelCount
from handlers.formats.contact_sheet import MAX_SLICES, contact_sheet
from handlers.formats.label_map import LabelMap

LPS = ((-1.0, 0.0, 0.0, 0.0), (0.0, -1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
RAS = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
RED = np.array([230, 60, 60])
COUNTS = (LabelCount(value=5, voxels=9, category="liver"),)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def corner(
    *, affine: tuple[tuple[float, ...], ...], geometry: str = "sform"
) -> tuple[float, float]:
    """Where in its tile a mask at the array's first corner is shown: (x, y) from 0 to 1."""
    array = np.zeros((40, 40, 1), np.uint8)
    array[2:8, 2:8] = 5
    sheet = contact_sheet(LabelMap(array, affine, geometry), COUNTS, None, title="t")  # type: ignore[arg-type]
    shown = pixels(sheet.png)[50:]  # below the legend
    rows, columns = np.nonzero((shown == RED).all(axis=2))
    return columns.mean() / 220, rows.mean() / 220


def test_the_patients_right_is_at_the_left_and_the_front_at_the_top() -> None:
    assert corner(affine=LPS) == pytest.approx((0.12, 0.12), abs=0.1)
    assert corner(affine=RAS) == pytest.approx((0.88, 0.88), abs=0.12)


def test_a_mask_without_a_place_is_shown_as_it_lies() -> None:
    assert corner(affine=RAS, geometry="pixdim") == pytest.approx((0.12, 0.12), abs=0.1)


def test_slices_with_something_drawn_are_shown() -> None:
    array = np.zeros((8, 8, 50), np.uint8)
    array[2:4, 2:4, 10:14] = 5
    sheet = contact_sheet(LabelMap(array, LPS), COUNTS, None, title="t")
    assert sheet.slices == (10, 11, 12, 13)


def test_no_more_slices_than_wanted_and_of_an_empty_mask_some() -> None:
    empty = LabelMap(np.zeros((8, 8, 200), np.uint8), LPS)
    assert len(contact_sheet(empty, (), None, title="t", slices=500).slices) == MAX_SLICES
    assert contact_sheet(empty, (), None, title="t", slices=3).slices == (0, 100, 199)


def test_the_image_lies_beneath_the_mask() -> None:
    array = np.zeros((40, 40, 1), np.uint8)
    array[10:30, 10:30] = 5
    image = np.full((40, 40, 1), -1000, np.int16)
    image[:20] = 400
    shown = pixels(contact_sheet(LabelMap(array, LPS), COUNTS, image, title="t").png)[50:270]
    assert (shown[20, 40] == 255).all()  # beside the mask, bright
    assert (shown[20, 180] == 0).all()  # and dark
    assert shown[110, 80].tolist() != shown[110, 140].tolist()  # through the mask


def test_an_image_of_nothing_but_nan_is_black() -> None:
    image = np.full((8, 8, 1), np.nan, np.float32)
    assert contact_sheet(LabelMap(np.zeros((8, 8, 1), np.uint8), LPS), (), image, title="t").png


def test_voxels_keep_their_proportions() -> None:
    affine = tuple(tuple(v * (4 if row == 1 else 1) for v in line) for row, line in enumerate(LPS))
    sheet = contact_sheet(LabelMap(np.zeros((40, 20, 1), np.uint8), affine), (), None, title="t")
    width, height = Image.open(io.BytesIO(sheet.png)).size
    assert (width, height - 28) == (320, 224)  # a tile of 110 x 220, at least 320 wide in all


def test_many_classes_and_odd_names_are_no_trouble() -> None:
    array = np.arange(400, dtype=np.uint16).reshape(20, 20, 1)
    counts = tuple(
        LabelCount(value=v, voxels=1, category="\u809d\ud800" * 60) for v in range(1, 400)
    )
    sheet = contact_sheet(LabelMap(array, LPS), counts, None, title="\u0430" * 500)
    assert Image.open(io.BytesIO(sheet.png)).size[1] < 1200
