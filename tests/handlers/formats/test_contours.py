"""Contours give the mask back under every rule of filling: scikit-image fills."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.draw import polygon2mask
from skimage.measure import label

from handlers.formats.contours import INSET, trace

RING = ["######", "#....#", "#.##.#", "#....#", "######"]
SHAPES = {
    "a pixel": ["#"],
    "a line": ["#######"],
    "a diagonal": ["#..", ".#.", "..#"],
    "a solid": ["####", "####", "####"],
    "a ring with an island": RING,
    "two holes in one row": ["#######", "#.#.#.#", "#######"],
    "holes that touch at a corner": ["#####", "#.###", "##.##", "#####"],
    "a ring closed by a corner": ["####", "#..#", "##.#", "#.##"],
    "a hole within an island": ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#",
                                "#######"],
    "steps of holes": ["#######", "###.###", "##.####", "#.##.##", "#######"],
}  # fmt: skip


def mask_of(rows: list[str]) -> NDArray[np.bool_]:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def masks() -> st.SearchStrategy[NDArray[np.bool_]]:
    def draw(seed: tuple[int, int, int, float]) -> NDArray[np.bool_]:
        number, rows, columns, share = seed
        return np.random.default_rng(number).random((rows, columns)) < share

    sides = st.integers(1, 16)
    return st.tuples(
        st.integers(0, 2**32), sides, sides, st.sampled_from([0.1, 0.4, 0.6, 0.8, 0.95])
    ).map(draw)


def filled(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """How many polygons fill each pixel."""
    count = np.zeros(mask.shape, int)
    for polygon in trace(mask):
        count += polygon2mask(mask.shape, polygon[:, ::-1])
    return count


def crossings(polygons: list[NDArray[np.float64]]) -> int:
    """How many pairs of sides, all of which lie along x or y, meet other than end to start."""
    sides = []
    for number, polygon in enumerate(polygons):
        for at, (a, b) in enumerate(zip(polygon, np.roll(polygon, -1, axis=0), strict=True)):
            sides.append((number, at, len(polygon), np.minimum(a, b), np.maximum(a, b)))
    met = 0
    for one in range(len(sides)):
        for other in range(one):
            (n, a, size, low, high), (m, b, _, lower, higher) = sides[one], sides[other]
            neighbours = n == m and (abs(a - b) in (1, size - 1))
            met += not neighbours and bool(((low <= higher) & (lower <= high)).all())
    return met


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_filled_once_and_nothing_else_is(name: str) -> None:
    mask = mask_of(SHAPES[name])
    np.testing.assert_array_equal(filled(mask), mask.astype(int))


@given(masks())
@settings(max_examples=150, deadline=None)
def test_any_mask_is_filled_once_and_nothing_else_is(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(filled(mask), mask.astype(int))


@given(masks())
@settings(max_examples=150, deadline=None)
def test_what_hangs_together_by_edges_is_one_polygon(mask: NDArray[np.bool_]) -> None:
    assert len(trace(mask)) == label(mask, connectivity=1).max()


@pytest.mark.parametrize("name", SHAPES)
def test_no_polygon_touches_itself_or_another(name: str) -> None:
    assert crossings(trace(mask_of(SHAPES[name]))) == 0


@given(masks())
@settings(max_examples=60, deadline=None)
def test_no_border_comes_near_a_pixel_centre(mask: NDArray[np.bool_]) -> None:
    for polygon in trace(mask):
        off = np.abs(polygon - np.rint(polygon))
        np.testing.assert_allclose(off, 0.5 - INSET)


@given(masks())
@settings(max_examples=60, deadline=None)
def test_points_are_corners_only_and_rounded_they_are_pixels_of_the_mask(
    mask: NDArray[np.bool_],
) -> None:
    for polygon in trace(mask):
        steps = np.roll(polygon, -1, axis=0) - polygon
        along_x = np.abs(steps[:, 1]) < 1e-12
        assert (along_x != np.roll(along_x, 1)).all()
        x, y = np.rint(polygon).astype(int).T
        assert mask[y, x].all()


def test_a_shape_at_the_images_border_keeps_its_place() -> None:
    mask = np.zeros((7, 9), np.bool_)
    mask[5:, 6:] = True
    (polygon,) = trace(mask)
    half = 0.5 - INSET
    assert polygon.min(axis=0).tolist() == pytest.approx([6 - half, 5 - half])
    assert polygon.max(axis=0).tolist() == pytest.approx([8 + half, 6 + half])


def test_nothing_drawn_has_no_contour() -> None:
    assert trace(np.zeros((4, 4), np.bool_)) == []
