"""Label maps as grey pictures, read back by Pillow; checked by our own reader as well."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from consumer.errors import Refused
from consumer.model import LabelCount
from handlers.formats.label_map import LabelMap
from handlers.formats.png import check_png
from handlers.formats.png_stack import class_map, png_slices

AFFINE = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def a_map(largest: int, shape: tuple[int, int, int] = (7, 5, 4)) -> LabelMap:
    voxels = np.random.default_rng(1).integers(0, largest + 1, shape, np.uint32)
    voxels[-1, 0, -1] = largest
    return LabelMap(voxels, AFFINE)


def read(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 8), (1, 8), (255, 8), (256, 16), (4097, 16), (65_535, 16)]
)
def test_every_slice_is_a_picture_whose_pixels_are_the_labels(largest: int, bits: int) -> None:
    label_map = a_map(largest)
    pictures = dict(png_slices(label_map))
    assert list(pictures) == [0, 1, 2, 3]
    for k, png in pictures.items():
        header = check_png(png)
        assert (header.width, header.height, header.bit_depth, header.colour_type) == (
            7,
            5,
            bits,
            0,
        )
        pixels = read(png)
        assert all(pixels[j, i] == label_map.array[i, j, k] for i in range(7) for j in range(5))


def test_one_slice_is_one_picture() -> None:
    ((k, png),) = png_slices(a_map(3, (6, 5, 1)))
    assert (k, read(png).shape) == (0, (5, 6))


def test_a_slice_of_small_labels_is_as_deep_as_the_rest_of_its_map() -> None:
    voxels = np.zeros((3, 3, 2), np.uint16)
    voxels[0, 0, 0], voxels[1, 1, 1] = 7, 300
    assert [check_png(png).bit_depth for _, png in png_slices(LabelMap(voxels, AFFINE))] == [16, 16]


def test_equal_labels_give_equal_bytes_however_they_lie_in_memory() -> None:
    label_map = a_map(300)
    other = LabelMap(np.ascontiguousarray(label_map.array.astype(np.uint32)), AFFINE)
    turned = LabelMap(np.asfortranarray(label_map.array), AFFINE)
    first = list(png_slices(label_map))
    assert list(png_slices(other)) == list(png_slices(turned)) == first


def test_a_label_that_no_grey_pixel_holds_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        next(png_slices(a_map(65_536)))
    assert caught.value.reason == "png-label-too-large"
    assert "65536" in caught.value.message
    assert caught.value.shape == (7, 5, 4)


def test_the_class_map_says_what_each_pixel_value_means() -> None:
    counts = (LabelCount(value=1, voxels=5, category="liver"), LabelCount(value=9, voxels=2))
    assert class_map(counts) == {"1": "liver", "9": None}
