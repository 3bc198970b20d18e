"""Where a frame's pixels lie in the volume."""

from __future__ import annotations

import numpy as np
import pytest

from consumer.errors import Refused
from consumer.model import ViewConvention
from handlers.formats.views import check_size, frame_index, picture_size, plane_of, voxels_of
from tests.handlers.formats.frame_samples import EVERY, GROUPS, pictures

SHAPE = (5, 4, 3)


@pytest.mark.parametrize("convention", EVERY, ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_every_voxel_is_where_the_convention_says(group: str, convention: ViewConvention) -> None:
    for voxel in np.ndindex(SHAPE):
        volume = np.zeros(SHAPE, np.bool_)
        volume[voxel] = True
        ((frame, picture),) = pictures(volume, group, convention).items()

        assert np.array_equal(plane_of(volume, group, convention, frame), picture)
        ((row, column),) = np.argwhere(picture).astype(float)
        found = voxels_of(np.array([[column, row]]), SHAPE, group, convention, frame)
        assert found.tolist() == [list(map(float, voxel))]


def test_what_is_written_into_a_plane_is_written_into_the_volume() -> None:
    volume = np.zeros(SHAPE, np.uint8, order="F")

    plane_of(volume, "Coronal", ViewConvention(flip_x=True, flip_y=True), 2)[0, 0] = 7

    assert np.argwhere(volume).tolist() == [[4, 1, 2]]


@pytest.mark.parametrize(
    ("group", "size"), [("Axial", (5, 4)), ("Sagittal", (4, 3)), ("Coronal", (5, 3))]
)
def test_a_picture_has_the_size_of_its_plane(group: str, size: tuple[int, int]) -> None:
    assert picture_size(SHAPE, group) == size
    check_size(size, SHAPE, group, 1)
    with pytest.raises(Refused):
        check_size((size[1], size[0]), SHAPE, group, 1)


def test_fractions_of_a_pixel_stay_fractions_of_a_voxel() -> None:
    convention = ViewConvention(flip_x=True)

    found = voxels_of(np.array([[0.25, 1.5]]), SHAPE, "Axial", convention, 3)

    assert found.tolist() == [[3.75, 1.5, 2.0]]


@pytest.mark.parametrize(("frame", "index"), [(1, 2), (2, 1), (3, 0)])
def test_a_flip_counts_frames_from_the_other_end(frame: int, index: int) -> None:
    assert frame_index(SHAPE, "Axial", ViewConvention(flip_frame=True), frame) == index
