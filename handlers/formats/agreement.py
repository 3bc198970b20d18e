"""Whether groups that show the same object agree about where it is.

Two groups are compared on the voxels that both can tell about. A group can tell about the planes
that it drew, and beyond the ends of a run without gaps, unless the other group goes on well past
that end: then the run is only a part. Agreement is measured by Dice, 2 |A and B| / (|A| + |B|).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Refused
from consumer.model import Agreement, ViewConvention
from handlers.formats.drawings import Patch
from handlers.formats.views import VIEWS, Shape, frame_index, plane_of, view_of

LEAST_DICE = 0.98  # exclusive: the right convention gives 1, one frame off 0.92 to 0.99
PAST_THE_END = 2  # planes; a group that goes on further shows that the other's run is a part
WHOLE_RUN = 3  # frames in a row that look like a whole object

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``dice`` is None where nothing can be compared; ``differing`` and ``voxels`` count those
    that one, and at least one, of the two groups has. ``whole`` says that both look whole."""

    groups: tuple[str, str]
    dice: float | None
    voxels: int
    differing: int
    whole: bool

    @property
    def equal(self) -> bool:
        return self.dice is not None and self.differing == 0


@dataclass(slots=True)
class _Seen:
    bit: np.uint8
    frames: Flags  # by voxel index along the group's frame axis: has a picture
    extent: tuple[Flags, Flags, Flags]  # along i, j and k: has a voxel


@dataclass(slots=True)
class Votes:
    """What each group shows of one object: a bit for each group in the marks of a canvas."""

    marks: NDArray[np.uint8]
    _groups: dict[str, _Seen] = field(default_factory=dict)

    def add(self, group: str, convention: ViewConvention, frame: int, patch: Patch) -> None:
        """Raises ``Refused`` as `plane_of`."""
        shape = _shape(self.marks)
        seen = self._groups.get(group)
        if seen is None:
            i, j, k = (np.zeros(size, np.bool_) for size in shape)
            frames = np.zeros(shape[view_of(group).frame], np.bool_)
            seen = _Seen(np.uint8(1 << len(self._groups)), frames, (i, j, k))
            self._groups[group] = seen
        plane = plane_of(self.marks, group, convention, frame)[patch.place]
        plane[patch.mask] |= seen.bit
        index = frame_index(shape, group, convention, frame)
        seen.frames[index] = True
        if patch.mask.size:
            view, (rows, columns) = view_of(group), patch.place
            seen.extent[view.frame][index] = True
            _along(seen.extent[view.x], flip=convention.flip_x)[columns] |= patch.mask.any(0)
            _along(seen.extent[view.y], flip=convention.flip_y)[rows] |= patch.mask.any(1)

    def compare(self) -> list[Comparison]:
        """Each pair of groups, in the order of `VIEWS`."""
        seen = [group for group in VIEWS if group in self._groups]
        return [self._pair(a, b) for a, b in combinations(seen, 2)]

    def extent(self) -> tuple[slice, slice, slice]:
        """The part of the volume that holds every voxel of the object."""
        i, j, k = (
            _span(np.any([seen.extent[axis] for seen in self._groups.values()], axis=0))
            for axis in range(3)
        )
        return i, j, k

    def take(self, k: int) -> Flags:
        """The (i, j) voxels of slice k, of the extent, that any group has; clears the votes."""
        rows, columns, _ = self.extent()
        plane = self.marks[rows, columns, k]
        bits = np.uint8(sum(int(seen.bit) for seen in self._groups.values()))
        drawn: Flags = (plane & bits) != 0
        plane &= ~bits
        return drawn

    def _pair(self, one: str, other: str) -> Comparison:
        a, b = self._groups[one], self._groups[other]
        told = [np.ones(size, np.bool_) for size in self.marks.shape]
        for group, seen, against in ((one, a, b), (other, b, a)):
            axis = view_of(group).frame
            told[axis] &= _told(seen.frames, against.extent[axis])
        both = either = total = 0
        rows, columns, slices = self.extent()
        inside = told[0][rows, None] & told[1][None, columns]
        for k in range(slices.start, slices.stop):
            if not told[2][k]:
                continue
            plane = self.marks[rows, columns, k]
            in_a, in_b = (plane & a.bit != 0) & inside, (plane & b.bit != 0) & inside
            both += int(np.count_nonzero(in_a & in_b))
            either += int(np.count_nonzero(in_a | in_b))
            total += int(np.count_nonzero(in_a)) + int(np.count_nonzero(in_b))
        whole = all(_gapless(seen.frames) and seen.frames.sum() >= WHOLE_RUN for seen in (a, b))
        dice = 2 * both / total if total else None
        return Comparison((one, other), dice, either, either - both, whole)


def check(feature: str, compared: Comparison, shape: Shape) -> Agreement | None:
    """The agreement that stands in the manifest; None where nothing can be compared.

    Raises ``Refused`` (groups-disagree) with the numbers, also where two groups that look whole
    share no voxel that both could tell about.
    """
    dice, groups = compared.dice, compared.groups
    if dice is None and not compared.whole:
        return None
    if dice is None or dice <= LEAST_DICE:
        raise disagreement(feature, compared, shape)
    return Agreement(feature=feature, groups=groups, dice=dice, voxels=compared.voxels)


def disagreement(feature: str, compared: Comparison, shape: Shape, more: str = "") -> Refused:
    one, other = compared.groups
    return Refused(
        "groups-disagree",
        f"{one} and {other} disagree about the object {feature:.60}: "
        f"Dice {compared.dice or 0.0:.4f}, {compared.differing} of {compared.voxels} voxels "
        f"differ{more}",
        shape=shape,
    )


def _told(frames: Flags, other: Flags) -> Flags:
    """Of the planes along a group's frame axis, those about which it can tell."""
    if not _gapless(frames):
        return frames
    told = frames.copy()
    first, end = _span(frames).start, _span(frames).stop
    if not other[: max(0, first - PAST_THE_END)].any():
        told[:first] = True
    if not other[end + PAST_THE_END :].any():
        told[end:] = True
    return told


def _gapless(frames: Flags) -> bool:
    return bool(frames[_span(frames)].all())


def _span(flags: Flags) -> slice:
    places = np.flatnonzero(flags)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _along(flags: Flags, *, flip: bool) -> Flags:
    return flags[::-1] if flip else flags


def _shape(array: NDArray[np.uint8]) -> Shape:
    i, j, k = array.shape
    return i, j, k
