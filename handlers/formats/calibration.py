"""Which view conventions a row's own drawings speak for, group by group.

Frames must lie inside the volume, and groups that show one object must agree. Groups can only be
judged against each other: mirror the whole volume, and all of them agree as well as before. So
the flips of one group (Axial, where it is compared) are taken as configured and never judged, and
where drawings fit several conventions equally well, all of them are told and none is picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from consumer.model import Series, ViewConvention
from handlers.formats import convention_scores as scores
from handlers.formats.agreement import LEAST_DICE
from handlers.formats.convention_scores import CONVENTIONS, PairScores
from handlers.formats.drawings import DrawnObject, Pictures, Read, objects_of
from handlers.formats.grid import Grid
from handlers.formats.label_map import grid
from handlers.formats.views import DEFAULT, VIEWS, Shape

MAX_OBJECTS = 8  # that are compared: those with the most frames

Status = Literal["best", "worse", "unknown", "impossible"]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """One convention of a group. ``dice`` is the agreement with the other groups under their best
    conventions; None without any comparison. ``status`` "impossible" is a frame outside the
    volume, "unknown" that nothing speaks for or against it."""

    convention: ViewConvention
    dice: float | None
    status: Status


@dataclass(frozen=True, slots=True)
class GroupScores:
    """``rows`` are the 16 conventions, best first; ``decided`` is the one that stands out, or
    None, and ``why`` says then what is missing. ``anchored``: its flips were not judged."""

    group: str
    rows: tuple[Scored, ...]
    decided: ViewConvention | None
    anchored: bool
    why: str


def calibrate(
    series: Series, read: Read, place: Grid | Sequence[int], views: Mapping[str, ViewConvention]
) -> tuple[GroupScores, ...]:
    """The scores of every group that has masks; ``views`` is what is configured.

    ``read`` and ``place`` are as in `frames.volumes`, and so is what is raised, except that
    frames outside the volume and groups that disagree are what this is about.
    """
    shape = place.shape if isinstance(place, Grid) else grid(place)
    objects = objects_of(series, ())
    groups = [group for group in VIEWS if any(group in one.groups for one in objects)]
    able = {group: scores.possible(group, _frames(objects, group), shape) for group in groups}
    pairs = _pairs(objects, Pictures(objects, read, shape), shape)
    compared = [group for group in groups if any(group in pair for pair in pairs)]
    fits = {g: able[g] if able[g].any() else np.ones(16, np.bool_) for g in compared}
    joint = _joint(compared, pairs, fits)
    found = []
    for group in groups:
        anchored = bool(compared) and group == compared[0]
        dice = None
        if group in compared:
            dice = _of_group(joint, compared, group, views.get(compared[0], DEFAULT))
        found.append(_group(group, able[group], dice, views.get(group, DEFAULT), anchored))
    return tuple(found)


def _pairs(
    objects: Sequence[DrawnObject], pictures: Pictures, shape: Shape
) -> dict[tuple[str, str], PairScores]:
    """Sums over objects, of the pairs of groups of which anything can be compared."""
    several = sorted(
        (one for one in objects if len(one.groups) > 1), key=lambda one: -len(one.drawings)
    )
    sums: dict[tuple[str, str], PairScores] = {}
    for one in several[:MAX_OBJECTS]:
        samples = {
            group: scores.sample(one, group, pictures.patch, shape)
            for group in VIEWS
            if group in one.groups
        }
        for pair in combinations(samples, 2):
            made = scores.pair_scores(samples[pair[0]], samples[pair[1]], shape)
            old = sums.get(pair, PairScores(np.zeros_like(made.both), np.zeros_like(made.total)))
            sums[pair] = PairScores(old.both + made.both, old.total + made.total)
    return {pair: made for pair, made in sums.items() if made.total.any()}


def _joint(
    groups: Sequence[str],
    pairs: Mapping[tuple[str, str], PairScores],
    able: Mapping[str, NDArray[np.bool_]],
) -> Scores:
    """The Dice of all comparisons, one axis of 16 conventions for each group; -1 where a frame
    would lie outside the volume."""
    size = (16,) * len(groups)
    both, total = np.zeros(size), np.zeros(size)
    for (one, other), made in pairs.items():
        place = [1] * len(groups)
        place[groups.index(one)] = place[groups.index(other)] = 16
        both, total = both + made.both.reshape(place), total + made.total.reshape(place)
    dice: Scores = both / np.maximum(total, 1)
    for axis, group in enumerate(groups):
        place = [1] * len(groups)
        place[axis] = 16
        dice = np.where(able[group].reshape(place), dice, -1)
    return dice


def _of_group(joint: Scores, groups: Sequence[str], group: str, anchor: ViewConvention) -> Scores:
    """The best Dice for each convention of a group, the first group's flips as configured."""
    axis = groups.index(group)
    kept = joint if axis == 0 else joint[[_same_flips(one, anchor) for one in CONVENTIONS]]
    others = tuple(n for n in range(len(groups)) if n != axis)
    best: Scores = kept.max(axis=others)
    return best


def _group(
    group: str,
    able: NDArray[np.bool_],
    dice: Scores | None,
    configured: ViewConvention,
    anchored: bool,
) -> GroupScores:
    judged = [not anchored or _same_flips(one, configured) for one in CONVENTIONS]
    top = float(dice.max()) if dice is not None else 0.0
    rows = []
    for number, convention in enumerate(CONVENTIONS):
        status: Status = "unknown"
        if not able[number]:
            status = "impossible"
        elif dice is not None and judged[number]:
            status = "best" if top > 0 and dice[number] >= top else "worse"
        score = float(dice[number]) if dice is not None and able[number] else None
        rows.append(Scored(convention, score, status))
    best = [row.convention for row in rows if row.status == "best"]
    order = {"best": 0, "worse": 1, "unknown": 2, "impossible": 3}
    rows.sort(key=lambda row: (order[row.status], -(row.dice or 0.0)))
    sure = len(best) == 1 and top > LEAST_DICE
    why = _why(group, able, dice, best, anchored=anchored)
    return GroupScores(group, tuple(rows), best[0] if sure else None, anchored, why)


def _why(
    group: str,
    able: NDArray[np.bool_],
    dice: Scores | None,
    best: Sequence[ViewConvention],
    *,
    anchored: bool,
) -> str:
    if not able.any():
        return f"{group} has frames outside the volume under every convention"
    if dice is None:
        return f"no object in {group} is also drawn in another group where planes cross"
    if dice.max() <= LEAST_DICE:
        return f"no convention of {group} makes the groups agree (Dice {dice.max():.4f} at best)"
    if len(best) > 1:
        return f"{len(best)} conventions of {group} fit equally well: what is drawn is symmetric"
    if anchored:
        return f"the flips of {group} are taken as configured: mirrored, all groups agree as well"
    return ""


def _frames(objects: Sequence[DrawnObject], group: str) -> list[int]:
    return [d.frame for one in objects for d in one.drawings if d.group == group]


def _same_flips(one: ViewConvention, other: ViewConvention) -> bool:
    return (one.flip_x, one.flip_y, one.flip_frame) == (
        other.flip_x,
        other.flip_y,
        other.flip_frame,
    )
