"""The type of an image's voxels follows from its values, and its bytes from voxels and place."""

from __future__ import annotations

import gzip
import io
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.errors import Refused
from handlers.formats.grid import Grid
from handlers.formats.nifti_image import Scaling, values_of, write_image

AFFINE = ((-0.5, 0.0, 0.0, 10.0), (0.0, -0.5, 0.0, 20.0), (0.0, 0.0, 2.0, 30.0), (0.0, 0, 0, 1))


def written(array: NDArray[Any], scalings: list[Scaling]) -> NDArray[Any]:
    """(column, row, slice), as nibabel reads it."""
    slices, rows, columns = array.shape
    flat = array.reshape(slices, -1).astype(np.int64)
    ranges = np.stack([flat.min(axis=1), flat.max(axis=1)], axis=1)
    out = io.BytesIO()
    values = values_of(scalings, ranges)
    write_image(out, Grid((columns, rows, slices), AFFINE), array, values)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(out.getvalue()))
    assert np.array_equal(image.affine, AFFINE)
    return np.asanyarray(image.dataobj)


@pytest.mark.parametrize(
    ("ends", "stored", "scaling", "dtype"),
    [
        ((0, 4095), "u2", (1, -1024), "i2"),
        ((0, 255), "u1", (1, 0), "i2"),
        ((-32768, 32767), "i2", (1, 0), "i2"),
        ((0, 32768), "u2", (1, 0), "u2"),
        ((0, 65535), "u2", (1, 1), "i4"),
        ((-32768, 0), "i2", (1, -1), "i4"),
        ((-32768, 0), "i2", (-1, 0), "u2"),
        ((0, 2**32 - 1), "u4", (1, 0), "u4"),
        ((-(2**31), 2**31 - 1), "i4", (1, 0), "i4"),
        ((0, 2**32 - 1), "u4", (-1, 0), "f8"),
        ((0, 2**32 - 1), "u4", (3, 0), "f8"),
        ((0, 1000), "u2", (0.5, 0), "f4"),
        ((0, 1000), "u2", (1, 0.5), "f4"),
    ],
)
def test_the_type_is_the_first_that_holds_all_values(
    ends: tuple[int, int], stored: str, scaling: Scaling, dtype: str
) -> None:
    array = np.linspace(*ends, 24).round().astype(stored).reshape(2, 3, 4)
    voxels = written(array, [(float(scaling[0]), float(scaling[1]))] * 2)
    assert voxels.dtype == np.dtype(dtype)
    truth = array.T.astype(np.float64) * scaling[0] + scaling[1]
    assert np.array_equal(voxels, truth.astype(dtype))


def test_slopes_that_differ_give_float32() -> None:
    array = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    voxels = written(array, [(1.0, 0.0), (2.0, -1.0)])
    assert voxels.dtype == np.float32
    assert np.array_equal(voxels[:, :, 1], array[1].T * 2.0 - 1)


def test_whole_numbers_that_float32_would_lose_are_float64() -> None:
    array = np.full((2, 1, 1), 2**24 + 1, np.uint32)
    voxels = written(array, [(1.0, 0.0), (1.0, 1.0)])
    assert voxels.dtype == np.float64
    assert voxels.ravel().tolist() == [2**24 + 1, 2**24 + 2]


@pytest.mark.parametrize("scaling", [(1e38, 0.0), (1.0, 1e39), (-1e300, 0.0)])
def test_values_beyond_any_type_are_refused(scaling: Scaling) -> None:
    with pytest.raises(Refused) as caught:
        written(np.full((1, 2, 2), 1000, np.int16), [scaling])
    assert caught.value.reason == "bad-rescale"


def test_slabs_make_no_difference() -> None:
    array = np.arange(3000 * 2000, dtype=np.uint16).reshape(3, 1000, 2000)
    voxels = written(array, [(1.0, -7.0)] * 3)
    assert np.array_equal(voxels, array.T.astype(np.int64) - 7)
