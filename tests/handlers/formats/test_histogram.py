"""The picture of a snapshot: a bar for each class and part, as long as its value."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from handlers.formats.histogram import MAX_CLASSES, Bars, histogram, spoken

BLUE, ORANGE = (55, 110, 190), (235, 140, 50)


def pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def lengths(png: bytes, colour: tuple[int, int, int]) -> list[int]:
    """The widths of the colour's bars, from top to bottom, without the legend."""
    rows = (pixels(png) == colour).all(axis=2).sum(axis=1)[80:]
    starts = np.flatnonzero((rows[1:] > 0) & (rows[:-1] == 0)) + 1
    return [int(rows[start]) for start in starts]


def test_a_bar_is_as_long_as_its_value() -> None:
    values = {"liver": {"train": 40, "test": 10}, "spleen": {"train": 20}}
    png = histogram("lungs", ["train", "test"], [Bars("tasks", values)])
    liver, spleen = lengths(png, BLUE)
    assert liver == pytest.approx(2 * spleen, abs=3)
    (test,) = lengths(png, ORANGE)
    assert liver == pytest.approx(4 * test, abs=5)


def test_equal_counts_give_equal_pictures() -> None:
    values = {"liver": {"train": 40}, "spleen": {"train": 20}}
    one = histogram("t", ["train"], [Bars("tasks", values)])
    assert one == histogram("t", ["train"], [Bars("tasks", dict(reversed(values.items())))])
    assert one != histogram("t", ["train"], [Bars("tasks", {**values, "spleen": {"train": 21}})])


def test_on_a_wide_axis_the_small_can_be_seen_beside_the_large() -> None:
    values = {"liver": {"train": 10**9}, "nodule": {"train": 10}}
    plain = lengths(histogram("t", ["train"], [Bars("voxels", values)]), BLUE)
    wide = lengths(histogram("t", ["train"], [Bars("voxels", values, wide=True)]), BLUE)
    assert plain[1] <= 2
    assert wide[1] > 30
    assert wide[0] > 4 * wide[1]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"liver": {}},
        {"liver": {"train": 0}},
        {"liver": {"train": 1}},
        {"\x00\n中文 " + "x" * 5000: {"train": 10**18}},
    ],
)
@pytest.mark.parametrize("wide", [True, False])
def test_whatever_is_counted_there_is_a_picture(
    values: dict[str, dict[str, int]], wide: bool
) -> None:
    png = histogram("t" * 5000, ["train"], [Bars("voxels", values, wide=wide)])
    height, width, _ = pixels(png).shape
    assert 100 < height < 300
    assert 400 < width < 800


def test_more_classes_than_fit_are_told_and_the_rarest_left_out() -> None:
    def shape(count: int) -> tuple[int, ...]:
        values = {f"class {n}": {"train": n + 1} for n in range(count)}
        return pixels(histogram("t", ["train"], [Bars("tasks", values)])).shape

    assert shape(MAX_CLASSES) == shape(500)
    assert shape(MAX_CLASSES - 1)[0] < shape(500)[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (1200, "1.2k"), (34_000_000, "34M"), (999_999, "1000k"),
     (5 * 10**12, "5T")],
)  # fmt: skip
def test_numbers_are_short(value: int, text: str) -> None:
    assert spoken(value) == text
