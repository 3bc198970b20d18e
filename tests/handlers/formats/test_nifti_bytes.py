"""Equal voxels in an equal place are equal bytes, which others read as we meant them."""

from __future__ import annotations

import gzip
import math
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from consumer.demo.phantom import Phantom, nifti_mask, truth
from handlers.formats.nifti import LabelMap, empty_label_map, read_label_map, write_label_map
from tests.handlers.formats.nifti_samples import LABELS, SFORM, Sample

AFFINE = (*SFORM, (0.0, 0.0, 0.0, 1.0))
SHEARED = ((1.0, 0.1, 0.0, 5.0), (0.0, 1.0, 0.0, 6.0), (0.0, 0.0, 2.0, 7.0), AFFINE[3])
PATIENT = b"Phantom^Patient"


def rewritten(data: bytes) -> bytes:
    return write_label_map(read_label_map(data))


def as_nibabel(data: bytes) -> Any:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data))


def volumes() -> st.SearchStrategy[NDArray[Any]]:
    shapes = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
    return st.sampled_from([255, 256, 65_535, 65_536, 2**32 - 1]).flatmap(
        lambda top: shapes.flatmap(lambda s: arrays(np.int64, s, elements=st.integers(0, top)))
    )


def affines() -> st.SearchStrategy[NDArray[np.float64]]:
    """Any rotation, mirrored or not, of any voxel sizes, anywhere in the room."""
    parts = st.tuples(*(st.floats(-1, 1) for _ in range(4))).filter(lambda q: math.hypot(*q) > 0.1)
    sizes = st.tuples(*(st.floats(0.05, 20) for _ in range(3)))
    offset = st.tuples(*(st.floats(-1000, 1000) for _ in range(3)))
    return st.builds(placed, parts, sizes, st.sampled_from([1, -1]), offset)


def placed(parts: Any, sizes: Any, mirror: int, offset: Any) -> NDArray[np.float64]:
    turn: Any = nibabel.quaternions.quat2mat(np.divide(parts, math.hypot(*parts)))  # type: ignore[no-untyped-call]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([sizes[0], sizes[1], sizes[2] * mirror])
    affine[:3, 3] = offset
    return affine


@settings(deadline=None, max_examples=60)
@given(volumes(), st.data())
def test_equal_voxels_are_equal_bytes_whoever_wrote_them(
    voxels: NDArray[Any], data: st.DataObject
) -> None:
    fits = ["i8", "u8", "f8"] + [t for t in ("u1", "u2", "u4", "i4") if voxels.max() < 2**31]
    fits = [t for t in fits if np.array_equal(voxels.astype(t), voxels)]
    version = data.draw(st.sampled_from([1, 2]))
    sample = Sample(
        voxels,
        data.draw(st.sampled_from(fits)),
        order=data.draw(st.sampled_from("<>")),
        version=version,
        extension=data.draw(st.binary(max_size=40)),
        text=data.draw(st.binary(max_size=16)),
    )
    theirs = sample.gz(data.draw(st.integers(0, 9)), data.draw(st.integers(0, 2**31)))
    ours = rewritten(theirs)
    assert ours == write_label_map(LabelMap(voxels, AFFINE)) == rewritten(ours)
    assert np.array_equal(np.asanyarray(as_nibabel(ours).dataobj), voxels)


@settings(deadline=None, max_examples=200)
@given(affines())
def test_nibabel_reads_both_forms_as_the_affine_we_were_given(affine: NDArray[np.float64]) -> None:
    header = as_nibabel(
        write_label_map(LabelMap(LABELS, tuple(map(tuple, affine.tolist()))))
    ).header
    sizes = np.array([*header.get_zooms(), 1])
    assert np.allclose(header.get_sform(), affine, rtol=1e-6, atol=1e-6)
    assert header["sform_code"] == 1
    if header["qform_code"]:
        assert np.allclose(header.get_qform() / sizes, affine / sizes, atol=2e-4)


@pytest.mark.parametrize("mirror", [1, -1])
@pytest.mark.parametrize(
    "parts",
    [(1, 0, 0, 0), (0, 0, 0, 1), (0, 1, 1, 0), (1, 0.1, 0.02, 0), (0.01, 0, 0, 1), (-0.3, 0, 0, 1)],
)
def test_what_scanners_send_has_both_forms(parts: tuple[float, ...], mirror: int) -> None:
    affine = placed(parts, (0.7, 0.8, 2.5), mirror, (-10, 20, 30))
    header = as_nibabel(
        write_label_map(LabelMap(LABELS, tuple(map(tuple, affine.tolist()))))
    ).header
    assert header["sform_code"] == header["qform_code"] == 1
    assert np.allclose(header.get_qform(), affine, atol=1e-4)


def test_a_little_off_a_half_turn_is_in_the_sform_only() -> None:
    affine = placed((0.0004, 0, 0, 1), (1, 1, 1), 1, (0, 0, 0))
    header = as_nibabel(
        write_label_map(LabelMap(LABELS, tuple(map(tuple, affine.tolist()))))
    ).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    assert np.allclose(header.get_best_affine(), affine, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(affines())
def test_a_qform_read_alone_is_the_place_nibabel_reads(affine: NDArray[np.float64]) -> None:
    image = nibabel.Nifti1Image(LABELS, None)  # type: ignore[no-untyped-call]
    image.set_qform(affine, code=1)  # type: ignore[no-untyped-call]
    header: Any = image.header
    parts = [float(header[f"quatern_{part}"]) for part in "bcd"]
    assume(sum(part * part for part in parts) < 1 - 1e-6)  # nearer a half turn, readers differ
    label_map = read_label_map(image.to_bytes())
    assert label_map.geometry == "qform"
    assert np.allclose(label_map.affine, header.get_qform(), rtol=1e-5, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(affines())
def test_a_second_rewriting_changes_nothing(affine: NDArray[np.float64]) -> None:
    once = rewritten(nifti_mask(LABELS, tuple(map(tuple, affine.tolist()))))
    assert rewritten(once) == once


def test_a_vendors_masks_differ_each_time_and_ours_do_not() -> None:
    phantom = Phantom(seed=5)
    first, second = (nifti_mask(truth(phantom), phantom.affine) for _ in range(2))
    assert first != second
    assert rewritten(first) == rewritten(second)


def test_other_voxels_or_another_place_are_other_bytes() -> None:
    other = LABELS.copy()
    other[0, 0, 0] = 1
    moved = (*AFFINE[:2], (0.0, 0.0, 2.5, -72.5), AFFINE[3])
    written = [
        write_label_map(LabelMap(LABELS, AFFINE)),
        write_label_map(LabelMap(other, AFFINE)),
        write_label_map(LabelMap(LABELS, moved)),
        write_label_map(LabelMap(LABELS, AFFINE, "pixdim")),
    ]
    assert len(set(written)) == 4


def test_memory_order_and_negative_zeros_do_not_show() -> None:
    signed = tuple(tuple(-0.0 if value == 0 else value for value in row) for row in AFFINE)
    written = {
        write_label_map(LabelMap(np.ascontiguousarray(LABELS), AFFINE)),
        write_label_map(LabelMap(np.asfortranarray(LABELS), AFFINE)),
        write_label_map(LabelMap(LABELS.astype(">u4"), AFFINE)),
        write_label_map(LabelMap(LABELS.repeat(2, 0)[::2], signed)),
    }
    assert len(written) == 1


@pytest.mark.parametrize(("largest", "dtype"), [(200, "u1"), (300, "u2"), (70_000, "u4")])
def test_the_written_type_is_the_smallest(largest: int, dtype: str) -> None:
    voxels = LABELS.astype(np.uint32) * np.uint32(largest // 2)
    image = as_nibabel(write_label_map(LabelMap(voxels, AFFINE)))
    assert image.header.get_data_dtype() == np.dtype(dtype)
    assert np.array_equal(np.asanyarray(image.dataobj), voxels)


def test_a_sheared_place_is_in_the_sform_only() -> None:
    data = write_label_map(LabelMap(LABELS, SHEARED))
    header = as_nibabel(data).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    assert np.allclose(header.get_sform(), SHEARED)
    assert rewritten(data) == data


def test_an_unknown_place_stays_unknown() -> None:
    data = rewritten(Sample(sform=None).gz())
    header = as_nibabel(data).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
    assert header.get_zooms() == (0.75, 0.75, 2.5)
    assert read_label_map(data).geometry == "pixdim"


def test_units_are_millimetres_and_voxels_are_not_scaled() -> None:
    header = as_nibabel(write_label_map(LabelMap(LABELS, AFFINE))).header
    assert header.get_xyzt_units() == ("mm", "unknown")
    assert header.get_slope_inter() in {(1.0, 0.0), (None, None)}
    assert header.get_zooms() == (0.75, 0.75, 2.5)


def test_no_text_of_the_source_survives() -> None:
    source = Sample(text=PATIENT, extension=PATIENT)
    assert gzip.decompress(source.gz()).count(PATIENT) >= 3
    content = gzip.decompress(rewritten(source.gz()))
    assert PATIENT not in content
    header = as_nibabel(rewritten(source.gz())).header
    for name in ("descrip", "aux_file", "db_name", "intent_name", "data_type"):
        assert not header[name].tobytes().strip(b"\0")


def test_the_gzip_header_holds_no_time_and_no_name() -> None:
    data = write_label_map(LabelMap(LABELS, AFFINE))
    assert data[:4] == b"\x1f\x8b\x08\x00"  # no flags: neither name nor comment
    assert data[4:8] == bytes(4)


def test_an_empty_label_map_is_readable_and_small() -> None:
    data = write_label_map(empty_label_map((512, 512, 300), AFFINE))
    image = as_nibabel(data)
    assert image.shape == (512, 512, 300)
    assert not np.asanyarray(image.dataobj).any()
    assert len(data) < 1_000_000
