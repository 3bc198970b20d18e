"""What plastimatch reads of an RTSTRUCT, and what the standard wants in it."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from consumer.errors import Refused
from consumer.model import LabelCount
from handlers.formats.dicom import read_series
from handlers.formats.label_map import LabelMap
from handlers.formats.rtstruct import write_rtstruct
from tests.handlers.formats.seg_readers import by_plastimatch
from tests.handlers.formats.seg_series import (
    DIRECTIONS,
    Series,
    Shape,
    drawn,
    enhanced_series,
    save,
    series,
)


def shapes(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """1: a ring with an island. 2: what touches the image's border. 3: pixels that touch at
    corners, a line. 4: a solid, in two pieces."""
    array = np.zeros(shape, np.uint8)
    i, j, _ = np.ogrid[: shape[0], : shape[1], : shape[2]]
    distance = np.hypot(i - shape[0] / 2, j - shape[1] / 2) + np.zeros(shape)
    array[(distance < 7) & (distance >= 5) | (distance < 2)] = 1
    array[:, :, 0] = 0
    array[:3, :2], array[-1, -1] = 2, 2
    array[4, 1, -1] = array[5, 2, -1] = array[6, 1, -1] = 3
    array[2:15, 15, -1] = 3
    array[14:18, 1:3], array[15:18, 12:15] = 4, 4
    return array


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def assert_equal_regions(
    read_back: dict[str, NDArray[np.bool_]], array: NDArray[Any], names: dict[int, str]
) -> None:
    assert sorted(read_back) == sorted(names.values())
    for value, name in names.items():
        np.testing.assert_array_equal(read_back[name], array == value, err_msg=name)


NAMES = {1: "ring", 2: "border", 3: "thin", 4: "solid"}


@pytest.mark.parametrize("view", DIRECTIONS)
def test_plastimatch_reads_every_voxel_on_slices_of_any_orientation(
    view: str, tmp_path: Path
) -> None:
    on = series(view)
    array = shapes(on.grid.shape)
    data = write_rtstruct(*drawn(array, on, *NAMES.values()), on)
    images = save(on, tmp_path / "images")
    assert_equal_regions(by_plastimatch(data, tmp_path, images=images), array, NAMES)


@pytest.mark.parametrize("on", [enhanced_series("oblique"), series("oblique", Shape((20, 16, 1)))])
def test_plastimatch_reads_every_voxel_of_a_multi_frame_image_and_of_a_single_slice(
    on: Series, tmp_path: Path
) -> None:
    array = shapes((20, 16, 2))[:, :, 1:].repeat(on.grid.shape[2], axis=2)
    data = write_rtstruct(*drawn(array, on, *NAMES.values()), on)
    assert_equal_regions(by_plastimatch(data, tmp_path, grid=on.grid), array, NAMES)


def test_plastimatch_reads_slices_at_unequal_gaps(tmp_path: Path) -> None:
    on = series("axial")
    for k, images in enumerate(zip(on.datasets, on.images, strict=True)):
        for image in images:
            image.ImagePositionPatient[2] += (0.0, 0.1, -0.1, 0.05, -0.1, 0.0)[k]
    array = shapes(on.grid.shape)
    data = write_rtstruct(*drawn(array, on, *NAMES.values()), on)
    read_back = by_plastimatch(data, tmp_path, images=save(on, tmp_path / "images"))
    assert_equal_regions(read_back, array, NAMES)


@pytest.mark.parametrize("on", [series("oblique"), enhanced_series("oblique")])
def test_each_contour_lies_in_the_plane_of_the_image_that_it_names(on: Series) -> None:
    array = np.zeros(on.grid.shape, np.uint8)
    array[3, 4, [1, 4]] = 1
    dataset = read(write_rtstruct(*drawn(array, on), on))
    contours = dataset.ROIContourSequence[0].ContourSequence
    assert len(contours) == 2
    for contour, k in zip(contours, (1, 4), strict=True):
        (named,) = contour.ContourImageSequence
        points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
        np.testing.assert_allclose(
            points.mean(axis=0), on.grid.patient(np.array([[3.0, 4.0, k]]))[0], atol=1e-4
        )
        if on.frames:
            assert named.ReferencedFrameNumber == on.frames[k] + 1
        else:
            assert named.ReferencedSOPInstanceUID == on.datasets[k].SOPInstanceUID
            assert "ReferencedFrameNumber" not in named


def test_the_series_and_all_its_images_are_referred_to() -> None:
    on = series()
    dataset = read(write_rtstruct(*drawn(shapes(on.grid.shape), on), on))
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (referenced,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == on.frame_of_reference
    assert study.ReferencedSOPInstanceUID == on.datasets[0].StudyInstanceUID
    assert referenced.SeriesInstanceUID == on.datasets[0].SeriesInstanceUID
    assert [i.ReferencedSOPInstanceUID for i in referenced.ContourImageSequence] == [
        d.SOPInstanceUID for d in on.datasets
    ]
    assert {r.ReferencedFrameOfReferenceUID for r in dataset.StructureSetROISequence} == {
        on.frame_of_reference
    }


def test_regions_are_numbered_in_the_order_of_values_and_named_by_class() -> None:
    on = series()
    array = np.zeros(on.grid.shape, np.uint16)
    array[1, 1, 1], array[3, 3, 3], array[5, 5, 5] = 700, 7, 70
    dataset = read(write_rtstruct(*drawn(array, on, "lesion", None, "lesion"), on))
    assert [(r.ROINumber, r.ROIName) for r in dataset.StructureSetROISequence] == [
        (1, "lesion (value 7)"),
        (2, "value 70"),
        (3, "lesion (value 700)"),
    ]
    for sequence in (dataset.ROIContourSequence, dataset.RTROIObservationsSequence):
        assert [item.ReferencedROINumber for item in sequence] == [1, 2, 3]


def test_the_patient_and_study_are_the_series_own() -> None:
    on = series()
    dataset = read(write_rtstruct(*drawn(shapes(on.grid.shape), on), on))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyID"):
        assert dataset[keyword].value == on.datasets[0][keyword].value
    assert dataset.StructureSetDate == on.datasets[0].SeriesDate


def test_the_same_input_gives_the_same_bytes_at_another_time() -> None:
    on = series()
    label_map, segments = drawn(shapes(on.grid.shape), on)
    first, started = write_rtstruct(label_map, segments, on), time.time()
    while time.time() == started:
        pass
    assert write_rtstruct(label_map, segments, on) == first


def test_another_mask_is_another_instance_of_another_series() -> None:
    on = series()
    array = shapes(on.grid.shape)
    one = read(write_rtstruct(*drawn(array, on), on))
    array[0, 8, 1] = 1
    other = read(write_rtstruct(*drawn(array, on), on))
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID


@pytest.mark.parametrize("on", [series("oblique"), enhanced_series("sagittal")])
def test_a_series_read_from_files_gives_the_same_bytes(on: Series, tmp_path: Path) -> None:
    folder = save(on, tmp_path / "images")
    files = [(path.name, path) for path in sorted(folder.iterdir(), reverse=True)]
    label_map, segments = drawn(shapes(on.grid.shape), on)
    really = read_series(files)
    placed = LabelMap(label_map.array, really.grid.affine)
    assert write_rtstruct(placed, segments, really) == write_rtstruct(label_map, segments, on)


def test_nothing_drawn_is_refused() -> None:
    on = series()
    with pytest.raises(Refused) as refused:
        write_rtstruct(*drawn(np.zeros(on.grid.shape, np.uint8), on), on)
    assert refused.value.reason == "rtstruct-empty"


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_points": 71}, "18 contours of 72 points by slice 2, 100000 and 71 are the most"),
        ({"max_contours": 17}, "18 contours of 72 points by slice 2, 17 and 2000000 are the most"),
    ],
)
def test_more_than_the_limits_is_refused_with_the_measure(
    limit: dict[str, int], message: str
) -> None:
    on = series()
    array = np.zeros(on.grid.shape, np.uint8)
    array[1:6:2, 1:5:2, :3] = 1  # six pixels on each of three slices
    label_map, segments = drawn(array, on)
    with pytest.raises(Refused) as refused:
        write_rtstruct(label_map, segments, on, **limit)
    assert (refused.value.reason, refused.value.message) == ("rtstruct-too-large", message)


def test_what_just_fits_the_limits_is_written() -> None:
    on = series()
    array = np.zeros(on.grid.shape, np.uint8)
    array[1:6:2, 1:5:2, :3] = 1
    write_rtstruct(*drawn(array, on), on, max_points=72, max_contours=18)


def test_voxels_that_no_segment_names_are_refused() -> None:
    on = series()
    label_map, _ = drawn(shapes(on.grid.shape), on)
    with pytest.raises(Refused) as refused:
        write_rtstruct(label_map, (LabelCount(value=1, voxels=9),), on)
    assert refused.value.reason == "mask-unknown-label"
    assert "first 2" in refused.value.message
