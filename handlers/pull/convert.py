"""What is made here of the lake's files: other formats of a mask, and label maps of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from consumer.errors import Permanent
from consumer.model import canonical
from handlers.formats import nifti
from handlers.formats.gunzip import MAGIC, Gunzip
from handlers.formats.label_map import LabelMap, smallest_type
from handlers.formats.nifti_header import layout_of, parse_header
from handlers.formats.png_stack import class_map, png_slices
from handlers.pull.plan import Conversion

_START, _HEADER = 64 * 1024, 540  # bytes: packed ones that hold a header, and the longest header


def convert(conversion: Conversion, files: Sequence[Path]) -> Iterator[bytes]:
    """The outputs in their order, of the sources in theirs.

    Raises ``Refused`` and other ``Permanent``; nothing is guessed.
    """
    match conversion.kind:
        case "png":
            label_map = nifti.read_label_map(files[0].read_bytes())
            _check_shape(label_map.shape, conversion)
            for _, picture in png_slices(label_map):
                yield picture
            yield canonical(class_map(conversion.segments))
        case "classes":
            yield _classes(nifti.read_label_map(files[0].read_bytes()), conversion)
        case "image":
            raise AssertionError("an image is copied")
        case "seg" | "rtstruct":
            yield _dicom(nifti.read_label_map(files[0].read_bytes()), conversion, files[1:])


def _classes(label_map: LabelMap, conversion: Conversion) -> bytes:
    """Raises ``Permanent`` (``mask-unknown-label``) for a voxel that the label table has not."""
    _check_shape(label_map.shape, conversion)
    if label_map.affine != conversion.affine:
        raise Permanent("grid-differs", "the label map lies elsewhere than the lake says")
    largest = max((value for _, value in conversion.values), default=0)
    known = np.array([0, *(value for value, _ in conversion.values)])
    order = np.argsort(known)
    becomes = np.array([0, *(value for _, value in conversion.values)], smallest_type(largest))
    flat = label_map.array.reshape(-1, order="A")  # as it lies, so nothing is copied
    places = np.clip(np.searchsorted(known[order], flat), 0, known.size - 1)
    if not np.array_equal(known[order][places], flat):
        raise Permanent("mask-unknown-label", "a voxel has a value that the lake does not tell of")
    mapped = becomes[order][places].reshape(
        label_map.shape, order="F" if label_map.array.flags.f_contiguous else "C"
    )
    return nifti.write_label_map(LabelMap(mapped, label_map.affine, label_map.geometry))


def _dicom(label_map: LabelMap, conversion: Conversion, images: Sequence[Path]) -> bytes:
    # They load slowly, and few pulls need them.
    from handlers.formats import dicom, rtstruct, seg

    series = dicom.read_series(list(zip(conversion.names, images, strict=True)))
    if conversion.kind == "seg":
        return seg.write_seg(label_map, conversion.segments, series, labelmap=False)
    return rtstruct.write_rtstruct(label_map, conversion.segments, series)


def _check_shape(shape: Sequence[int], conversion: Conversion) -> None:
    if conversion.shape is not None and tuple(shape) != tuple(conversion.shape):
        said = f"it has {tuple(shape)} voxels, the lake says {tuple(conversion.shape)}"
        raise Permanent("grid-differs", said)


def check_image(file: Path, conversion: Conversion) -> None:
    """Whether an image lies on the grid of its label map, by its own header; raises ``Permanent``
    (``grid-differs``) when it does not."""
    with file.open("rb") as opened:
        start = opened.read(_START)
    block = Gunzip(start).read(_HEADER) if start[:2] == MAGIC else start[:_HEADER]
    if (layout := layout_of(block[:4].ljust(4))) is None:
        raise Permanent("image-not-nifti", "the image does not begin as NIfTI does")
    header = parse_header(block[: layout.itemsize], layout)
    _check_shape(header.shape, conversion)
    if header.geometry == "pixdim" or header.affine != conversion.affine:
        raise Permanent("grid-differs", "image and label map have different affines")
