"""Frames laid together as a volume: which follows which, and the grid that they fill.

Frames are ordered by position along the normal of their plane, never by a number or a name. What
is not a straight row of evenly spaced, parallel slices is refused with the measure that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumer.errors import GroundwireError, Refused
from handlers.formats.dicom_image import Frame
from handlers.formats.grid import Grid
from handlers.formats.label_map import MAX_SIDE, MAX_VOXELS

MAX_DRIFT = 0.01  # in-plane, of the pitch: 1 % leans by 0.6 degrees; and half a pixel in all
MAX_OFF_PLACE = 0.25  # of the pitch: how far a slice may lie from where the grid has it
DIRECTION_TOLERANCE = 1e-4  # between frames' direction cosines
_UNIT_TOLERANCE = 2e-4  # of a direction's length, and of the cosine between two: four decimals
_SAME_PLACE = 1e-3  # millimetres between frames of one place, at most
_MULTIPLE = 0.1  # how near to a multiple of the usual gap a gap tells of missing slices

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """``frames`` lie slice after slice, volume after volume: frame of slice k at time t is number
    t * slices + k. ``pitch_deviation`` is the largest departure of a gap from the pitch, as a
    fraction of it."""

    grid: Grid
    frames: tuple[Frame, ...]
    times: int
    pitch_mm: float
    pitch_deviation: float


def arrange(
    frames: Sequence[Frame], size: tuple[int, int], *, pitch_tolerance: float
) -> Arrangement:
    """The volume that the frames are. Raises ``Refused``, with the shape where it is known."""
    _check_directions(frames)
    _check_alike(frames)
    normal = _normal(frames[0])
    places = _places(frames, normal)
    shape = (*size, len(places))
    _check_size(shape, len(frames), frames[0])
    times = _times(places, shape)
    ordered = tuple(place[t] for t in range(times) for place in places)
    firsts = [place[0] for place in places]
    if len(firsts) == 1:
        pitch, deviation = normal * _thickness(firsts[0], shape), 0.0
    else:
        pitch, deviation = _pitch(firsts, normal, shape, pitch_tolerance)
    grid = _grid(firsts[0], pitch, shape)
    return Arrangement(grid, ordered, times, float(np.linalg.norm(pitch)), deviation)


def _check_directions(frames: Sequence[Frame]) -> None:
    """Each frame's directions are two unit vectors at a right angle."""
    rows, columns = _directions(frames)
    lengths = np.stack([np.linalg.norm(rows, axis=1), np.linalg.norm(columns, axis=1)], axis=1)
    off = np.abs(lengths - 1).max(axis=1)
    cosine = np.abs((rows * columns).sum(axis=1))
    worst = int(np.argmax(np.maximum(off, cosine)))
    if off[worst] > _UNIT_TOLERANCE or cosine[worst] > _UNIT_TOLERANCE:
        a, b = lengths[worst]
        what = f"directions of length {a:.6g} and {b:.6g}, cosine between them {cosine[worst]:.6g}"
        raise Refused("bad-orientation", f"{frames[worst].name}: {what}")


def _check_alike(frames: Sequence[Frame]) -> None:
    """All frames have the first one's directions and pixel spacing."""
    first = frames[0]
    rows, columns = _directions(frames)
    turned = np.maximum(np.abs(rows - rows[0]), np.abs(columns - columns[0])).max(axis=1)
    worst = int(np.argmax(turned))
    if turned[worst] > DIRECTION_TOLERANCE:
        what = f"direction cosines differ by {turned[worst]:.6g} from those of {first.name}"
        raise Refused("mixed-orientation", f"{frames[worst].name}: {what}")
    spacing = np.array([frame.place.spacing for frame in frames])
    scaled = np.abs(spacing / spacing[0] - 1).max(axis=1)
    worst = int(np.argmax(scaled))
    if scaled[worst] > DIRECTION_TOLERANCE:
        a, b = spacing[worst]
        what = f"pixels of {a:g} x {b:g} mm, {first.name} has {spacing[0][0]:g} x {spacing[0][1]:g}"
        raise Refused("mixed-spacing", f"{frames[worst].name}: {what}")


def _directions(frames: Sequence[Frame]) -> tuple[Array, Array]:
    rows = np.array([frame.place.along_row for frame in frames])
    columns = np.array([frame.place.along_column for frame in frames])
    return rows, columns


def _normal(frame: Frame) -> Array:
    normal = np.cross(frame.place.along_row, frame.place.along_column)
    return np.asarray(normal / np.linalg.norm(normal), np.float64)


def _places(frames: Sequence[Frame], normal: Array) -> list[list[Frame]]:
    """Frames by place, the places in order of the normal."""
    distances = np.array([frame.place.position for frame in frames]) @ normal
    order = np.argsort(distances, kind="stable")
    places: list[list[Frame]] = []
    before = -np.inf
    for index in order:
        if distances[index] - before > _SAME_PLACE:
            places.append([])
        places[-1].append(frames[index])
        before = distances[index]
    return places


def _check_size(shape: tuple[int, int, int], frames: int, first: Frame) -> None:
    columns, rows, slices = shape
    if slices > MAX_SIDE or columns * rows * frames > MAX_VOXELS:
        what = f"{columns} x {rows} x {frames} voxels are more than {MAX_VOXELS}"
        raise Refused("image-too-large", f"{first.name}: {what}")


def _times(places: list[list[Frame]], shape: tuple[int, int, int]) -> int:
    """How many frames each place has, all of them put in order of time."""
    counts = {len(place): place for place in places}
    if len(counts) > 1:
        few, many = counts[min(counts)], counts[max(counts)]
        what = f"{len(few)} frame(s) at {few[0].name}, {len(many)} at {many[0].name}"
        raise Refused("ragged-frames", f"places differ in their frames: {what}", shape=shape)
    times = len(places[0])
    if times > 1:
        _sort_by_time(places, shape)
    else:
        _check_one_time([place[0] for place in places], shape)
    for place in places:
        _check_same_place(place, shape)
    return times


def _check_one_time(frames: list[Frame], shape: tuple[int, int, int]) -> None:
    """Slices whose times take turns are of several volumes, each a little beside the other."""
    told = [frame.times[0] for frame in frames]
    times = len(set(told))
    rounds = len(told) // times
    if None in told or times < 2 or rounds < 2 or told != told[:times] * rounds:
        return
    a, b = frames[:2]
    what = f"{times} times of {rounds} slices lie between one another's"
    raise Refused("ragged-frames", f"{a.name} and {b.name}: {what}", shape=shape)


def _sort_by_time(places: list[list[Frame]], shape: tuple[int, int, int]) -> None:
    """By the first way to tell times that gives every place the same distinct ones."""
    for way in range(len(places[0][0].times)):
        keys = _time_keys(places, way)
        if keys is None:
            continue
        for number, place in enumerate(places):
            order = sorted(range(len(place)), key=keys[number].__getitem__)
            places[number] = [place[index] for index in order]
        return
    a, b = places[0][:2]
    what = f"{a.name} and {b.name} lie in one place, and no index of time tells them apart"
    raise Refused("duplicate-positions", what, shape=shape)


def _time_keys(places: list[list[Frame]], way: int) -> list[list[tuple[int, ...]]] | None:
    """Each frame's indices but for those that go with its place; the first counts slowest. None
    unless they are distinct at a place and the same at all."""
    known = [[frame.times[way] for frame in place] for place in places]
    indices = [[key for key in keys if key is not None] for keys in known]
    if any(len(keys) < len(place) for keys, place in zip(indices, places, strict=True)):
        return None
    length = min(len(key) for keys in indices for key in keys)
    varying = [
        n for n in range(length) if any(len({key[n] for key in keys}) > 1 for keys in indices)
    ]
    told = [[tuple(key[n] for n in varying) for key in keys] for keys in indices]
    distinct = {frozenset(keys) for keys in told}
    return told if len(distinct) == 1 and len(set(told[0])) == len(told[0]) else None


def _check_same_place(place: list[Frame], shape: tuple[int, int, int]) -> None:
    positions = np.array([frame.place.position for frame in place])
    away = np.abs(positions - positions[0]).max(axis=1)
    worst = int(np.argmax(away))
    if away[worst] > _SAME_PLACE:
        what = f"{away[worst]:.4g} mm beside {place[0].name}, in the same plane"
        raise Refused("duplicate-positions", f"{place[worst].name}: {what}", shape=shape)


def _thickness(frame: Frame, shape: tuple[int, int, int]) -> float:
    """Of a single slice, which has no other extent."""
    if frame.thickness is None or frame.thickness <= 0:
        what = "a single slice without SliceThickness has no pitch"
        raise Refused("missing-geometry", f"{frame.name}: {what}", shape=shape)
    return frame.thickness


def _pitch(
    frames: list[Frame], normal: Array, shape: tuple[int, int, int], tolerance: float
) -> tuple[Array, float]:
    """The vector from slice to slice, and the largest deviation of a gap along the normal."""
    positions = np.array([frame.place.position for frame in frames])
    pitch = (positions[-1] - positions[0]) / (len(frames) - 1)
    rise = float(pitch @ normal)
    gaps = np.diff(positions, axis=0)
    rises = gaps @ normal
    deviations = np.abs(rises / rise - 1)
    worst = int(np.argmax(deviations))
    if deviations[worst] > tolerance:
        raise _uneven(frames, rises, worst, shape)
    _check_straight(frames, positions, pitch, normal, shape, tolerance)
    return pitch, float(deviations[worst])


def _uneven(frames: list[Frame], rises: Array, worst: int, shape: tuple[int, int, int]) -> Refused:
    usual = float(np.sort(rises)[(len(rises) - 1) // 2])
    widest = int(np.argmax(rises))
    multiple = float(rises[widest]) / usual
    if round(multiple) > 1 and abs(multiple - round(multiple)) <= _MULTIPLE:
        what = (
            f"{rises[widest]:.4g} mm to {frames[widest + 1].name}, {multiple:.3g} times the usual"
        )
        message = f"{frames[widest].name}: {what} {usual:.4g} mm: slices are missing"
        return Refused("missing-slices", message, shape=shape)
    what = f"{rises[worst]:.4g} mm to {frames[worst + 1].name}, the usual gap is {usual:.4g} mm"
    return Refused("unequal-spacing", f"{frames[worst].name}: {what}", shape=shape)


def _check_straight(
    frames: list[Frame],
    positions: Array,
    pitch: Array,
    normal: Array,
    shape: tuple[int, int, int],
    tolerance: float,
) -> None:
    """Slices lie above one another, none beside its place."""
    rise = float(pitch @ normal)
    drift = float(np.linalg.norm(pitch - rise * normal)) / rise
    total = drift * rise * (len(frames) - 1)
    half_pixel = min(frames[0].place.spacing) / 2
    if drift > MAX_DRIFT or total > half_pixel:
        angle = np.degrees(np.arctan(drift))
        measure = f"{drift:.2%} of the pitch ({angle:.2f} degrees), {total:.4g} mm in all"
        what = f"slices lean by {measure}: tilt or shear"
        raise Refused("tilted", f"{frames[0].name} to {frames[-1].name}: {what}", shape=shape)
    off = positions - positions[0] - np.outer(np.arange(len(frames)), pitch)
    along = np.abs(off @ normal) / rise
    beside = np.linalg.norm(off - np.outer(off @ normal, normal), axis=1) / rise
    for kind, measure, limit in (
        ("tilted", beside, min(tolerance, half_pixel / rise)),
        ("unequal-spacing", along, MAX_OFF_PLACE),
    ):
        worst = int(np.argmax(measure))
        if measure[worst] > limit:
            where = "beside" if kind == "tilted" else "along the normal from"
            what = f"{measure[worst] * rise:.4g} mm {where} its place in an even row"
            raise Refused(kind, f"{frames[worst].name}: {what}", shape=shape)


def _grid(first: Frame, pitch: Array, shape: tuple[int, int, int]) -> Grid:
    """LPS [row * spacing between columns, column * spacing between rows, pitch | position], then
    to RAS."""
    between_rows, between_columns = first.place.spacing
    lps = np.eye(4)
    lps[:3, 0] = np.multiply(first.place.along_row, between_columns)
    lps[:3, 1] = np.multiply(first.place.along_column, between_rows)
    lps[:3, 2] = pitch
    lps[:3, 3] = first.place.position
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    try:
        return Grid(shape, tuple(tuple(map(float, row)) for row in ras))
    except GroundwireError as error:
        what = "no volume: positions or spacing out of all bounds"
        raise Refused("bad-spacing", f"{first.name}: {what}", shape=shape) from error
