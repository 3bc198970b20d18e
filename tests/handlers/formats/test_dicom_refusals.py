"""What cannot be converted rightly is refused with a reason, the file and the measure; the voxel
grid is told all the same where it is known."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    MPEG2MPML,
    UID,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from consumer.errors import Refused, Transient
from handlers.formats import dicom, dicom_files, dicom_multiframe, dicom_tags
from handlers.formats.dicom import read_series
from tests.handlers.formats.dicom_phantoms import (
    SAGITTAL,
    Scan,
    enhanced,
    series,
    set_pixels,
    write,
)

SCAN = Scan()
Spoil = Callable[[list[Dataset]], None]


def moved(positions: list[float]) -> Spoil:
    """Slices at these places, in pitches."""

    def spoil(datasets: list[Dataset]) -> None:
        for dataset, k in zip(datasets, positions, strict=True):
            dataset.ImagePositionPatient = SCAN.position(k)

    return spoil


def leaning(millimetres: float) -> Spoil:
    """Each slice that much further along y."""

    def spoil(datasets: list[Dataset]) -> None:
        for k, dataset in enumerate(datasets):
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y + k * millimetres, z]

    return spoil


def aside(datasets: list[Dataset]) -> None:
    x, y, z = datasets[2].ImagePositionPatient
    datasets[2].ImagePositionPatient = [x + 5, y, z]


def drop(index: int) -> Spoil:
    def spoil(datasets: list[Dataset]) -> None:
        del datasets[index]

    return spoil


def twice(index: int) -> Spoil:
    def spoil(datasets: list[Dataset]) -> None:
        again = copy.deepcopy(datasets[index])
        again.SOPInstanceUID = generate_uid()
        datasets.append(again)

    return spoil


def all_twice(datasets: list[Dataset]) -> None:
    again = copy.deepcopy(datasets)
    for dataset in again:
        dataset.SOPInstanceUID = generate_uid()
    datasets += again


def all_twice_at_one_time(datasets: list[Dataset]) -> None:
    for dataset in datasets:
        dataset.TemporalPositionIdentifier, dataset.AcquisitionNumber = 1, 1
    all_twice(datasets)


def beside_each_other(datasets: list[Dataset]) -> None:
    again = copy.deepcopy(datasets)
    for n, dataset in enumerate([*datasets, *again]):
        dataset.TemporalPositionIdentifier = 1 + n // len(datasets)
    for dataset in again:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + 30, y, z]
    datasets += again


def put(index: int | None = None, **values: Any) -> Spoil:
    """Elements of one dataset, or of all; None removes."""

    def spoil(datasets: list[Dataset]) -> None:
        for dataset in datasets if index is None else [datasets[index]]:
            for keyword, value in values.items():
                if value is None:
                    delattr(dataset, keyword)
                else:
                    setattr(dataset, keyword, value)

    return spoil


def beside(scan: Scan, **values: Any) -> Spoil:
    """Two slices of another scan, with these elements."""

    def spoil(datasets: list[Dataset]) -> None:
        others = series(scan)[:2]
        for dataset in others:
            dataset.SeriesInstanceUID = datasets[0].SeriesInstanceUID
            dataset.FrameOfReferenceUID = datasets[0].FrameOfReferenceUID
        put(None, **values)(others)
        datasets += others

    return spoil


def rgb(datasets: list[Dataset]) -> None:
    for dataset in datasets:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
        dataset.PlanarConfiguration = 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        set_pixels(dataset, np.zeros((3 * 40, 34), np.uint8))


def siemens_private(datasets: list[Dataset]) -> None:
    for dataset in datasets:
        dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
        dataset.add_new(0x0019100A, "US", 36)


def lookup_table(datasets: list[Dataset]) -> None:
    datasets[1].ModalityLUTSequence = Items([Dataset()])


FLIPPED = [1, 0, 0, 0, 0, 1]
GRID = (40, 34, 6)

REFUSED: dict[str, tuple[Spoil, str, tuple[int, int, int] | None, str]] = {
    "tilt": (leaning(0.5), "tilted", GRID, "20.00% of the pitch (11.31 degrees)"),
    "a slight shear": (leaning(0.03), "tilted", GRID, "1.20% of the pitch"),
    "a slice aside": (aside, "tilted", GRID, "5 mm beside its place"),
    "a wide gap": (moved([0, 1, 2, 3.5, 4.5, 5.5]), "unequal-spacing", GRID, "3.75 mm"),
    "a missing slice": (drop(2), "missing-slices", (40, 34, 5), "2 times the usual 2.5 mm"),
    "two missing slices": (
        moved([0, 1, 2, 3, 6, 7]), "missing-slices", GRID, "3 times the usual",
    ),
    "a slice twice": (twice(2), "ragged-frames", GRID, "2 at 002.dcm"),
    "every slice twice": (all_twice, "duplicate-positions", GRID, "no index of time"),
    "every slice twice at a time": (
        all_twice_at_one_time, "duplicate-positions", GRID, "no index of time",
    ),
    "times beside each other": (beside_each_other, "duplicate-positions", GRID, "30 mm beside"),
    "all in one place": (moved([0] * 6), "duplicate-positions", (40, 34, 1), "one place"),
    "mixed orientation": (
        beside(Scan(directions=SAGITTAL)), "mixed-orientation", None, "differ by 1",
    ),
    "one turned slice": (put(3, ImageOrientationPatient=FLIPPED), "mixed-orientation", None, "003"),
    "mixed sizes": (beside(Scan(rows=20)), "mixed-size", None, "(40, 34) and (40, 20)"),
    "mixed spacing": (put(3, PixelSpacing=[1.25, 0.76]), "mixed-spacing", None, "1.25 x 0.76 mm"),
    "two series": (put(3, SeriesInstanceUID="1.2.3"), "several-series", None, "2 series"),
    "two frames of reference": (
        put(3, FrameOfReferenceUID="1.2.3"), "mixed-frame-of-reference", None, "003.dcm",
    ),
    "signed and unsigned": (put(3, PixelRepresentation=0), "mixed-pixels", None, "003.dcm"),
    "light and dark": (
        put(3, PhotometricInterpretation="MONOCHROME1"), "mixed-pixels", None, "MONOCHROME1",
    ),
    "rescaled and not": (
        put(3, RescaleSlope=None, RescaleIntercept=None), "mixed-pixels", None, "003.dcm does not",
    ),
    "a mosaic": (
        put(None, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "siemens-mosaic", None, "000",
    ),
    "a mosaic that only Siemens tells": (siemens_private, "siemens-mosaic", None, "000.dcm"),
    "colour": (rgb, "color-pixels", None, "3 samples per pixel, RGB"),
    "a palette": (
        put(None, PhotometricInterpretation="PALETTE COLOR"), "color-pixels", None, "PALETTE",
    ),
    "a table for values": (lookup_table, "modality-lut", None, "001.dcm"),
    "no position": (put(2, ImagePositionPatient=None), "missing-geometry", None, "002.dcm"),
    "no orientation": (put(2, ImageOrientationPatient=None), "missing-geometry", None, "Orient"),
    "no spacing": (put(2, PixelSpacing=None), "missing-geometry", None, "PixelSpacing"),
    "no rows": (put(2, Rows=None), "missing-tag", None, "Rows"),
    "no class": (put(2, SOPClassUID="1.2.3"), "not-a-volume-image", None, "002.dcm"),
    "no pixels": (put(2, PixelData=None), "no-pixels", None, "002.dcm"),
    "two numbers for a place": (put(2, ImagePositionPatient=[1, 2]), "bad-tag", None, "2 values"),
    "spacing of 0": (put(None, PixelSpacing=[0, 1]), "bad-spacing", None, "0 x 1 mm"),
    "spacing below 0": (put(None, PixelSpacing=[-1, 1]), "bad-spacing", None, "-1 x 1 mm"),
    "spacing beyond the world": (put(None, PixelSpacing=["1e30", 1]), "bad-spacing", None, "1e+30"),
    "a place beyond the world": (
        put(2, ImagePositionPatient=["1e300", 0, 0]), "bad-orientation", None, "002.dcm",
    ),
    "directions too long": (
        put(None, ImageOrientationPatient=[1.1, 0, 0, 0, 1, 0]), "bad-orientation", None, "1.1",
    ),
    "directions of no length": (
        put(None, ImageOrientationPatient=[0, 0, 0, 0, 1, 0]), "bad-orientation", None, "length 0",
    ),
    "directions at no right angle": (
        put(None, ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]), "bad-orientation", None, "0.6",
    ),
    "a slope of 0": (put(2, RescaleSlope=0), "bad-rescale", None, "002.dcm"),
    "12 packed bits": (put(None, BitsAllocated=12), "unsupported-pixels", None, "12 bits"),
    "more bits than there are": (put(None, BitsStored=17), "unsupported-pixels", None, "17 of 16"),
    "bits not at the bottom": (put(None, HighBit=12), "unsupported-pixels", None, "highest 12"),
    "frames without a place": (
        put(0, NumberOfFrames=4), "multi-frame-without-geometry", None, "4 frames",
    ),
    "a picture of a screen": (
        put(None, SOPClassUID=SecondaryCaptureImageStorage, ImagePositionPatient=None),
        "missing-geometry", None, "ImagePositionPatient",
    ),
    "a segmentation beside it": (
        put(2, SOPClassUID=SegmentationStorage), "not-a-volume-image", None, "Segmentation",
    ),
}  # fmt: skip


def refusal(files: list[tuple[str, Path]]) -> Refused:
    with pytest.raises(Refused) as caught:
        read_series(files).write_nifti(io.BytesIO())
    return caught.value


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_even_volume_is_refused_with_file_and_measure(what: str, tmp_path: Path) -> None:
    spoil, reason, shape, measure = REFUSED[what]
    datasets = series(SCAN)
    spoil(datasets)
    error = refusal(write(datasets, tmp_path))
    assert (error.reason, error.shape) == (reason, shape)
    assert measure in error.message
    assert ".dcm" in error.message


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "1,5", "0x10", "1e999", "5\\"])
def test_a_number_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    files = write(series(SCAN), tmp_path)
    data = files[1][1].read_bytes()
    at = data.index(b"\x28\x00\x53\x10DS")  # RescaleSlope
    old = data[at : at + 8 + data[at + 6]]
    value = text.encode() + b" " * (len(text) % 2)
    files[1][1].write_bytes(data.replace(old, old[:6] + bytes([len(value), 0]) + value))
    error = refusal(files)
    assert error.reason == "bad-tag"
    assert error.message.startswith("001.dcm: RescaleSlope")


def test_a_drift_that_is_small_from_slice_to_slice_is_refused_when_it_adds_up(
    tmp_path: Path,
) -> None:
    scan = Scan(columns=8, rows=8, slices=40)
    datasets = series(scan)
    leaning(0.02)(datasets)  # 0.8 % of the pitch, 0.78 mm in all
    error = refusal(write(datasets, tmp_path))
    assert (error.reason, error.shape) == ("tilted", (8, 8, 40))
    assert "0.78 mm in all" in error.message


def test_gaps_that_grow_by_little_are_refused_when_slices_leave_their_places(
    tmp_path: Path,
) -> None:
    scan = Scan(columns=8, rows=8, slices=61)
    datasets = series(scan)
    for k, at in enumerate(np.cumsum([0, *np.linspace(0.96, 1.04, 60)])):
        datasets[k].ImagePositionPatient = scan.position(at)
    error = refusal(write(datasets, tmp_path))
    assert (error.reason, error.shape) == ("unequal-spacing", (8, 8, 61))
    assert "along the normal from its place" in error.message


def test_a_drift_below_both_limits_is_kept_in_the_affine(tmp_path: Path) -> None:
    datasets = series(SCAN)
    leaning(0.01)(datasets)
    affine = np.array(read_series(write(datasets, tmp_path)).grid.affine)
    assert np.allclose(affine[:3, 2], [0, -0.01, 2.5])


def test_a_single_slice_without_a_thickness_has_no_pitch(tmp_path: Path) -> None:
    datasets = series(Scan(slices=1))
    del datasets[0].SliceThickness
    error = refusal(write(datasets, tmp_path))
    assert (error.reason, error.shape) == ("missing-geometry", (40, 34, 1))


def lose_a_frames_place(image: Dataset) -> None:
    del image.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence


def lose_a_group(image: Dataset) -> None:
    del image.PerFrameFunctionalGroupsSequence[3]


def lose_all_groups(image: Dataset) -> None:
    del image.PerFrameFunctionalGroupsSequence


def turn_a_frame(image: Dataset) -> None:
    group = image.PerFrameFunctionalGroupsSequence[3]
    group.PlaneOrientationSequence[0].ImageOrientationPatient = FLIPPED


def one_frame_twice(image: Dataset) -> None:
    groups = image.PerFrameFunctionalGroupsSequence
    groups[3].PlanePositionSequence = copy.deepcopy(groups[2].PlanePositionSequence)


def no_frames(image: Dataset) -> None:
    image.NumberOfFrames = 0


@pytest.mark.parametrize(
    ("spoil", "reason", "measure"),
    [
        (lose_a_frames_place, "missing-geometry", "frame 4"),
        (lose_a_group, "multi-frame-without-geometry", "6 frames and functional groups of 5"),
        (lose_all_groups, "multi-frame-without-geometry", "6 frames"),
        (turn_a_frame, "mixed-orientation", "frame 4"),
        (one_frame_twice, "ragged-frames", "2 at 000.dcm frame 3"),
        (no_frames, "too-many-frames", "0 frames"),
    ],
)
def test_a_multi_frame_image_follows_the_same_rules(
    spoil: Callable[[Dataset], None], reason: str, measure: str, tmp_path: Path
) -> None:
    image = enhanced(SCAN)
    spoil(image)
    error = refusal(write([image], tmp_path))
    assert error.reason == reason
    assert measure in error.message


def test_times_that_not_every_place_has_are_refused(tmp_path: Path) -> None:
    image = enhanced(SCAN, times=2)
    groups = image.PerFrameFunctionalGroupsSequence
    content = groups[1].FrameContentSequence[0]
    content.TemporalPositionIndex, content.DimensionIndexValues = 7, [2, 7]
    assert refusal(write([image], tmp_path)).reason == "duplicate-positions"


def test_several_multi_frame_files_are_no_volume(tmp_path: Path) -> None:
    images = [enhanced(SCAN), enhanced(SCAN)]
    assert refusal(write(images, tmp_path)).reason == "several-multi-frame"


def test_no_file_is_no_series() -> None:
    assert refusal([]).reason == "not-dicom"


def test_a_file_that_is_not_dicom_is_named(tmp_path: Path) -> None:
    files = write(series(SCAN), tmp_path)
    files[2][1].write_bytes(b"not an image at all" * 20)
    error = refusal(files)
    assert (error.reason, error.message) == ("not-dicom", "002.dcm is not a DICOM file")


def test_a_name_from_outside_is_shown_short_and_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"nothing")
    error = refusal([("a\nb\x1b[0m" + "x" * 5000, path)])
    assert error.message.startswith("a?b?[0mxxx")
    assert len(error.message) < 200


def test_a_file_that_is_gone_may_come_back(tmp_path: Path) -> None:
    files = write(series(SCAN), tmp_path)
    read = read_series(files)
    files[2][1].unlink()
    with pytest.raises(Transient, match=r"002\.dcm"):
        read.write_nifti(io.BytesIO())
    with pytest.raises(Transient, match=r"002\.dcm"):
        read_series(files)


def test_more_files_than_a_series_has_are_refused_unread() -> None:
    files = [("a", Path("/nonexistent"))] * (dicom.MAX_FILES + 1)
    assert refusal(files).reason == "too-many-files"


def test_more_voxels_than_we_allow_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    datasets = series(Scan(slices=40, columns=8, rows=8))
    put(None, Rows=32767, Columns=32767)(datasets)
    assert refusal(write(datasets, tmp_path)).reason == "image-too-large"


def test_more_frames_than_we_allow_are_refused(tmp_path: Path) -> None:
    image = enhanced(SCAN)
    image.NumberOfFrames = dicom_multiframe.MAX_FRAMES + 1
    assert refusal(write([image], tmp_path)).reason == "too-many-frames"


EMPTY_ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"


def test_a_header_of_items_without_end_is_read_no_further_than_its_limit(tmp_path: Path) -> None:
    files = write(series(Scan(slices=1)), tmp_path)
    data = files[0][1].read_bytes()
    at = data.index(b"\x28\x00\x02\x00US")  # SamplesPerPixel
    items = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + EMPTY_ITEM * (dicom_tags.MAX_ITEMS + 2)
    files[0][1].write_bytes(data[:at] + items + data[at:])
    assert refusal(files).reason == "dicom-header-too-large"


def test_a_functional_group_of_too_many_items_is_refused_unparsed(tmp_path: Path) -> None:
    files = write([enhanced(SCAN)], tmp_path)
    data = files[0][1].read_bytes()
    items = EMPTY_ITEM * (dicom_tags.MAX_ITEMS + 1)
    at = data.index(b"\x00\x52\x30\x92SQ")
    length = len(items).to_bytes(4, "little")
    files[0][1].write_bytes(
        data[: at + 8] + length + items + data[data.index(b"\xe0\x7f\x10\0O") :]
    )
    error = refusal(files)
    assert (error.reason, "over 100000 items" in error.message) == ("bad-tag", True)


def test_more_bytes_than_a_header_has_are_not_read(tmp_path: Path) -> None:
    files = write(series(Scan(slices=1)), tmp_path)
    data = files[0][1].read_bytes()
    at = data.index(b"\x08\x00\x60\x00CS")
    long = dicom_files.MAX_HEADER.to_bytes(4, "little")
    element = b"\x08\x00\x08\x00UT\0\0" + long + b" " * dicom_files.MAX_HEADER
    files[0][1].write_bytes(data[:at] + element + data[at:])
    assert refusal(files).reason == "dicom-header-too-large"


def test_a_transfer_syntax_without_a_decoder_is_named(tmp_path: Path) -> None:
    files = write(series(Scan(slices=1)), tmp_path, JPEG2000Lossless)
    replace_syntax(files[0][1], MPEG2MPML)
    error = refusal(files)
    assert error.reason == "unsupported-transfer-syntax"
    assert "MPEG2 Main Profile" in error.message


def test_a_frame_that_cannot_be_decoded_tells_from_what_and_what_might(tmp_path: Path) -> None:
    dataset = dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / "JPGExtended.dcm")
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    dataset.SliceThickness = 1
    dataset.save_as(tmp_path / "twelve-bits.dcm")
    error = refusal([("twelve-bits.dcm", tmp_path / "twelve-bits.dcm")])
    assert error.reason == "undecodable-pixels"
    assert error.message.startswith("twelve-bits.dcm: cannot be decoded from JPEG Extended")
    assert "pylibjpeg-libjpeg" in error.message


def replace_syntax(path: Path, syntax: str) -> None:
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path)
