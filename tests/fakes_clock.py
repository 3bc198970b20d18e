"""Time for tests: it passes when it is told to, and when somebody sleeps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class FakeClock:
    """``clock()`` is the time now (``consumer.ports.Clock``), ``clock.sleep`` is a ``Sleep``."""

    def __init__(self, now: datetime = datetime(2025, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        """Returns at once, that much later; others get their turn."""
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


class Seconds:
    """A monotonic clock; ``at`` is set by the test."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at
