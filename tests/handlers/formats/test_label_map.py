"""What a label map promises by itself: its type, its counts, and whether it fits its series."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.errors import Permanent
from consumer.model import LabelCount, Segment
from handlers.formats.nifti import LabelMap, check_label_map, count_labels, empty_label_map
from tests.handlers.formats.nifti_samples import LABELS, SFORM

AFFINE = (*SFORM, (0.0, 0.0, 0.0, 1.0))
SEGMENTS = (Segment(value=1, category="liver"), Segment(value=2, category="spleen"))


def refused(voxels: object, affine: tuple[tuple[float, ...], ...] = AFFINE) -> str:
    with pytest.raises(Permanent) as caught:
        LabelMap(np.asarray(voxels), affine)
    return caught.value.reason


def test_voxels_cannot_be_changed_and_the_givers_array_stays_theirs() -> None:
    given = LABELS.copy()
    label_map = LabelMap(given, AFFINE)
    with pytest.raises(ValueError, match="read-only"):
        label_map.array[0, 0, 0] = 7
    given[0, 0, 0] = 7


def test_only_volumes_of_labels_are_label_maps() -> None:
    assert refused(LABELS[:, :, 0]) == "mask-not-a-volume"
    assert refused(LABELS.astype(np.float32)) == "mask-not-a-volume"
    assert refused(LABELS.astype(np.int16) - 1) == "mask-negative-label"
    assert refused(LABELS.astype(np.uint64) << np.uint64(40)) == "mask-label-too-large"


def test_only_affines_that_place_voxels_are_geometry() -> None:
    assert refused(LABELS, AFFINE[:3]) == "mask-bad-geometry"
    assert refused(LABELS, (*AFFINE[:3], (0.0, 0.0, 0.0, 2.0))) == "mask-bad-geometry"


def test_counts_are_of_what_occurs_and_background_is_nothing() -> None:
    segments = (*SEGMENTS, Segment(value=3, category="aorta"), Segment(value=0, category="air"))
    assert count_labels(LabelMap(LABELS, AFFINE), segments) == (
        LabelCount(value=1, voxels=18, category="liver"),
        LabelCount(value=2, voxels=1, category="spleen"),
    )


def test_the_first_segment_of_a_value_names_it() -> None:
    segments = (Segment(value=1, category="liver"), Segment(value=1, category="spleen"))
    assert count_labels(LabelMap(LABELS, AFFINE), segments)[0].category == "liver"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_counts_agree_with_numpy_in_every_type_and_order(dtype: type, order: str) -> None:
    voxels: NDArray[Any] = np.random.default_rng(1).integers(0, 250, (130, 120, 110)).astype(dtype)
    voxels[0, 0, 0] = np.iinfo(dtype).max
    counts = count_labels(LabelMap(np.asarray(voxels, order=order), AFFINE), ())  # type: ignore[call-overload]
    values, voxels_of = np.unique(voxels[voxels > 0], return_counts=True)
    assert [(c.value, c.voxels) for c in counts] == list(zip(values, voxels_of, strict=True))


def test_a_whole_ct_is_counted_in_well_under_a_second_and_little_memory() -> None:
    voxels = np.zeros((512, 512, 300), np.uint8, order="F")
    for value in range(1, 117):
        voxels[4 * value :, 100:300, 2 * value : 2 * value + 40] = value
    label_map = LabelMap(voxels, AFFINE)
    tracemalloc.start()
    count_labels(label_map, SEGMENTS)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    began = time.process_time()
    count_labels(label_map, SEGMENTS)
    assert time.process_time() - began < 0.8
    assert taken < voxels.nbytes // 2


def test_more_labels_than_anybody_draws_are_refused() -> None:
    voxels = np.arange(70_000, 70_000 + 2**17, dtype=np.uint32).reshape(64, 64, 32)
    with pytest.raises(Permanent) as caught:
        count_labels(LabelMap(voxels, AFFINE), ())
    assert caught.value.reason == "mask-too-many-labels"


def test_a_mask_that_fits_gives_its_counts() -> None:
    label_map = LabelMap(LABELS, AFFINE)
    counts = check_label_map(label_map, SEGMENTS, (7, 5, 4))
    assert counts == count_labels(label_map, SEGMENTS)
    assert check_label_map(label_map, SEGMENTS, None) == counts


def test_an_unknown_label_is_named_with_its_count() -> None:
    with pytest.raises(Permanent) as caught:
        check_label_map(LabelMap(LABELS, AFFINE), SEGMENTS[1:], (7, 5, 4))
    assert caught.value.reason == "mask-unknown-label"
    assert "1 (18 voxels)" in caught.value.message


def test_many_unknown_labels_make_no_long_message() -> None:
    voxels = np.arange(1, 141, dtype=np.uint8).reshape(7, 5, 4)
    with pytest.raises(Permanent) as caught:
        check_label_map(LabelMap(voxels, AFFINE), (), None)
    assert caught.value.message.endswith("and 135 more")
    assert len(caught.value.message) < 150


def test_the_values_where_segments_overlap_are_known() -> None:
    overlapping = (Segment(value=1, category="liver", overlaps=(2,)),)
    counts = check_label_map(LabelMap(LABELS, AFFINE), overlapping, (7, 5, 4))
    assert [(count.value, count.category) for count in counts] == [(1, "liver"), (2, None)]


@pytest.mark.parametrize("dimensions", [(5, 7, 4), (7, 5, 5), (7, 5), (7, 5, 4, 1, 1)])
def test_dimensions_must_be_those_of_the_series(dimensions: tuple[int, ...]) -> None:
    label_map = LabelMap(LABELS, AFFINE)
    if len(dimensions) > 3:
        assert check_label_map(label_map, SEGMENTS, dimensions)
        return
    with pytest.raises(Permanent) as caught:
        check_label_map(label_map, SEGMENTS, dimensions)
    assert caught.value.reason == "mask-wrong-dimensions"
    assert "7 x 5 x 4" in caught.value.message
    assert " x ".join(map(str, dimensions)) in caught.value.message


def test_an_empty_label_map_has_the_grid_of_its_series() -> None:
    label_map = empty_label_map((7, 5, 4), AFFINE)
    assert label_map.shape == (7, 5, 4)
    assert label_map.affine == AFFINE
    assert label_map.geometry == "sform"
    assert count_labels(label_map, SEGMENTS) == ()


def test_an_empty_label_map_of_unknown_place_claims_none() -> None:
    assert empty_label_map((7, 5), None).geometry == "pixdim"
    assert empty_label_map((7, 5), None).shape == (7, 5, 1)


@pytest.mark.parametrize("dimensions", [(), (7,), (7, 5, 4, 2), (0, 5, 4), (40_000, 5, 4)])
def test_an_empty_label_map_of_an_impossible_grid_is_refused(dimensions: tuple[int, ...]) -> None:
    with pytest.raises(Permanent):
        empty_label_map(dimensions, AFFINE)


def test_an_empty_label_map_beyond_the_limit_is_refused_before_it_is_made() -> None:
    with pytest.raises(Permanent) as caught:
        empty_label_map((32_000, 32_000, 32_000), AFFINE)
    assert caught.value.reason == "mask-too-large"
