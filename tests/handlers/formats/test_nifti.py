"""What is read of a NIfTI file, and what is refused, with nibabel as the other reader."""

from __future__ import annotations

import gzip
import math
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest

from consumer.errors import Permanent, Transient
from handlers.formats.gunzip import MAX_MEMBERS
from handlers.formats.nifti import read_label_map
from tests.handlers.formats.nifti_samples import LABELS, SFORM, Sample


def refused(data: bytes, kind: type[Permanent] | type[Transient], **limits: int) -> str:
    with pytest.raises(kind) as caught:
        read_label_map(data, **limits)
    return caught.value.reason


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_type_order_and_version_is_read(dtype: str, order: str, version: int) -> None:
    sample = Sample(dtype=dtype, order=order, version=version)
    for data in (sample.nii(), sample.gz()):
        label_map = read_label_map(data)
        assert label_map.array.dtype == np.uint8
        assert np.array_equal(label_map.array, LABELS)
        assert label_map.affine == (*SFORM, (0.0, 0.0, 0.0, 1.0))


@pytest.mark.parametrize("version", [1, 2])
def test_the_samples_are_what_nibabel_reads_too(version: int) -> None:
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    sample = Sample(version=version, order=">", dtype="i2", extension=b"a note")
    image = kind.from_bytes(sample.nii())
    assert np.array_equal(np.asanyarray(image.dataobj), LABELS)
    assert np.array_equal(image.affine[:3], SFORM)


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_extension_does_not_shift_the_voxels(version: int) -> None:
    sample = Sample(version=version, extension=b"<xml>" + bytes(range(256)) * 20)
    assert np.array_equal(read_label_map(sample.gz()).array, LABELS)


def test_a_voxel_offset_of_zero_means_right_after_the_header() -> None:
    assert np.array_equal(read_label_map(Sample(offset=0.0).nii()).array, LABELS)


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(255, "u1"), (256, "u2"), (65_535, "u2"), (65_536, "u4"), (2**32 - 1, "u4")],
)
def test_labels_take_the_smallest_type_that_holds_them(largest: int, dtype: str) -> None:
    voxels = LABELS.astype("u8")
    voxels[6, 4, 3] = largest
    label_map = read_label_map(Sample(voxels, "u8").gz())
    assert label_map.array.dtype == np.dtype(dtype)
    assert np.array_equal(label_map.array, voxels)


def test_labels_read_before_a_wider_one_are_kept() -> None:
    voxels = np.zeros((128, 128, 160), np.uint16)  # more than two blocks
    voxels[5, 5, 0], voxels[6, 6, 80], voxels[7, 7, 159] = 9, 300, 65_000
    assert np.array_equal(read_label_map(Sample(voxels, "u2").gz()).array, voxels)


def test_several_gzip_members_are_one_file() -> None:
    data = Sample().nii()
    members = [gzip.compress(data[at : at + 100]) for at in range(0, len(data), 100)]
    assert np.array_equal(read_label_map(b"".join([*members, gzip.compress(b"")])).array, LABELS)


@pytest.mark.parametrize("dim", [(2, 7, 20), (4, 7, 5, 4, 1), (7, 7, 5, 4, 1, 1, 1, 1)])
def test_dimensions_of_one_voxel_may_trail(dim: tuple[int, ...]) -> None:
    label_map = read_label_map(Sample(dim=dim).gz())
    assert label_map.shape == (*dim[1:4], 1)[:3]


@pytest.mark.parametrize("dim", [(1, 140), (4, 7, 5, 2, 2), (3, 7, 20, 0), (3, -7, -5, 4)])
def test_what_is_no_volume_is_refused(dim: tuple[int, ...]) -> None:
    assert refused(Sample(dim=dim).gz(), Permanent) in {"mask-not-a-volume", "mask-too-large"}


@pytest.mark.parametrize("ndim", [0, 8, -3])
def test_an_impossible_number_of_dimensions_is_refused(ndim: int) -> None:
    assert refused(Sample(dim=(ndim, 7, 5, 4)).nii(), Permanent) == "mask-not-nifti"


def test_the_quaternion_places_voxels_where_there_is_no_sform() -> None:
    half = math.sqrt(0.5)
    sample = Sample(sform=None, qform=(0.0, 0.0, half, 1, 2, 3), pixdim=(-1, 2, 3, 4))
    label_map = read_label_map(sample.gz())
    assert label_map.geometry == "qform"
    expected = nibabel.Nifti1Image.from_bytes(sample.nii()).affine
    assert np.allclose(label_map.affine, expected, atol=1e-5)
    assert np.allclose(label_map.affine[0], (0, -3, 0, 1), atol=1e-5)


def test_without_any_form_only_voxel_sizes_are_known() -> None:
    label_map = read_label_map(Sample(sform=None).gz())
    assert label_map.geometry == "pixdim"
    assert label_map.spacing == (0.75, 0.75, 2.5)
    assert label_map.affine[0] == (0.75, 0.0, 0.0, 0.0)


def test_an_axis_that_a_plane_does_not_have_is_one_millimetre() -> None:
    sample = Sample(sform=None, dim=(2, 7, 20), pixdim=(1.0, 0.75, 0.5, 0.0))
    assert read_label_map(sample.gz()).spacing == (0.75, 0.5, 1.0)


def test_a_voxel_size_of_zero_places_nothing() -> None:
    sample = Sample(sform=None, pixdim=(1.0, 0.75, 0.5, 0.0))
    assert refused(sample.gz(), Permanent) == "mask-bad-geometry"


@pytest.mark.parametrize(("units", "factor"), [(0, 1.0), (2, 1.0), (10, 1.0), (1, 1e3), (3, 1e-3)])
def test_metres_and_microns_become_millimetres(units: int, factor: float) -> None:
    spacing = read_label_map(Sample(units=units).gz()).spacing
    assert np.allclose(spacing, np.multiply((0.75, 0.75, 2.5), factor), rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_affine_of_no_numbers_is_refused(bad: float) -> None:
    sform = ((bad, 0.0, 0.0, 0.0), *SFORM[1:])
    assert refused(Sample(sform=sform).gz(), Permanent) == "mask-bad-geometry"


def test_an_affine_beyond_the_range_of_our_files_is_refused() -> None:
    sform = ((1e300, 0.0, 0.0, 0.0), *SFORM[1:])
    assert refused(Sample(sform=sform, version=2).gz(), Permanent) == "mask-bad-geometry"


@pytest.mark.parametrize("sform", [((0.0,) * 4,) * 3, (SFORM[0], SFORM[0], SFORM[2])])
def test_an_affine_that_flattens_space_is_refused(sform: tuple[tuple[float, ...], ...]) -> None:
    assert refused(Sample(sform=sform).gz(), Permanent) == "mask-bad-geometry"


def test_a_quaternion_of_no_numbers_is_refused() -> None:
    sample = Sample(sform=None, qform=(math.nan, 0, 0, 0, 0, 0))
    assert refused(sample.gz(), Permanent) == "mask-bad-geometry"


@pytest.mark.parametrize("scaling", [(0.0, 7.0), (1.0, 0.0), (math.nan, 0.0), (0.0, math.nan)])
def test_scaling_that_says_nothing_changes_nothing(scaling: tuple[float, float]) -> None:
    assert np.array_equal(read_label_map(Sample(scaling=scaling).gz()).array, LABELS)


def test_scaling_is_applied() -> None:
    label_map = read_label_map(Sample(scaling=(2.0, 3.0)).gz())
    assert np.array_equal(label_map.array, LABELS * 2 + 3)


def test_scaling_to_no_whole_numbers_is_refused() -> None:
    assert refused(Sample(scaling=(0.5, 0.0)).gz(), Permanent) == "mask-not-integer"


def test_scaling_by_no_number_is_refused() -> None:
    assert refused(Sample(scaling=(2.0, math.inf)).gz(), Permanent) == "mask-bad-header"


@pytest.mark.parametrize(
    ("voxel", "dtype", "reason"),
    [
        (0.5, "f4", "mask-not-integer"),
        (math.nan, "f8", "mask-not-integer"),
        (math.inf, "f4", "mask-not-integer"),
        (-1, "i1", "mask-negative-label"),
        (-(2**63), "i8", "mask-negative-label"),
        (-1.0, "f4", "mask-negative-label"),
        (2**32, "u8", "mask-label-too-large"),
        (1e30, "f4", "mask-label-too-large"),
    ],
)
def test_voxels_that_are_no_labels_are_refused(voxel: float, dtype: str, reason: str) -> None:
    voxels = LABELS.astype(dtype)
    voxels[3, 3, 3] = voxel
    assert refused(Sample(voxels, dtype).gz(), Permanent) == reason


@pytest.mark.parametrize("code", [0, 1, 32, 128, 1536, 1792, 2304, -5])
def test_types_that_hold_no_labels_are_refused(code: int) -> None:
    assert refused(Sample(code=code).gz(), Permanent) == "mask-unsupported-type"


@pytest.mark.parametrize("packed", [False, True])
def test_data_cut_anywhere_may_be_fetched_again(packed: bool) -> None:
    sample = Sample(extension=b"note")
    data = sample.gz() if packed else sample.nii()
    for end in range(len(data)):
        assert refused(data[:end], Transient) == "mask-truncated"


def test_a_damaged_gzip_may_be_fetched_again() -> None:
    data = bytearray(Sample().gz())
    data[-6] ^= 1  # its checksum
    assert refused(bytes(data), Transient) == "mask-damaged"


@pytest.mark.parametrize("tail", [b"\0", b"garbage", bytes(512), b"\x1f"])
def test_bytes_after_the_gzip_are_refused(tail: bytes) -> None:
    assert refused(Sample().gz() + tail, Permanent) == "mask-trailing-bytes"


def test_bytes_after_the_last_voxel_are_refused() -> None:
    for data in (Sample().nii() + b"\0", gzip.compress(Sample().nii() + b"\0")):
        assert refused(data, Permanent) == "mask-trailing-bytes"


@pytest.mark.parametrize(
    "data",
    [b"<!DOCTYPE html><html>", b"\x89PNG\r\n\x1a\n" + bytes(400), bytes(1000), b"NRRD0004\n"],
)
def test_what_does_not_begin_as_nifti_is_refused(data: bytes) -> None:
    assert refused(data, Permanent) == "mask-not-nifti"
    assert refused(gzip.compress(data), Permanent) == "mask-not-nifti"


@pytest.mark.parametrize("magic", [b"ni1\0", b"\0\0\0\0", b"n+2\0"])
def test_a_header_without_its_voxels_is_refused(magic: bytes) -> None:
    assert refused(Sample(magic=magic).nii(), Permanent) == "mask-not-nifti"


@pytest.mark.parametrize("offset", [math.nan, math.inf, -1.0, 100.0, 352.5, 1e9])
def test_a_voxel_offset_out_of_bounds_is_refused(offset: float) -> None:
    assert refused(Sample(offset=offset).nii(), Permanent) == "mask-bad-header"


def test_a_file_larger_than_allowed_is_refused_by_its_header() -> None:
    data = Sample().gz()
    size = len(Sample().nii())
    assert read_label_map(data, max_bytes=size).shape == (7, 5, 4)
    assert refused(data, Permanent, max_bytes=size - 1) == "mask-too-large"


def peak(data: bytes, kind: type[Permanent] | type[Transient]) -> tuple[str, int]:
    """Why it was refused, and the most memory it took on the way, in bytes."""
    tracemalloc.start()
    try:
        return refused(data, kind), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bomb(start: bytes, size: int) -> bytes:
    """A gzip that goes on with ``size`` zeros, one megabyte's worth repeated."""
    pack = zlib.compressobj(9, wbits=31)
    head = pack.compress(start) + pack.flush(zlib.Z_FULL_FLUSH)
    return head + (pack.compress(bytes(1 << 20)) + pack.flush(zlib.Z_FULL_FLUSH)) * (size >> 20)


def test_a_bomb_that_claims_a_small_volume_is_not_unpacked() -> None:
    reason, bytes_taken = peak(bomb(Sample().nii(), 1 << 30), Permanent)
    assert reason == "mask-trailing-bytes"
    assert bytes_taken < 8 << 20


def test_a_bomb_that_claims_a_gigantic_volume_is_not_unpacked() -> None:
    start = Sample(dim=(3, 2048, 2048, 250)).nii()[:352]
    reason, bytes_taken = peak(bomb(start, 1 << 30), Permanent)
    assert reason == "mask-too-large"
    assert bytes_taken < 8 << 20


def test_a_bomb_of_extensions_is_not_unpacked() -> None:
    start = Sample(version=2, offset=2**40).nii()[:544]
    reason, bytes_taken = peak(bomb(start, 64 << 20), Permanent)
    assert reason == "mask-bad-header"
    assert bytes_taken < 8 << 20


def test_dimensions_whose_product_overflows_are_refused() -> None:
    data = Sample(version=2, dim=(3, 2**40, 2**40, 2**40)).nii()
    assert refused(data, Permanent) == "mask-too-large"


def test_more_gzip_members_than_a_file_can_need_are_refused() -> None:
    data = gzip.compress(Sample().nii()[:4]) + gzip.compress(b"") * MAX_MEMBERS
    assert refused(data, Permanent) == "mask-too-large"
