"""A DICOM series as one volume: the grid that it fills, and the NIfTI file that it becomes.

Headers are read first and pixels when they are written, slice by slice. What cannot be converted
rightly is refused with the file and the measure; nothing is guessed (DICOM PS3.3, C.7.6.2).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset

from consumer.errors import Refused, Transient
from handlers.formats.dicom_files import DicomFile, is_dicom, read_header
from handlers.formats.dicom_geometry import Arrangement, arrange
from handlers.formats.dicom_image import DIRECTORY, DicomImage, Stored, is_document, read_tags
from handlers.formats.dicom_multiframe import image_of
from handlers.formats.dicom_pixels import read_pixels
from handlers.formats.grid import Grid
from handlers.formats.nifti_image import values_of, write_image

__all__ = ["MAX_FILES", "DicomSeries", "is_dicom", "read_series"]

MAX_FILES = 20_000


@dataclass(frozen=True, slots=True)
class DicomSeries:
    """A series whose frames are a volume, or several of one grid, one for each of ``times``.

    ``pitch_deviation`` is the largest departure of a gap between slices from ``pitch_mm``, as a
    fraction of it. ``frames`` are the frames of a multi-frame file at each slice, from 0; for
    files of one frame it is empty.
    """

    grid: Grid
    pitch_mm: float
    pitch_deviation: float
    modality: str
    frame_of_reference: str
    times: int
    arrangement: Arrangement
    images: tuple[DicomImage, ...]

    @property
    def frames(self) -> tuple[int, ...]:
        if not self.images[0].multi_frame or len(self.images) > 1:
            return ()
        return tuple(frame.index for frame in self.arrangement.frames[: self.grid.shape[2]])

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """Headers without pixels, read anew: one for each slice in order (of the first time), or
        the one of a multi-frame file. Raises ``Refused`` and ``Transient``."""
        files = [frame.file for frame in self.arrangement.frames[: self.grid.shape[2]]]
        return tuple(_dataset(file) for file in (files[:1] if self.frames else files))

    def write_nifti(self, out: BinaryIO) -> None:
        """Writes a ``.nii.gz`` of (column, row, slice[, time]). Nothing is written before all
        pixels are read; raises ``Refused`` and ``Transient`` as `read_pixels` does."""
        frames = self.arrangement.frames
        pixels = read_pixels(frames, {image.file: image for image in self.images})
        scalings = [frame.rescale or (1.0, 0.0) for frame in frames]
        values = values_of(scalings, pixels.ranges)
        write_image(out, self.grid, pixels.array, values, times=self.times)


def read_series(files: Sequence[tuple[str, Path]], *, pitch_tolerance: float = 0.05) -> DicomSeries:
    """The series that the files are; each comes with the name by which errors speak of it.

    ``pitch_tolerance`` is how far a gap between slices may be off the mean one, as a fraction of
    it. Localizers beside a series, a DICOMDIR, reports and segmentations of other series and
    copies of a file are left aside. Raises ``Refused`` with a slug for what is wrong, and with
    the shape where the voxel grid is known all the same; ``Transient`` when a file cannot be
    read.
    """
    if len(files) > MAX_FILES:
        raise Refused("too-many-files", f"{len(files)} files, {MAX_FILES} are a series at most")
    images = _without_copies(_without_localizers(_images(files)))
    if not images:
        raise Refused("not-dicom", f"no DICOM image among {len(files)} files")
    first = images[0]
    _check_one_series(images)
    _check_one_kind(images)
    frames = [frame for image in images for frame in image.frames]
    arrangement = arrange(frames, first.size, pitch_tolerance=pitch_tolerance)
    return DicomSeries(
        grid=arrangement.grid,
        pitch_mm=arrangement.pitch_mm,
        pitch_deviation=arrangement.pitch_deviation,
        modality=first.modality,
        frame_of_reference=first.frame_of_reference,
        times=arrangement.times,
        arrangement=arrangement,
        images=tuple(images),
    )


def _images(files: Sequence[tuple[str, Path]]) -> list[DicomImage]:
    """The files' images. Directories of files are none, nor are documents of other series; one of
    the same series is in a slice's place."""
    images, documents = [], []
    for name, path in files:
        file, tags = read_tags(name, path)
        if is_document(file, tags):
            documents.append((file, tags))
        else:
            images.append(image_of(file, tags))
    series = {"", *(image.series for image in images)}
    for file, tags in documents:
        own = tags.text("SeriesInstanceUID") or ""
        if file.sop_class != DIRECTORY and (own in series or not images):
            image_of(file, tags)  # raises
    return images


def _without_copies(images: list[DicomImage]) -> list[DicomImage]:
    """An image once where several files are the same, byte for byte."""
    firsts: dict[str, DicomImage] = {}
    kept = []
    for image in images:
        first = firsts.setdefault(image.instance, image)
        if image is first or not image.instance or _digest(image.file) != _digest(first.file):
            kept.append(image)
    return kept


def _digest(file: DicomFile) -> bytes:
    try:
        with file.path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError as error:
        raise Transient("image-unreadable", f"{file.shown} cannot be read") from error


def _without_localizers(images: list[DicomImage]) -> list[DicomImage]:
    """A series that is nothing but localizers stays what it is."""
    return [image for image in images if not image.localizer] or images


def _check_one_series(images: list[DicomImage]) -> None:
    """All of one series, one size and one frame of reference."""
    first = images[0]
    for reason, what, values in (
        ("several-series", "series", [image.series for image in images]),
        ("mixed-size", "sizes (columns, rows)", [image.size for image in images]),
        ("mixed-frame-of-reference", "frames of reference", [i.frame_of_reference for i in images]),
    ):
        counted = Counter(values)
        if len(counted) > 1:
            other = next(i for i, value in zip(images, values, strict=True) if value != values[0])
            numbers = ", ".join(str(number) for number in counted.values())
            shown = f": {first.size} and {other.size}" if reason == "mixed-size" else ""
            message = f"{len(counted)} {what}{shown}, of {numbers} files: {first.file.shown} and "
            raise Refused(reason, message + other.file.shown)


def _check_one_kind(images: list[DicomImage]) -> None:
    """One file of many frames or many of one; pixels stored alike; all rescaled, or none."""
    many = [image for image in images if len(image.frames) > 1]
    if many and len(images) > 1:
        what = f"{many[0].file.shown} has {len(many[0].frames)} frames, and {len(images) - 1} files"
        raise Refused("several-multi-frame", f"{what} are beside it")
    kinds = {_kind(image.stored): image for image in images}
    if len(kinds) > 1:
        a, b = list(kinds)[:2]
        files = f"{kinds[a].file.shown} and {kinds[b].file.shown}"
        raise Refused("mixed-pixels", f"{files}: (bits, signed, interpretation) are {a} and {b}")
    rescaled = {frame.rescale is None: frame for image in images for frame in image.frames}
    if len(rescaled) > 1:
        what = f"{rescaled[False].name} says how to rescale, {rescaled[True].name} does not"
        raise Refused("mixed-pixels", what)


def _kind(stored: Stored) -> tuple[int, bool, str]:
    return stored.bits_allocated, stored.signed, stored.photometric


def _dataset(file: DicomFile) -> Dataset:
    return read_header(file.name, file.path)[1].dataset
