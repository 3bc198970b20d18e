"""Exporters and auditors over one lake, each of which may die, or fall asleep and wake up late.

They are the real handlers, driven by the real loop; the lanes and their leases are in memory. A
lease that was taken over is stale: its verbs do nothing, as every queue promises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from consumer.dispatch import Dispatcher
from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.model import Action, Failure, Message
from consumer.ports import Ports
from consumer.retry import Policy
from consumer.telemetry import Metrics
from handlers import audit, export
from tests.consumer.log.test_crashes import Pausing
from tests.fakes_platform import event
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore, Fault, FaultyStore
from tests.faults.two_exporters import Crash, Exporter, Exporters, Waiting
from tests.handlers.export_house import AUDIT, OneWork
from tests.handlers.lake_house import is_mirrored

ORIGIN = "example.org/crew"
BEGAN = datetime(2026, 1, 2, 12, tzinfo=UTC)
POLICY = Policy(attempts=1_000, base_s=1.0, cap_s=30.0)
STANDSTILL = 20  # tries in place, after which nothing will help

FaultOfStore = tuple[int, Fault, bool]  # at which call, when, and whether it kills


class AuditQueue(FakeQueue):
    """What is put waits for the auditors, in order."""

    def __init__(self) -> None:
        super().__init__((AUDIT,), opened=True)
        self.audit: list[Message] = []

    def add(self, lane: str, message: Message, attempt: int, failure: Failure | None) -> None:
        self.audit.append(message)


@dataclass(eq=False)
class Lease:
    """One verb is called on it; that of a lease that was lost does nothing."""

    work: OneWork
    retried: Callable[[OneWork, float], None]
    buried: Callable[[Message, Failure], None]
    losses: int = 0  # this queue cannot tell
    lost: bool = False
    settled: bool = False
    losses: int = 0

    @property
    def message(self) -> Message:
        return self.work.message

    @property
    def attempt(self) -> int:
        return self.work.attempt

    @property
    def failure(self) -> Failure | None:
        return self.work.failure

    async def ack(self) -> None:
        self._verb()

    async def retry(self, after_s: float, failure: Failure, *, counted: bool = True) -> None:
        if self._verb():
            self.retried(OneWork(self.message, self.attempt + counted, failure), after_s)

    async def bury(self, failure: Failure) -> None:
        if self._verb():
            self.buried(self.message, failure)

    def _verb(self) -> bool:
        assert not self.settled, "a second verb on one lease"
        self.settled = True
        return not self.lost


class Asleep(Pausing):
    """A store whose n-th call waits until its process is woken."""

    async def upload(self, key: str, file: Path) -> None:
        await self._around(self._inner.upload(key, file))

    async def download(self, key: str, file: Path) -> str | None:
        return await self._around(self._inner.download(key, file))


@dataclass(eq=False)
class Sleeper:
    """A process that is stopped, and what it still holds in its hands."""

    store: Asleep
    task: asyncio.Task[None]


@dataclass
class CrewExporter(Exporter):
    """An exporter whose clock may be wrong by so many minutes."""

    skew: int = 0

    @property
    def ports(self) -> Ports:
        now = BEGAN + timedelta(minutes=self.minute + self.skew)
        return replace(super().ports, clock=lambda: now)


@dataclass(eq=False)
class Auditor:
    """A process that writes the log; what it knew of the log dies with it."""

    clock: Callable[[], datetime]
    skew: int = 0
    log: TileLog | None = None


@dataclass
class Crew(Exporters):
    """Two exporters, two auditors, whoever sleeps, and what they work on."""

    accepted: list[Message] = field(default_factory=list)
    dead: list[tuple[Message, Failure]] = field(default_factory=list)
    sleepers: list[Sleeper] = field(default_factory=list)
    auditors: list[Auditor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        platforms = [house.platform for house in self.houses]
        self.houses = [CrewExporter(), CrewExporter()]
        store, queue = FakeStore(may_recur=is_mirrored), AuditQueue()
        for house, platform in zip(self.houses, platforms, strict=True):
            house.platform, house.store, house.queue = platform, store, cast(Any, queue)
        self.auditors = [Auditor(self._clock_of(number)) for number in range(2)]

    @property
    def queue(self) -> AuditQueue:
        return cast(AuditQueue, self.houses[0].queue)

    def announce(self, name: str, *, tells_much: bool = False) -> OneWork:
        """The event is accepted: it is in both lanes."""
        work = super().announce(name, tells_much=tells_much)
        self.accept(work.message)
        return work

    def accept(self, message: Message) -> None:
        self.accepted.append(message)
        self.queue.audit.append(message)

    def sweep(self, name: str) -> OneWork:
        self.events += 1
        work = OneWork(event(name, name=f"sweep{self.events}", action=Action.SWEEP, run="r"))
        self.accept(work.message)
        return work

    # exporters

    async def deliver(self, house: Exporter, taken: Sequence[Waiting]) -> None:
        """A batch, handled and settled by the lane's own loop; what a crash left comes again."""
        leases = [self._lease(one.work) for one in taken]
        try:
            await self._dispatcher(export, house.ports).dispatch(leases, asyncio.Event())
        except Crash:
            self._take_over(leases)

    async def fall_asleep(
        self, house: Exporter, taken: Sequence[Waiting], number: int, *, after: bool
    ) -> None:
        """It stops at a call of its, and its leases are taken over."""
        leases = [self._lease(one.work) for one in taken]
        store = Asleep(house.store, number, after=after)
        ports = replace(house.ports, store=cast(Any, store))
        working = self._dispatcher(export, ports).dispatch(leases, asyncio.Event())
        if await self._sleeps(store, working):
            self._take_over(leases)

    # auditors

    async def audit(self, who: int, count: int, fault: FaultOfStore | None) -> None:
        """The lane's next messages become entries."""
        messages = self._next(count)
        leases = [self._audited(message) for message in messages]
        store = self.store
        if fault is not None:
            number, when, dies = fault
            store = FaultyStore(store, {number: when}, *([Crash] if dies else []))
        try:
            await self._writing(who, store).dispatch(leases, asyncio.Event())
        except Crash:
            self.auditors[who].log = None
            self._back(leases)

    async def auditor_falls_asleep(self, who: int, count: int, number: int, *, after: bool) -> None:
        messages = self._next(count)
        leases = [self._audited(message) for message in messages]
        store = Asleep(self.store, number, after=after)
        working = self._writing(who, store).dispatch(leases, asyncio.Event())
        if await self._sleeps(store, working):
            self.auditors[who].log = None
            self._back(leases)

    async def audit_all(self) -> None:
        while self.queue.audit:
            await self.audit(0, 40, None)

    # sleep

    async def wake(self, number: int) -> None:
        """It knows nothing of what happened meanwhile, and ends what it was about."""
        if self.sleepers:
            one = self.sleepers.pop(number % len(self.sleepers))
            one.store.go_on.set()
            await one.task

    async def _sleeps(self, store: Asleep, working: Coroutine[Any, Any, None]) -> bool:
        task = asyncio.ensure_future(working)
        reached = asyncio.ensure_future(store.reached.wait())
        await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        await asyncio.gather(reached, return_exceptions=True)
        if task.done():
            task.result()
            return False
        self.sleepers.append(Sleeper(store, task))
        return True

    # lanes

    def _lease(self, work: OneWork) -> Lease:
        def retried(again: OneWork, after_s: float) -> None:
            self.waiting.append(Waiting(again, self.minute + (1 if after_s >= 60 else 0)))

        return Lease(work, retried, lambda message, why: self.dead.append((message, why)))

    def _take_over(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            if not lease.settled:
                lease.lost = True
                work = OneWork(lease.message, lease.attempt + 1, lease.failure)
                self.waiting.append(Waiting(work))

    def _next(self, count: int) -> list[Message]:
        lane = self.queue.audit
        taken, lane[:count] = lane[:count], []
        return taken

    def _audited(self, message: Message) -> Lease:
        return Lease(OneWork(message), lambda *_: None, lambda m, why: self.dead.append((m, why)))

    def _back(self, leases: Sequence[Lease]) -> None:
        """Where they came from, in order."""
        for lease in leases:
            lease.lost = True
        self.queue.audit[:0] = [one.message for one in leases if not one.settled]

    def _clock_of(self, who: int) -> Callable[[], datetime]:
        return lambda: BEGAN + timedelta(minutes=self.minute + self.auditors[who].skew)

    def _writing(self, who: int, store: Any) -> Dispatcher:
        """An auditor that opened the log for this batch, or goes on with the one that it has."""
        auditor = self.auditors[who]
        log = auditor.log if store is self.store else None
        if log is None:
            log = TileLog(
                store,
                signer=Signer.from_seed(ORIGIN, b"s" * 32),
                origin=ORIGIN,
                index_path=None,
                clock=auditor.clock,
            )
        auditor.log = log if store is self.store else None
        ports = replace(self.houses[0].ports, log=log)
        return self._dispatcher(audit, ports)

    def _dispatcher(self, handler: ModuleType, ports: Ports) -> Dispatcher:
        waits = 0

        async def sleep(_: float) -> None:
            nonlocal waits
            waits += 1
            assert waits < STANDSTILL, "the lane stands still"

        given = (cast(Any, handler), ports.queue, ports, Metrics(()), POLICY)
        return Dispatcher(*given, sleep=sleep, random=lambda: 0.5)
