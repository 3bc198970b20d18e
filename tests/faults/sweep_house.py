"""A source with its lake, queue and log, all in memory, and the sweep that compares them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from consumer.dispatch import Dispatcher
from consumer.model import (
    ExportRules,
    Message,
    Pointer,
    SeenLabel,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
    decode,
    timestamp,
)
from consumer.ports import LogEntry, Ports
from consumer.reconcile import Sweeper
from consumer.reconcile_plan import Pace, Tally, Wish
from consumer.reconcile_state import CLAIM_S, Kind, Ledger, State
from consumer.retry import Policy
from consumer.sightings import Gap
from consumer.telemetry import Metrics
from handlers import audit, export, layout
from handlers.standing import LakeStanding
from tests.fakes_clock import FakeClock
from tests.fakes_platform import PROJECT, SOURCE, FakePlatform, event, snapshot
from tests.fakes_queue import FakeQueue
from tests.fakes_sightings import FakeSightings
from tests.fakes_store import FakeStore


def project_key(key: TaskKey) -> str:
    return layout.project_key(key.source, key.project, unique=True)


@dataclass
class ListLog:
    """A log that is a list: it keeps each id once, and its readers' contract."""

    name: str = "a-log"
    entries: list[dict[str, Any]] = field(default_factory=list)

    async def append(self, entries: Sequence[Any]) -> int:
        known = {one["id"] for one in self.entries}
        for one in entries:
            if one["id"] not in known:
                known.add(one["id"])
                self.entries.append(dict(one))
        return len(self.entries)

    async def identity(self) -> str:
        return self.name if self.entries else ""

    async def size(self) -> int:
        return len(self.entries)

    async def wait(self, beyond: int, timeout_s: float) -> int:
        return len(self.entries)

    async def read(self, start: int, end: int) -> Sequence[LogEntry]:
        return [LogEntry(start + n, one) for n, one in enumerate(self.entries[start:end])]

    async def root(self, size: int) -> str:
        raise AssertionError("a sweep proves nothing")


@dataclass
class Seen:
    """A watch that remembers."""

    waited: list[tuple[str, int]] = field(default_factory=list)
    began: list[tuple[str, Kind]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    count: int = 0

    def begins(self, project: str, kind: Kind) -> None:
        self.began.append((project, kind))

    def seen(self, count: int, total: int | None) -> None:
        self.count += count

    def found(self, gaps: Sequence[Gap]) -> None:
        self.gaps += gaps

    def waits(self, reason: str, waiting: int) -> None:
        self.waited.append((reason, waiting))


@dataclass
class SweepHouse:
    """``clock`` is ours, ``listing.clock`` the platform's. `change` makes a task what is given, as
    of the platform's time; `work` exports all that is queued; `agree` says where lake and platform
    differ."""

    rules: ExportRules = field(default_factory=ExportRules)
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.platform = FakePlatform()
        self.listing = FakeSightings(self.platform)
        self.store = FakeStore()
        self.queue = FakeQueue((export.LANE, audit.LANE), opened=True)
        self.clock = FakeClock()
        self.log = ListLog()
        self.watch = Seen()
        self._runs = 0

    # the platform

    def change(self, task: str = "task-1", **changes: Any) -> TaskSnapshot:
        at = {"active_at": timestamp(self.listing.clock())}
        now = self.platform.tasks.get(task)
        kept = (
            {"stage": now.stage, "labels": now.labels, "history": now.history}
            if isinstance(now, TaskSnapshot)
            else {}
        )
        made = self.platform.tasks[task] = snapshot(task, **{**kept, **at, **changes})
        return made

    def remove(self, task: str = "task-1") -> None:
        del self.platform.tasks[task]

    async def tell(self, task: str = "task-1", **changes: Any) -> None:
        """A webhook arrives, and the task is exported."""
        await self.queue.put([event(task, name=f"told-{len(self.log.entries)}", **changes)])
        await self.work()

    # the house

    def sweeper(
        self, me: str = "one", *, projects: Sequence[str] = (PROJECT,), **other: Any
    ) -> Any:
        """With another store, queue or platform, such as ones that fail."""
        store = other.get("store", self.store)
        return Sweeper(
            platform=other.get("platform", self.listing),
            lake=LakeStanding(
                source=SOURCE,
                store=store,
                project_key=project_key,
                rules=self.rules,
                sleep=self.clock.sleep,
            ),
            queue=cast(Any, other.get("queue", self.queue)),
            lane=export.LANE,
            ledger=Ledger(store, SOURCE, me=me, clock=other.get("clock", self.clock)),
            log=self.log,
            projects=projects,
            pace=self.pace,
            clock=other.get("clock", self.clock),
            sleep=other.get("sleep", self.clock.sleep),
            now=self._seconds,
            watch=self.watch,
            new_id=self._new_id,
        )

    async def sweep(self, wish: Wish | None = None, *, me: str = "one", **other: Any) -> Tally:
        """The sweep of the one project, which must not fail."""
        (tally,) = await self.sweeper(me, **other).sweep(wish) or []
        assert tally.failure is None, tally.failure
        return cast(Tally, tally)

    async def state(self) -> State:
        return await Ledger(self.store, SOURCE, me="nobody", clock=self.clock).read()

    def outlive_claims(self) -> None:
        self.clock.advance(CLAIM_S + 1)

    @property
    def ports(self) -> Ports:
        return Ports(
            platforms={SOURCE: self.platform},
            queue=cast(Any, self.queue),
            store=self.store,
            log=self.log,
            rules={SOURCE: self.rules},
            project_key=project_key,
            clock=self.clock,
        )

    async def work(self) -> None:
        """Everything queued is exported and logged; what is to wait, waits."""
        stop = asyncio.Event()
        dispatcher = Dispatcher(
            cast(Any, export),
            cast(Any, self.queue),
            self.ports,
            Metrics([SOURCE]),
            Policy(attempts=6),
            sleep=self.clock.sleep,
        )
        while self.queue.messages("export"):
            self.queue.waits.clear()
            await dispatcher.dispatch(cast(Any, await self.queue.take(export.LANE)), stop)
            self.clock.advance(max(self.queue.waits, default=0.0))
        await self.write_log()

    async def write_log(self) -> None:
        while self.queue.messages("audit"):
            for lease in await self.queue.take(audit.LANE):
                await self.log.append(audit.entries_of(lease.message))
                await lease.ack()

    # what came of it

    def queued(self) -> list[TaskEvent]:
        found: list[Message] = self.queue.messages("export")
        return [one for one in found if isinstance(one, TaskEvent)]

    def gaps(self) -> dict[str, str | None]:
        """Why each queued task is to be looked at."""
        return {one.task: one.gap for one in self.queued()}

    def swept(self) -> list[dict[str, Any]]:
        return [one for one in self.log.entries if one["kind"] == "swept"]

    def pointer(self, task: str = "task-1") -> Pointer | None:
        data = self.store.objects.get(layout.pointer_key(PROJECT, task))
        return decode(data, Pointer) if data else None

    def differences(self) -> list[str]:
        """Tasks that do not stand in the lake as they do at the platform."""
        found = []
        for name, task in self.platform.tasks.items():
            held = self.pointer(name)
            if not isinstance(task, TaskSnapshot) or held is None or not _shows(held, task):
                found.append(name)
        for key, data in self.store.objects.items():
            if layout.task_of_pointer(key) is not None:
                held = decode(data, Pointer)
                if held.task not in self.platform.tasks and held.change != "deleted":
                    found.append(held.task)
        return sorted(found)

    def _seconds(self) -> float:
        return (self.clock() - datetime.fromisoformat("2020-01-01T00:00:00+00:00")).total_seconds()

    def _new_id(self) -> str:
        self._runs += 1
        return f"run-{self._runs}"


def _shows(held: Pointer, task: TaskSnapshot) -> bool:
    labels = {one.id: SeenLabel(version=one.version, updated_at=one.updated_at,
                                created_at=one.created_at) for one in task.labels}  # fmt: skip
    seen = {item.id for item in task.history} <= set(held.history)
    now = (held.stage, held.labels, held.ground_truth, held.name)
    return (
        held.change != "deleted"
        and seen
        and now == (task.stage, labels, task.ground_truth, task.name)
    )
