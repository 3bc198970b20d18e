"""Events that were queued so lately that queueing them again would be no news: pure.

Only what the platform itself tells apart is known again: by the id of its delivery, or by a time
that is about now, and in a body of the very same bytes. Two happenings that a platform told in one
and the same way within ``lasts_s`` would pass for one; the sweep finds the second. What failed to
be queued is not remembered, nor is anything beyond this process: a later repetition comes to the
same log entry, and to a fetch that changes nothing. Once the queue turns out to have lost a lane,
nothing that went into it is known any longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from consumer.limits import Now, Recent
from consumer.model import TaskEvent

MOST_EVENTS = 100_000  # remembered at a time: about 40 MB


class Replays:
    """Knows again what was queued within ``lasts_s``; 0 is never."""

    def __init__(
        self, lasts_s: float = 300.0, most: int = MOST_EVENTS, now: Now = time.monotonic
    ) -> None:
        self._lasts_s = lasts_s
        self._seen = Recent(lasts_s, most, now)

    def fresh(self, events: Iterable[TaskEvent]) -> list[TaskEvent]:
        """The events without those that are known to be durable; each id once."""
        new = {event.id: event for event in events if _key(event) not in self._seen}
        return list(new.values())

    def queued(self, events: Sequence[TaskEvent]) -> None:
        """These are durable now: their put was confirmed."""
        for event in events:
            if self._lasts_s and (event.delivery_id or self._is_of_now(event)):
                self._seen.add(_key(event))

    def forget(self) -> None:
        """Nothing is known to be durable."""
        self._seen.clear()

    def __len__(self) -> int:
        return len(self._seen)

    def _is_of_now(self, event: TaskEvent) -> bool:
        """A body may hold no time but that of something older, such as the row's creation, which
        is the same in every body about the row."""
        if event.occurred_at is None:
            return False
        age = datetime.fromisoformat(event.received_at) - datetime.fromisoformat(event.occurred_at)
        return abs(age.total_seconds()) <= self._lasts_s


def _key(event: TaskEvent) -> tuple[str, str]:
    return event.id, event.body_sha256
