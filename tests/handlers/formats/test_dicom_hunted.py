"""What a hunt by random series of known truth found: each was converted wrongly, or refused
though it is fine."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    ExplicitVRBigEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

from consumer.errors import Refused
from handlers.formats.dicom import read_series
from tests.handlers.formats.dicom_oracles import (
    by_dcm2niix,
    by_dicom2nifti,
    ours,
    same_place,
    same_voxels,
)
from tests.handlers.formats.dicom_phantoms import (
    Scan,
    enhanced,
    series,
    set_pixels,
    write,
)

SCAN = Scan()
BYTES = Scan(columns=7, rows=5, bits_allocated=8, bits_stored=8, signed=False, least=0, largest=255)


def voxels(files: list[tuple[str, Path]]) -> Any:
    return np.asanyarray(ours(files).raw.dataobj)


def refusal(files: list[tuple[str, Path]]) -> Refused:
    with pytest.raises(Refused) as caught:
        ours(files)
    return caught.value


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("narrow", [0, 3])
def test_each_file_tells_how_many_of_its_bits_are_stored(
    signed: bool, narrow: int, tmp_path: Path
) -> None:
    scan = Scan(signed=signed, least=-30000 if signed else 0, largest=32000)
    datasets, truth = series(scan), scan.stored
    truth[:, :, narrow] &= 0x7FF
    set_pixels(datasets[narrow], truth[:, :, narrow])
    datasets[narrow].BitsStored, datasets[narrow].HighBit = 12, 11
    files = write(datasets, tmp_path / "in")
    assert np.array_equal(voxels(files), truth)
    other = by_dicom2nifti(tmp_path / "in", tmp_path / "out")
    assert other is not None
    assert same_voxels(ours(files), other)


def swapped(dataset: Dataset) -> None:
    """As words of the other byte order hold them."""
    words = np.frombuffer(dataset.PixelData, "<u2")
    dataset.PixelData = words.byteswap().tobytes()
    dataset["PixelData"].VR = "OW"


def test_pixels_of_a_byte_in_big_endian_words_are_two_to_a_word(tmp_path: Path) -> None:
    datasets = series(BYTES)
    for dataset in datasets:
        swapped(dataset)
    files = write(datasets, tmp_path / "in", ExplicitVRBigEndian)
    assert np.array_equal(voxels(files), BYTES.stored)
    other = by_dicom2nifti(tmp_path / "in", tmp_path / "out")
    assert other is not None
    assert same_voxels(ours(files), other)


def test_frames_of_an_odd_number_of_bytes_begin_in_the_middle_of_a_word(tmp_path: Path) -> None:
    image = enhanced(BYTES)
    swapped(image)
    assert np.array_equal(voxels(write([image], tmp_path, ExplicitVRBigEndian)), BYTES.stored)


def two_times(offset: float) -> list[Dataset]:
    """Two volumes, the second so many pitches further on."""
    datasets = series(SCAN)
    again = copy.deepcopy(datasets)
    for k, dataset in enumerate(again):
        dataset.SOPInstanceUID = generate_uid()
        dataset.ImagePositionPatient = SCAN.position(k + offset)
    for number, dataset in enumerate([*datasets, *again]):
        dataset.TemporalPositionIdentifier = 1 + number // len(datasets)
    return [*datasets, *again]


def test_times_between_one_another_are_no_slices_of_one_volume(tmp_path: Path) -> None:
    error = refusal(write(two_times(0.5), tmp_path))
    assert (error.reason, error.shape) == ("ragged-frames", (40, 34, 12))
    assert error.message == "000.dcm and 006.dcm: 2 times of 6 slices lie between one another's"


def test_times_one_behind_another_are_one_volume(tmp_path: Path) -> None:
    assert voxels(write(two_times(6), tmp_path)).shape == (40, 34, 12)


@pytest.mark.parametrize("numbers", [[1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 2]])
def test_times_that_are_none_of_a_volume_leave_it_one(numbers: list[int], tmp_path: Path) -> None:
    datasets = series(SCAN)
    for dataset, number in zip(datasets, numbers, strict=True):
        dataset.TemporalPositionIdentifier = number
    assert np.array_equal(voxels(write(datasets, tmp_path)), SCAN.stored)


def report(sop_class: UID, series_uid: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.SeriesInstanceUID, dataset.Modality = series_uid, "OT"
    if sop_class == SegmentationStorage:
        set_pixels(dataset, np.zeros((8, 8), np.uint8))
        dataset.BitsAllocated = 8
    return dataset


DOCUMENTS = [
    BasicTextSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SegmentationStorage,
]


@pytest.mark.parametrize("sop_class", DOCUMENTS, ids=lambda uid: uid.name)
def test_documents_of_other_series_are_left_aside(sop_class: UID, tmp_path: Path) -> None:
    datasets = series(SCAN)
    files = write([report(sop_class, generate_uid()), *datasets], tmp_path / "in")
    (theirs,) = by_dcm2niix(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(voxels(files), SCAN.stored)
    assert same_voxels(ours(files), theirs)
    assert same_place(ours(files), theirs)


def test_a_document_of_the_same_series_may_stand_for_a_slice(tmp_path: Path) -> None:
    datasets = series(SCAN)
    datasets[-1] = report(BasicTextSRStorage, datasets[0].SeriesInstanceUID)
    error = refusal(write(datasets, tmp_path))
    assert error.reason == "not-a-volume-image"
    assert error.message.startswith("005.dcm: Basic Text SR")


def test_documents_alone_are_no_series(tmp_path: Path) -> None:
    error = refusal(write([report(RTStructureSetStorage, "1.2.3")], tmp_path))
    assert error.reason == "not-a-volume-image"


def copied(folder: Path) -> list[tuple[str, Path]]:
    files = write(series(SCAN), folder)
    shutil.copy(files[2][1], folder / "copy.dcm")
    return [*files, ("copy.dcm", folder / "copy.dcm")]


def test_a_copy_of_a_file_is_left_aside(tmp_path: Path) -> None:
    assert np.array_equal(voxels(copied(tmp_path)), SCAN.stored)


def test_two_files_of_one_identifier_that_differ_are_no_copies(tmp_path: Path) -> None:
    files = copied(tmp_path)
    data = bytearray(files[-1][1].read_bytes())
    data[-1] ^= 1
    files[-1][1].write_bytes(data)
    assert refusal(files).reason == "ragged-frames"


def test_a_table_of_values_among_functional_groups_is_refused(tmp_path: Path) -> None:
    image = enhanced(SCAN)
    for group in image.PerFrameFunctionalGroupsSequence:
        transformation = Dataset()
        transformation.ModalityLUTSequence = Items([Dataset()])
        group.PixelValueTransformationSequence = Items([transformation])
    assert refusal(write([image], tmp_path)).reason == "modality-lut"


@pytest.mark.parametrize("keyword", ["SliceThickness", "AcquisitionNumber"])
def test_what_a_volume_does_not_need_may_be_no_number(keyword: str, tmp_path: Path) -> None:
    datasets = series(SCAN)
    for dataset in datasets:
        setattr(dataset, keyword, [1, 2])
    assert np.array_equal(voxels(write(datasets, tmp_path)), SCAN.stored)


def test_a_single_slice_of_two_thicknesses_has_no_pitch(tmp_path: Path) -> None:
    datasets = series(Scan(slices=1))
    datasets[0].SliceThickness = [1, 2]
    with pytest.raises(Refused) as caught:
        read_series(write(datasets, tmp_path))
    assert caught.value.reason == "missing-geometry"


def test_a_slice_may_lie_no_half_pixel_beside_its_place_however_wide_the_gaps(
    tmp_path: Path,
) -> None:
    scan = Scan(pitch=10.0, between_columns=0.25, between_rows=0.25)
    datasets = series(scan)
    x, y, z = scan.position(2)
    datasets[2].ImagePositionPatient = [x + 0.12, y, z]
    assert voxels(write(datasets, tmp_path / "near")).shape == (40, 34, 6)
    datasets[2].ImagePositionPatient = [x + 0.13, y, z]
    error = refusal(write(datasets, tmp_path / "off"))
    assert error.reason == "tilted"
    assert error.message == "002.dcm: 0.13 mm beside its place in an even row"
