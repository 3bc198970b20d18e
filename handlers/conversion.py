"""One unit's masks become files in every format that is wanted: pure, and run in a thread.

What cannot be made rightly is not made; a `Refusal` says so, and the mask is kept all the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from consumer.errors import Permanent, Refused
from consumer.model import ExportRules, LabelCount, Refusal, Volume
from handlers.documents import document_bytes
from handlers.formats import nifti, placing, png_stack, rtstruct, seg, variants
from handlers.formats.dicom import DicomSeries
from handlers.formats.label_map import LabelMap
from handlers.images import Place
from handlers.units import Unit


class NewFile(NamedTuple):
    """A file that is not in the lake yet, and what its `FileRef` will say of it."""

    path: str
    data: bytes
    shape: tuple[int, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    geometry: str | None = None
    labels: tuple[LabelCount, ...] = ()
    group: str | None = None
    feature: str | None = None
    frame: int | None = None
    instance: int | None = None


@dataclass(slots=True)
class Made:
    """What became of a unit."""

    files: list[NewFile] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    volume: Volume | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What a unit's conversion stands on besides its masks. ``place`` is None when nobody has to
    know where the images lie; ``images`` are there when a format references them."""

    rules: ExportRules
    place: Place | None = None
    images: DicomSeries | Refused | None = None


class Drawn(NamedTuple):
    """A label map and what its values stand for; of one object alone it has ``instance``."""

    label_map: LabelMap
    counts: tuple[LabelCount, ...]
    instance: int | None = None
    feature: str | None = None


def convert_label_map(raw: bytes, unit: Unit, around: Around) -> Made:
    """A label map of the platform's own. Raises ``Transient`` and ``Permanent`` when it is none,
    or does not fit its series."""
    made = Made()
    label_map = nifti.read_label_map(raw)
    series = unit.series
    counts = nifti.check_label_map(label_map, series.segments, series.dimensions)
    label_map = _located(label_map, unit, around.place, made)
    whole, each = _variants(Drawn(label_map, counts), unit, around, made)
    write_masks(lambda: whole, each, unit, around, made)
    return made


def convert_nothing(unit: Unit, around: Around) -> Made:
    """Nothing is drawn: an empty label map on the images' grid, or on the one that the platform
    tells. No file where neither is known."""
    made = Made()
    place = around.place or Place()
    if place.grid is not None:
        label_map = nifti.empty_label_map(place.grid.shape, place.grid.affine)
    elif (shape := unit.series.dimensions or place.shape) is not None:
        label_map = nifti.empty_label_map(shape, unit.series.affine)
    else:
        return made
    empty = Drawn(label_map, ())
    write_masks(lambda: empty, [empty], unit, around, made)
    return made


def write_masks(
    whole: Callable[[], Drawn], each: Iterable[Drawn], unit: Unit, around: Around, made: Made
) -> None:
    """Adds the files of every wanted format: NIfTI and PNG for each mask, DICOM objects of the
    whole, which is only made for them."""
    wanted = around.rules.formats
    for drawn in each:
        if "nifti" in wanted:
            data = nifti.write_label_map(drawn.label_map)
            made.files.append(_mask_file(unit, f"{_part(drawn)}.nii.gz", data, drawn))
        if "png" in wanted:
            with refusing("png", unit, made):
                made.files += list(_pictures(unit, drawn))
    whole = functools.cache(whole)
    for what, suffix, write in (
        ("seg", ".seg.dcm", _write_seg),
        ("rtstruct", ".rtstruct.dcm", _write_rtstruct),
    ):
        if what in wanted:
            with refusing(what, unit, made):
                drawn = whole()
                data = write(drawn, _source(drawn, around), around)
                made.files.append(_mask_file(unit, suffix, data, drawn))


@contextmanager
def refusing(what: str, unit: Unit, made: Made) -> Iterator[None]:
    """What cannot be made rightly is noted instead of made."""
    try:
        yield
    except Refused as refused:
        made.refused.append(refusal_of(what, refused, unit))


def refusal_of(what: str, refused: Permanent, unit: Unit) -> Refusal:
    return Refusal(
        what=what,
        reason=refused.reason,
        message=refused.message,
        position=unit.position,
        series=unit.series.name,
        label=unit.label.id,
    )


def _located(label_map: LabelMap, unit: Unit, place: Place | None, made: Made) -> LabelMap:
    """On the images' grid to the last bit; in voxel space when the images have no place that can
    be trusted. One that does not fit the grid keeps the place its own header tells."""
    if place is None:
        return label_map
    if place.grid is not None:
        with refusing("image", unit, made):
            return placing.placed(label_map, place.grid)
        return label_map
    if place.shape is None:
        return label_map
    return LabelMap(label_map.array, label_map.affine, "pixdim")


def _variants(
    drawn: Drawn, unit: Unit, around: Around, made: Made
) -> tuple[Drawn, Iterable[Drawn]]:
    """The mask as a whole, and as it is written: itself, one for each instance, or by class."""
    segments = unit.series.segments
    if around.rules.masks == "binary":
        return drawn, (
            Drawn(
                mask,
                (LabelCount(value=1, voxels=int(mask.array.sum()), category=segment.category),),
                instance=segment.value,
            )
            for segment, mask in variants.binary(drawn.label_map, segments)
        )
    if around.rules.masks == "semantic":
        found = variants.semantic(drawn.label_map, segments, around.rules.classes)
        drawn = Drawn(found.label_map, found.counts)
        made.volume = Volume(
            position=unit.position,
            series=unit.series.name,
            label=unit.label.id,
            overlaps=found.overlaps,
        )
    return drawn, [drawn]


def _part(drawn: Drawn) -> str:
    return "" if drawn.instance is None else f"/instance-{drawn.instance}"


def _pictures(unit: Unit, drawn: Drawn) -> Iterator[NewFile]:
    """One PNG for an image, one for each slice of a volume, and what their values mean."""
    part = _part(drawn)
    single = drawn.label_map.shape[2] == 1
    for k, data in png_stack.png_slices(drawn.label_map):
        yield NewFile(
            path=unit.mask_path(f"{part}.png" if single else f"{part}/{k:06d}.png"),
            data=data,
            shape=drawn.label_map.shape[:2],
            labels=drawn.counts if single else (),
            frame=k,
            instance=drawn.instance,
            feature=drawn.feature,
        )
    meaning = document_bytes(png_stack.class_map(drawn.counts))
    yield NewFile(
        path=unit.mask_path(f"{part}.classes.json"), data=meaning, instance=drawn.instance
    )


def _mask_file(unit: Unit, suffix: str, data: bytes, drawn: Drawn) -> NewFile:
    label_map = drawn.label_map
    is_placed = label_map.geometry != "pixdim"
    return NewFile(
        path=unit.mask_path(suffix),
        data=data,
        shape=label_map.shape,
        affine=label_map.affine if is_placed else None,
        geometry="affine" if is_placed else "unknown",
        labels=drawn.counts,
        feature=drawn.feature,
        instance=drawn.instance,
    )


def _source(whole: Drawn, around: Around) -> DicomSeries:
    """The series that a DICOM object is to reference; the mask must lie on its grid."""
    if around.images is None:
        raise Refused("images-unknown", "the platform tells no image of the series")
    if isinstance(around.images, Refused):
        raise around.images
    grid = around.images.grid
    if (whole.label_map.shape, whole.label_map.affine) != (grid.shape, grid.affine):
        raise Refused("geometry-mismatch", "the mask does not lie on the grid of its images")
    return around.images


def _write_seg(whole: Drawn, series: DicomSeries, around: Around) -> bytes:
    return seg.write_seg(whole.label_map, whole.counts, series, labelmap=around.rules.labelmap_seg)


def _write_rtstruct(whole: Drawn, series: DicomSeries, _: Around) -> bytes:
    return rtstruct.write_rtstruct(whole.label_map, whole.counts, series)
