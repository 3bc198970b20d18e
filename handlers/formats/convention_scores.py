"""Which view conventions fit what two groups show of the same objects.

Where a plane of one group crosses a plane of another there is a line of voxels that both show.
Under the right conventions the two agree about every such line; a convention is scored by the
Dice of all lines between a sample of frames, so that all 256 pairs of conventions take a moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from consumer.model import ViewConvention
from handlers.formats.agreement import LEAST_DICE
from handlers.formats.drawings import Drawing, DrawnObject, Patch
from handlers.formats.views import Shape, picture_size, view_of

MAX_FRAMES = 32  # of one group that are sampled: the ends, and evenly between them
ENDS = 4
ENOUGH = 100  # voxels that must speak for another convention where ours cannot be compared
SURE = 3.0  # standard deviations of a count that are no chance any more

CONVENTIONS = tuple(
    ViewConvention(frame_base=base, flip_x=x, flip_y=y, flip_frame=f)
    for base, x, y, f in product((1, 0), (False, True), (False, True), (False, True))
)
_VARIANTS = tuple(product((1, 0), (False, True)))  # frame base, and whether its axis is flipped


@dataclass(frozen=True, slots=True)
class Sample:
    """Some frames of one object in one group; ``pictures`` is (frame, row, column)."""

    group: str
    frames: NDArray[np.int64]
    pictures: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PairScores:
    """``both`` and ``total`` are (16, 16): twice the voxels in both groups, and the sum of those
    in each, by the conventions of the first and of the second, in the order of `CONVENTIONS`."""

    both: NDArray[np.int64]
    total: NDArray[np.int64]

    @property
    def dice(self) -> NDArray[np.float64]:
        """0 where nothing can be compared."""
        dice: NDArray[np.float64] = self.both / np.maximum(self.total, 1)
        return dice


def sample(one: DrawnObject, group: str, patch: Callable[[Drawing], Patch], shape: Shape) -> Sample:
    """Raises what ``patch`` raises."""
    drawings: dict[int, list[Drawing]] = {}
    for drawing in one.drawings:
        if drawing.group == group:
            drawings.setdefault(drawing.frame, []).append(drawing)
    frames = _chosen(sorted(drawings))
    width, height = picture_size(shape, group)
    pictures = np.zeros((len(frames), height, width), np.bool_)
    for number, frame in enumerate(frames):
        for drawing in drawings[frame]:
            found = patch(drawing)
            pictures[number][found.place] |= found.mask
    return Sample(group, np.array(frames, np.int64), pictures)


def possible(group: str, frames: Sequence[int], shape: Shape) -> NDArray[np.bool_]:
    """For each of `CONVENTIONS` whether all frames would lie inside the volume."""
    size = shape[view_of(group).frame]
    inside = {base: base <= min(frames) and max(frames) < base + size for base in (0, 1)}
    return np.array([inside[convention.frame_base] for convention in CONVENTIONS])


def pair_scores(a: Sample, b: Sample, shape: Shape) -> PairScores:
    """Scores of all pairs of conventions; what lies outside the volume under one is left out."""
    view_a, view_b = view_of(a.group), view_of(b.group)
    lines_a, lines_b = _across(a, view_b.frame), _across(b, view_a.frame)
    in_a = [_positions(b.frames, shape[view_b.frame], *variant) for variant in _VARIANTS]
    in_b = [_positions(a.frames, shape[view_a.frame], *variant) for variant in _VARIANTS]
    both = np.zeros((4, 4, 2), np.int64)  # variant of b's frames, of a's frames, flipped along
    total = np.zeros((4, 4), np.int64)
    for at_b, at_a in product(range(4), range(4)):
        (place_a, seen_a), (place_b, seen_b) = in_a[at_b], in_b[at_a]
        told = seen_b[:, None] & seen_a[None, :]
        of_a = lines_a[:, place_a] & told[:, :, None]
        of_b = lines_b[:, place_b].swapaxes(0, 1) & told[:, :, None]
        total[at_b, at_a] = np.count_nonzero(of_a) + np.count_nonzero(of_b)
        for flipped, line in enumerate((of_b, of_b[:, :, ::-1])):
            both[at_b, at_a, flipped] = 2 * np.count_nonzero(of_a & line)
    return _spread(a.group, b.group, both, total)


def better_elsewhere(
    a: Sample, b: Sample, ours: tuple[ViewConvention, ViewConvention], shape: Shape
) -> float | None:
    """The Dice of the best pair of conventions, if it fits better than ours and not by chance: of
    a large object, one frame off costs so little that Dice alone does not show it."""
    found = pair_scores(a, b, shape)
    at = CONVENTIONS.index(ours[0]), CONVENTIONS.index(ours[1])
    fits = (
        possible(a.group, a.frames.tolist(), shape)[:, None]
        & possible(b.group, b.frames.tolist(), shape)[None, :]
    )
    total, differing = int(found.total[at]), int(found.total[at] - found.both[at])
    fits &= 2 * found.total >= total if total else found.total >= ENOUGH
    best = float(found.dice[fits].max(initial=0))
    if not total:
        return best if best > LEAST_DICE else None
    exact = best == 1 and differing > 0
    beyond_chance = differing - (1 - best) * total > SURE * math.sqrt(differing)
    return best if exact or beyond_chance else None


def _spread(one: str, other: str, both: NDArray[np.int64], total: NDArray[np.int64]) -> PairScores:
    """From what the lines depend on to pairs of conventions."""
    view_a, view_b = view_of(one), view_of(other)
    third = 3 - view_a.frame - view_b.frame
    wide = PairScores(np.zeros((16, 16), np.int64), np.zeros((16, 16), np.int64))
    for (n, a), (m, b) in product(enumerate(CONVENTIONS), enumerate(CONVENTIONS)):
        # A frame's place in the other group's picture is mirrored by either convention's flip.
        at_b = _VARIANTS.index((b.frame_base, b.flip_frame != _flip(one, a, view_b.frame)))
        at_a = _VARIANTS.index((a.frame_base, a.flip_frame != _flip(other, b, view_a.frame)))
        along = _flip(one, a, third) != _flip(other, b, third)
        wide.both[n, m] = both[at_b, at_a, int(along)]
        wide.total[n, m] = total[at_b, at_a]
    return wide


def _flip(group: str, convention: ViewConvention, axis: int) -> bool:
    return convention.flip_x if view_of(group).x == axis else convention.flip_y


def _across(given: Sample, axis: int) -> NDArray[np.bool_]:
    """The pictures as (frame, position along ``axis``, position along the third axis)."""
    along_x = view_of(given.group).x == axis
    return given.pictures.transpose(0, 2, 1) if along_x else given.pictures


def _positions(
    frames: NDArray[np.int64], size: int, base: int, flipped: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where frames lie along their axis, and which of them lie inside the volume."""
    index = frames - base
    inside = (index >= 0) & (index < size)
    index = np.clip(index, 0, size - 1)
    return (size - 1 - index if flipped else index), inside


def _chosen(frames: list[int]) -> list[int]:
    if len(frames) <= MAX_FRAMES:
        return frames
    middle = frames[ENDS:-ENDS]
    picked = np.linspace(0, len(middle) - 1, MAX_FRAMES - 2 * ENDS).round().astype(int)
    return [*frames[:ENDS], *(middle[n] for n in picked), *frames[-ENDS:]]
