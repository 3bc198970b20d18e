"""Filled polygons, with scikit-image as the other painter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from consumer.errors import Permanent
from handlers.formats.polygon import MAX_COORDINATE, MAX_POINTS, fill
from tests.seeds import THOROUGH

Points = list[tuple[float, float]]

WHOLE = st.integers(-4, 34).map(float)
HALF = st.integers(-8, 68).map(lambda n: n / 2)
ANY = st.floats(-6, 36)
TINY = st.floats(9, 12)
POINTS = st.one_of(
    *(
        st.lists(st.tuples(number, number), min_size=1, max_size=14)
        for number in (WHOLE, HALF, ANY, TINY, WHOLE | HALF | ANY)
    )
)


@settings(max_examples=10_000 if THOROUGH else 1000, deadline=None)
@given(POINTS, st.integers(1, 30), st.integers(1, 30))
def test_every_polygon_is_filled_as_scikit_image_fills_it(
    points: Points, width: int, height: int
) -> None:
    theirs = polygon2mask((height, width), [(y, x) for x, y in points])

    assert np.array_equal(fill(points, (width, height)), theirs)


def test_a_large_rough_outline_is_filled_alike() -> None:
    random = np.random.default_rng(7)
    angle = np.linspace(0, 2 * math.pi, 3000)
    radius = 180 + random.normal(0, 4, angle.size)
    points = [
        (256 + r * math.cos(a), 200 + r * math.sin(a)) for a, r in zip(angle, radius, strict=True)
    ]

    theirs = polygon2mask((380, 500), [(y, x) for x, y in points])

    assert theirs.sum() > 90_000
    assert np.array_equal(fill(points, (500, 380)), theirs)


def test_points_are_x_then_y() -> None:
    mask = fill([(1, 0), (4, 0), (4, 1), (1, 1)], (6, 3))

    assert np.argwhere(mask[:, 5]).size == 0
    assert mask[0].tolist() == [False, True, True, True, True, False]
    assert mask.sum() == 8


def test_no_points_cover_nothing() -> None:
    assert not fill([], (4, 4)).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, MAX_COORDINATE * 1.01])
def test_a_position_beyond_all_measure_is_refused(bad: float) -> None:
    with pytest.raises(Permanent) as caught:
        fill([(0, 0), (bad, 1)], (4, 4))

    assert caught.value.reason == "line-unusable"


def test_a_line_may_be_so_long_and_no_longer() -> None:
    assert fill([(1.0, 1.0)] * MAX_POINTS, (4, 4)).sum() == 1
    with pytest.raises(Permanent, match=str(MAX_POINTS)):
        fill([(1.0, 1.0)] * (MAX_POINTS + 1), (4, 4))
