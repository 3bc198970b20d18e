"""What dcmqi and highdicom read of a DICOM SEG, and what it refers to."""

from __future__ import annotations

import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import RLELossless

from consumer.errors import Refused
from consumer.model import LabelCount
from handlers.formats.dicom import read_series
from handlers.formats.grid import Grid
from handlers.formats.label_map import LabelMap
from handlers.formats.seg import MAX_SEGMENTS, write_seg
from tests.handlers.formats.seg_readers import by_dcmqi, by_highdicom
from tests.handlers.formats.seg_series import (
    DIRECTIONS,
    Series,
    Shape,
    drawn,
    enhanced_series,
    save,
    series,
)

VIEWS = sorted(DIRECTIONS)


def blobs(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Three values, no symmetry, empty slices at the ends where there are slices enough."""
    rng = np.random.default_rng(3)
    array = rng.integers(0, 4, shape).astype(np.uint8)
    array[: shape[0] // 3] = 0
    if shape[2] > 4:
        array[:, :, [0, -1]] = 0
    return array


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def assert_equal_voxels(data: bytes, folder: Path, array: NDArray[Any], grid: Grid) -> None:
    read_back = by_dcmqi(data, folder, grid)
    values = [int(value) for value in np.unique(array) if value]
    assert sorted(read_back) == list(range(1, len(values) + 1))
    for number, value in enumerate(values, 1):
        np.testing.assert_array_equal(read_back[number] > 0, array == value)


@pytest.mark.parametrize("view", VIEWS)
def test_dcmqi_reads_every_voxel_on_slices_of_any_orientation(view: str, tmp_path: Path) -> None:
    on = series(view)
    array = blobs(on.grid.shape)
    assert_equal_voxels(write_seg(*drawn(array, on), on), tmp_path, array, on.grid)


@pytest.mark.parametrize(
    "on",
    [
        enhanced_series("oblique"),
        enhanced_series("axial"),
        series("oblique", Shape((20, 16, 1))),
        series("axial", Shape((4, 2, 5))),
        series("axial", Shape((7, 5, 3))),
    ],
    ids=["multi-frame", "multi-frame axial", "single slice", "8 pixels", "odd"],
)
def test_dcmqi_reads_every_voxel_of_other_series(on: Series, tmp_path: Path) -> None:
    array = blobs(on.grid.shape)
    assert_equal_voxels(write_seg(*drawn(array, on), on), tmp_path, array, on.grid)


@pytest.mark.parametrize("where", [[3], [1, 4], [0, 5]])
def test_dcmqi_finds_the_place_of_few_slices_among_many(where: list[int], tmp_path: Path) -> None:
    on = series("oblique")
    array = np.zeros(on.grid.shape, np.uint8)
    array[2:9, 5, where] = 1
    assert_equal_voxels(write_seg(*drawn(array, on), on), tmp_path, array, on.grid)


def test_dcmqi_reads_slices_at_unequal_gaps(tmp_path: Path) -> None:
    on = series("axial")
    for k, image in enumerate(on.datasets):
        image.ImagePositionPatient[2] += (0.0, 0.1, -0.1, 0.05, -0.1, 0.0)[k]
    array = blobs(on.grid.shape)
    assert_equal_voxels(write_seg(*drawn(array, on), on), tmp_path, array, on.grid)


@pytest.mark.parametrize("on", [series("oblique"), enhanced_series("coronal")])
def test_a_labelmap_holds_the_voxel_values_themselves(on: Series, tmp_path: Path) -> None:
    array = blobs(on.grid.shape).astype(np.uint16) * 300
    data = write_seg(*drawn(array, on), on, labelmap=True)
    assert read(data).file_meta.TransferSyntaxUID == RLELossless
    np.testing.assert_array_equal(by_highdicom(data, on.grid), array)
    (labels,) = by_dcmqi(data, tmp_path, on.grid).values()
    np.testing.assert_array_equal(labels, array)


@pytest.mark.parametrize("on", [series("sagittal"), enhanced_series("oblique")])
def test_each_frame_names_the_image_that_it_was_drawn_on(on: Series) -> None:
    array = np.zeros(on.grid.shape, np.uint8)
    array[3, 4, [1, 4]], array[9, 9, 4] = 1, 2
    dataset = read(write_seg(*drawn(array, on), on))
    frames = dataset.PerFrameFunctionalGroupsSequence
    assert len(frames) == 3
    for frame, (number, k) in zip(frames, [(1, 4), (1, 1), (2, 4)], strict=True):
        (named,) = frame.DerivationImageSequence[0].SourceImageSequence
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(place, on.grid.patient(np.array([[0.0, 0, k]]))[0], atol=1e-4)
        assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
        image = on.datasets[0 if on.frames else k]
        assert named.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert named.ReferencedSOPClassUID == image.SOPClassUID
        if on.frames:
            assert named.ReferencedFrameNumber == on.frames[k] + 1
        else:
            assert "ReferencedFrameNumber" not in named


def test_the_series_its_study_and_its_frame_of_reference_are_referred_to() -> None:
    on = series()
    dataset = read(write_seg(*drawn(blobs(on.grid.shape), on), on))
    (referenced,) = dataset.ReferencedSeriesSequence
    uids = [image.SOPInstanceUID for image in on.datasets]
    named = referenced.ReferencedInstanceSequence
    assert [item.ReferencedSOPInstanceUID for item in named] == uids
    assert [item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence] == uids
    assert referenced.SeriesInstanceUID == on.datasets[0].SeriesInstanceUID
    assert dataset.StudyInstanceUID == on.datasets[0].StudyInstanceUID
    assert dataset.FrameOfReferenceUID == on.frame_of_reference


def test_values_with_gaps_are_numbered_in_order_and_told_in_words() -> None:
    on = series()
    array = np.zeros(on.grid.shape, np.uint16)
    array[1, 1, 1], array[3, 3, 3], array[5, 5, 5] = 700, 7, 70
    data = write_seg(*drawn(array, on, "lesion", None, "lesion"), on)
    assert [
        (s.SegmentNumber, s.SegmentLabel, s.SegmentDescription) for s in read(data).SegmentSequence
    ] == [
        (1, "lesion (value 7)", "voxel value 7"),
        (2, "value 70", "voxel value 70"),
        (3, "lesion (value 700)", "voxel value 700"),
    ]
    numbered = np.select([array == 7, array == 70, array == 700], [1, 2, 3])
    np.testing.assert_array_equal(by_highdicom(data, on.grid), numbered)


def test_consecutive_values_are_the_segments_numbers() -> None:
    on = series()
    dataset = read(write_seg(*drawn(blobs(on.grid.shape), on, "liver", "spleen"), on))
    assert [(s.SegmentNumber, s.SegmentLabel) for s in dataset.SegmentSequence] == [
        (1, "liver"),
        (2, "spleen"),
        (3, "value 3"),
    ]


def test_an_object_is_tracked_from_file_to_file_by_the_platforms_id() -> None:
    on = series()
    array = blobs(on.grid.shape)
    array[array > 1] = 0
    label_map, _ = drawn(array, on)
    tracked = []
    for value in (1, 5):
        moved = LabelMap(label_map.array * np.uint8(value), on.grid.affine)
        segment = LabelCount(value=value, voxels=1, category="liver", feature="feature-1")
        (item,) = read(write_seg(moved, (segment,), on)).SegmentSequence
        tracked.append((item.TrackingID, item.TrackingUID))
    assert tracked[0] == tracked[1]
    assert tracked[0][0] == "feature-1"


def test_a_class_name_is_text_that_dicom_can_hold() -> None:
    on = series()
    array = np.zeros(on.grid.shape, np.uint8)
    array[1, 1, 1], array[2, 2, 2] = 1, 2
    names = ("Läsion \\ links\n肝臓", "x" * 80)
    dataset = read(write_seg(*drawn(array, on, *names), on))
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == [
        "Läsion _ links_肝臓",
        "x" * 64,
    ]
    assert str(dataset.PatientName) == "Müller^Test"


def test_the_same_input_gives_the_same_bytes_at_another_time() -> None:
    on = series()
    label_map, segments = drawn(blobs(on.grid.shape), on)
    first, started = write_seg(label_map, segments, on), time.time()
    while time.time() == started:
        pass
    assert write_seg(label_map, segments, on) == first


def test_nothing_of_the_clock_is_in_it() -> None:
    on = series()
    data = write_seg(*drawn(blobs(on.grid.shape), on), on)
    year = time.strftime("%Y").encode()
    days = [time.strftime("%Y%m%d", time.gmtime(time.time() + shift)) for shift in (-9e4, 0, 9e4)]
    assert year != b"2024"
    assert not any(day.encode() in data for day in days)
    assert (read(data).ContentDate, read(data).ContentTime) == ("20240103", "0607")


def test_another_mask_is_another_instance_of_another_series() -> None:
    on = series()
    array = blobs(on.grid.shape)
    one = read(write_seg(*drawn(array, on), on))
    array[-1, -1, 2] = 1 + array[-1, -1, 2] % 3
    other = read(write_seg(*drawn(array, on), on))
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert len(str(one.SOPInstanceUID)) == 64


@pytest.mark.parametrize("labelmap", [False, True])
@pytest.mark.parametrize("on", [series("oblique"), enhanced_series("sagittal")])
def test_a_series_read_from_files_gives_the_same_bytes(
    on: Series, labelmap: bool, tmp_path: Path
) -> None:
    folder = save(on, tmp_path / "images")
    files = [(path.name, path) for path in sorted(folder.iterdir(), reverse=True)]
    label_map, segments = drawn(blobs(on.grid.shape), on)
    really = read_series(files)
    placed = LabelMap(label_map.array, really.grid.affine)
    on = dataclasses.replace(on, pitch_mm=really.pitch_mm)  # of rounded positions
    assert write_seg(placed, segments, really, labelmap=labelmap) == write_seg(
        label_map, segments, on, labelmap=labelmap
    )


@pytest.mark.parametrize(
    ("change", "reason", "measure"),
    [
        ("shape", "mask-off-grid", "20 x 16 x 5 voxels, its series 20 x 16 x 6"),
        ("affine", "mask-off-grid", "differ by 0.5"),
        ("unplaced", "mask-off-grid", "does not say where"),
        ("nothing", "seg-empty", "no voxel"),
        ("unnamed", "mask-unknown-label", "first 2"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(change: str, reason: str, measure: str) -> None:
    on = series()
    array, affine = blobs(on.grid.shape), np.array(on.grid.affine)
    _, segments = drawn(array, on)
    if change == "shape":
        array = array[:, :, :5]
    elif change == "affine":
        affine[1, 3] += 0.5
    elif change == "nothing":
        array = array * np.uint8(0)
    placed = LabelMap(array, affine.tolist(), "pixdim" if change == "unplaced" else "sform")
    with pytest.raises(Refused) as refused:
        write_seg(placed, segments[:1] if change == "unnamed" else segments, on)
    assert refused.value.reason == reason
    assert measure in refused.value.message


@pytest.mark.parametrize(
    ("change", "reason", "measure"),
    [
        ("order", "series-off-grid", "slice 2 lies 1 voxels"),
        ("turned", "series-off-grid", "slice 0"),
        ("fewer", "series-off-grid", "5 images for 6 slices"),
        ("same", "series-unidentified", "one SOPInstanceUID"),
        ("unnamed", "series-unidentified", "image 3 has no StudyInstanceUID"),
        ("adrift", "no-frame-of-reference", "no frame of reference"),
    ],
)
def test_a_series_that_its_headers_contradict_is_refused(
    change: str, reason: str, measure: str
) -> None:
    on = series()
    images = list(on.datasets)
    reference = on.frame_of_reference
    if change == "order":
        images[2], images[3] = images[3], images[2]
    elif change == "turned":
        for image in images:
            image.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
    elif change == "fewer":
        images.pop()
    elif change == "same":
        images[1].SOPInstanceUID = images[0].SOPInstanceUID
    elif change == "unnamed":
        del images[3].StudyInstanceUID
    else:
        reference = ""
    wrong = Series(on.grid, on.pitch_mm, reference, tuple(images), ())
    with pytest.raises(Refused) as refused:
        write_seg(*drawn(blobs(on.grid.shape), on), wrong)
    assert refused.value.reason == reason
    assert measure in refused.value.message


def test_more_segments_than_the_limit_are_refused() -> None:
    on = series("axial", Shape((40, 40, 1)))
    array = np.arange(1600, dtype=np.uint16).reshape(on.grid.shape)
    array[array > MAX_SEGMENTS + 1] = 0
    with pytest.raises(Refused) as refused:
        write_seg(*drawn(array, on), on)
    assert refused.value.reason == "seg-too-many-segments"
    assert "1001 segments" in refused.value.message


def test_more_pixels_than_the_limit_are_refused_with_their_size() -> None:
    on = series("axial", Shape((20, 16, 6)))
    label_map, segments = drawn(blobs(on.grid.shape), on)
    bytes_of_pixels = 4 * 3 * 20 * 16 // 8
    write_seg(label_map, segments, on, max_bytes=bytes_of_pixels)
    with pytest.raises(Refused) as refused:
        write_seg(label_map, segments, on, max_bytes=bytes_of_pixels - 1)
    assert refused.value.reason == "seg-too-large"
    assert "480 bytes, 479 are the most" in refused.value.message


def test_slices_too_small_for_highdicom_to_pack_are_refused() -> None:
    on = series("axial", Shape((7, 1, 3)))
    with pytest.raises(Refused) as refused:
        write_seg(*drawn(blobs(on.grid.shape), on), on)
    assert refused.value.reason == "seg-too-small"


def test_a_patient_whose_data_break_rules_is_copied_and_nothing_quotes_it(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, tmp_path: Path
) -> None:
    on = series("axial", Shape(header={"PatientSex": "UNKNOWNS"}))
    folder = save(on, tmp_path / "images")
    for path in folder.iterdir():
        data = path.read_bytes().replace(b"19700101", b"19Secret")
        data = data.replace(b"UNKNOWNS", b"a Secret")
        path.write_bytes(data.replace(b"M\xfcller^Test", b"Secret^^^^^"))
    really = read_series([(path.name, path) for path in folder.iterdir()])
    label_map, segments = drawn(blobs(on.grid.shape), on)
    data = write_seg(label_map, segments, really)
    said = caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert "Secret" not in said
    assert b"19Secret" in data
    assert b"a Secret" in data
    assert str(read(data).PatientName) == "Secret^^^^^"


def test_how_a_patient_was_made_unknown_is_copied() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic"
    header = {"PatientIdentityRemoved": "YES", "DeidentificationMethodCodeSequence": [code]}
    on = series("axial", Shape(header=header))
    dataset = read(write_seg(*drawn(blobs(on.grid.shape), on), on))
    assert dataset.PatientIdentityRemoved == "YES"
    assert list(dataset.DeidentificationMethodCodeSequence) == [code]


def test_a_series_without_patient_and_dates_gives_an_object_that_leaves_them_empty() -> None:
    on = series()
    for image in on.datasets:
        for element in [e for e in image if e.keyword.startswith(("Patient", "Accession"))]:
            del image[element.tag]
        del image.StudyDate, image.StudyTime, image.SeriesDate, image.SeriesTime
        del image.SpecificCharacterSet
    dataset = read(write_seg(*drawn(blobs(on.grid.shape), on), on))
    assert not dataset.PatientName
    assert (dataset.PatientID, dataset.StudyDate) == ("", "")
    assert (dataset.ContentDate, dataset.ContentTime) == ("19000101", "000000")
