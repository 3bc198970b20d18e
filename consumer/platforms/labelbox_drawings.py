"""What was drawn on a data row, as its export tells it: masks and lines, and the images below.

Objects come in the order of (feature, frame, group), whatever the order of the export.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from consumer.errors import Permanent
from consumer.model import Image, Mask, Polyline
from consumer.platforms.labelbox_json import Json, child, optional, unreadable, without_query
from consumer.platforms.texts import short, sound

MAX_MASKS = 50_000  # of one label
MAX_POLYLINES = 50_000  # of one label
MAX_POINTS = 10_000  # of one line
MAX_REFERENCE = 16_384  # characters; presigned URLs have a few thousand

_MASK, _LINE = "DICOMSegmentationMask", "DICOMPolyline"

Path = tuple[str | int, ...]


def drawn_in(annotations: Json, at: Path) -> tuple[tuple[Mask, ...], tuple[Polyline, ...]]:
    """The masks and lines of a label's annotations, which stand ``at`` a place in the document.

    Raises ``Permanent``: row-unreadable, too-many-masks, too-many-polylines.
    """
    masks: list[Mask] = []
    polylines: list[Polyline] = []
    for feature, frame, group, place, drawn in sorted(_objects(annotations, at), key=_order):
        category = _category(drawn)
        found = list(_mask(drawn, place, group, frame, feature, category))
        masks += found
        _check_kind(drawn, masks=len(found))
        if drawn.get("line") is not None:
            points = _points(drawn["line"])
            polylines.append(
                Polyline(
                    group=group, feature=feature, frame=frame, category=category, points=points
                )
            )
        if len(masks) > MAX_MASKS:
            raise Permanent("too-many-masks", f"more than {MAX_MASKS} masks in one label")
        if len(polylines) > MAX_POLYLINES:
            raise Permanent("too-many-polylines", f"more than {MAX_POLYLINES} lines in one label")
    return tuple(masks), tuple(polylines)


def images_of(data_row: Json) -> tuple[Image, ...]:
    """What the row is about, whatever its kind: only its content tells that. A row that names
    nothing has no image. Raises ``Permanent`` (row-unreadable)."""
    reference = data_row.get("row_data")
    if not isinstance(reference, str) or not reference.strip():
        return ()
    if len(reference) > MAX_REFERENCE:
        raise unreadable(f"row_data has more than {MAX_REFERENCE} characters")
    name = sound(without_query(reference)).rstrip("/").rpartition("/")[2]
    return (Image(reference=reference, name=short(name) or "image"),)


_Object = tuple[str, int, str, Path, Json]


def _objects(annotations: Json, at: Path) -> Iterator[_Object]:
    groups = optional(annotations, "groups")
    for group in groups:
        frames = child(child(groups, group), "frames")
        for number in frames:
            objects = child(child(frames, number), "objects")
            frame = _frame(number)
            for feature in objects:
                place: Path = (*at, "groups", group, "frames", number, "objects", feature)
                yield feature, frame, group, place, child(objects, feature)


def _order(one: _Object) -> tuple[str, int, str]:
    return one[:3]


def _mask(
    drawn: Json, at: Path, group: str, frame: int, feature: str, category: str | None
) -> Iterator[Mask]:
    """One file for each feature and frame."""
    for name in ("mask", "composite_mask"):
        if drawn.get(name) is None:
            continue
        url = child(drawn, name).get("url")
        if not isinstance(url, str) or not url:
            raise unreadable("a mask has no URL")
        yield Mask(
            reference=url,
            kind="png",
            slot=(*at, name, "url"),
            group=group,
            feature=feature,
            frame=frame,
            category=category,
            color=_color(drawn[name]) if name == "composite_mask" else None,
        )
        return


def _check_kind(drawn: Json, *, masks: int) -> None:
    """Whether there is what an object's kind promises; kinds that nobody knows promise nothing.
    Raises ``Permanent``: half an object would read as one that was taken back."""
    kind, line = drawn.get("annotation_kind"), drawn.get("line") is not None
    if not masks and not line and not isinstance(kind, str):
        raise unreadable("an object is of no kind")
    if (kind == _MASK and not masks) or (kind == _LINE and not line):
        raise unreadable("an object lacks what its kind is drawn by")


def _color(composite: Json) -> tuple[int, int, int]:
    """Without its colour an object cannot be told from the others in the picture."""
    color = composite.get("color_rgb")
    if (
        not isinstance(color, list)
        or len(color) != 3
        or not all(type(value) is int and 0 <= value <= 255 for value in color)
    ):
        raise unreadable("a composite mask does not tell its object's colour")
    red, green, blue = color
    return red, green, blue


def _points(line: object) -> tuple[tuple[float, float], ...]:
    if not isinstance(line, list) or len(line) > MAX_POINTS:
        raise unreadable(f"a line is no list of points, or has more than {MAX_POINTS}")
    return tuple(_point(one) for one in line)


def _point(given: object) -> tuple[float, float]:
    if not isinstance(given, dict):
        raise unreadable("a point of a line is not an object")
    return _coordinate(given.get("x")), _coordinate(given.get("y"))


def _coordinate(value: object) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan  # type: ignore[arg-type]
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise unreadable("a point of a line is not two finite numbers")
    return number


def _category(drawn: Json) -> str | None:
    name = drawn.get("name")
    if name is not None and not isinstance(name, str):
        raise unreadable("an object's name is no text")
    return short(sound(name)) if name else None


def _frame(number: str) -> int:
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise unreadable("a frame's number is not a number")
    return int(number)
