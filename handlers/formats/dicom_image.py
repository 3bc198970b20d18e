"""One DICOM file as an image: what its pixels are, and where each of its frames lies.

Holding a `DicomImage` proves that it is a grey image whose frames are placed in space; everything
else is refused with the file and what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag
from pydicom.uid import UID

from consumer.errors import Refused
from handlers.formats.dicom_files import DicomFile, read_header
from handlers.formats.dicom_tags import Tags, shown
from handlers.formats.label_map import MAX_SIDE

Vector = tuple[float, float, float]

_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.128",  # PET
    "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
    "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture; those without geometry are refused for that
    "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Byte
    "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word
    "1.2.840.10008.5.1.4.1.1.13.1.1",  # X-Ray 3D Angiographic
    "1.2.840.10008.5.1.4.1.1.13.1.2",  # X-Ray 3D Craniofacial
    "1.2.840.10008.5.1.4.1.1.13.1.3",  # Breast Tomosynthesis
    "1.2.840.10008.5.1.4.1.1.20",  # Nuclear Medicine
}
DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR
_SEGMENTATIONS = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
_GREY = {"MONOCHROME1", "MONOCHROME2"}
_LEAST_MM, _MOST_MM = 1e-5, 1e6  # of a pixel; of a pixel and of a position
_MOST_COSINE = 2.0  # directions are unit vectors; beyond this nothing need be computed
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_OWNER, _MOSAIC = BaseTag(0x00190010), BaseTag(0x0019100A)  # Siemens: images in the mosaic

_KEYWORDS = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID",
    "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "TemporalPositionIdentifier", "AcquisitionNumber", "SamplesPerPixel",
    "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope",
    "ModalityLUTSequence", "DimensionIndexSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_WANTED: list[BaseTag | int] = [
    _OWNER,
    _MOSAIC,
    *(tag for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None),
]


@dataclass(frozen=True, slots=True)
class Stored:
    """How a pixel's value is stored (DICOM PS3.3, section C.7.6.3)."""

    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame lies, in millimetres and the patient's coordinates (LPS): the centre of its
    first pixel, the directions along its rows and columns, the distances between rows and between
    columns."""

    position: Vector
    along_row: Vector
    along_column: Vector
    spacing: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a file; ``index`` counts from 0. ``rescale`` is (slope, intercept), None where
    the file has none. ``times`` tells frames of one place apart: each is a way to, the surest
    first; None: the file does not say."""

    file: DicomFile
    index: int
    place: Place
    thickness: float | None
    rescale: tuple[float, float] | None
    times: tuple[tuple[int, ...] | None, ...]

    @property
    def name(self) -> str:
        """For errors: the file, and the frame as people count, where there are several."""
        return f"{self.file.shown} frame {self.index + 1}" if self.index else self.file.shown


@dataclass(frozen=True, slots=True)
class DicomImage:
    """``size`` is (columns, rows); uids are empty where the file has none."""

    file: DicomFile
    size: tuple[int, int]
    stored: Stored
    instance: str
    series: str
    frame_of_reference: str
    modality: str
    localizer: bool
    multi_frame: bool
    frames: tuple[Frame, ...]


def read_tags(name: str, path: Path) -> tuple[DicomFile, Tags]:
    """The file and the elements that a `DicomImage` is made of."""
    return read_header(name, path, _WANTED)


def is_document(file: DicomFile, tags: Tags) -> bool:
    """Whether it is no picture at all, as a report is or a presentation state, or is one that was
    made of others."""
    uid = tags.text("SOPClassUID") or file.sop_class
    pictures = file.pixels_at is not None and uid not in _SEGMENTATIONS
    return bool(uid) and uid not in _CLASSES and not pictures


def check_class(file: DicomFile, tags: Tags) -> None:
    """Raises ``Refused``: not an image, not grey, or a picture of many slices in one."""
    name = file.shown
    uid = tags.text("SOPClassUID") or file.sop_class
    if not uid:
        raise Refused("missing-tag", f"{name}: no SOPClassUID says what it is")
    if uid not in _CLASSES:
        raise Refused("not-a-volume-image", f"{name}: {shown(UID(uid).name)} is no slice in space")
    if file.pixels_at is None:
        raise Refused("no-pixels", f"{name}: the header ends without pixel data")
    if "MOSAIC" in tags.texts("ImageType") or _is_siemens_mosaic(tags):
        raise Refused("siemens-mosaic", f"{name}: one picture holds many slices (a mosaic)")
    samples = tags.whole("SamplesPerPixel")
    photometric = tags.text("PhotometricInterpretation")
    if (samples, photometric) not in {(1, grey) for grey in _GREY}:
        what = f"{samples} samples per pixel, {shown(photometric or 'no interpretation')}"
        raise Refused("color-pixels", f"{name}: {what}; grey pixels have one, MONOCHROME")
    _check_no_table(file, tags)


def _check_no_table(file: DicomFile, tags: Tags) -> None:
    if tags.has("ModalityLUTSequence"):
        what = "values go through a table (Modality LUT)"
        raise Refused("modality-lut", f"{file.shown}: {what}")


def _is_siemens_mosaic(tags: Tags) -> bool:
    """A private element is its owner's only: others have other things at the same number."""
    if not (_OWNER in tags.dataset and _MOSAIC in tags.dataset):
        return False
    owner = tags.dataset.get_item(_OWNER).value
    return isinstance(owner, bytes) and owner.startswith(b"SIEMENS")


def size_of(file: DicomFile, tags: Tags) -> tuple[int, int]:
    """(columns, rows)."""
    columns, rows = tags.whole("Columns"), tags.whole("Rows")
    if columns is None or rows is None:
        raise Refused("missing-tag", f"{file.shown}: no Rows or no Columns")
    if not (1 <= columns <= MAX_SIDE and 1 <= rows <= MAX_SIDE):
        raise Refused("image-too-large", f"{file.shown}: {columns} x {rows} pixels")
    return columns, rows


def stored_of(file: DicomFile, tags: Tags) -> Stored:
    """How the pixels are stored; raises ``Refused`` for a way that we cannot read rightly."""
    allocated, stored = tags.whole("BitsAllocated"), tags.whole("BitsStored")
    high, representation = tags.whole("HighBit"), tags.whole("PixelRepresentation")
    if allocated is None or stored is None or representation is None:
        what = "no BitsAllocated, BitsStored or PixelRepresentation"
        raise Refused("missing-tag", f"{file.shown}: {what}")
    fits = allocated in (8, 16, 32) and 1 <= stored <= allocated and representation in (0, 1)
    if not fits or high not in (None, stored - 1):
        what = f"{stored} of {allocated} bits, highest {high}, representation {representation}"
        raise Refused("unsupported-pixels", f"{file.shown}: {what}")
    photometric = tags.text("PhotometricInterpretation") or ""
    return Stored(allocated, stored, representation == 1, photometric)


def image_with(
    file: DicomFile, tags: Tags, frames: Sequence[Frame], *, multi_frame: bool
) -> DicomImage:
    """The image that has these frames."""
    return DicomImage(
        file=file,
        size=size_of(file, tags),
        stored=stored_of(file, tags),
        instance=tags.text("SOPInstanceUID") or "",
        series=tags.text("SeriesInstanceUID") or "",
        frame_of_reference=tags.text("FrameOfReferenceUID") or "",
        modality=tags.text("Modality") or "",
        localizer="LOCALIZER" in tags.texts("ImageType"),
        multi_frame=multi_frame,
        frames=tuple(frames),
    )


def single_frame(file: DicomFile, tags: Tags) -> Frame:
    """The frame of a file that tells its place at the top level."""
    return Frame(
        file=file,
        index=0,
        place=place_of(file, tags, tags, tags),
        thickness=tags.hint("SliceThickness"),
        rescale=rescale_of(file, tags),
        times=(
            _key(tags.hint("TemporalPositionIdentifier")),
            _key(tags.hint("AcquisitionNumber")),
        ),
    )


def place_of(file: DicomFile, position: Tags, orientation: Tags, measures: Tags) -> Place:
    """Raises ``Refused`` (``missing-geometry``, ``bad-spacing``); directions are checked where
    frames are laid together."""
    at = position.numbers("ImagePositionPatient", 3)
    directions = orientation.numbers("ImageOrientationPatient", 6)
    spacing = measures.numbers("PixelSpacing", 2)
    if at is None or directions is None or spacing is None:
        found = zip(_GEOMETRY, (at, directions, spacing), strict=True)
        missing = " and ".join(name for name, value in found if value is None)
        raise Refused("missing-geometry", f"{file.shown}: missing {missing}")
    if not all(_LEAST_MM <= value <= _MOST_MM for value in spacing):
        text = f"pixels are {spacing[0]:g} x {spacing[1]:g} mm"
        raise Refused("bad-spacing", f"{file.shown}: {text}")
    if max(map(abs, directions)) > _MOST_COSINE or max(map(abs, at)) > _MOST_MM:
        text = f"position {at} mm, directions {directions}"
        raise Refused("bad-orientation", f"{file.shown}: {text}")
    x, y, z, u, v, w = directions
    return Place((at[0], at[1], at[2]), (x, y, z), (u, v, w), (spacing[0], spacing[1]))


def rescale_of(file: DicomFile, tags: Tags) -> tuple[float, float] | None:
    """(slope, intercept) of the modality's unit (DICOM PS3.3, section C.11.1)."""
    _check_no_table(file, tags)
    slope, intercept = tags.number("RescaleSlope"), tags.number("RescaleIntercept")
    if slope is None and intercept is None:
        return None
    if slope == 0:
        raise Refused("bad-rescale", f"{file.shown}: the slope is 0")
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _key(number: float | None) -> tuple[int, ...] | None:
    return (int(number),) if number is not None and number == int(number) else None
