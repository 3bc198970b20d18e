"""The image series that a SEG or RTSTRUCT is drawn on: which image each slice is, and where it
lies by its own header.

A grid has one pitch, while scanners round positions: what is written refers to a slice, so it is
placed by that slice, and a slice that its grid would put elsewhere is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from consumer.errors import Refused
from consumer.model import LabelCount
from handlers.formats.grid import Grid
from handlers.formats.label_map import LabelMap, count_labels

MAX_OFF_GRID = 0.5  # voxels: beyond, a slice is nearer to its neighbour's place than to its own

_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


class SourceSeries(Protocol):
    """What is needed of `handlers.formats.dicom.DicomSeries`."""

    @property
    def grid(self) -> Grid: ...
    @property
    def pitch_mm(self) -> float: ...
    @property
    def frame_of_reference(self) -> str: ...
    @property
    def datasets(self) -> tuple[Dataset, ...]: ...
    @property
    def frames(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice: its image, and its first pixel's centre, directions and pitches along x (columns)
    and y (rows), LPS and millimetres. ``frame`` counts from 1, of a multi-frame image only."""

    image: Dataset
    frame: int | None
    position: tuple[float, float, float]
    orientation: tuple[float, ...]  # along x, then along y
    spacing: tuple[float, float]  # as PixelSpacing: between rows (y), between columns (x)

    def patient(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """n x 3 patient coordinates of n x 2 pixel coordinates (x, y); (0, 0) is the centre of
        the first pixel (PS3.3 equation C.7.6.2.1-1)."""
        steps = np.reshape(self.orientation, (2, 3)) * np.array(self.spacing[::-1])[:, None]
        placed: NDArray[np.float64] = np.asarray(self.position) + pixels @ steps
        return placed


def check_same_grid(label_map: LabelMap, series: SourceSeries) -> None:
    """Raises ``Refused`` unless the label map lies exactly on the series' voxels."""
    if label_map.shape != series.grid.shape:
        ours, theirs = (" x ".join(map(str, s)) for s in (label_map.shape, series.grid.shape))
        raise Refused("mask-off-grid", f"the mask has {ours} voxels, its series {theirs}")
    if label_map.geometry == "pixdim":
        raise Refused("mask-off-grid", "the mask does not say where its voxels lie")
    if label_map.affine != series.grid.affine:
        off = np.abs(np.subtract(label_map.affine, series.grid.affine)).max()
        raise Refused("mask-off-grid", f"the affines of mask and series differ by {off:.6g}")
    if not series.frame_of_reference:
        raise Refused("no-frame-of-reference", "the series has no frame of reference")


def drawn_segments(label_map: LabelMap, segments: Sequence[LabelCount]) -> tuple[LabelCount, ...]:
    """The segments that occur, ascending, with their true voxel counts; a value by which segments
    overlap is none itself, and its voxels are of each of them.

    Raises ``Refused`` (``mask-unknown-label``) for voxels that no segment names.
    """
    shared = {value for segment in segments for value in segment.overlaps}
    named = {
        segment.value: segment
        for segment in segments
        if segment.value not in shared or segment.category or segment.feature
    }
    counts = count_labels(label_map, ())
    unknown = [count for count in counts if count.value not in {*named, *shared}]
    if unknown:
        first = unknown[0]
        raise Refused(
            "mask-unknown-label",
            f"{len(unknown)} values are no segment's, first {first.value} ({first.voxels} voxels)",
        )
    voxels = {count.value: count.voxels for count in counts}
    drawn = (
        msgspec.structs.replace(one, voxels=sum(voxels.get(value, 0) for value in values_of(one)))
        for _, one in sorted(named.items())
    )
    return tuple(one for one in drawn if one.voxels)


def values_of(segment: LabelCount) -> list[int]:
    """The voxel values that are the segment's, ascending."""
    return sorted({segment.value, *segment.overlaps} - {0})


def mask_of(plane: NDArray[Any], segment: LabelCount) -> NDArray[np.bool_]:
    """Where in a slice the segment is."""
    values = values_of(segment)
    mask: NDArray[np.bool_] = plane == values[0]
    for value in values[1:]:
        mask |= plane == value
    return mask


def values_in(plane: NDArray[Any]) -> list[int]:
    """The values but 0 of a slice, ascending."""
    flat = plane.ravel(order="K")
    if flat.dtype.itemsize > 2:
        return [int(value) for value in np.unique(flat[flat > 0])]
    return [int(value) for value in np.flatnonzero(np.bincount(flat)) if value]


def slices_of(series: SourceSeries) -> tuple[Slice, ...]:
    """The series' slices in the order of k.

    Raises ``Refused``: ``series-off-grid`` where a slice's own header puts it more than half a
    voxel from its place in the grid, ``series-unidentified`` where images have no identifiers of
    their own.
    """
    images = series.datasets  # may be read anew each time
    if series.frames:
        slices = tuple(_frame(images[0], frame, frame + 1) for frame in series.frames)
    else:
        slices = tuple(_frame(image, 0, None) for image in images)
    _check_identified(images)
    count = series.grid.shape[2]
    if len(slices) != count:
        raise Refused("series-off-grid", f"{len(slices)} images for {count} slices")
    _check_places(slices, series.grid)
    return slices


def images_of(slices: Sequence[Slice]) -> list[Dataset]:
    """Each image of the slices once."""
    return list({str(s.image.SOPInstanceUID): s.image for s in slices}.values())


def reference(image: Dataset, frames: Sequence[int | None] = ()) -> Dataset:
    """An item that refers to an image (PS3.3 table 10-3): to frames of it, where they are told."""
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    numbers = [frame for frame in frames if frame is not None]
    if numbers:
        item.ReferencedFrameNumber = numbers
    return item


def _check_identified(images: Sequence[Dataset]) -> None:
    for number, image in enumerate(images):
        missing = [keyword for keyword in _IDENTIFIERS if not image.get(keyword)]
        if missing:
            raise Refused("series-unidentified", f"image {number} has no {missing[0]}")
    if len({str(image.SOPInstanceUID) for image in images}) < len(images):
        raise Refused("series-unidentified", "several images have one SOPInstanceUID")


def _frame(image: Dataset, frame: int, number: int | None) -> Slice:
    """A frame, from 0, of an image that describes its frames in functional groups; or an image
    that describes itself."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return _slice(image, number, image, image, image)
    shared = image.SharedFunctionalGroupsSequence[0]
    own = image.PerFrameFunctionalGroupsSequence[frame]
    position, orientation, measures = (
        (own if name in own else shared)[name].value[0]
        for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    )
    return _slice(image, number, position, orientation, measures)


def _slice(
    image: Dataset, frame: int | None, position: Dataset, orientation: Dataset, measures: Dataset
) -> Slice:
    x, y, z = (float(value) for value in position.ImagePositionPatient)
    between_rows, between_columns = (float(value) for value in measures.PixelSpacing)
    directions = tuple(float(value) for value in orientation.ImageOrientationPatient)
    return Slice(image, frame, (x, y, z), directions, (between_rows, between_columns))


def _check_places(slices: tuple[Slice, ...], grid: Grid) -> None:
    """Three corners of each slice, by its header and by the grid, in voxels."""
    columns, rows, _ = grid.shape
    corners = np.array([(0, 0), (columns - 1, 0), (0, rows - 1)], np.float64)
    axes = np.diag((-1.0, -1.0, 1.0)) @ np.asarray(grid.affine)[:3, :3]
    for k, image in enumerate(slices):
        by_grid = grid.patient(np.column_stack((corners, np.full(3, float(k)))))
        off = np.linalg.solve(axes, (image.patient(corners) - by_grid).T)
        worst = float(np.abs(off).max())
        if not worst < MAX_OFF_GRID:
            raise Refused(
                "series-off-grid", f"slice {k} lies {worst:.3g} voxels from its place in the grid"
            )
