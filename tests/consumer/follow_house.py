"""One follower's loop with everything that it stands on in memory: time passes only while the loop
waits, and a plan says what happens each time it waits in vain."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from consumer.follow import Following, Stored, cursor_key
from consumer.model import decode, encode
from consumer.ports import Batch, Cursor, LogEntry, Step, Store
from consumer.retry import Policy
from consumer.telemetry import Metrics
from tests.fakes_store import FakeStore

IDENTITY = "example.org/lake~0a1b2c3d4e5f"
Happening = Callable[[], object]


@dataclass
class FakeLog:
    """`LogReader` in memory. Each wait without news takes its time and makes the next of ``plan``
    happen; when there is none left, the loop is stopped."""

    stop: asyncio.Event
    entries: list[dict[str, Any]] = field(default_factory=list)
    plan: deque[Happening] = field(default_factory=deque)
    name: str = IDENTITY
    now: float = 0.0
    waits: list[float] = field(default_factory=list)
    reads: list[tuple[int, int]] = field(default_factory=list)
    failing: Exception | None = None

    def append(self, count: int = 1, kind: str = "lake") -> None:
        self.entries += [{"kind": kind, "n": len(self.entries) + n} for n in range(count)]

    async def identity(self) -> str:
        return self.name if self.entries else ""

    async def size(self) -> int:
        return len(self.entries)

    async def wait(self, beyond: int, timeout_s: float) -> int:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
        if len(self.entries) <= beyond and timeout_s > 0:
            self.waits.append(timeout_s)
            self.now += timeout_s
            happening = self.plan.popleft() if self.plan else self.stop.set
            happening()
            await asyncio.sleep(0)
        return len(self.entries)

    async def read(self, start: int, end: int) -> Sequence[LogEntry]:
        self.reads.append((start, end))
        return [LogEntry(n, self.entries[n]) for n in range(start, min(end, len(self.entries)))]

    async def root(self, size: int) -> str:
        raise AssertionError("the loop asks for no root")


@dataclass
class Recorder:
    """A follower that does as it is told: ``answer`` makes a batch's step, ``errors`` are raised
    first, one by one."""

    answer: Callable[[Batch], Step] = lambda batch: Step(Cursor(batch.end))
    name: str = "recorder"
    kinds: frozenset[str] = frozenset({"lake"})
    begin: Callable[[Cursor], Cursor] = lambda cursor: cursor
    start_errors: deque[BaseException] = field(default_factory=deque)
    errors: deque[BaseException] = field(default_factory=deque)
    starts: list[Cursor] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    async def start(self, cursor: Cursor) -> Cursor:
        self.starts.append(cursor)
        if self.start_errors:
            raise self.start_errors.popleft()
        return self.begin(cursor)

    async def follow(self, batch: Batch) -> Step:
        self.batches.append(batch)
        if self.errors:
            raise self.errors.popleft()
        self.steps.append(self.answer(batch))
        return self.steps[-1]

    @property
    def seen(self) -> list[int]:
        """The indices of all entries it was given."""
        return [entry.index for batch in self.batches for entry in batch.entries]


@dataclass
class FollowHouse:
    """``pauses`` are the waits after failures; `after_pause` happens in each, and the loop is
    stopped after ``patience`` of them."""

    follower: Recorder = field(default_factory=Recorder)
    lake: FakeStore = field(default_factory=FakeStore)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    pauses: list[float] = field(default_factory=list)
    patience: int = 20
    after_pause: Happening = lambda: None
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.log = FakeLog(self.stop)

    def following(self, store: Store | None = None) -> Following:
        return Following(
            self.follower,
            log=self.log,
            store=store or self.lake,
            metrics=self.metrics,
            pause=self._pause,
            policy=Policy(base_s=0.5, cap_s=30.0),
            random=lambda: 1.0,
            now=lambda: self.log.now,
        )

    async def run(self, store: Store | None = None) -> Following:
        """Until the log's plan has ended, or the loop was stopped."""
        following = self.following(store)
        async with asyncio.timeout(20):
            await following.run(self.stop)
        return following

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        self.pauses.append(seconds)
        self.log.now += seconds
        self.after_pause()
        if len(self.pauses) >= self.patience:
            stop.set()
        await asyncio.sleep(0)

    def again(self) -> None:
        """As another process begins, later."""
        self.stop.clear()

    @property
    def key(self) -> str:
        return cursor_key(self.follower.name)

    def cursor(self) -> Stored:
        """As it is stored."""
        return decode(self.lake.objects[self.key], Stored)

    def stored(self) -> list[Stored]:
        """Every cursor that was stored, in order."""
        swaps = [call for call in self.lake.calls if (call.verb, call.key) == ("swap", self.key)]
        return [decode(call.data, Stored) for call in swaps]

    async def put_cursor(self, following: int, *, state: Any = None, **other: Any) -> None:
        """As some other process stores it."""
        before = await self.lake.read(self.key)
        sequence = decode(before.data, Stored).sequence + 1 if before else 1
        made = Stored(
            **{
                "follower": self.follower.name,
                "log": IDENTITY,
                "next": following,
                "sequence": sequence,
                "state": state or {},
                **other,
            }
        )
        await self.lake.swap(self.key, encode(made), if_match=before.etag if before else None)

    def failures(self, reason: str) -> float:
        """How often the metric counts it."""
        labels = {"follower": self.follower.name, "reason": reason}
        value = self.metrics.registry.get_sample_value("groundwire_follower_failures_total", labels)
        return value or 0.0
