"""A label map as DICOM RTSTRUCT (PS3.3 A.19): each segment a region of interest, drawn on the
slices of its series by closed contours that readers fill to exactly its voxels.

Written in implicit VR: a contour may be longer than the 64 KB that explicit VR allows a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from consumer.errors import Refused
from consumer.model import LabelCount
from handlers.formats import dicom_identity as identity
from handlers.formats.contours import trace
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
    values_of,
)
from handlers.formats.label_map import LabelMap
from handlers.formats.segment_names import segment_colour, segment_names

MAX_POINTS = 2_000_000  # about 70 MB
MAX_CONTOURS = 100_000  # each takes some 10 kB of memory while it is written
SERIES_NUMBER = 9002

_CONTOUR_DATA = Tag("ContourData")
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"  # the class by which RTReferencedStudy is told

Contour = tuple[int, NDArray[np.float64]]  # slice, and n x 3 patient coordinates
Contours = list[Contour]


def write_rtstruct(
    label_map: LabelMap,
    segments: Sequence[LabelCount],
    series: SourceSeries,
    *,
    max_points: int = MAX_POINTS,
    max_contours: int = MAX_CONTOURS,
) -> bytes:
    """The file: the same bytes for the same input. ROI numbers count from 1 in the order of
    voxel values; segments without voxels are left out.

    Contours are in patient coordinates (LPS, millimetres) within the planes of the series' own
    slices, of any orientation, holes as `contours.trace` has them.

    Raises ``Refused``: ``mask-off-grid``, ``no-frame-of-reference``, ``series-off-grid``,
    ``series-unidentified`` and ``mask-unknown-label`` by `dicom_source`; ``rtstruct-empty``;
    ``rtstruct-too-large`` beyond the limits.
    """
    check_same_grid(label_map, series)
    drawn = drawn_segments(label_map, segments)
    if not drawn:
        raise Refused("rtstruct-empty", "no voxel is labelled, and RTSTRUCT cannot say so")
    slices = slices_of(series)
    contours: dict[int, Contours] = {segment.value: [] for segment in drawn}
    points = polygons = 0
    for value, contour in _contours(label_map, drawn, slices):
        contours[value].append(contour)
        points, polygons = points + len(contour[1]), polygons + 1
        if points > max_points or polygons > max_contours:
            raise Refused(
                "rtstruct-too-large",
                f"{polygons} contours of {points} points by slice {contour[0]}, "
                f"{max_contours} and {max_points} are the most",
            )
    dataset = _header(slices[0].image, series.frame_of_reference)
    dataset.ReferencedFrameOfReferenceSequence = [_referenced(slices, series.frame_of_reference)]
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    for number, (segment, name) in enumerate(zip(drawn, segment_names(drawn), strict=True), 1):
        dataset.StructureSetROISequence.append(_roi(number, name, series.frame_of_reference))
        drawing = _drawing(number, contours[segment.value], slices)
        dataset.ROIContourSequence.append(drawing)
        dataset.RTROIObservationsSequence.append(_observation(number))
    return identity.sealed(dataset)


def _contours(
    label_map: LabelMap, drawn: Sequence[LabelCount], slices: Sequence[Slice]
) -> Iterator[tuple[int, Contour]]:
    """The contours of each segment, by its value, slice by slice."""
    for k, image in enumerate(slices):
        plane = label_map.array[:, :, k].T
        present = set(values_in(plane))
        for segment in drawn:
            if not present.isdisjoint(values_of(segment)):
                for polygon in trace(mask_of(plane, segment)):
                    yield segment.value, (k, image.patient(polygon))


def _header(source: Dataset, frame_of_reference: str) -> Dataset:
    series_uid, instance_uid, _ = identity.PLACEHOLDERS
    d = Dataset()
    d.file_meta = identity.file_meta(RTStructureSetStorage, ImplicitVRLittleEndian)
    identity.identify(d, source)
    d.SOPClassUID, d.SOPInstanceUID = RTStructureSetStorage, instance_uid
    d.Modality, d.SeriesInstanceUID = "RTSTRUCT", series_uid
    d.SeriesNumber, d.InstanceNumber, d.OperatorsName = SERIES_NUMBER, 1, ""
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = frame_of_reference, ""
    d.StructureSetLabel = identity.MANUFACTURER
    identity.date(d, source, "StructureSetDate", "StructureSetTime")
    identity.date(d, source, "SeriesDate", "SeriesTime")
    d.ApprovalStatus = "UNAPPROVED"
    return d


def _referenced(slices: Sequence[Slice], frame_of_reference: str) -> Dataset:
    """Frame of reference, study, series and every image of it (PS3.3 C.8.8.5)."""
    source = slices[0].image
    images = Dataset()
    images.SeriesInstanceUID = source.SeriesInstanceUID
    images.ContourImageSequence = [reference(image) for image in images_of(slices)]
    study = Dataset()
    study.ReferencedSOPClassUID = _DETACHED_STUDY
    study.ReferencedSOPInstanceUID = source.StudyInstanceUID
    study.RTReferencedSeriesSequence = [images]
    frame = Dataset()
    frame.FrameOfReferenceUID = frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi(number: int, name: str, frame_of_reference: str) -> Dataset:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = number, name
    roi.ReferencedFrameOfReferenceUID = frame_of_reference
    roi.ROIGenerationAlgorithm = "MANUAL"
    return roi


def _drawing(number: int, contours: Contours, slices: Sequence[Slice]) -> Dataset:
    drawing = Dataset()
    drawing.ReferencedROINumber = number
    drawing.ROIDisplayColor = list(segment_colour(number))
    drawing.ContourSequence = [
        _contour(order, points, slices[k]) for order, (k, points) in enumerate(contours, 1)
    ]
    return drawing


def _contour(order: int, points: NDArray[np.float64], image: Slice) -> Dataset:
    contour = Dataset()
    contour.ContourImageSequence = [reference(image.image, [image.frame])]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    contour.ContourNumber = order
    contour.add(_contour_data(points))
    return contour


def _contour_data(points: NDArray[np.float64]) -> DataElement:
    """Decimal strings of millimetres, as the bytes that stand in the file: pydicom would make an
    object of each number. Implicit VR does not say what an element's type is, so none is wrong."""
    text = "\\".join(["%.6f"] * points.size) % tuple(points.ravel().tolist())
    return DataElement(_CONTOUR_DATA, "OB", (text + " " * (len(text) % 2)).encode())


def _observation(number: int) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    return observation
