"""What ``retrain`` keeps between two starts; all of it can be had from the log again.

Pending tasks are kept while they are few. Beyond that a start counts them again from the policy's
last decision on, so the state's size never follows the number of tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from handlers.retrain_pending import Count, Counting
from handlers.retrain_records import Decision

MAX_KEPT = 5_000  # changes of pending tasks, of all policies: some 110 bytes each
MAX_MESSAGE = 300  # characters


class Taken(Struct, frozen=True, kw_only=True):
    """The snapshot of a decision. ``key`` is the object in the lake that has the hash."""

    id: str
    name: str
    key: str
    sha256: str
    log_root: str
    tasks: int


class Begun(Struct, frozen=True, kw_only=True):
    """The target has begun; what it calls the run."""

    reference: str
    already: bool


class Open(Struct, kw_only=True, omit_defaults=True):
    """A decision that is not triggered yet. ``attempts`` counts those of the present step, and
    after the last, at ``tried_at``, the next is due in ``wait_s``. ``said`` are the reasons that
    the log holds."""

    decision: Decision
    snapshot: Taken | None = None
    begun: Begun | None = None
    attempts: int = 0
    reason: str | None = None
    message: str = ""
    tried_at: str = ""
    wait_s: float = 0.0
    said: tuple[str, ...] = ()

    def due_in_s(self, now: datetime) -> float:
        """A clock that was put back makes it due."""
        if not self.tried_at:
            return 0.0
        passed = (now - datetime.fromisoformat(self.tried_at)).total_seconds()
        return 0.0 if passed < 0 else max(0.0, self.wait_s - passed)


class State(Struct, frozen=True, kw_only=True):
    """``followers/retrain.json`` holds it. Policies that are no longer configured stay, too."""

    policies: dict[str, Count] = {}
    open: dict[str, Open] = {}


def read_state(state: Mapping[str, Any]) -> State | None:
    """None for one of another version: then all is read from the log again."""
    try:
        return msgspec.convert(dict(state), State)
    except msgspec.ValidationError:
        return None


def fits(countings: Iterable[Counting], kept: int) -> bool:
    """Whether the pending tasks have at most ``kept`` changes."""
    return sum(counting.tasks.changes for counting in countings) <= kept
