"""The RabbitMQ queues of a lane: their names and arguments, as plain data.

A lane is five kinds of durable quorum queue, none of which needs an exchange or a binding:

* ``{prefix}.{lane}``: what is to be done. Its ``x-delivery-limit`` buries nothing; our own headers
  decide. It is set everywhere, because without one 4.x counts to 20 and 3.x puts what is given back
  at the end.
* ``{prefix}.{lane}.killed``: what may have killed its consumer, to be handled alone. Whoever
  receives the lane brings it here (`lane`), and the delivery limit does, by at-least-once
  dead-lettering, which needs ``reject-publish`` beside it or silently is at-most-once.
* ``{prefix}.{lane}.wait.{n}ms``: one per delay step. The time to live is the queue's, never the
  message's: only the head of a queue expires, so unequal times in one queue would wait for each
  other. Expired messages are dead-lettered, at least once, back into the lane.
* ``{prefix}.{lane}.dead``: dead letters, for people.

Works alike from 3.10 (the first with a time to live and at-least-once on quorum queues) to 4.x.
What counts toward a delivery limit differs: a lost connection does on 3.x and up to 4.2, but on
4.3 only ``basic.reject`` does, which is how we give back what cannot be moved (never
``basic.nack``). So nothing hangs on the broker's counts: what reaches the limit, for whatever
reason, is handled alone, and only our own names in the message (`lane`) ever bury it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consumer.model import LaneSpec

STEPS_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
KILLED_AFTER = 1000  # deliveries, however the server counts them
UNLIMITED = 2**31 - 1  # -1 is refused by 3.x, and none is 20 on 4.x
OLDEST_SERVER = (3, 10)

Arguments = dict[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue to declare."""

    name: str
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class LaneTopology:
    """The names of one lane's queues."""

    ready: str
    exclusive: bool
    steps_s: tuple[float, ...]

    @property
    def killed(self) -> str:
        return f"{self.ready}.killed"

    @property
    def dead(self) -> str:
        return f"{self.ready}.dead"

    @property
    def waits(self) -> tuple[str, ...]:
        return tuple(self._wait(step) for step in self.steps_s)

    def wait_for(self, after_s: float) -> str:
        """The queue of the smallest step that is not shorter; the longest for what is longer."""
        return self._wait(next((s for s in self.steps_s if s >= after_s), self.steps_s[-1]))

    def queues(self) -> list[QueueSpec]:
        """Every queue of the lane, targets of dead-lettering first."""
        alone: Arguments = {"x-single-active-consumer": True} if self.exclusive else {}
        return [
            _quorum(self.dead, {"x-delivery-limit": UNLIMITED}),
            _quorum(self.killed, {"x-delivery-limit": UNLIMITED}, alone),
            _quorum(
                self.ready, {"x-delivery-limit": KILLED_AFTER}, alone, _dead_letter_to(self.killed)
            ),
            *(
                _quorum(self._wait(step), {"x-message-ttl": _ms(step)}, _dead_letter_to(self.ready))
                for step in self.steps_s
            ),
        ]

    def _wait(self, step_s: float) -> str:
        return f"{self.ready}.wait.{_ms(step_s)}ms"


def lane_topology(prefix: str, lane: LaneSpec, steps_s: Sequence[float]) -> LaneTopology:
    return LaneTopology(f"{prefix}.{lane.name}", lane.exclusive, tuple(sorted(steps_s)))


def lacking(version: str) -> list[str]:
    """What a server of this version does not have and lanes cannot do without."""
    try:
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return []  # not a version we can read: the declarations will tell
    if numbers >= OLDEST_SERVER:
        return []
    return ["a time to live on quorum queues", "at-least-once dead-lettering"]


def _quorum(name: str, *parts: Arguments) -> QueueSpec:
    arguments: Arguments = {"x-queue-type": "quorum"}
    for part in parts:
        arguments |= part
    return QueueSpec(name, arguments)


def _dead_letter_to(queue: str) -> Arguments:
    return {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
