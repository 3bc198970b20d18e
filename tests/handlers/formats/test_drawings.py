"""Pictures that several objects share are kept for a while, within a budget."""

from __future__ import annotations

import numpy as np
import pytest

from consumer.model import Mask
from handlers.formats import drawings
from handlers.formats.drawings import Pictures, cropped, objects_of
from tests.handlers.formats.frame_samples import Drawn, png

COLOURS = ((1, 0, 0), (2, 0, 0))
SIDE = 1_100  # 28 of these pictures are more than is kept


def composites(count: int) -> Drawn:
    """Pictures that two objects share, half and half."""
    drawn = Drawn()
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[: SIDE // 2], picture[SIDE // 2 :] = COLOURS
    data = png(picture)
    for frame in range(1, count + 1):
        drawn.files[str(frame)] = data
    for feature, colour in zip("ab", COLOURS, strict=True):
        for frame in range(1, count + 1):
            drawn.mask(str(frame), feature, "x", "Axial", frame, colour)
    return drawn


@pytest.mark.parametrize(("count", "again"), [(3, 0), (28, 28)])
def test_pixels_are_kept_for_other_objects_within_a_budget(count: int, again: int) -> None:
    drawn, reads = composites(count), []

    def read(mask: Mask) -> bytes:
        reads.append(mask.frame)
        return drawn.files[mask.reference]

    objects = objects_of(drawn.series(), ())
    pictures = Pictures(objects, read, (SIDE, SIDE, count))
    sizes = [pictures.patch(drawing).mask.sum() for one in objects for drawing in one.drawings]

    assert sizes == [SIDE * SIDE // 2] * 2 * count
    assert len(reads) == count + again
    assert (count * SIDE * SIDE > drawings.KEPT_BYTES) == (again > 0)


def test_a_patch_is_what_was_drawn_and_no_more() -> None:
    mask = np.zeros((9, 8), np.bool_)
    mask[2, 3] = mask[4, 6] = True

    patch = cropped(mask)

    assert (patch.top, patch.left, patch.mask.shape) == (2, 3, (3, 4))
    assert np.array_equal(mask[patch.place], patch.mask)


def test_an_empty_picture_is_a_patch_without_pixels() -> None:
    assert cropped(np.zeros((3, 3), np.bool_)).mask.size == 0
