"""Two exporters over one store and queue, and the lane that brings them their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from consumer.errors import Transient
from consumer.model import Action, Failure, timestamp
from consumer.ports import Ports, Result
from handlers import export
from tests.fakes_platform import NOON, event
from tests.faults.changing_platform import Account, World
from tests.handlers.export_house import House, OneWork

NOON_IT_IS = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Crash(BaseException):
    """Nothing catches it: the process died there."""


@dataclass
class Waiting:
    """An event in the queue, which is not delivered before its minute."""

    work: OneWork
    minute: int = 0


@dataclass
class Exporter(House):
    """One process that exports; the time is a matter of whole minutes."""

    minute: int = 0

    @property
    def ports(self) -> Ports:
        return replace(super().ports, clock=lambda: NOON_IT_IS + timedelta(minutes=self.minute))


@dataclass
class Exporters:
    """Two exporters over one store and queue, and what was seen of them."""

    world: World
    houses: list[Exporter] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    events: int = 0

    def __post_init__(self) -> None:
        self.houses = [Exporter(), Exporter()]
        for house in self.houses:
            house.platform = Account(self.world)
            house.store, house.queue = self.houses[0].store, self.houses[0].queue

    @property
    def store(self) -> Any:
        return self.houses[0].store

    @property
    def minute(self) -> int:
        return self.houses[0].minute

    def a_minute_passes(self) -> None:
        for house in self.houses:
            house.minute += 1

    def announce(self, name: str, *, tells_much: bool = False) -> OneWork:
        task = self.world.tasks[name]
        self.events += 1
        told: dict[str, Any] = {"name": f"e{self.events}"}
        if task.gone:
            told["action"] = Action.DELETE
        elif tells_much and task.history:
            told["history_id"] = task.history[-1].id
        elif tells_much:
            told |= {"stage": task.stage, "occurred_at": NOON}
        return OneWork(event(name, **told))

    def pick(self, chosen: Sequence[int], *, again: bool) -> list[Waiting]:
        """Some of the events that are due; when ``again``, they stay and come once more."""
        due = [one for one in self.waiting if one.minute <= self.minute]
        taken = list({id(due[n % len(due)]): due[n % len(due)] for n in chosen if due}.values())
        if again:
            return [Waiting(one.work) for one in taken]
        for one in taken:
            self.waiting.remove(one)
        return taken

    async def deliver(self, house: Exporter, taken: Sequence[Waiting]) -> None:
        """A batch, handled and settled as its lane would."""
        open_works = {id(one.work): one.work for one in taken}
        batch = list(open_works.values())
        try:
            async for work, result in export.handle(batch, house.ports):
                del open_works[id(work)]
                self.results.append(result)
                if isinstance(result, Transient):
                    self.retry(work, result)
        except Crash:
            pass
        self.waiting += [Waiting(OneWork(w.message, w.attempt + 1)) for w in open_works.values()]

    def retry(self, work: Any, error: Transient) -> None:
        at = timestamp(self.houses[0].ports.clock())
        failure = Failure(reason=error.reason, message=error.message, at=at)
        again = OneWork(work.message, work.attempt + 1, failure)
        self.waiting.append(Waiting(again, self.minute + (1 if error.after_s else 0)))
