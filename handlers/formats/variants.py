"""A mask whose voxel values are instances, as other forms of the same: pure, by lookup table.

An instance is where its own value stands, and where any of the values by which it overlaps others
stands. ``binary`` gives a mask for each instance, ``semantic`` one mask of classes; both equal what
redbrick-sdk 2.35.4 makes of the same file, but for what is said at each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Refused
from consumer.model import ClassRule, LabelCount, Segment
from handlers.formats.label_map import MAX_LABEL, LabelMap, check_label_map, smallest_type

_BLOCK = 1 << 15  # voxels at a time: what is looked up stays in the processor's cache


class Semantic(NamedTuple):
    """``counts`` are of class values; ``overlaps`` is how many voxels are of several classes, of
    which the mask shows one."""

    label_map: LabelMap
    counts: tuple[LabelCount, ...]
    overlaps: int


def binary(label_map: LabelMap, segments: Sequence[Segment]) -> Iterator[tuple[Segment, LabelMap]]:
    """A mask of 0 and 1 for each instance that has a voxel, in the order of ``segments``; they are
    made one at a time, when they are asked for.

    Raises ``Permanent`` (``mask-unknown-label``) before the first for a voxel that is no segment's.
    """
    check_label_map(label_map, segments, None)
    flat, order = _flat(label_map.array)
    places = _places(flat)
    for segment in segments:
        wanted = {segment.value, *segment.overlaps} - {0}
        starts = sorted({start for value in wanted for start in places.get(value, ())})
        if not starts:
            continue
        voxels = np.zeros(flat.size, np.uint8)
        look = _Lookup(dict.fromkeys(wanted, 1), flat.dtype)
        for start in starts:
            look.up(flat[start : start + _BLOCK], voxels[start : start + _BLOCK])
        shaped = voxels.reshape(label_map.shape, order=order)
        yield segment, LabelMap(shaped, label_map.affine, label_map.geometry)


def semantic(
    label_map: LabelMap, segments: Sequence[Segment], classes: Sequence[ClassRule] = ()
) -> Semantic:
    """Each voxel as the value of its class: the one in ``classes`` by the class's name, else the
    platform's own number (``category_value``). Of several classes the one with the lowest number
    of the platform's wins, as in the vendor's SDK.

    Raises ``Permanent`` (``mask-unknown-label``) for a voxel that is no segment's, and ``Refused``
    for a drawn class that has no value (``class-unknown``), or whose own number is configured for
    another class (``class-value-taken``).
    """
    found = check_label_map(label_map, segments, None)
    drawn = {count.value for count in found}
    configured = {rule.name: rule.value for rule in classes}
    values: dict[int, int] = {}
    claims: defaultdict[int, set[int]] = defaultdict(set)
    names: defaultdict[int, set[str]] = defaultdict(set)
    for segment in sorted(segments, key=_class_number):
        for value in drawn & {segment.value, *segment.overlaps}:
            of_class = _class_value(segment, configured)
            claims[value].add(of_class)
            if values.setdefault(value, of_class) == of_class and segment.category:
                names[of_class].add(segment.category)
    voxels = defaultdict[int, int](int)
    for count in found:
        voxels[values[count.value]] += count.voxels
    return Semantic(
        label_map=LabelMap(
            _looked_up(label_map.array, values), label_map.affine, label_map.geometry
        ),
        counts=tuple(
            LabelCount(
                value=value, voxels=voxels[value], category=" + ".join(sorted(names[value])) or None
            )
            for value in sorted(voxels)
        ),
        overlaps=sum(count.voxels for count in found if len(claims[count.value]) > 1),
    )


def _class_number(segment: Segment) -> int:
    return MAX_LABEL if segment.category_value is None else segment.category_value


def _class_value(segment: Segment, configured: Mapping[str, int]) -> int:
    if segment.category is not None and segment.category in configured:
        return configured[segment.category]
    number = segment.category_value
    if number is None or not 1 <= number <= MAX_LABEL:
        raise Refused("class-unknown", f"the class of instance {segment.value} has no number")
    if number in configured.values():
        raise Refused(
            "class-value-taken",
            f"instance {segment.value} is of a class that has no value in [classes] and whose own "
            f"number, {number}, is the value of another class there",
        )
    return number


class _Lookup:
    """Voxels to what ``values`` says of them, all others to 0; of a type of one or two bytes by a
    table of all its values, of a wider one by search."""

    def __init__(self, values: Mapping[int, int], dtype: np.dtype[Any]) -> None:
        known = sorted({0: 0, **values}.items())
        self._known: NDArray[Any] | None = np.array([value for value, _ in known], dtype)
        self.dtype = smallest_type(max(to for _, to in known))
        self._table: NDArray[Any] = np.array([to for _, to in known], self.dtype)
        if dtype.itemsize < 4:
            table = np.zeros(2 ** (8 * dtype.itemsize), self.dtype)
            table[self._known] = self._table
            self._known, self._table = None, table

    def up(self, block: NDArray[Any], out: NDArray[Any]) -> None:
        if self._known is None:
            np.take(self._table, block, out=out, mode="clip")  # which never has to clip
            return
        at = np.minimum(np.searchsorted(self._known, block), self._known.size - 1)
        out[:] = np.where(self._known[at] == block, self._table[at], 0)


def _looked_up(array: NDArray[Any], values: Mapping[int, int]) -> NDArray[Any]:
    flat, order = _flat(array)
    look = _Lookup(values, flat.dtype)
    out = np.zeros(flat.size, look.dtype)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        if block.any():  # most of most masks is empty
            look.up(block, out[start : start + _BLOCK])
    return out.reshape(array.shape, order=order)


def _places(flat: NDArray[Any]) -> dict[int, list[int]]:
    """The starts of the blocks in which each value but 0 stands."""
    places: defaultdict[int, list[int]] = defaultdict(list)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        if block.any():
            for value in np.unique(block[np.flatnonzero(np.diff(block, prepend=0))]).tolist():
                places[value].append(start)
    return places


def _flat(array: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    """The voxels in a row, in the order in which they lie in memory, and its name."""
    order: Any = "F" if array.flags.f_contiguous else "C"
    return array.reshape(-1, order=order), order
