"""Enhanced multi-frame images: what their functional groups tell of each frame.

A group stands once for all frames, or with each frame, which then counts (DICOM PS3.3, section
C.7.6.16). Files without such groups are images of one frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumer.errors import Refused
from handlers.formats.dicom_files import DicomFile
from handlers.formats.dicom_image import (
    DicomImage,
    Frame,
    check_class,
    image_with,
    place_of,
    rescale_of,
    single_frame,
)
from handlers.formats.dicom_tags import Tags

MAX_FRAMES = 20_000


def image_of(file: DicomFile, tags: Tags) -> DicomImage:
    """The image that a file is; raises ``Refused`` for what is none, or is not placed in space."""
    check_class(file, tags)
    count = tags.whole("NumberOfFrames")
    if tags.has("PerFrameFunctionalGroupsSequence"):
        return _multi_frame(file, tags, 1 if count is None else count)
    if count not in (None, 1):
        what = f"{count} frames without functional groups that place them"
        raise Refused("multi-frame-without-geometry", f"{file.shown}: {what}")
    return image_with(file, tags, [single_frame(file, tags)], multi_frame=False)


def _multi_frame(file: DicomFile, tags: Tags, count: int) -> DicomImage:
    each = tags.items("PerFrameFunctionalGroupsSequence")
    if not 1 <= count <= MAX_FRAMES:
        what = f"{count} frames, 1 to {MAX_FRAMES} are read"
        raise Refused("too-many-frames", f"{file.shown}: {what}")
    if len(each) != count:
        what = f"{count} frames and functional groups of {len(each)}"
        raise Refused("multi-frame-without-geometry", f"{file.shown}: {what}")
    shared = tags.items("SharedFunctionalGroupsSequence")
    frames = [_frame(file, index, (own, *shared)) for index, own in enumerate(each)]
    return image_with(file, tags, frames, multi_frame=True)


def _frame(file: DicomFile, index: int, groups: Sequence[Tags]) -> Frame:
    position = _group(groups, "PlanePositionSequence")
    orientation = _group(groups, "PlaneOrientationSequence")
    measures = _group(groups, "PixelMeasuresSequence")
    transformation = _group(groups, "PixelValueTransformationSequence")
    content = _group(groups, "FrameContentSequence")
    if position is None or orientation is None or measures is None:
        what = f"frame {index + 1} has no plane position, plane orientation or pixel measures"
        raise Refused("missing-geometry", f"{file.shown}: {what}")
    return Frame(
        file=file,
        index=index,
        place=place_of(file, position, orientation, measures),
        thickness=measures.hint("SliceThickness"),
        rescale=rescale_of(file, transformation) if transformation else None,
        times=(
            _whole(content, "TemporalPositionIndex"),
            _whole(content, "DimensionIndexValues"),
        ),
    )


def _group(groups: Sequence[Tags], keyword: str) -> Tags | None:
    """The first of the groups that has one; its only item."""
    for group in groups:
        if items := group.items(keyword):
            return items[0]
    return None


def _whole(content: Tags | None, keyword: str) -> tuple[int, ...] | None:
    values = content.numbers(keyword) if content else None
    return tuple(int(value) for value in values) if values else None
