"""Phantom studies: valid DICOM, a truth that lies where the image shows it, fast and repeatable."""

from __future__ import annotations

import gzip
import io
import time

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from consumer.demo.phantom import (
    INTERCEPT,
    ORGANS,
    Organ,
    Phantom,
    ct_series,
    frame_masks,
    nifti_mask,
    truth,
)
from handlers.formats.nifti import read_label_map
from handlers.formats.png import check_png

PHANTOM = Phantom(seed=7)
SLICES = [pydicom.dcmread(io.BytesIO(data)) for data in ct_series(PHANTOM)]


def test_a_series_is_one_study_of_distinct_slices_with_valid_ids() -> None:
    assert len(SLICES) == PHANTOM.shape[2]
    assert len({s.SeriesInstanceUID for s in SLICES}) == 1
    assert len({s.SOPInstanceUID for s in SLICES}) == len(SLICES)
    for s in SLICES:
        assert s.SOPInstanceUID == s.file_meta.MediaStorageSOPInstanceUID
        ids = (s.StudyInstanceUID, s.SeriesInstanceUID, s.FrameOfReferenceUID, s.SOPInstanceUID)
        assert all(uid.is_valid for uid in ids)


def test_nobody_takes_the_patient_for_a_real_one() -> None:
    assert all(str(s.PatientName).startswith("Phantom^") for s in SLICES)


def test_the_affine_takes_a_voxel_to_where_dicom_says_it_is() -> None:
    column, row, k = 10, 20, 5
    s = SLICES[k]
    along_row, along_column = np.array(s.ImageOrientationPatient[:3]), s.ImageOrientationPatient[3:]
    lps = (
        np.array(s.ImagePositionPatient)
        + along_row * s.PixelSpacing[1] * column
        + np.array(along_column) * s.PixelSpacing[0] * row
    )
    ras = np.array(PHANTOM.affine) @ (column, row, k, 1)
    assert np.allclose(ras[:3], lps * (-1, -1, 1))


def test_rows_and_columns_keep_their_own_spacing() -> None:
    s = pydicom.dcmread(io.BytesIO(ct_series(Phantom(shape=(8, 6, 2), spacing=(1, 2, 3)))[0]))
    assert (s.Columns, s.Rows) == (8, 6)
    assert [float(v) for v in s.PixelSpacing] == [2.0, 1.0]  # between rows, between columns


def test_the_truth_lies_where_the_image_shows_the_organ() -> None:
    image = np.stack([s.pixel_array.T for s in SLICES], axis=2).astype(int) + INTERCEPT
    labels = truth(PHANTOM)
    for organ in ORGANS:
        inside = image[labels == organ.value]
        assert inside.size > 50
        assert abs(inside.mean() - organ.hounsfield) < 3


def test_a_seed_gives_the_same_study_and_another_seed_another() -> None:
    assert ct_series(PHANTOM) == ct_series(Phantom(seed=7))
    assert np.array_equal(truth(PHANTOM), truth(Phantom(seed=7)))
    assert ct_series(PHANTOM)[0] != ct_series(Phantom(seed=8))[0]
    assert not np.array_equal(truth(PHANTOM), truth(Phantom(seed=8)))
    assert PHANTOM.uid("series") != Phantom(seed=8).uid("series")


def test_a_later_organ_wins_where_two_meet() -> None:
    whole = ((0.5, 0.5, 0.5), (2.0, 2.0, 2.0))
    organs = (Organ("one", 1, 10, *whole), Organ("two", 2, 20, *whole))
    assert (truth(Phantom(organs=organs)) == 2).all()


def test_a_study_takes_less_than_a_third_of_a_second() -> None:
    began = time.process_time()
    ct_series(Phantom(seed=9))
    assert time.process_time() - began < 0.3


def test_a_vendors_mask_is_right_and_never_twice_the_same() -> None:
    labels = truth(PHANTOM)
    first, second = nifti_mask(labels, PHANTOM.affine), nifti_mask(labels, PHANTOM.affine)
    assert first != second
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(first))
    assert np.array_equal(np.asanyarray(image.dataobj), labels)
    assert np.allclose(image.affine, PHANTOM.affine)
    assert np.array_equal(read_label_map(first).array, labels)


@pytest.mark.parametrize(("view", "axis"), [("Axial", 2), ("Sagittal", 0), ("Coronal", 1)])
def test_every_view_stacks_up_to_the_same_organ(view: str, axis: int) -> None:
    labels = truth(PHANTOM)
    stacked = np.zeros(PHANTOM.shape, bool)
    for frame, data in frame_masks(labels, 1, frame_base=0)[view].items():
        info = check_png(data)
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        assert set(np.unique(pixels)) == {0, 255}
        assert (info.height, info.width) == pixels.shape
        np.moveaxis(stacked, axis, 0)[frame] = pixels.T == 255
    assert np.array_equal(stacked, labels == 1)


def test_frames_are_counted_from_the_base_that_is_asked_for() -> None:
    labels = truth(PHANTOM)
    from_zero = frame_masks(labels, 2, frame_base=0)["Coronal"]
    from_one = frame_masks(labels, 2)["Coronal"]
    assert {frame + 1: data for frame, data in from_zero.items()} == from_one


def test_frames_without_the_organ_have_no_mask() -> None:
    assert frame_masks(truth(PHANTOM), 99) == {"Axial": {}, "Sagittal": {}, "Coronal": {}}
