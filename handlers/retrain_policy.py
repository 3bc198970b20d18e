"""When a policy decides: a pure decision about what is pending, and the time.

A policy fires when enough tasks are pending and nothing has changed for a while, or when the oldest
of them has waited for too long. Nothing pending never fires.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from consumer.changes import TaskChange
from consumer.model import canonical, digest

Reason = Literal["enough-changes", "waited-long-enough", "fired-by-hand"]


@dataclass(frozen=True, slots=True)
class Policy:
    """``[retrain.NAME]`` as it is configured now. ``min_changes`` of 0 leaves it to ``max_wait_s``.
    ``timeout_s`` is the target's; ``configuration`` the hash of it all."""

    name: str
    projects: tuple[str, ...] = ("*",)
    classes: tuple[str, ...] = ()
    min_changes: int = 0
    quiet_s: float = 0.0
    max_wait_s: float | None = None
    dry_run: bool = False
    timeout_s: float = 30.0
    target: str = ""  # its type
    configuration: str = ""

    @property
    def selection(self) -> str:
        """Changes when other tasks count: then everything since its last decision counts anew."""
        chosen = [sorted(set(self.projects)), sorted(set(self.classes))]
        return digest(canonical(chosen))[:16]

    def wants(self, change: TaskChange) -> bool:
        """Whether the task is of its projects, each named by its id or as the lake names it."""
        return covers(self.projects, change)


def covers(projects: Collection[str], change: TaskChange) -> bool:
    return "*" in projects or change.project in projects or change.project_key in projects


@dataclass(frozen=True, slots=True)
class Pending:
    """How many tasks are new or changed since the last decision, when the oldest of their changes
    was logged, and when the ground truth last changed."""

    added: int = 0
    changed: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    @property
    def tasks(self) -> int:
        return self.added + self.changed


@dataclass(frozen=True, slots=True)
class Decide:
    """Train now."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet. ``until``: then it decides if nothing changes meanwhile; None: only a change can
    make it."""

    until: datetime | None = None


def decide(pending: Pending, policy: Policy, now: datetime) -> Decide | Wait:
    """What the policy makes of it. A clock that is behind the log makes it wait, never fire."""
    if not pending.tasks or pending.oldest is None or pending.newest is None:
        return Wait()
    due: list[tuple[datetime, Reason]] = []
    if 0 < policy.min_changes <= pending.tasks:
        due.append((pending.newest + timedelta(seconds=policy.quiet_s), "enough-changes"))
    if policy.max_wait_s is not None:
        due.append((pending.oldest + timedelta(seconds=policy.max_wait_s), "waited-long-enough"))
    if not due:
        return Wait()
    until, reason = min(due)
    return Decide(reason) if until <= now else Wait(until)
