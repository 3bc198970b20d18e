"""A queue in memory that keeps the port's contract and fails the test that breaks it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from consumer.errors import GroundwireError, Transient
from consumer.model import DeadLetter, Failure, LaneSpec, Message
from consumer.ports import LaneDepth


@dataclass(eq=False)
class FakeLease:
    """Exactly one verb may be called on it."""

    queue: FakeQueue
    lane: str
    message: Message
    attempt: int
    failure: Failure | None
    verb: str | None = None
    losses: int = 0

    async def ack(self) -> None:
        self._once("ack")

    async def retry(self, after_s: float, failure: Failure, *, counted: bool = True) -> None:
        self._once("retry")
        self.queue.waits.append(after_s)
        self.queue.add(self.lane, self.message, self.attempt + counted, failure)

    async def bury(self, failure: Failure) -> None:
        self._once("bury")
        self.queue.bury(self.lane, self.message, self.attempt, failure)

    def _once(self, verb: str) -> None:
        assert self.verb is None, f"{verb} after {self.verb}"
        assert self.queue.opened, "a verb on a queue that is closed"
        self.verb = verb
        self.queue.leased[self.lane].remove(self)


@dataclass(eq=False)
class FakeQueue:
    """``failing`` is raised by every call while it is set; ``holding`` keeps puts from returning
    while it is not set. ``puts`` holds each call's messages."""

    lanes: Sequence[LaneSpec]
    failing: GroundwireError | None = None
    puts: list[list[Message]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    opened: bool = False
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    leased: dict[str, list[FakeLease]] = field(default_factory=lambda: defaultdict(list))
    entering: int = 0  # puts that have been called and did not return yet

    def __post_init__(self) -> None:
        self.holding.set()
        self._ready: dict[str, deque[FakeLease]] = defaultdict(deque)
        self._dead: dict[str, list[DeadLetter]] = defaultdict(list)
        self._changed = asyncio.Condition()

    async def open(self) -> None:
        self._check()
        self.opened = True

    async def close(self) -> None:
        self.opened = False

    async def ready(self) -> None:
        self._check()
        if not self.opened:
            raise Transient("queue-closed", "the queue is closed")

    async def put(self, messages: Sequence[Message]) -> None:
        assert self.opened, "put into a queue that is not open"
        self.entering += 1
        try:
            await self.holding.wait()
        finally:
            self.entering -= 1
        self._check()
        self.puts.append(list(messages))
        for message in messages:
            for lane in self.lanes:
                if lane.takes(message):
                    self.add(lane.name, message, 1, None)
        async with self._changed:
            self._changed.notify_all()

    async def take(self, lane: LaneSpec) -> Sequence[FakeLease]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._ready[lane.name])
        self._check()
        ready = self._ready[lane.name]
        batch = [ready.popleft() for _ in range(min(lane.batch, len(ready)))]
        self.leased[lane.name] += batch
        return batch

    async def depth(self, lane: LaneSpec) -> LaneDepth:
        await self.holding.wait()
        self._check()
        return LaneDepth(
            ready=len(self._ready[lane.name]),
            leased=len(self.leased[lane.name]),
            waiting=0,
            dead=len(self._dead[lane.name]),
            oldest_s=1.5 if self._ready[lane.name] else 0.0,
        )

    async def dead(self, lane: LaneSpec, *, limit: int) -> list[DeadLetter]:
        self._check()
        return self._dead[lane.name][:limit]

    async def replay(self, lane: LaneSpec, message_id: str) -> DeadLetter | None:
        letter = await self.drop(lane, message_id)
        if letter is not None:
            self.add(lane.name, letter.message, 1, None)
        return letter

    async def drop(self, lane: LaneSpec, message_id: str) -> DeadLetter | None:
        self._check()
        for letter in self._dead[lane.name]:
            if letter.message.id == message_id:
                self._dead[lane.name].remove(letter)
                return letter
        return None

    def add(self, lane: str, message: Message, attempt: int, failure: Failure | None) -> None:
        self._ready[lane].append(FakeLease(self, lane, message, attempt, failure))

    def bury(self, lane: str, message: Message, attempts: int, failure: Failure) -> None:
        self._dead[lane].append(
            DeadLetter(lane=lane, message=message, attempts=attempts, failure=failure)
        )

    def messages(self, lane: str) -> list[Message]:
        """What is ready in a lane."""
        return [lease.message for lease in self._ready[lane]]

    def _check(self) -> None:
        if self.failing is not None:
            raise self.failing
