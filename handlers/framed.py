"""A series that was annotated frame by frame becomes label maps on its images' grid: pure, and run
in a thread.

Where that cannot be done rightly, the pictures themselves are kept as the platform gave them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from consumer.errors import Refused
from consumer.model import ExportRules, Mask, Volume
from handlers.conversion import Around, Drawn, Made, NewFile, refusal_of, refusing, write_masks
from handlers.documents import document_bytes
from handlers.formats import frames, polylines
from handlers.formats.drawings import Read
from handlers.formats.grid import Grid
from handlers.formats.png import check_png
from handlers.images import VOLUME, Place
from handlers.units import Unit

Pictures = Mapping[str, bytes]  # by the masks' references


def convert_frames(pictures: Pictures, unit: Unit, around: Around) -> Made:
    """Label maps of the pictures and of outlines, and lines as geometry.

    Raises ``Transient`` and ``Permanent`` for a picture that is no whole PNG.
    """
    made = Made()
    place = around.place or Place()
    where = place.grid or place.shape
    if where is None and place.refused is None:
        unknown = Refused("images-unknown", "the platform tells no image of the series")
        made.refused.append(refusal_of(VOLUME, unknown, unit))
    if where is not None and _has_areas(unit, around.rules):
        with refusing(VOLUME, unit, made):
            _write_volume(where, pictures, unit, around, made)
    if unit.series.polylines:
        with refusing("lines", unit, made):
            made.files.append(_lines(where, unit, around.rules))
    if where is None or made.volume is None or "png" in around.rules.formats:
        made.files += _originals(pictures, unit.series.masks, unit)
    return made


def _write_volume(
    where: Grid | Sequence[int], pictures: Pictures, unit: Unit, around: Around, made: Made
) -> None:
    def read(mask: Mask) -> bytes:
        return pictures[mask.reference]

    facts: list[Volume] = []

    def each() -> Iterator[Drawn]:
        """One map at a time: there may be as many as objects."""
        for number, laid in enumerate(frames.volumes(unit.series, read, where, around.rules), 1):
            instance = number if laid.feature is not None else None
            facts.append(_facts(laid, unit))
            yield Drawn(laid.label_map, laid.labels, instance=instance, feature=laid.feature)

    if around.rules.masks != "binary":
        (whole,) = each()
        write_masks(lambda: whole, [whole], unit, around, made)
    else:
        write_masks(lambda: _whole(where, read, unit, around), each(), unit, around, made)
    made.volume = _together(facts)


def _whole(where: Grid | Sequence[int], read: Read, unit: Unit, around: Around) -> Drawn:
    """All objects in one map, for formats that hold no masks apart."""
    rules = msgspec.structs.replace(around.rules, masks="instance")
    (laid,) = frames.volumes(unit.series, read, where, rules)
    if laid.overlaps:
        said = f"{laid.overlaps} voxels are of several objects, and would be only one's"
        raise Refused("masks-overlap", said)
    return Drawn(laid.label_map, laid.labels)


def _facts(laid: frames.Laid, unit: Unit) -> Volume:
    return Volume(
        position=unit.position,
        series=unit.series.name,
        label=unit.label.id,
        views=laid.views,
        assumed_views=laid.assumed_views,
        agreements=laid.agreements,
        overlaps=laid.overlaps,
        blank=laid.empty,
    )


def _together(facts: Sequence[Volume]) -> Volume:
    """Of several maps of one series, what its volume says of them all."""
    return msgspec.structs.replace(
        facts[0],
        views={group: view for one in facts for group, view in one.views.items()},
        assumed_views=tuple(sorted({group for one in facts for group in one.assumed_views})),
        agreements=tuple(agreement for one in facts for agreement in one.agreements),
        overlaps=sum(one.overlaps for one in facts),
        blank=sum(one.blank for one in facts),
    )


def _lines(where: Grid | Sequence[int] | None, unit: Unit, rules: ExportRules) -> NewFile:
    document = polylines.lines_document(
        unit.series.polylines, where, views=rules.views, classes=rules.classes
    )
    return NewFile(path=unit.lines_path(), data=document_bytes(document))


def _has_areas(unit: Unit, rules: ExportRules) -> bool:
    closed = {rule.name for rule in rules.classes if rule.closed}
    lines_drawn = unit.series.polylines
    return bool(unit.series.masks) or any(line.category in closed for line in lines_drawn)


def _originals(pictures: Pictures, masks: Sequence[Mask], unit: Unit) -> Iterator[NewFile]:
    """The pictures byte for byte, their place in space unknown."""
    for mask in masks:
        data = pictures[mask.reference]
        header = check_png(data)
        yield NewFile(
            path=unit.picture_path(mask),
            data=data,
            shape=(header.width, header.height),
            geometry="unknown",
            group=mask.group,
            feature=mask.feature,
            frame=mask.frame,
        )
