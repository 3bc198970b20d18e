"""A label map as DICOM SEG (PS3.3 A.51) on the slices of its series, by highdicom.

highdicom is shown stand-ins for the images, with nothing in them but where they lie: it logs odd
patient names, and trusts headers that are often wrong (SpacingBetweenSlices). What the object
refers to, whose it is and when it was made are set afterwards; nothing that highdicom takes from
the clock or from chance remains, so the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RLELossless
from pydicom.valuerep import format_number_as_ds

from consumer.errors import Refused
from consumer.model import LabelCount
from handlers.formats import dicom_identity as identity
from handlers.formats.dicom_source import (
    Slice,
    SourceSeries,
    check_same_grid,
    drawn_segments,
    images_of,
    mask_of,
    reference,
    slices_of,
    values_in,
)
from handlers.formats.label_map import LabelMap, smallest_type
from handlers.formats.segment_names import dicom_text, segment_colour, segment_names

MIN_PIXELS = 8  # of a slice
MAX_SEGMENTS = 1000  # each is compared with each slice
MAX_BYTES = 1 << 30  # of pixels
MAX_NUMBER = 2**16 - 1  # of a segment
SERIES_NUMBER = 9001

_TYPES = {False: SegmentationTypeValues.BINARY, True: SegmentationTypeValues.LABELMAP}
_STAND_IN = "1.2.3.4"
_WHO = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip

Pixels = NDArray[Any]


def write_seg(
    label_map: LabelMap,
    segments: Sequence[LabelCount],
    series: SourceSeries,
    *,
    labelmap: bool = False,
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """The file: the same bytes for the same input. One BINARY segment a value, without its empty
    slices, where segments may overlap; or, if ``labelmap``, one LABELMAP frame a slice,
    compressed by RLE.

    A segment's number is its voxel value where the values are 1, 2, ... n (in a LABELMAP: always);
    else numbers count from 1 in the order of values. Its description tells the value, its label is
    `segment_names`'. Each is coded as a tissue, drawn by hand: which, the label alone says.

    Frames lie where the slices' own headers say, so their gaps are as unequal as those are.

    Raises ``Refused``: ``mask-off-grid``, ``no-frame-of-reference``, ``series-off-grid``,
    ``series-unidentified`` and ``mask-unknown-label`` by `dicom_source`; ``seg-empty``;
    ``seg-too-large``, ``seg-too-many-segments`` and ``seg-too-small`` beyond the limits;
    ``seg-overlaps`` where a LABELMAP cannot tell them; ``seg-not-possible`` by highdicom.
    """
    check_same_grid(label_map, series)
    drawn = drawn_segments(label_map, segments)
    if not drawn:
        raise Refused("seg-empty", "no voxel is labelled, and a SEG has at least one segment")
    numbers = _numbers([segment.value for segment in drawn], labelmap)
    slices = slices_of(series)
    if any(segment.overlaps for segment in drawn):
        if labelmap:
            said = "segments overlap, and a LABELMAP has one for each voxel"
            raise Refused("seg-overlaps", said)
        pixels = _planes(label_map, drawn, max_bytes)
    else:
        pixels = _pixels(label_map, [segment.value for segment in drawn], numbers)
    _check_size(pixels, len(drawn), max_bytes, labelmap=labelmap)
    described = _descriptions(drawn, numbers, slices[0].image)
    seg = _segmentation(slices, series, pixels, described, labelmap=labelmap)
    _refer(seg, slices)
    _identify(seg, slices[0].image)
    return identity.sealed(seg)


def _segmentation(
    slices: Sequence[Slice],
    series: SourceSeries,
    pixels: Pixels,
    described: Sequence[SegmentDescription],
    *,
    labelmap: bool,
) -> Segmentation:
    """Raises ``Refused`` (``seg-not-possible``) where highdicom does: it knows no more of the
    series than where it lies, so it can tell of nothing else."""
    try:
        return Segmentation(
            source_images=[_stand_in(k, slices, series) for k in range(len(slices))],
            pixel_array=pixels,
            segmentation_type=_TYPES[labelmap],
            segment_descriptions=described,
            transfer_syntax_uid=RLELossless if labelmap else ExplicitVRLittleEndian,
            series_instance_uid=identity.PLACEHOLDERS[0],
            sop_instance_uid=identity.PLACEHOLDERS[1],
            series_number=SERIES_NUMBER,
            instance_number=1,
            manufacturer=identity.MANUFACTURER,
            manufacturer_model_name=identity.MODEL,
            software_versions=identity.SOFTWARE_VERSION,
            device_serial_number=identity.DEVICE_SERIAL_NUMBER,
            content_label="SEGMENTATION",
        )
    except (ValueError, TypeError) as error:
        raise Refused("seg-not-possible", f"highdicom: {error}") from error


def _numbers(values: Sequence[int], labelmap: bool) -> list[int]:
    """The segment numbers of ascending voxel values."""
    if len(values) > MAX_SEGMENTS:
        count = len(values)
        raise Refused("seg-too-many-segments", f"{count} segments, {MAX_SEGMENTS} are the most")
    if labelmap and values[-1] <= MAX_NUMBER:
        return list(values)
    return list(range(1, len(values) + 1))


def _pixels(label_map: LabelMap, values: Sequence[int], numbers: Sequence[int]) -> Pixels:
    """(slice, row, column) segment numbers: highdicom's first axis is the frame's."""
    array = label_map.array.transpose(2, 1, 0)
    if list(values) == list(numbers):
        return array
    renumbered = np.zeros(array.shape, smallest_type(max(numbers)))
    for k, plane in enumerate(array):
        drawn = plane > 0
        places = np.searchsorted(np.asarray(values), plane[drawn])
        renumbered[k][drawn] = np.asarray(numbers)[places]
    return renumbered


def _planes(label_map: LabelMap, drawn: Sequence[LabelCount], max_bytes: int) -> Pixels:
    """(slice, row, column, segment) of 0 and 1, for segments that overlap."""
    array = label_map.array.transpose(2, 1, 0)
    size = array.size * len(drawn)
    if size > max_bytes:
        said = f"{len(drawn)} segments that overlap take {size} bytes, {max_bytes} are the most"
        raise Refused("seg-too-large", said)
    planes = np.zeros((*array.shape, len(drawn)), np.uint8)
    for k, plane in enumerate(array):
        for number, segment in enumerate(drawn):
            planes[k, :, :, number] = mask_of(plane, segment)
    return planes


def _check_size(pixels: Pixels, segments: int, max_bytes: int, *, labelmap: bool) -> None:
    """Raises ``Refused`` if the pixels are more than ``max_bytes`` before compression, or slices so
    small that highdicom packs their bits wrongly."""
    frames, rows, columns = pixels.shape[:3]
    if rows * columns < MIN_PIXELS and not labelmap:
        raise Refused("seg-too-small", f"slices of {columns} x {rows}, {MIN_PIXELS} are the least")
    if labelmap:
        size = pixels.nbytes
    elif pixels.ndim == 4:
        size = int(pixels.any(axis=(1, 2)).sum()) * rows * columns // 8
    else:
        drawn = sum(len(values_in(plane)) for plane in pixels)
        size = drawn * rows * columns // 8
    if size > max_bytes:
        what = f"{segments} segments on {frames} slices of {columns} x {rows}"
        raise Refused("seg-too-large", f"{what} are {size} bytes, {max_bytes} are the most")


def _descriptions(
    segments: Sequence[LabelCount], numbers: Sequence[int], image: Dataset
) -> list[SegmentDescription]:
    described = []
    names = segment_names(segments)
    for segment, number, name in zip(segments, numbers, names, strict=True):
        tracked = dicom_text(segment.feature or "") or f"value {segment.value}"
        item = SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="MANUAL",
            tracking_id=tracked,
            tracking_uid=identity.lasting_uid(str(image.SeriesInstanceUID), tracked, name),
            display_color=CIELabColor.from_rgb(*segment_colour(number)),
        )
        item.SegmentDescription = f"voxel value {segment.value}"
        described.append(item)
    return described


def _stand_in(k: int, slices: Sequence[Slice], series: SourceSeries) -> Dataset:
    """A header that says where slice k lies. Directions and spacing are the first slice's, as a
    SEG has them but once; the others' differ by less than the series' grid allows."""
    columns, rows, _ = series.grid.shape
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID = MRImageStorage, f"{_STAND_IN}.{k + 1}"
    d.StudyInstanceUID, d.SeriesInstanceUID = f"{_STAND_IN}.0.1", f"{_STAND_IN}.0.2"
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = series.frame_of_reference, ""
    d.Modality, d.Rows, d.Columns = "MR", rows, columns
    d.ImagePositionPatient = [_decimal(value) for value in slices[k].position]
    d.ImageOrientationPatient = [_decimal(value) for value in slices[0].orientation]
    d.PixelSpacing = [_decimal(value) for value in slices[0].spacing]
    d.SliceThickness = d.SpacingBetweenSlices = _decimal(series.pitch_mm)
    for keyword in _WHO:
        setattr(d, keyword, "")
    return d


def _refer(seg: Segmentation, slices: Sequence[Slice]) -> None:
    """The images themselves in place of their stand-ins."""
    items = [
        frame.DerivationImageSequence[0].SourceImageSequence[0]
        for frame in seg.PerFrameFunctionalGroupsSequence
    ]
    for item in {id(item): item for item in items}.values():  # frames of one slice share theirs
        k = int(item.ReferencedSOPInstanceUID.rsplit(".", 1)[1]) - 1
        item.update(reference(slices[k].image, [slices[k].frame]))
    seg.SourceImageSequence = [reference(image) for image in images_of(slices)]
    referenced = Dataset()
    referenced.SeriesInstanceUID = slices[0].image.SeriesInstanceUID
    referenced.ReferencedInstanceSequence = [reference(image) for image in images_of(slices)]
    seg.ReferencedSeriesSequence = [referenced]


def _identify(seg: Segmentation, source: Dataset) -> None:
    identity.identify(seg, source)
    identity.date(seg, source, "ContentDate", "ContentTime")
    identity.date(seg, source, "SeriesDate", "SeriesTime")
    del seg.InstanceCreationDate, seg.InstanceCreationTime
    for equipment in seg.ContributingEquipmentSequence:  # highdicom itself
        del equipment.ContributionDateTime
    dimensions = identity.PLACEHOLDERS[2]
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    meta = identity.file_meta(seg.SOPClassUID, seg.file_meta.TransferSyntaxUID)
    seg.file_meta = meta


def _decimal(value: float) -> str:
    return format_number_as_ds(float(value))
