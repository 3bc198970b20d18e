"""Segments that overlap are whole in DICOM objects, as independent programs read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.errors import Refused
from consumer.model import Segment
from handlers.formats.label_map import LabelMap, count_labels
from handlers.formats.rtstruct import write_rtstruct
from handlers.formats.seg import write_seg
from tests.handlers.formats.seg_readers import by_dcmqi, by_plastimatch
from tests.handlers.formats.seg_series import Series, Shape, save, series

SEGMENTS = (
    Segment(value=1, category="liver", overlaps=(10,)),
    Segment(value=2, category="lesion", overlaps=(10, 11)),
    Segment(value=3, category="vessel"),
    Segment(value=4, category="cyst", overlaps=(11,)),  # in nothing but what it shares
)


def drawn(on: Series) -> NDArray[np.uint8]:
    array = np.zeros(on.grid.shape, np.uint8)
    array[2:9, 2:9, 1:4] = 1
    array[6:14, 6:12, 2:5] = 2
    array[6:9, 6:9, 2:4] = 10
    array[10:12, 7:9, 2:5] = 11
    array[15:17, 2:5, 1:5] = 3
    return array


def of(array: NDArray[Any], value: int) -> NDArray[np.bool_]:
    (segment,) = (one for one in SEGMENTS if one.value == value)
    return np.isin(array, [value, *segment.overlaps])


@pytest.fixture
def on() -> Series:
    return series("axial", Shape((20, 16, 6)))


def test_dcmqi_reads_every_voxel_of_segments_that_overlap(on: Series, tmp_path: Path) -> None:
    array = drawn(on)
    label_map = LabelMap(np.asfortranarray(array), on.grid.affine)
    data = write_seg(label_map, count_labels(label_map, SEGMENTS), on)
    found = by_dcmqi(data, tmp_path, on.grid)
    assert sorted(found) == [1, 2, 3, 4]
    for number, voxels in found.items():
        np.testing.assert_array_equal(voxels > 0, of(array, number))


def test_plastimatch_reads_every_voxel_of_structures_that_overlap(
    on: Series, tmp_path: Path
) -> None:
    array = drawn(on)
    label_map = LabelMap(np.asfortranarray(array), on.grid.affine)
    data = write_rtstruct(label_map, count_labels(label_map, SEGMENTS), on)
    found = by_plastimatch(data, tmp_path, images=save(on, tmp_path / "images"))
    assert sorted(found) == ["cyst", "lesion", "liver", "vessel"]
    for segment in SEGMENTS:
        np.testing.assert_array_equal(found[segment.category or ""], of(array, segment.value))


def test_a_labelmap_that_cannot_tell_overlaps_is_refused(on: Series) -> None:
    label_map = LabelMap(np.asfortranarray(drawn(on)), on.grid.affine)
    counts = count_labels(label_map, SEGMENTS)
    with pytest.raises(Refused) as caught:
        write_seg(label_map, counts, on, labelmap=True)
    assert caught.value.reason == "seg-overlaps"
    with pytest.raises(Refused) as caught:
        write_seg(label_map, counts, on, max_bytes=20 * 16 * 6)
    assert caught.value.reason == "seg-too-large"


def test_a_segment_in_nothing_but_what_it_shares_is_told(on: Series) -> None:
    label_map = LabelMap(np.asfortranarray(drawn(on)), on.grid.affine)
    told = {one.value: (one.voxels, one.overlaps) for one in count_labels(label_map, SEGMENTS)}
    assert told[4] == (0, (11,))
    assert told[11] == (12, ())
