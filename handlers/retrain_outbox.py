"""What ``retrain`` tells the log: put, and put again while it is not read back.

The log drops ids that it knows, so to put twice is harmless; each time the wait is longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from consumer.errors import Transient
from consumer.model import Record
from consumer.ports import Queue

AGAIN_S, AGAIN_CAP_S = 30.0, 600.0
FAILED_S = 5.0  # after a put that failed
LATE = 2  # puts after which the log is said not to hold it


@dataclass(frozen=True, slots=True)
class _Put:
    times: int
    at: datetime

    def due_in_s(self, now: datetime) -> float:
        return _left_s(min(AGAIN_CAP_S, AGAIN_S * 2.0 ** min(self.times - 1, 30)), self.at, now)


class Outbox:
    """What was put is known by its entry's id while it is wanted."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._put: dict[str, _Put] = {}
        self._failure: tuple[Transient, datetime] | None = None

    async def put(self, wanted: Sequence[Record], now: datetime) -> list[float]:
        """Puts those that are due; in how many seconds to come again. A queue that fails is no
        reason to stop following."""
        ids = {entry_id(one) for one in wanted}
        self._put = {known: put for known, put in self._put.items() if known in ids}
        due = [one for one in wanted if self._due_in_s(one, now) <= 0]
        if self._failure and due and (left := _left_s(FAILED_S, self._failure[1], now)) > 0:
            return [left]
        self._failure = None
        if due:
            try:
                await self._queue.put(due)
            except Transient as error:
                self._failure = error, now
                return [FAILED_S]
        for one in due:
            before = self._put.get(entry_id(one))
            self._put[entry_id(one)] = _Put(before.times + 1 if before else 1, now)
        return [self._due_in_s(one, now) for one in wanted]

    def was_put(self, record: Record) -> bool:
        return entry_id(record) in self._put

    def troubles(self) -> list[str]:
        late = [put for put in self._put.values() if put.times > LATE]
        failing = [self._failure[0].reason] if self._failure else []
        return [*failing, *("not-logged" for _ in late)]

    def _due_in_s(self, record: Record, now: datetime) -> float:
        put = self._put.get(entry_id(record))
        return put.due_in_s(now) if put else 0.0


def entry_id(record: Record) -> str:
    """As the log will hold it."""
    return f"{record.kind}:{record.id}"


def _left_s(wait_s: float, since: datetime, now: datetime) -> float:
    """Nothing is left when the clock was put back."""
    passed = (now - since).total_seconds()
    return 0.0 if passed < 0 else max(0.0, wait_s - passed)
