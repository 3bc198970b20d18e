"""What was drawn on the frames of a series, object by object, as pixels.

A picture is decoded when it is asked for; only of composites, which many objects share, are the
objects' pixels kept for the next ones, within a budget.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Permanent, Refused, Transient
from consumer.model import ClassRule, Mask, Polyline, Series
from handlers.formats import polygon
from handlers.formats.png import check_png
from handlers.formats.png_pixels import Color, drawn, drawn_in, read_pixels
from handlers.formats.views import Shape, check_size, picture_size, view_of

MAX_OBJECTS = 2**16 - 1  # of one series: as many as a label map of 16 bits tells apart
KEPT_BYTES = 32 << 20  # of composites' pixels

Read = Callable[[Mask], bytes]


@dataclass(frozen=True, slots=True)
class Patch:
    """The part of a picture that has anything drawn: ``mask`` is (row, column), and its first
    pixel lies at ``top``, ``left`` of the picture. Nothing drawn is a mask without pixels."""

    top: int
    left: int
    mask: NDArray[np.bool_]

    @property
    def place(self) -> tuple[slice, slice]:
        """(rows, columns) of the picture."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One object on one frame."""

    group: str
    frame: int
    source: Mask | Polyline


@dataclass(frozen=True, slots=True)
class DrawnObject:
    """Everything that was drawn of one object (feature)."""

    feature: str
    category: str | None
    drawings: tuple[Drawing, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """In the order in which they first occur."""
        return tuple(dict.fromkeys(one.group for one in self.drawings))


def objects_of(series: Series, classes: Sequence[ClassRule]) -> tuple[DrawnObject, ...]:
    """The objects in the order of their first mask, then of their first closed line; lines of
    classes that are not configured as closed are left out.

    Raises ``Refused``: mask-without-place, unknown-group, feature-of-two-classes,
    too-many-objects.
    """
    closed = {rule.name for rule in classes if rule.closed}
    lines = [line for line in series.polylines if line.category in closed]
    drawings: dict[str, list[Drawing]] = defaultdict(list)
    categories: dict[str, str | None] = {}
    sources: list[Mask | Polyline] = [*series.masks, *lines]
    for source in sources:
        group, feature, frame = source.group, source.feature, source.frame
        if group is None or feature is None or frame is None:
            raise Refused("mask-without-place", "a mask does not name its group, object and frame")
        view_of(group)
        drawings[feature].append(Drawing(group, frame, source))
        if categories.setdefault(feature, source.category) != source.category:
            raise Refused("feature-of-two-classes", f"the object {feature:.60} has two classes")
    if len(drawings) > MAX_OBJECTS:
        raise Refused("too-many-objects", f"more than {MAX_OBJECTS} objects in one series")
    return tuple(
        DrawnObject(feature, categories[feature], tuple(made)) for feature, made in drawings.items()
    )


class Pictures:
    """The pixels of drawings, from bytes that ``read`` gives."""

    def __init__(self, objects: Iterable[DrawnObject], read: Read, shape: Shape) -> None:
        self._read = read
        self._shape = shape
        self._claims = _claims(objects)
        self._kept: OrderedDict[_Shown, dict[Color, Patch]] = OrderedDict()

    def patch(self, drawing: Drawing) -> Patch:
        """Raises ``Refused`` (picture-wrong-size, picture-ambiguous, composite-unclaimed-color)
        with the frame and the measure, and ``Transient`` or ``Permanent`` as `check_png`."""
        source = drawing.source
        try:
            if isinstance(source, Polyline):
                size = picture_size(self._shape, drawing.group)
                return cropped(polygon.fill(source.points, size))
            if source.color is None:
                return self._decode(drawing, source, ())[None]
            return self._composite(drawing, source)[source.color]
        except (Permanent, Transient) as error:
            raise _at(drawing, error) from error

    def _composite(self, drawing: Drawing, mask: Mask) -> dict[Color, Patch]:
        name = _shown(drawing, mask)
        found = self._kept.get(name)
        if found is None:
            made = self._decode(drawing, mask, self._claims[name])
            found = {colour: patch for colour, patch in made.items() if colour is not None}
            self._kept[name] = found
            while len(self._kept) > 1 and _bytes(self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return found

    def _decode(
        self, drawing: Drawing, mask: Mask, colours: Collection[Color]
    ) -> dict[Color | None, Patch]:
        data = self._read(mask)
        info = check_png(data)
        check_size((info.width, info.height), self._shape, drawing.group, drawing.frame)
        pixels = read_pixels(data, info)
        if not colours:
            return {None: cropped(drawn(pixels))}
        return {colour: cropped(one) for colour, one in drawn_in(pixels, colours).items()}


def cropped(mask: NDArray[np.bool_]) -> Patch:
    """The part of a (row, column) mask that has anything drawn, as a copy."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Patch(0, 0, np.zeros((0, 0), np.bool_))
    top, left = int(rows[0]), int(columns[0])
    return Patch(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


_Shown = tuple[str, str, int]  # a picture's URL, group and frame


def _shown(drawing: Drawing, mask: Mask) -> _Shown:
    return _without_query(mask.reference), drawing.group, drawing.frame


def _claims(objects: Iterable[DrawnObject]) -> dict[_Shown, set[Color]]:
    """The colours that objects claim in each composite, on each frame that it is of: frames that
    look alike may be given one.

    A composite goes by its URL without a query, which may be signed anew for each object; any
    other picture by its whole URL. Raises ``Refused``: composite-without-colors where several
    objects share a picture and no colours of their own tell them apart; picture-of-two-frames
    where the URL of one object's own picture is given for frames of other groups or numbers, as it
    can be: the vendor's URLs of these name no group.
    """
    drawings = [
        (one.feature, drawing, drawing.source)
        for one in objects
        for drawing in one.drawings
        if isinstance(drawing.source, Mask)
    ]
    colored, plain = (
        {_without_query(mask.reference) for *_, mask in drawings if (mask.color is None) is bare}
        for bare in (False, True)
    )
    owners: dict[_Shown, dict[Color | None, str]] = defaultdict(dict)
    frames: dict[str, Drawing] = {}
    for feature, drawing, mask in drawings:
        path = _without_query(mask.reference)
        name = path if path in colored else mask.reference
        if path in plain:
            _check_frame(frames.setdefault(name, drawing), drawing)
        known = owners[name, drawing.group, drawing.frame]
        if known.setdefault(mask.color, feature) != feature or (None in known and len(known) > 1):
            raise Refused(
                "composite-without-colors",
                f"{drawing.group} frame {drawing.frame}: several objects share one picture, "
                "and no colours tell them apart",
            )
    return {name: {c for c in known if c is not None} for name, known in owners.items()}


def _check_frame(first: Drawing, other: Drawing) -> None:
    if (first.group, first.frame) != (other.group, other.frame):
        raise Refused(
            "picture-of-two-frames",
            f"{first.group} frame {first.frame} and {other.group} frame {other.frame} "
            "are given one picture, which cannot be both",
        )


def _at(drawing: Drawing, error: Permanent | Transient) -> Permanent | Transient:
    """The same error, telling which frame it is about."""
    if isinstance(error, Refused) and error.reason == "picture-wrong-size":
        return error
    said = f"{drawing.group} frame {drawing.frame}, object {drawing.source.feature or '':.60}: "
    if isinstance(error, Refused):
        return Refused(error.reason, said + error.message, shape=error.shape)
    return type(error)(error.reason, said + error.message)


def _bytes(kept: Collection[dict[Color, Patch]]) -> int:
    return sum(patch.mask.size for one in kept for patch in one.values())


def _without_query(reference: str) -> str:
    return reference.partition("?")[0]
