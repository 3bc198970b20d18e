"""The clocks of the simulated platforms, and the ``Date`` that their servers tell by them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

Clock = Callable[[], datetime]


class TickingClock:
    """A clock that goes on by one second each time it is read."""

    def __init__(self, start: datetime = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)) -> None:
        self._now = start

    def __call__(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def shown(self) -> datetime:
        """What it was read last, which moves it not on."""
        return self._now


class TellsTime:
    """A platform whose server says what time it is there; ``told_date`` is said instead, and
    nothing where that is empty."""

    _clock: Clock
    told_date: str | None = None

    def date(self) -> str | None:
        if self.told_date is not None:
            return self.told_date or None
        now = self._clock.shown() if isinstance(self._clock, TickingClock) else self._clock()
        return format_datetime(now.astimezone(UTC), usegmt=True)


def dated(
    date: Callable[[], str | None],
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A signal that gives each answer its ``Date``; none where there is none to give."""

    async def prepared(request: web.Request, response: web.StreamResponse) -> None:
        text = date()
        if text is None:
            response.headers.popall("Date", None)
        else:
            response.headers["Date"] = text

    return prepared
