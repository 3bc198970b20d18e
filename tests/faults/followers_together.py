"""All followers over one lake, run by their loops in time that passes only while all of them wait;
whatever store call fails, and whenever their process dies."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from consumer.errors import Transient
from consumer.follow import Following
from consumer.log.tail import LogTail
from consumer.model import Record
from consumer.ports import Follower, FollowPorts, LogEntry, LogReader
from consumer.telemetry import Metrics
from handlers.mirror import Mirror
from handlers.relay import Publication, Relay
from handlers.retrain import Retrain
from handlers.retrain_policy import Policy
from handlers.retrain_records import Decision
from handlers.retrain_state import Taken
from handlers.snapshots.create import Wanted, create, record_of
from handlers.table import Table, TablePlace, Tuning
from tests.fakes_store import FakeStore, Fault, FaultyStore
from tests.handlers.exchanges import FakeExchange
from tests.handlers.lake_house import LakeHouse, is_mirrored
from tests.handlers.retrain_house import FakeTarget
from tests.handlers.table_house import Rows, by_duckdb
from tests.store_with_table import StoreWithTable

QUIET_S = 150.0  # no follower that has failed waits longer
STEPS_FAILING = 0.1
TURNS = 20_000  # no story takes as many
TUNING = Tuning(rows=7, commit_every_s=5.0, upkeep_every=3, many=2)

Policies = Sequence[Policy]


class Crash(BaseException):
    """Nothing catches it: the process died there."""


class Time:
    """The house's clock goes on to whoever is due first, when the test says so."""

    def __init__(self, house: LakeHouse) -> None:
        self._house = house
        self._sleeping: dict[asyncio.Future[None], tuple[float, str]] = {}
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def sleeping(self) -> list[str]:
        return [who for _, who in self._sleeping.values()]

    async def sleep(self, seconds: float, who: str = "") -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeping[woken] = self._now + seconds, who
        try:
            await woken
        finally:
            self._sleeping.pop(woken, None)

    def tick(self) -> None:
        later = min(due for due, _ in self._sleeping.values())
        self._house.pass_time(later - self._now)
        self._now = later
        self._wake(later)

    def wake_all(self) -> None:
        self._wake(math.inf)

    def _wake(self, until: float) -> None:
        due = [woken for woken, (at, _) in self._sleeping.items() if at <= until]
        for woken in due:
            del self._sleeping[woken]
            woken.set_result(None)


@dataclass
class Tail:
    """``LogReader`` for one follower, which waits in that time."""

    inner: LogReader
    time: Time
    who: str

    async def identity(self) -> str:
        return await self.inner.identity()

    async def size(self) -> int:
        return await self.inner.size()

    async def wait(self, beyond: int, timeout_s: float) -> int:
        if (size := await self.inner.size()) > beyond or timeout_s <= 0:
            return size
        await self.time.sleep(timeout_s, self.who)
        return await self.inner.size()

    async def read(self, start: int, end: int) -> Sequence[LogEntry]:
        return await self.inner.read(start, end)

    async def root(self, size: int) -> str:
        return await self.inner.root(size)


@dataclass
class Together:
    """One process after another with all followers. ``plan`` says which store calls fail, ``lot``
    whether the process survives that."""

    house: LakeHouse
    policies: Policies
    place: Path
    plan: Mapping[int, Fault] = field(default_factory=dict)
    lot: random.Random = field(default_factory=lambda: random.Random(0))
    exchange: FakeExchange = field(default_factory=FakeExchange)
    target: FakeTarget = field(default_factory=FakeTarget)
    deaths: int = 0
    _busy: int = 0
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.time = Time(self.house)
        lake = StoreWithTable(self.house.store, self.place)
        self.store = FaultyStore(lake, self.plan, self._error)
        self._begin()

    def _error(self) -> BaseException:
        """Half of them lose an answer, half of them the process."""
        return Crash() if self.lot.random() < 0.5 else Transient("store-disconnected", shared=True)

    def _begin(self) -> None:
        log = LogTail(self.store)
        self.retrain = Retrain(
            self.policies,
            {policy.name: self.target for policy in self.policies},
            ports=self._ports(log),
            snapshot=self._snapshot,
            random=lambda: 1.0,
        )
        followers: list[Follower] = [
            Mirror(self._ports(log), interval_s=60.0, check_s=3600.0),
            Relay(self._ports(log), self.exchange),
            Table(self._ports(log), lambda: TablePlace(str(self.place)), TUNING, run=self._step),
            self.retrain,
        ]
        self._tasks = {one.name: asyncio.create_task(self._follow(one, log)) for one in followers}

    def _ports(self, log: LogReader) -> FollowPorts:
        queue = cast(Any, self.house.queue)
        return FollowPorts(store=self.store, queue=queue, log=log, clock=self.house.clock)

    async def _follow(self, follower: Follower, log: LogReader) -> None:
        name = follower.name

        async def pause(_stop: asyncio.Event, seconds: float) -> None:
            await self.time.sleep(seconds, name)

        following = Following(
            follower,
            log=Tail(log, self.time, name),
            store=self.store,
            metrics=Metrics(),
            pause=pause,
            random=lambda: 1.0,
            now=self.time.now,
        )
        await following.run(asyncio.Event())

    async def _step(self, step: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """One upon the table, which is no call of the store: some fail, too. Not in a thread, so
        that all goes by the plan."""
        fails = bool(self.plan) and self.lot.random() < STEPS_FAILING
        fault = self.lot.choice(list(Fault)) if fails else None
        if fault is Fault.BEFORE:
            raise self._error()
        result = step(*args, **named)
        if fault is Fault.AFTER:
            raise self._error()
        return result

    async def _snapshot(self, decision: Decision) -> tuple[Taken, Record]:
        self._busy += 1
        try:
            made = await create(
                Wanted(
                    name=decision.policy,
                    size=decision.log_size,
                    projects=decision.projects,
                    classes=decision.classes,
                    split={"train": 0.8, "test": 0.2},
                    absent_ok=True,
                ),
                store=self.store,
                log=LogTail(self.store),
                sleep=self.time.sleep,
            )
        finally:
            self._busy -= 1
        taken = Taken(
            id=made.id, name=made.name, key=made.key, sha256=made.sha256, log_root=made.root,
            tasks=made.tasks,
        )  # fmt: skip
        return taken, record_of(made)

    async def settle(self) -> None:
        """Until nothing but time has passed for a while. Who died is begun again."""
        seen, since = self._seen(), self.time.now()
        for _ in range(TURNS):
            await self._all_wait()
            if self._dead():
                await self.end()
                self.deaths += 1
                self._begin()
                continue
            if await self.house.write_log():
                self.time.wake_all()
                continue
            if (now := self._seen()) != seen:
                seen, since = now, self.time.now()
            elif self.time.now() - since > QUIET_S:
                return
            self.time.tick()
        raise AssertionError("it never comes to rest")

    async def _all_wait(self) -> None:
        """Also the snapshots that are being made, in whatever thread."""
        async with asyncio.timeout(30):
            while not (self._dead() or self._waits()):
                await asyncio.sleep(0)

    def _waits(self) -> bool:
        waiting = self.time.sleeping()
        return set(self._tasks) <= set(waiting) and waiting.count("") == self._busy

    def _dead(self) -> bool:
        return any(task.done() for task in self._tasks.values())

    def _seen(self) -> tuple[Any, ...]:
        return dict(self.house.store.objects), len(self.exchange.out), len(self.target.told)

    async def end(self) -> None:
        """The process dies. Raises what none may die of."""
        for task in self._tasks.values():
            task.cancel()
        for task in self._tasks.values():
            with suppress(Crash, asyncio.CancelledError):
                await task
        with suppress(Crash):
            await self.retrain.close()

    def rows(self) -> Rows:
        return by_duckdb(self.place)

    def arrived(self) -> list[Publication]:
        """The first arrivals."""
        return list(dict.fromkeys(self.exchange.out))


def forgotten(house: LakeHouse) -> FakeStore:
    """The lake's objects without anything that followers made of the log."""
    store = FakeStore(may_recur=is_mirrored, clock=house.clock)
    for key, data in house.store.objects.items():
        if not key.startswith("followers/") and not is_mirrored(key):
            store._put(key, data)
    return store
