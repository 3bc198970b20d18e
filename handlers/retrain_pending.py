"""Which tasks are pending for one policy: a fold over the log's changes, without I/O.

Each pending task keeps where its changes stand in the log, so that a decision made at any size
leaves exactly what came after it. Changes that were counted already are known by their index, so
reading them again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from consumer.changes import TaskChange, change_of
from consumer.errors import Permanent
from consumer.model import Change
from consumer.ports import LogEntry
from handlers.retrain_policy import Pending, Policy

Key = tuple[str, str, str]  # source, project, task


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """One change of a pending task: where in the log, when it was logged, and whether the task was
    new in the ground truth."""

    index: int
    at: str
    is_new: bool


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A pending task as its newest change left it. ``drawn`` says whether one of the policy's
    classes is drawn in it, None while nobody has looked; ``problem`` is why that failed."""

    source: str
    project: str
    task: str
    revision: str
    manifest_key: str
    label: str | None
    marks: tuple[Mark, ...]
    drawn: bool | None = None
    problem: str | None = None

    @property
    def key(self) -> Key:
        return self.source, self.project, self.task


class Count(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a policy between two starts. ``since`` is the log's size at the last decision
    ``decided`` (0: none yet), ``next`` the first entry not counted yet. Without ``tasks`` they are
    counted again from ``since`` on."""

    decided: int = 0
    since: int = 0
    next: int = 0
    selection: str = ""
    removed: Mark | None = None
    tasks: tuple[Task, ...] = ()


@dataclass(slots=True)
class Counting:
    """What is pending for one policy."""

    policy: Policy
    decided: int = 0
    since: int = 0
    next: int = 0
    tasks: dict[Key, Task] = field(default_factory=dict)
    removed: Mark | None = None  # the newest removal: it is a change, too
    _unlooked: dict[Key, None] = field(default_factory=dict)  # in whose masks nobody has looked

    def __post_init__(self) -> None:
        self._unlooked = {key: None for key, task in self.tasks.items() if task.drawn is None}

    @staticmethod
    def restored(policy: Policy, count: Count | None) -> Counting:
        """As it was stored; counted anew from the last decision on if other tasks count now."""
        if count is None:
            return Counting(policy)
        if count.selection != policy.selection:
            return Counting(policy, count.decided, count.since, count.since)
        tasks = {task.key: task for task in count.tasks}
        return Counting(policy, count.decided, count.since, count.next, tasks, count.removed)

    def stored(self, *, with_tasks: bool) -> Count:
        if not with_tasks:
            return Count(self.decided, self.since, self.since, self.policy.selection)
        tasks = tuple(self.tasks.values())
        chosen = self.policy.selection
        return Count(self.decided, self.since, self.next, chosen, self.removed, tasks)

    def take(self, change: TaskChange, *, other_masks: bool) -> None:
        """Counts a change, if it is one of the ground truth that matters to the policy."""
        if change.index < max(self.next, self.since) or not self.policy.wants(change):
            return
        self.next = change.index + 1
        key = change.source, change.project, change.task
        if change.ground_truth == "removed":
            self._drop(key)
            self.removed = Mark(change.index, change.at, False)
        elif change.ground_truth == "added" or (change.ground_truth == "changed" and other_masks):
            self._mark(key, change)
        elif key in self.tasks and change.ground_truth == "changed":
            self._put(_moved(self.tasks[key], change))

    def _mark(self, key: Key, change: TaskChange) -> None:
        before = self.tasks.get(key)
        mark = Mark(change.index, change.at, change.ground_truth == "added")
        marks = (*(before.marks if before else ()), mark)
        revision, manifest = change.revision or "", change.manifest_key or ""
        self._put(Task(*key, revision, manifest, change.label, marks))

    def _put(self, task: Task) -> None:
        """Masks or names of classes are others: they are looked at, if the policy cares."""
        if self.policy.classes:
            self._unlooked[task.key] = None
            self.tasks[task.key] = task
        else:
            self.tasks[task.key] = msgspec.structs.replace(task, drawn=True)

    def _drop(self, key: Key) -> None:
        self.tasks.pop(key, None)
        self._unlooked.pop(key, None)

    def passed(self, end: int) -> None:
        """Every entry before ``end`` was counted."""
        self.next = max(self.next, end)

    def decide(self, number: int, size: int) -> bool:
        """Decision ``number``, made when the log had ``size`` entries, was read from the log: what
        changed since stays pending. False for one that is known."""
        if number <= self.decided:
            return False
        self.decided = number
        self.since = max(self.since, size)
        for key, task in list(self.tasks.items()):
            later = tuple(mark for mark in task.marks if mark.index >= self.since)
            if not later:
                self._drop(key)
            elif len(later) < len(task.marks):
                self.tasks[key] = msgspec.structs.replace(task, marks=later)
        self.tasks = dict(sorted(self.tasks.items(), key=lambda item: item[1].marks[0].index))
        if self.removed is not None and self.removed.index < self.since:
            self.removed = None
        return True

    def unread(self) -> Iterator[Task]:
        """Those whose classes are not known, each with the problem that there was, if any."""
        return (self.tasks[key] for key in self._unlooked)

    def read(self, task: Task, *, drawn: bool | None, problem: str | None) -> None:
        """What was found in the task's masks."""
        if self.tasks.get(task.key) != task:
            return  # it has changed meanwhile
        self.tasks[task.key] = msgspec.structs.replace(task, drawn=drawn, problem=problem)
        if drawn is not None:
            del self._unlooked[task.key]

    def pending(self) -> Pending:
        counted = [task for task in self.tasks.values() if task.drawn]
        if not counted:
            return Pending()
        oldest = min(task.marks[0].at for task in counted)
        newest = max(task.marks[-1].at for task in counted)
        if self.removed is not None:
            newest = max(newest, self.removed.at)
        added = sum(task.marks[0].is_new for task in counted)
        return Pending(
            added=added,
            changed=len(counted) - added,
            oldest=datetime.fromisoformat(oldest),
            newest=datetime.fromisoformat(newest),
        )


def _moved(task: Task, change: TaskChange) -> Task:
    """The same masks in another revision."""
    return msgspec.structs.replace(
        task,
        revision=change.revision or "",
        manifest_key=change.manifest_key or "",
        drawn=None,
        problem=None,
    )


def read_change(entry: LogEntry, log: str) -> TaskChange | None:
    """The change that an entry of the log with this identity tells of, if it tells of one. Raises
    ``Permanent`` (``lake-entry-unreadable``)."""
    try:
        return change_of(entry.index, entry.data, log)
    except msgspec.ValidationError as error:
        said = f"entry {entry.index} of the log is no move of a task"
        raise Permanent("lake-entry-unreadable", said) from error


def has_other_masks(entry: Mapping[str, Any], change: TaskChange) -> bool:
    """Whether the ground truth's masks are others than before: new files, or another label."""
    labels = entry.get("ground_truth_label"), entry.get("old_ground_truth_label")
    relabelled = "old_ground_truth_label" in entry and labels[0] != labels[1]
    return change.change is Change.EXPORTED or relabelled
