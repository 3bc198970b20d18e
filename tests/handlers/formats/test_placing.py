"""A mask on its image's grid: exactly there, turned without loss, or refused with the distance."""

from __future__ import annotations

import itertools
import re
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.errors import Refused
from handlers.formats.grid import Grid
from handlers.formats.label_map import LabelMap
from handlers.formats.placing import placed

SHAPE = (7, 5, 4)
OBLIQUE = np.array(
    [
        [-0.68, 0.1, 0.6, 90.5],
        [0.05, -0.73, 0.5, 126.25],
        [0.31, 0.14, 2.4, -72.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
VOXELS = np.arange(7 * 5 * 4, dtype=np.uint8).reshape(SHAPE)


def affine_of(matrix: NDArray[Any]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


GRID = Grid(SHAPE, affine_of(OBLIQUE))


def mismatch(label_map: LabelMap, grid: Grid = GRID) -> Refused:
    with pytest.raises(Refused) as caught:
        placed(label_map, grid)
    assert caught.value.reason == "geometry-mismatch"
    assert caught.value.shape == label_map.shape
    return caught.value


def distance_mm(refused: Refused) -> float:
    found = re.search(r"([0-9.e+]+) mm apart", refused.message)
    assert found
    return float(found[1])


def moved(by_mm: float) -> LabelMap:
    matrix = OBLIQUE.copy()
    matrix[2, 3] += by_mm
    return LabelMap(VOXELS, affine_of(matrix))


def test_a_mask_within_the_tolerance_takes_the_image_s_affine_to_the_bit() -> None:
    got = placed(moved(0.0009), GRID)
    assert got.affine == GRID.affine
    assert np.array_equal(got.array, VOXELS)


def test_a_mask_beyond_the_tolerance_is_refused_with_the_distance() -> None:
    assert distance_mm(mismatch(moved(0.0011))) == pytest.approx(0.0011, rel=0.02)
    assert distance_mm(mismatch(moved(7.5))) == pytest.approx(7.5, rel=1e-3)
    assert placed(moved(7.5), GRID, tolerance_mm=8).affine == GRID.affine


def test_a_turn_that_moves_only_far_corners_is_refused() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.001), -np.sin(0.001)], [np.sin(0.001), np.cos(0.001)]]
    refused = mismatch(LabelMap(VOXELS, affine_of(turn @ OBLIQUE)))
    assert 0.001 < distance_mm(refused) < 1


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_axes_in_any_order_and_direction_are_turned_without_loss(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    image = nibabel.Nifti1Image(VOXELS, OBLIQUE)
    turned = image.as_reoriented(np.array(list(zip(order, flips, strict=True))))
    given = LabelMap(np.asanyarray(turned.dataobj), affine_of(turned.affine), "qform")
    got = placed(given, GRID)
    assert got.affine == GRID.affine
    assert got.geometry == "sform"
    assert np.array_equal(got.array, VOXELS)


def test_a_mask_of_another_shape_is_refused_naming_both() -> None:
    refused = mismatch(LabelMap(VOXELS[:, :, :3], affine_of(OBLIQUE)))
    assert "7 x 5 x 3 voxels are not the image's 7 x 5 x 4" in refused.message
    assert distance_mm(refused) == pytest.approx(np.linalg.norm(OBLIQUE[:3, 2]), rel=1e-3)


def test_a_mask_whose_place_is_unknown_is_refused_even_where_it_would_fit() -> None:
    refused = mismatch(LabelMap(VOXELS, affine_of(OBLIQUE), "pixdim"))
    assert "not where they lie" in refused.message


def test_a_mask_of_finer_voxels_is_refused_and_not_resampled() -> None:
    fine = OBLIQUE @ np.diag([0.5, 0.5, 1, 1])
    mismatch(LabelMap(np.zeros((14, 10, 4), np.uint8), affine_of(fine)))


def test_a_mask_that_fills_the_same_box_with_other_voxels_is_refused() -> None:
    grid = Grid((4, 4, 4), affine_of(np.eye(4)))
    halves = np.diag([0.5, 1.0, 1.0, 1.0])
    halves[0, 3] = -0.25
    refused = mismatch(LabelMap(np.zeros((8, 4, 4), np.uint8), affine_of(halves)), grid)
    assert distance_mm(refused) == 0


def test_a_mask_turned_by_half_a_right_angle_is_refused() -> None:
    half = np.sqrt(0.5)
    turn = np.array([[half, -half, 0, 0], [half, half, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    grid = Grid((4, 4, 4), affine_of(np.eye(4)))
    mismatch(LabelMap(np.zeros((4, 4, 4), np.uint8), affine_of(turn)), grid)


def test_a_sheared_mask_two_of_whose_axes_are_near_one_is_refused() -> None:
    sheared = np.array([[1, 0.9, 0, 0], [0, 0.3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    grid = Grid((4, 4, 4), affine_of(np.eye(4)))
    mismatch(LabelMap(np.zeros((4, 4, 4), np.uint8), affine_of(sheared)), grid)


def test_a_single_slice_that_faces_the_other_way_is_turned() -> None:
    grid = Grid((3, 2, 1), affine_of(np.diag([1.0, 1.0, 5.0, 1.0])))
    backwards = np.diag([-1.0, 1.0, -5.0, 1.0])
    backwards[0, 3] = 2.0
    given = np.arange(6, dtype=np.uint8).reshape(3, 2, 1)
    assert np.array_equal(placed(LabelMap(given, affine_of(backwards)), grid).array, given[::-1])


def test_a_single_slice_of_another_thickness_is_refused() -> None:
    grid = Grid((3, 2, 1), affine_of(np.diag([1.0, 1.0, 5.0, 1.0])))
    given = LabelMap(np.zeros((3, 2, 1), np.uint8), affine_of(np.eye(4)))
    assert distance_mm(mismatch(given, grid)) == pytest.approx(2.0)
