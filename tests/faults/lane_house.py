"""The export lane with two sources in memory: the real dispatcher and export, a queue whose waits
are those of a clock that nobody waits for, and platforms that go away and come back."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from consumer.dispatch import Dispatcher
from consumer.errors import Permanent, Transient
from consumer.model import (
    ExportRules,
    Failure,
    Mask,
    Message,
    Missing,
    Outcome,
    Record,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
)
from consumer.ports import Ports
from consumer.retry import Policy
from consumer.telemetry import Metrics, configure_logging
from handlers import export, layout
from tests.fakes_platform import FakePlatform, event, nifti_label, snapshot
from tests.fakes_store import FakeStore
from tests.handlers.export_house import NoLog

LINGER_S = 0.25  # so that what comes one after the other is not always handled one by one
BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
SOURCES = ("a", "b")
LABELLED = {"labels": (nifti_label(),), "document": {"series": [{"name": "series1"}]}}


@dataclass(eq=False)
class Lease:
    """Of a message that is due at a second of the clock."""

    lane: Lane
    message: TaskEvent
    due: float
    attempt: int = 1
    failure: Failure | None = None
    losses: int = 0
    settled: bool = False

    async def ack(self) -> None:
        self._once()
        self.lane.done[self.message.key] = (self.attempt, self.lane.now)

    async def retry(self, after_s: float, failure: Failure, *, counted: bool = True) -> None:
        self._once()
        self.lane.moves += 1
        again = Lease(self.lane, self.message, self.lane.now + after_s, self.attempt + counted)
        again.failure = failure
        self.lane.leases.append(again)

    async def bury(self, failure: Failure) -> None:
        self._once()
        self.lane.dead[self.message.key] = failure.reason

    def _once(self) -> None:
        assert not self.settled, "two verbs on one lease"
        self.settled = True


class Source(FakePlatform):
    """``trouble`` says what every request gets at a moment, if anything; ``bad`` what any request
    gets that asks for a task."""

    def __init__(self, source: str, lane: Lane) -> None:
        super().__init__()
        self.source = source
        self.lane = lane
        self.trouble: Callable[[float], Exception | None] = lambda _: None
        self.bad: dict[str, Exception] = {}
        self.bad_masks: dict[str, Exception] = {}

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        await asyncio.sleep(0)
        self.lane.requests[self.source] += 1
        trouble = self.trouble(self.lane.now)
        if trouble is None:
            trouble = next((self.bad[key.task] for key in tasks if key.task in self.bad), None)
        if trouble is not None:
            raise trouble
        return await super().fetch(tasks)

    async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
        if snapshot.task in self.bad_masks:
            raise self.bad_masks[snapshot.task]
        return await super().download(snapshot, mask)


@dataclass
class Lane:
    """``done`` holds each task's attempt and second, ``dead`` its reason."""

    rng: random.Random
    now: float = 0.0
    leases: list[Lease] = field(default_factory=list)
    done: dict[TaskKey, tuple[int, float]] = field(default_factory=dict)
    dead: dict[TaskKey, str] = field(default_factory=dict)
    moves: int = 0  # leases that went back
    requests: Counter[str] = field(default_factory=Counter)
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = FakeStore()
        self.sources = {name: Source(name, self) for name in SOURCES}
        self.dispatcher = self.process()
        self.lines = io.StringIO()
        configure_logging(stream=self.lines, level="WARNING")

    def process(self) -> Dispatcher:
        rules = ExportRules()
        ports = Ports(
            platforms=self.sources,
            queue=cast(Any, self),
            store=self.store,
            log=NoLog(),
            rules=dict.fromkeys(SOURCES, rules),
            project_key=lambda key: layout.project_key(key.source, key.project, unique=False),
            clock=lambda: BEGAN + timedelta(seconds=self.now),
        )
        return Dispatcher(
            handler=cast(Any, export),
            queue=cast(Any, self),
            ports=ports,
            metrics=Metrics(SOURCES),
            policy=Policy(),
            random=self.rng.random,
            monotonic=lambda: self.now,
        )

    async def put(self, messages: Sequence[Message]) -> None:
        """What goes into the log: records are kept, outcomes are the lake's business."""
        assert all(isinstance(message, Record | Outcome) for message in messages)
        self.records += [message for message in messages if isinstance(message, Record)]

    def arrive(self, source: str, task: str, at: float = 0.0, **held: Any) -> TaskKey:
        """An event about a task, of which the platform holds this."""
        self.sources[source].tasks[task] = snapshot(task, source=source, **held)
        told = event(task, source=source)
        self.leases.append(Lease(self, told, at))
        return told.key

    def take(self, most: int) -> list[Lease]:
        due = sorted((one for one in self.leases if one.due <= self.now), key=lambda it: it.due)
        for lease in due[:most]:
            self.leases.remove(lease)
        return due[:most]

    async def work_off(self, *, until: float = 30 * 86400.0) -> None:
        """Until nothing is left, or so late; several batches are in work at once."""
        stop = asyncio.Event()
        while self.leases and self.now < until:
            self.now = max(self.now, min(lease.due for lease in self.leases) + LINGER_S)
            sizes = [self.rng.randint(1, 64) for _ in range(self.rng.randint(1, 4))]
            batches = [batch for size in sizes if (batch := self.take(size))]
            await asyncio.gather(*(self.dispatcher.dispatch(it, stop) for it in batches))

    def said(self) -> list[str]:
        """The log lines at warning or above, by what happened."""
        return [json.loads(line)["event"] for line in self.lines.getvalue().splitlines()]

    def told(self, source: str) -> list[str]:
        """Kinds of the records about a source's outages, in order."""
        kinds = ("paused", "resumed")
        return [
            it.kind for it in self.records if it.kind in kinds and it.fields["source"] == source
        ]
