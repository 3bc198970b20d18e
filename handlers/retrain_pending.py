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
from handlers.retrain_tasks import Key, Mark, Task, Tasks


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
    tasks: Tasks = field(default_factory=Tasks)
    removed: Mark | None = None  # the newest removal: it is a change, too

    @staticmethod
    def restored(policy: Policy, count: Count | None) -> Counting:
        """As it was stored; counted anew from the last decision on if other tasks count now."""
        if count is None:
            return Counting(policy)
        if count.selection != policy.selection:
            return Counting(policy, count.decided, count.since, count.since)
        tasks = Tasks(count.tasks)
        return Counting(policy, count.decided, count.since, count.next, tasks, count.removed)

    def stored(self, *, with_tasks: bool) -> Count:
        if not with_tasks:
            return Count(self.decided, self.since, self.since, self.policy.selection)
        tasks = tuple(self.tasks)
        chosen = self.policy.selection
        return Count(self.decided, self.since, self.next, chosen, self.removed, tasks)

    def take(self, change: TaskChange, *, other_masks: bool) -> None:
        """Counts a change, if it is one of the ground truth that matters to the policy."""
        if change.index < max(self.next, self.since) or not self.policy.wants(change):
            return
        self.next = change.index + 1
        key = change.source, change.project, change.task
        if change.ground_truth == "removed":
            self.tasks.drop(key)
            self.removed = Mark(change.index, change.at, False)
        elif change.ground_truth == "added" or (change.ground_truth == "changed" and other_masks):
            self._mark(key, change)
        elif change.ground_truth == "changed" and (task := self.tasks.get(key)):
            self.tasks.replace(self._task(key, change, task.marks))  # the same masks, renamed

    def _mark(self, key: Key, change: TaskChange) -> None:
        before = self.tasks.get(key)
        mark = Mark(change.index, change.at, change.ground_truth == "added")
        marks = (*(before.marks if before else ()), mark)
        self.tasks.mark(self._task(key, change, marks))

    def _task(self, key: Key, change: TaskChange, marks: tuple[Mark, ...]) -> Task:
        """Where a policy names classes, somebody must look whether they are drawn."""
        if not self.policy.classes:
            return Task(*key, marks, drawn=True)
        where = change.revision or "", change.manifest_key or "", change.label
        return Task(*key, marks, None, *where)

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
        self.tasks.keep_since(self.since)
        if self.removed is not None and self.removed.index < self.since:
            self.removed = None
        return True

    def unread(self) -> Iterator[Task]:
        """Those whose classes are not known, each with the problem that there was, if any."""
        return self.tasks.unread()

    def read(self, task: Task, *, drawn: bool | None, problem: str | None) -> None:
        """What was found in the task's masks."""
        if self.tasks.get(task.key) != task:
            return  # it has changed meanwhile
        if drawn is None:
            self.tasks.replace(msgspec.structs.replace(task, problem=problem))
        else:
            self.tasks.replace(Task(*task.key, task.marks, drawn))

    def pending(self) -> Pending:
        tasks = self.tasks
        oldest, newest = tasks.oldest(), tasks.newest()
        if oldest is None or newest is None:
            return Pending()
        if self.removed is not None:
            newest = max(newest, self.removed.at)
        return Pending(
            added=tasks.added,
            changed=tasks.counted - tasks.added,
            oldest=datetime.fromisoformat(oldest),
            newest=datetime.fromisoformat(newest),
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
