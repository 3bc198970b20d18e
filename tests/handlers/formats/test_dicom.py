"""Whatever a series is made of, its voxels and their place are the truth, and what independent
converters make of it."""

from __future__ import annotations

import dataclasses
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from handlers.formats.dicom import DicomSeries, is_dicom, read_series
from handlers.formats.label_map import LabelMap
from handlers.formats.nifti import write_label_map
from tests.handlers.formats.dicom_oracles import (
    by_dcm2niix,
    by_dicom2nifti,
    ours,
    same_place,
    same_voxels,
)
from tests.handlers.formats.dicom_phantoms import (
    CORONAL,
    LOSSLESS,
    OBLIQUE,
    SAGITTAL,
    Scan,
    enhanced,
    reorder_frames,
    series,
    set_pixels,
    write,
)

SCAN = Scan()
TWELVE = Scan(bits_stored=12, signed=False, least=0, largest=4095, rescale=(1, -1024))
BYTES = Scan(bits_allocated=8, bits_stored=8, signed=False, least=0, largest=255)
SHARED = ["PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"]

PLAIN = {
    "axial": SCAN,
    "sagittal": Scan(directions=SAGITTAL),
    "coronal": Scan(directions=CORONAL),
    "oblique": Scan(directions=OBLIQUE),
    "no rescale": Scan(rescale=None, modality="MR"),
    "12 of 16 bits": TWELVE,
    "16 bits unsigned": Scan(signed=False, least=0, largest=65535),
    "beyond 16 bits": Scan(signed=False, least=0, largest=65535, rescale=(1, -1024)),
    "below 16 bits": Scan(least=-32768, largest=100, rescale=(1, -1024)),
    "8 bits": BYTES,
    "32 bits": Scan(bits_allocated=32, bits_stored=32, least=-(2**31), largest=2**31 - 1),
    "a fraction for a slope": Scan(rescale=(0.37, 1.5)),
    "a slope of 2": Scan(rescale=(2, -1024)),
    "a slope below 0": Scan(rescale=(-1, 0)),
    "a single slice": Scan(slices=1),
    "two slices": Scan(slices=2),
}


def check(files: list[tuple[str, Path]], scan: Scan, *, oracles: bool = True) -> None:
    """Ours is the truth; both oracles read the folder and say the same."""
    folder = files[0][1].parent
    converted = ours(files)
    slope, intercept = scan.rescale or (1, 0)
    truth = scan.stored.astype(np.float64) * slope + intercept
    assert np.allclose(np.asanyarray(converted.raw.dataobj), truth, rtol=1e-6)
    assert np.abs(converted.raw.affine - scan.affine).max() < 1e-3
    if oracles:
        theirs = by_dcm2niix(folder, folder.with_name("dcm2niix"))
        assert [same_voxels(converted, one) and same_place(converted, one) for one in theirs] == [
            True
        ]
        other = by_dicom2nifti(folder, folder.with_name("dicom2nifti"))
        assert other is not None
        assert same_voxels(converted, other)
        assert same_place(converted, other)


@pytest.mark.parametrize("what", PLAIN)
def test_a_series_is_what_two_independent_converters_make_of_it(what: str, tmp_path: Path) -> None:
    check(write(series(PLAIN[what]), tmp_path / "in"), PLAIN[what])


@pytest.mark.parametrize("scan", [SCAN, TWELVE], ids=["signed", "unsigned"])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_lossless_transfer_syntax_gives_the_same_voxels(
    syntax: str, scan: Scan, tmp_path: Path
) -> None:
    scan = dataclasses.replace(scan, slices=3)
    files = write(series(scan), tmp_path / "in", LOSSLESS[syntax])
    # dcm2niix does not inflate
    check(files, scan, oracles=LOSSLESS[syntax] != DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [("big endian", 8), ("big endian", 32), ("deflated", 8), ("deflated", 32), ("RLE", 8)],
)
def test_other_widths_have_the_same_voxels_in_every_byte_order(
    syntax: str, bits: int, tmp_path: Path
) -> None:
    scan = Scan(slices=2, bits_allocated=bits, bits_stored=bits, least=-100, largest=100)
    check(write(series(scan), tmp_path / "in", LOSSLESS[syntax]), scan, oracles=False)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("shared", [[], SHARED], ids=["per frame", "shared"])
def test_an_enhanced_image_is_a_volume(shared: list[str], modality: str, tmp_path: Path) -> None:
    scan = Scan(directions=OBLIQUE, modality=modality)
    check(write([enhanced(scan, shared=shared)], tmp_path / "in"), scan)


@pytest.mark.parametrize("syntax", ["RLE", "JPEG 2000", "JPEG-LS", "JPEG lossless", "big endian"])
def test_the_frames_of_an_enhanced_image_may_be_compressed(syntax: str, tmp_path: Path) -> None:
    check(write([enhanced(SCAN)], tmp_path / "in", LOSSLESS[syntax]), SCAN)


def test_the_frames_of_an_enhanced_image_may_lie_in_any_order(tmp_path: Path) -> None:
    image = enhanced(SCAN)
    order = [3, 1, 5, 0, 2, 4]
    reorder_frames(image, SCAN, order)
    files = write([image], tmp_path / "in")
    check(files, SCAN, oracles=False)
    assert same_voxels(ours(files), by_dcm2niix(tmp_path / "in", tmp_path / "out")[0])
    assert read_series(files).frames == tuple(order.index(k) for k in range(6))


def test_what_a_frame_says_of_itself_counts_before_what_all_share(tmp_path: Path) -> None:
    image = enhanced(SCAN)
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [9, 9], 9
    image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [measures]
    check(write([image], tmp_path / "in"), SCAN, oracles=False)


def in_time(frames: str, tag: str = "TemporalPositionIdentifier") -> list[Dataset]:
    """Three times of one place, those of time t all t higher."""
    if frames == "enhanced":
        image = enhanced(SCAN, times=3)
        reorder_frames(image, SCAN, [n * 5 % 18 for n in range(18)])
        return [image]
    datasets = []
    for t in range(3):
        for k, dataset in enumerate(series(SCAN)):
            dataset.SOPInstanceUID = generate_uid()
            dataset.InstanceNumber = 6 * t + k + 1
            setattr(dataset, tag, t + 1)
            set_pixels(dataset, SCAN.stored[:, :, k] + np.int16(t))
            datasets.append(dataset)
    return datasets[::-1]


@pytest.mark.parametrize(
    ("frames", "tag"),
    [
        ("enhanced", ""),
        ("single", "TemporalPositionIdentifier"),
        ("single", "AcquisitionNumber"),
    ],
)
def test_times_of_one_place_become_a_fourth_dimension(
    frames: str, tag: str, tmp_path: Path
) -> None:
    files = write(in_time(frames, tag), tmp_path / "in")
    converted = ours(files)
    truth = SCAN.stored[..., None].astype(int) + np.arange(3)
    assert np.array_equal(np.asanyarray(converted.raw.dataobj), truth)
    assert converted.raw.header["dim"][:5].tolist() == [4, 40, 34, 6, 3]
    assert converted.raw.header.get_xyzt_units() == ("mm", "unknown")
    (theirs,) = by_dcm2niix(tmp_path / "in", tmp_path / "out")
    assert same_voxels(converted, theirs)
    assert same_place(converted, theirs)
    read = read_series(files)
    assert (read.times, read.grid.shape) == (3, (40, 34, 6))


def test_slices_are_rescaled_one_by_one(tmp_path: Path) -> None:
    datasets = series(Scan(modality="PT"))
    slopes = [round(0.1 + 0.013 * k, 4) for k in range(6)]
    for dataset, slope in zip(datasets, slopes, strict=True):
        dataset.SOPClassUID = PositronEmissionTomographyImageStorage
        dataset.RescaleSlope = slope
    files = write(datasets, tmp_path / "in")
    converted = ours(files)
    voxels = np.asanyarray(converted.raw.dataobj)
    assert voxels.dtype == np.float32
    assert np.allclose(voxels, SCAN.stored * np.array(slopes), rtol=1e-6)
    other = by_dicom2nifti(tmp_path / "in", tmp_path / "out")
    assert other is not None
    assert same_voxels(converted, other)


def test_frames_of_an_enhanced_image_are_rescaled_one_by_one(tmp_path: Path) -> None:
    image = enhanced(SCAN)
    for k, group in enumerate(image.PerFrameFunctionalGroupsSequence):
        group.PixelValueTransformationSequence[0].RescaleSlope = k + 0.5
    voxels = np.asanyarray(ours(write([image], tmp_path / "in")).raw.dataobj)
    assert np.allclose(voxels, SCAN.stored * (np.arange(6) + 0.5), rtol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_those_stored_are_not_the_values(signed: bool, tmp_path: Path) -> None:
    least, largest = (-2048, 2047) if signed else (0, 4095)
    scan = Scan(bits_stored=12, signed=signed, least=least, largest=largest)
    datasets = series(scan)
    for k, dataset in enumerate(datasets):
        words = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF
        dataset.PixelData = (words | np.uint16(0x1000 * (k + 3))).tobytes()
    check(write(datasets, tmp_path / "in"), scan, oracles=False)


def test_monochrome1_keeps_its_values_as_dcm2niix_does(tmp_path: Path) -> None:
    datasets = series(SCAN)
    for dataset in datasets:
        dataset.PhotometricInterpretation = "MONOCHROME1"
    check(write(datasets, tmp_path / "in"), SCAN)


def test_neither_names_nor_numbers_order_the_slices(tmp_path: Path) -> None:
    datasets = series(SCAN)
    for n, dataset in enumerate(datasets):
        dataset.InstanceNumber, dataset.SliceLocation = 100 - n % 3, 5
    shuffled = [datasets[n] for n in (3, 0, 5, 1, 4, 2)]
    check(write(shuffled, tmp_path / "in"), SCAN, oracles=False)


def test_the_pitch_is_measured_whatever_thickness_and_spacing_say(tmp_path: Path) -> None:
    datasets = series(SCAN)
    for dataset in datasets:
        dataset.SliceThickness, dataset.SpacingBetweenSlices = 9, 2
    check(write(datasets, tmp_path / "in"), SCAN)


def test_the_pitch_is_the_mean_gap_and_its_deviation_is_told(tmp_path: Path) -> None:
    datasets = series(SCAN)
    datasets[3].ImagePositionPatient = SCAN.position(3.04)
    read = read_series(write(datasets, tmp_path / "in"))
    assert read.pitch_mm == pytest.approx(2.5)
    assert read.pitch_deviation == pytest.approx(0.04, abs=1e-6)


def test_the_tolerance_of_gaps_can_be_set(tmp_path: Path) -> None:
    datasets = series(SCAN)
    datasets[3].ImagePositionPatient = SCAN.position(3.2)
    assert read_series(
        write(datasets, tmp_path / "in"), pitch_tolerance=0.25
    ).pitch_deviation == pytest.approx(0.2, abs=1e-6)


def localizers(scan: Scan) -> list[Dataset]:
    beside = series(dataclasses.replace(scan, directions=SAGITTAL, slices=2, seed=9))
    for dataset in beside:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return beside


def test_localizers_beside_a_series_are_left_aside(tmp_path: Path) -> None:
    files = write([*localizers(SCAN), *series(SCAN)], tmp_path / "in")
    check(files, SCAN, oracles=False)


def header_of(read: DicomSeries) -> Any:
    out = io.BytesIO()
    read.write_nifti(out)
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(out.getvalue())).header


@pytest.mark.parametrize("directions", [OBLIQUE, CORONAL])
def test_both_forms_say_the_place_in_millimetres_and_no_text_is_told(
    directions: Any, tmp_path: Path
) -> None:
    header = header_of(read_series(write(series(Scan(directions=directions)), tmp_path)))
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-4)
    assert header.get_xyzt_units() == ("mm", "unknown")
    texts = ("descrip", "aux_file", "db_name", "intent_name", "data_type")
    assert [header[name].item() for name in texts] == [b""] * 5


def test_slices_that_lean_as_little_as_rounding_makes_them_are_read_by_itk(tmp_path: Path) -> None:
    datasets = series(SCAN)
    for k, dataset in enumerate(datasets):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + 0.02 * k, z]  # 0.8 % of the pitch
    read = read_series(write(datasets, tmp_path / "in"))
    with (tmp_path / "image.nii.gz").open("wb") as out:
        read.write_nifti(out)
    image = SimpleITK.ReadImage(tmp_path / "image.nii.gz")
    last = image.TransformIndexToPhysicalPoint((39, 33, 5))
    assert np.allclose(last, read.grid.patient(np.array([[39, 33, 5]])), atol=0.11)


def test_an_image_and_a_label_map_of_one_series_have_the_same_place_byte_for_byte(
    tmp_path: Path,
) -> None:
    read = read_series(write(series(Scan(directions=OBLIQUE)), tmp_path))
    labels = LabelMap(np.zeros(read.grid.shape, np.uint8), read.grid.affine)
    of_labels = nibabel.Nifti1Image.from_bytes(gzip.decompress(write_label_map(labels))).header
    of_image = header_of(read)
    for name in ("dim", "pixdim", "sform_code", "qform_code", "xyzt_units"):
        assert of_labels[name].tobytes() == of_image[name].tobytes()
    for name in ("srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"):
        assert of_labels[name].tobytes() == of_image[name].tobytes()


def test_equal_series_are_equal_bytes_whatever_their_files_are_called(tmp_path: Path) -> None:
    outs = []
    for name, syntax, order in (("a", "explicit", 1), ("b", "JPEG-LS", -1)):
        files = write(series(SCAN)[::order], tmp_path / name, LOSSLESS[syntax])
        out = io.BytesIO()
        read_series(files).write_nifti(out)
        outs.append(out.getvalue())
    assert outs[0] == outs[1]
    assert outs[0][4:8] == bytes(4)  # no time
    assert outs[0][3] == 0  # no name


def test_headers_come_in_the_order_of_slices_and_without_pixels(tmp_path: Path) -> None:
    read = read_series(write(series(SCAN)[::-1], tmp_path))
    assert [d.InstanceNumber for d in read.datasets] == [1, 2, 3, 4, 5, 6]
    assert read.frames == ()
    assert not any("PixelData" in dataset for dataset in read.datasets)
    assert read.datasets[0].PatientID == "none"
    assert (read.modality, read.frame_of_reference) == ("CT", read.datasets[0].FrameOfReferenceUID)


def test_a_multi_frame_file_has_one_header(tmp_path: Path) -> None:
    read = read_series(write([enhanced(SCAN)], tmp_path))
    assert [d.NumberOfFrames for d in read.datasets] == [6]
    assert read.frames == (0, 1, 2, 3, 4, 5)


OLD: dict[str, Callable[[bytes], bytes]] = {
    "no preamble": lambda data: data[132:],
    "no file meta information": lambda data: data[data.index(b"\x08\x00\x08\x00CS") :],
}


@pytest.mark.parametrize("what", OLD)
def test_files_of_before_the_preamble_are_read(what: str, tmp_path: Path) -> None:
    files = write(series(SCAN), tmp_path / "in", ExplicitVRLittleEndian)
    for _, path in files:
        path.write_bytes(OLD[what](path.read_bytes()))
    assert all(is_dicom(path) for _, path in files)
    check(files, SCAN, oracles=False)


@pytest.mark.parametrize("data", [b"", b"DICM", b"\x00" * 200, b"PK\x03\x04" + b"a" * 200])
def test_what_does_not_begin_as_dicom_does_is_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert not is_dicom(path)
