"""How much of each class a snapshot holds, counted row by row; pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

from handlers.snapshots.described import ClassCount, Counts
from handlers.snapshots.rows import FORMATS, Row


class Counting:
    """Takes in each task's rows, once."""

    def __init__(self) -> None:
        self._tasks = self._series = self._files = 0
        self._projects: Counter[str] = Counter()
        self._splits: Counter[str] = Counter()
        self._classes: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(
            lambda: defaultdict(Counter)
        )

    def add(self, rows: Sequence[Row]) -> None:
        """``rows`` are all those of one task."""
        first = rows[0]
        self._tasks += 1
        self._projects[first.project_key] += 1
        self._splits[first.split] += 1
        self._files += sum(row.path is not None for row in rows)
        drawn: set[str] = set()
        for _, series in groupby(rows, key=lambda row: row.position):
            files = list(series)
            self._series += files[0].path is not None
            for name, voxels in voxels_of(files).items():
                count = self._classes[name][first.split]
                count["series"] += 1
                count["voxels"] += voxels
                drawn.add(name)
        for name in drawn:
            self._classes[name][first.split]["tasks"] += 1

    def counts(self) -> Counts:
        return Counts(
            tasks=self._tasks,
            series=self._series,
            files=self._files,
            projects=dict(sorted(self._projects.items())),
            splits=dict(sorted(self._splits.items())),
            classes={
                name: {part: ClassCount(**count) for part, count in sorted(parts.items())}
                for name, parts in sorted(self._classes.items())
            },
        )


def classes_of(rows: Iterable[Row]) -> set[str]:
    """The classes that are drawn in a task."""
    return {one.category for row in rows for one in row.voxels if one.category}


def voxels_of(files: Sequence[Row]) -> dict[str, int]:
    """The voxels of each class in one series. Of several forms of its masks one is counted, and
    voxels that two objects of a class share count once where the form tells of them."""
    found: Counter[str] = Counter()
    told = [row for row in files if row.voxels]
    form = min((FORMATS.index(row.format or "") for row in told), default=0)
    for row in told:
        if row.format == FORMATS[form]:
            found.update(_in_one_file(row))
    return dict(found)


def _in_one_file(row: Row) -> dict[str, int]:
    sizes = {one.value: one.voxels for one in row.voxels}
    values: defaultdict[str, set[int]] = defaultdict(set)
    for one in row.voxels:
        if one.category:
            values[one.category].update((one.value, *one.overlaps))
    return {name: sum(sizes.get(value, 0) for value in several) for name, several in values.items()}
