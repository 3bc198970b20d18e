"""Exchanges for tests: one in memory that takes what it is told to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from consumer.errors import GroundwireError
from handlers.relay import Publication


@dataclass
class FakeExchange:
    """``failing`` is raised by every call while it is set; ``taken`` holds what was confirmed,
    batch by batch. A batch that fails after ``takes`` messages has put those out all the same."""

    failing: GroundwireError | None = None
    takes: int | None = None
    out: list[Publication] = field(default_factory=list)
    taken: list[list[Publication]] = field(default_factory=list)
    asked: int = 0

    async def ready(self) -> None:
        self.asked += 1
        if self.failing is not None:
            raise self.failing

    async def publish(self, publications: Sequence[Publication]) -> None:
        if self.failing is not None:
            self.out += publications[: self.takes or 0]
            raise self.failing
        self.out += publications
        self.taken.append(list(publications))
