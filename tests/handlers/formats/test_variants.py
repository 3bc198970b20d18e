"""Masks of instances as masks of one instance or of classes, beside the plainest way to say it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumer.errors import Permanent, Refused
from consumer.model import ClassRule, LabelCount, Segment
from handlers.formats.label_map import LabelMap
from handlers.formats.nifti import read_label_map
from handlers.formats.variants import Semantic, binary, semantic
from tests.handlers.formats.nifti_samples import LABELS, Sample

AFFINE = ((-0.75, 0.0, 0.0, 90.5), (0.0, -0.75, 0.0, 126.25), (0.0, 0.0, 2.5, -72.0), (0, 0, 0, 1))
LIVER = Segment(value=1, category="liver", category_value=3)
LESION = Segment(value=2, category="lesion", category_value=1, overlaps=(9,))
VESSEL = Segment(value=7, category="vessel", category_value=2, overlaps=(9, 11))


def label_map(*values: int, dtype: str = "u4") -> LabelMap:
    return LabelMap(np.array(values, dtype).reshape(-1, 1, 1), AFFINE, "qform")


def voxels(of: LabelMap) -> list[int]:
    return [int(value) for value in of.array.reshape(-1)]


def as_binary(of: LabelMap, segments: Sequence[Segment]) -> dict[int, list[int]]:
    return {segment.value: voxels(mask) for segment, mask in binary(of, segments)}


def test_an_instance_is_where_its_own_value_or_one_of_its_overlaps_stands() -> None:
    got = as_binary(label_map(0, 1, 2, 9, 7, 11), (LIVER, LESION, VESSEL))
    assert got == {1: [0, 1, 0, 0, 0, 0], 2: [0, 0, 1, 1, 0, 0], 7: [0, 0, 0, 1, 1, 1]}


def test_an_instance_without_a_voxel_has_no_mask() -> None:
    assert list(as_binary(label_map(0, 7), (LIVER, LESION, VESSEL))) == [7]


def test_an_instance_that_is_nothing_but_overlap_has_a_mask() -> None:
    assert as_binary(label_map(0, 9), (LESION,)) == {2: [0, 1]}


def test_a_mask_of_one_instance_lies_where_its_source_does() -> None:
    source = label_map(1, 0)
    ((_, mask),) = binary(source, (LIVER,))
    assert (mask.affine, mask.geometry, mask.shape) == (source.affine, "qform", source.shape)
    assert mask.array.dtype == np.uint8


def test_classes_have_the_platform_s_numbers_unless_others_are_configured() -> None:
    made = semantic(
        label_map(0, 1, 1, 2, 7),
        (LIVER, LESION, VESSEL),
        (ClassRule(name="lesion", value=300), ClassRule(name="spleen", value=5)),
    )
    assert voxels(made.label_map) == [0, 3, 3, 300, 2]
    assert made.label_map.array.dtype == np.uint16
    assert made.counts == (
        LabelCount(value=2, voxels=1, category="vessel"),
        LabelCount(value=3, voxels=2, category="liver"),
        LabelCount(value=300, voxels=1, category="lesion"),
    )
    assert made.overlaps == 0


def test_instances_of_one_class_have_one_value() -> None:
    other = Segment(value=5, category="liver", category_value=3)
    made = semantic(label_map(1, 5), (LIVER, other))
    assert voxels(made.label_map) == [3, 3]
    assert made.counts == (LabelCount(value=3, voxels=2, category="liver"),)


@pytest.mark.parametrize("segments", [(LESION, VESSEL), (VESSEL, LESION)])
def test_a_voxel_of_two_classes_shows_the_lower_number_and_is_counted(
    segments: tuple[Segment, ...],
) -> None:
    made = semantic(label_map(2, 9, 9, 7, 11), segments)
    assert voxels(made.label_map) == [1, 1, 1, 2, 2]
    assert made.overlaps == 2


def test_an_overlap_within_one_class_loses_nothing() -> None:
    one, two = (Segment(value=n, category="liver", category_value=3, overlaps=(9,)) for n in (1, 2))
    made = semantic(label_map(1, 2, 9), (one, two))
    assert (voxels(made.label_map), made.overlaps) == ([3, 3, 3], 0)


def test_two_classes_that_are_configured_as_one_value_are_named_together() -> None:
    classes = (ClassRule(name="liver", value=4), ClassRule(name="vessel", value=4))
    made = semantic(label_map(1, 7), (LIVER, VESSEL), classes)
    assert made.counts == (LabelCount(value=4, voxels=2, category="liver + vessel"),)


@pytest.mark.parametrize("convert", [semantic, lambda of, s: list(binary(of, s))])
def test_a_voxel_that_is_no_segment_s_is_refused(convert: Any) -> None:
    with pytest.raises(Permanent) as caught:
        convert(label_map(1, 4), (LIVER,))
    assert caught.value.reason == "mask-unknown-label"
    assert "4 (1 voxels)" in caught.value.message


@pytest.mark.parametrize("number", [None, 0, -1, 2**32])
def test_a_drawn_class_without_a_number_is_refused(number: int | None) -> None:
    nameless = Segment(value=1, category="liver", category_value=number)
    with pytest.raises(Refused) as caught:
        semantic(label_map(1), (nameless,))
    assert caught.value.reason == "class-unknown"
    assert voxels(semantic(label_map(1), (nameless,), [ClassRule(name="liver", value=2)])[0]) == [2]
    assert semantic(label_map(2), (nameless, LESION)).overlaps == 0


def test_a_class_whose_number_is_configured_for_another_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        semantic(label_map(1), (LIVER,), (ClassRule(name="spleen", value=3),))
    assert caught.value.reason == "class-value-taken"


def test_an_empty_mask_is_empty_in_every_form() -> None:
    assert as_binary(label_map(0, 0), (LIVER,)) == {}
    made = semantic(label_map(0, 0), (LIVER,))
    assert (voxels(made.label_map), made.counts) == ([0, 0], ())


@pytest.mark.parametrize("extension", [b"", b"<xml>" + bytes(range(256))])
@pytest.mark.parametrize("packed", [False, True], ids=["nii", "nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_every_kind_of_file_has_the_same_variants(
    dtype: str, version: int, order: str, extension: bytes, *, packed: bool
) -> None:
    sample = Sample(dtype=dtype, version=version, order=order, extension=extension)
    source = read_label_map(sample.gz() if packed else sample.nii())
    made = semantic(source, (LIVER, LESION))
    assert np.array_equal(made.label_map.array, np.choose(LABELS, (0, 3, 1)))
    first, second = (mask.array for _, mask in binary(source, (LIVER, LESION)))
    assert np.array_equal(first, LABELS == 1)
    assert np.array_equal(second, LABELS == 2)


def reference(array: NDArray[Any], segments: Sequence[Segment]) -> NDArray[Any]:
    """Class by class from the highest number down, so that the lowest is drawn last."""
    out = np.zeros(array.shape, np.int64)
    for segment in sorted(segments, key=lambda s: -(s.category_value or 0)):
        out[np.isin(array, [segment.value, *segment.overlaps])] = segment.category_value or 0
    return out


VALUES = st.integers(1, 300) | st.integers(2**17, 2**17 + 3)
SEGMENTS = st.lists(
    st.builds(
        lambda value, number, overlaps: Segment(
            value=value, category=f"class {number}", category_value=number, overlaps=tuple(overlaps)
        ),
        VALUES,
        st.integers(1, 6) | st.integers(250, 260),
        st.lists(VALUES, max_size=3),
    ),
    min_size=1,
    max_size=6,
)


@given(SEGMENTS, st.integers(0, 2**31), st.booleans())
def test_every_voxel_is_what_the_plainest_way_says(
    segments: list[Segment], seed: int, transposed: bool
) -> None:
    known = sorted({0, *(v for s in segments for v in (s.value, *s.overlaps))})
    array = np.random.default_rng(seed).choice(known, (5, 4, 3)).astype(np.uint32)
    source = LabelMap(array.T if transposed else array, AFFINE)
    made = semantic(source, segments)
    assert np.array_equal(made.label_map.array, reference(source.array, segments))
    values, numbers = np.unique(made.label_map.array, return_counts=True)
    drawn = dict(zip(values.tolist(), numbers.tolist(), strict=True))
    drawn.pop(0, None)
    assert {count.value: count.voxels for count in made.counts} == drawn
    claimed = [np.isin(source.array, [s.value, *s.overlaps]) for s in segments]
    for segment, mask in binary(source, segments):
        assert np.array_equal(mask.array, claimed[segments.index(segment)])
    assert sum(1 for _ in binary(source, segments)) == sum(bool(one.any()) for one in claimed)


def test_merging_takes_little_more_memory_than_its_result() -> None:
    array = np.zeros((256, 256, 100), np.uint16, order="F")
    array[50:200, 50:200, :] = 300
    source = LabelMap(array, AFFINE)
    segment = Segment(value=300, category="liver", category_value=1)
    tracemalloc.start()
    try:
        made: Semantic = semantic(source, (segment,))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.label_map.array.dtype == np.uint8
    assert peak < made.label_map.array.nbytes + (40 << 20)
