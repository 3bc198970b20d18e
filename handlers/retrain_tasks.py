"""The pending tasks of one policy: in the order of their changes, and counted as they come.

Whatever is asked of them costs the same for a thousand tasks and a million, but for a decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

Key = tuple[str, str, str]  # source, project, task


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """One change of a pending task: where in the log, when it was logged, and whether the task was
    new in the ground truth."""

    index: int
    at: str
    is_new: bool


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A pending task as its newest change left it. ``drawn`` says whether one of the policy's
    classes is drawn in it, None while nobody has looked; then where to look, and ``problem`` is why
    that failed."""

    source: str
    project: str
    task: str
    marks: tuple[Mark, ...]
    drawn: bool | None = None
    revision: str = ""
    manifest_key: str = ""
    label: str | None = None
    problem: str | None = None

    @property
    def key(self) -> Key:
        return self.source, self.project, self.task


class Tasks:
    """Those with ``drawn`` count. A task stands where its oldest change does."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._fill(list(tasks))

    def _fill(self, tasks: Sequence[Task]) -> None:
        self._all: dict[Key, Task] = {}
        self._recent: dict[Key, None] = {}  # in the order of their newest changes
        self._unlooked: dict[Key, None] = {}  # in whose masks nobody has looked
        self.counted = 0
        self.added = 0  # of those that count, the new ones
        self.changes = 0  # of all
        for task in sorted(tasks, key=lambda one: one.marks[-1].index):
            self._recent[task.key] = None
        for task in tasks:
            self._set(task)

    def __contains__(self, key: Key) -> bool:
        return key in self._all

    def __iter__(self) -> Iterator[Task]:
        return iter(self._all.values())

    def get(self, key: Key) -> Task | None:
        return self._all.get(key)

    def mark(self, task: Task) -> None:
        """It has changed: its last mark is the newest of all."""
        self._recent.pop(task.key, None)
        self._recent[task.key] = None
        self._set(task)

    def replace(self, task: Task) -> None:
        """It is known better."""
        self._set(task)

    def drop(self, key: Key) -> None:
        before = self._all.pop(key, None)
        if before is not None:
            self._count(before, -1)
            self._recent.pop(key, None)
            self._unlooked.pop(key, None)

    def keep_since(self, index: int) -> None:
        """Forgets the changes before ``index``."""
        kept = [_since(task, index) for task in self._all.values() if task.marks[-1].index >= index]
        self._fill(sorted(kept, key=lambda one: one.marks[0].index))

    def unread(self) -> Iterator[Task]:
        return (self._all[key] for key in self._unlooked)

    def oldest(self) -> str | None:
        """When the first of the changes that count was logged."""
        return next((task.marks[0].at for task in self._all.values() if task.drawn), None)

    def newest(self) -> str | None:
        recent = (self._all[key] for key in reversed(self._recent))
        return next((task.marks[-1].at for task in recent if task.drawn), None)

    def _set(self, task: Task) -> None:
        before = self._all.get(task.key)
        if before is not None:
            self._count(before, -1)
        self._all[task.key] = task
        self._count(task, 1)
        if task.drawn is None:
            self._unlooked[task.key] = None
        else:
            self._unlooked.pop(task.key, None)

    def _count(self, task: Task, by: int) -> None:
        self.changes += by * len(task.marks)
        if task.drawn:
            self.counted += by
            self.added += by * task.marks[0].is_new


def _since(task: Task, index: int) -> Task:
    if task.marks[0].index >= index:
        return task
    marks = tuple(mark for mark in task.marks if mark.index >= index)
    return msgspec.structs.replace(task, marks=marks)
