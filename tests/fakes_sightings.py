"""What a platform tells of its tasks, in memory: it lists what `FakePlatform` holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from consumer.errors import Permanent, Transient
from consumer.model import TaskSnapshot, timestamp
from consumer.sightings import Page, Sighting, Window
from tests.fakes_clock import FakeClock
from tests.fakes_platform import PROJECT, FakePlatform


def sighting(seen: TaskSnapshot) -> Sighting:
    """A task as a listing shows it."""
    created = [label.created_at for label in seen.labels if label.created_at]
    return Sighting(seen.task, seen.stage, seen.active_at, tuple(created))


@dataclass
class FakeSightings:
    """Implements ``Sightings``. ``clock`` is the platform's own.

    ``lagging`` are tasks that the listing shows as they were, or does not show yet (None);
    ``restless`` are tasks that it shows whatever was asked for; ``failing`` are raised by its
    calls with these numbers, from 1, where each page is a call; ``before_page`` is awaited before
    each page with its number in the listing, from 0.
    """

    platform: FakePlatform
    clock: FakeClock = field(default_factory=FakeClock)
    page_size: int = 3
    lagging: dict[str, TaskSnapshot | None] = field(default_factory=dict)
    failing: dict[int, BaseException] = field(default_factory=dict)
    before_page: Callable[[int], Awaitable[None]] | None = None
    restless: set[str] = field(default_factory=set)
    closed: int = 0  # listings that ended, or were given up
    calls: int = 0
    windows: list[tuple[str, Window]] = field(default_factory=list)
    known: dict[str, Permanent | Transient] = field(default_factory=dict)  # projects that fail

    def __post_init__(self) -> None:
        self.source = self.platform.source

    async def now(self) -> str:
        self._call()
        return timestamp(self.clock())

    async def changed_since(self, project: str, window: Window) -> AsyncIterator[Page]:
        self.windows.append((project, window))
        if project in self.known:
            raise self.known[project]
        names = sorted({*self.platform.tasks, *self.lagging}) if project == PROJECT else []
        total = len(names)
        try:
            for number, start in enumerate(range(0, total, self.page_size)):
                if self.before_page is not None:
                    await self.before_page(number)
                self._call()
                shown = [self._shown(name) for name in names[start : start + self.page_size]]
                seen = [sighting(one) for one in shown if isinstance(one, TaskSnapshot)]
                told = [one for one in seen if window.holds(one) or one.task in self.restless]
                yield Page(tuple(told), total)
        finally:
            self.closed += 1

    def _shown(self, name: str) -> object:
        if name in self.lagging:
            return self.lagging[name]
        return self.platform.tasks.get(name)

    def _call(self) -> None:
        self.calls += 1
        if self.calls in self.failing:
            raise self.failing[self.calls]
