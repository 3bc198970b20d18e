"""What a sweep is asked, what it needs and what it came to: values, and which sweep is due. Pure.

Only the platform's clock decides: ours may be set back or ahead as it likes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from consumer.errors import GroundwireError
from consumer.model import timestamp
from consumer.reconcile_state import Kind, Project
from consumer.sightings import Gap, Sighting, Window

NAMED = 20  # tasks that a tally names
FEW = 20  # tasks that may be missing, however few there are

_EVERYTHING = Window()


class LakeSide(Protocol):
    """The lake's pointers of one source, as `handlers.standing` compares them. A task's place is
    its folder there. Every verb raises ``Transient`` as the store does."""

    def place(self, task: str) -> str: ...

    async def places(self, project: str) -> set[str]:
        """Of all tasks of the project that have a pointer."""

    async def gaps(self, project: str, sightings: Sequence[Sighting]) -> list[Gap]:
        """Of what was sighted: what the lake does not show so."""

    async def missing(self, project: str, places: Sequence[str]) -> list[Gap]:
        """Of places where nothing was sighted: what the lake does not know to be deleted."""

    async def stale(self, project: str, places: Sequence[str], window: Window) -> list[Gap]:
        """What today's rules would make otherwise, of tasks that may be within ``window``."""


class Watch(Protocol):
    """Who wants to know how it goes."""

    def begins(self, project: str, kind: Kind) -> None: ...

    def seen(self, count: int, total: int | None) -> None: ...

    def found(self, gaps: Sequence[Gap]) -> None: ...

    def waits(self, reason: str, waiting: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants; without a ``kind`` whatever is due. ``dry``: nothing is queued, nor
    remembered. ``accept_missing``: a project may lack most of its tasks."""

    kind: Kind | None = None
    window: Window = _EVERYTHING
    dry: bool = False
    accept_missing: bool = False

    @property
    def claims(self) -> bool:
        """Whether only one process may do it at a time: what moves a watermark."""
        return not self.dry and slot_of(self.kind) == "run"


@dataclass(frozen=True, slots=True)
class Pace:
    """How a source is swept: see ``[sweep]``."""

    full_every_s: float = 86_400.0
    overlap_s: float = 900.0
    most_waiting: int = 2000


@dataclass(slots=True)
class Tally:
    """What the sweep of one project came to; ``failure`` is why it is not finished."""

    project: str
    kind: Kind = "changes"
    seen: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    named: list[tuple[str, str]] = field(default_factory=list)  # some of them: why, and which task
    queued: int = 0
    failure: GroundwireError | None = None

    def add(self, gaps: Sequence[Gap]) -> None:
        self.gaps.update(gap.why for gap in gaps)
        self.named += [(gap.why, gap.task) for gap in gaps[: NAMED - len(self.named)]]


def due(project: Project, at: str, pace: Pace) -> Kind:
    """Which sweep a project needs at the platform's time ``at``. A full one that was begun is
    finished; and where the platform's clock was set back, a watermark tells nothing."""
    if project.watermark is None or project.full_at is None:
        return "full"
    if project.run is not None and project.run.kind == "full":
        return "full"
    if project.watermark > at or project.full_at > at:
        return "full"
    return "full" if earlier(at, pace.full_every_s) >= project.full_at else "changes"


def is_most(missing: int, seen: int) -> bool:
    """Whether the platform lacks more of the lake's tasks than it lists: a key that sees less than
    before, or a fault, is likelier than so many deletions, each of which withdraws a task."""
    return missing > max(FEW, seen)


def slot_of(kind: Kind | None) -> str:
    """Where the state keeps an unfinished run: one that moves the watermark, or one that does
    not."""
    return "asked" if kind in ("window", "stale") else "run"


def earlier(at: str, seconds: float) -> str:
    """So many seconds before; nothing is before the year 1."""
    try:
        return timestamp(datetime.fromisoformat(at) - timedelta(seconds=seconds))
    except OverflowError:
        return "0001-01-01T00:00:00.000000Z"
