"""The relay over a real broker, disturbed at every step: nothing is missing, and what arrives
first arrives in the log's order."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aio_pika.abc import AbstractQueue

from consumer import follow
from consumer.changes import change_of
from consumer.follow import Following, Stored, cursor_key
from consumer.log.tail import LogTail
from consumer.model import decode
from consumer.ports import FollowPorts, LogEntry, Store
from consumer.queues.exchange import RabbitExchange
from consumer.telemetry import Metrics
from handlers.relay import Publication, Relay
from tests.exchange_rabbitmq import ExchangeHouse, arrived, exchange_house, ids
from tests.fakes_store import FakeStore, FaultyStore, each_call_once
from tests.handlers.lake_house import LakeHouse, lake_house
from tests.servers_rabbitmq import RabbitServer

WITHIN_S = 60.0
CURSOR = cursor_key("relay")


class Crash(BaseException):
    """Nothing catches it: the process died there."""


@dataclass
class Story:
    """A log, the changes it tells of, and a fresh lake for each run over it."""

    house: LakeHouse
    expected: list[int]
    size: int

    def lake(self) -> FakeStore:
        return FakeStore(objects=dict(self.house.store.objects))


@asynccontextmanager
async def story(*, tasks: int = 4, more: int = 0) -> AsyncIterator[Story]:
    """Tasks come into the ground truth, change and leave; ``more`` repeats their entries, with
    other ids, to make the log long."""
    async with lake_house() as house:
        for number in range(tasks):
            await house.approve(f"task-{number}")
        await house.approve("task-0", version="v2", value=2)
        await house.send_back("task-1")
        seen = [one.data for one in await house.tail.read(0, 1 << 20) if one.data["kind"] == "lake"]
        again = [
            {k: v for k, v in seen[n % len(seen)].items() if k not in ("format", "logged_at")}
            | {"id": f"lake:again-{n}"}
            for n in range(more)
        ]
        await house.log.append(again)
        size = await house.tail.size()
        entries = await house.tail.read(0, size)
        yield Story(house, [one.index for one in entries if tells(one)], size)


def tells(entry: LogEntry) -> bool:
    change = change_of(entry.index, entry.data, "log")
    return change is not None and change.ground_truth is not None


@dataclass
class Wire:
    """The exchange, disturbed: ``before`` and ``after`` are called with the number of each
    publish."""

    exchange: RabbitExchange
    before: Callable[[int], Awaitable[None]] | None = None
    after: Callable[[int], Awaitable[None]] | None = None
    publishes: int = 0

    async def ready(self) -> None:
        await self.exchange.ready()

    async def publish(self, publications: Sequence[Publication]) -> None:
        self.publishes += 1
        if self.before is not None:
            await self.before(self.publishes)
        await self.exchange.publish(publications)
        if self.after is not None:
            await self.after(self.publishes)


@dataclass
class Run:
    """The relay's loop, as often as it takes: what nothing catches begins a new one."""

    store: Store
    wire: Any
    waits: list[float] = field(default_factory=list)
    crashes: int = 0
    paused: Callable[[], Awaitable[None]] | None = None

    async def until(self, size: int, lake: FakeStore) -> None:
        """Until the stored cursor is at ``size``."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                stop = asyncio.Event()
                running = asyncio.ensure_future(self._following().run(stop))
                watching = asyncio.ensure_future(self._reached(size, lake))
                await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
                stop.set()
                try:
                    await running
                except Crash:
                    self.crashes += 1
                    watching.cancel()
                    continue
                return await watching

    def _following(self) -> Following:
        tail = LogTail(self.store, poll_s=0.001)
        clock = itertools.count(step=10)  # long enough that each step's cursor is stored
        nobody: Any = None
        ports = FollowPorts(store=self.store, queue=nobody, log=tail, clock=nobody)
        return Following(
            Relay(ports, self.wire),
            log=tail,
            store=self.store,
            metrics=Metrics(),
            pause=self._pause,
            now=lambda: next(clock),
        )

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        self.waits.append(seconds)
        if self.paused is not None:
            await self.paused()
        await asyncio.sleep(0)

    async def _reached(self, size: int, lake: FakeStore) -> None:
        while True:
            stored = lake.objects.get(CURSOR)
            if stored is not None and decode(stored, Stored).next >= size:
                return
            await asyncio.sleep(0.001)


@pytest.fixture
async def broker(rabbitmq_server: RabbitServer) -> AsyncIterator[ExchangeHouse]:
    async with exchange_house(rabbitmq_server) as made:
        await made.declare()
        yield made


async def firsts(queue: AbstractQueue) -> list[int]:
    """Each message that is in the queue, where it came first."""
    return list(dict.fromkeys(ids(await arrived(queue))))


async def test_undisturbed_each_change_arrives_once_and_in_order(broker: ExchangeHouse) -> None:
    async with story(more=1500) as told:
        queue, lake = await broker.bound("#"), told.lake()
        run = Run(lake, broker.exchange())
        await run.until(told.size, lake)
        assert told.size > follow.BATCH, "the log is read in more than one batch"
        assert len(told.expected) > 1000
        assert ids(await arrived(queue)) == told.expected
        assert run.waits == []


async def test_what_is_logged_later_follows_and_nothing_comes_twice(broker: ExchangeHouse) -> None:
    async with story() as told:
        queue, lake, exchange = await broker.bound("#"), told.house.store, broker.exchange()
        await Run(lake, exchange).until(told.size, lake)
        await told.house.approve("task-9")
        size = await told.house.tail.size()
        await Run(lake, exchange).until(size, lake)
        found = ids(await arrived(queue))
        assert found[:-1] == told.expected
        assert told.size <= found[-1] < size


async def test_a_crash_before_the_cursor_is_stored_repeats_and_loses_nothing(
    broker: ExchangeHouse,
) -> None:
    async with story() as told:
        queue, lake = await broker.bound("#"), told.lake()

        async def die(number: int) -> None:
            if number == 1:
                raise Crash

        run = Run(lake, Wire(broker.exchange(), after=die))
        await run.until(told.size, lake)
        assert run.crashes == 1
        assert ids(await arrived(queue)) == told.expected * 2


async def test_no_failed_store_call_loses_or_reorders_a_change(broker: ExchangeHouse) -> None:
    """Each of the calls of a run fails once, before and after it took effect; the answer is lost,
    or the process dies."""
    async with story() as told:
        queue, exchange = await broker.bound("#"), broker.exchange()
        lake = told.lake()
        await Run(lake, exchange).until(told.size, lake)
        assert ids(await arrived(queue)) == told.expected
        calls = lake.verbs().index(("swap", CURSOR)) + 1
        failed = set()
        for plan, crash in itertools.product(each_call_once(calls), (False, True)):
            lake = told.lake()
            store = FaultyStore(lake, plan, *([Crash] if crash else []))
            run = Run(store, exchange)
            await run.until(told.size, lake)
            assert (run.crashes, len(run.waits)) == ((1, 0) if crash else (0, 1)), plan
            assert await firsts(queue) == told.expected, plan
            lake.assert_sound()
            failed |= {(verb, key) for verb, key, _ in store.failed}
        assert {("read", CURSOR), ("swap", CURSOR), ("read", "log/checkpoint")} <= failed
        assert any(key.startswith("log/tile/entries") for _, key in failed)


@pytest.mark.parametrize("seed", range(3))
async def test_a_connection_cut_again_and_again_loses_and_reorders_nothing(
    broker: ExchangeHouse, seed: int
) -> None:
    chance = random.Random(seed)
    async with story(more=2500) as told:
        queue, lake = await broker.bound("#"), told.lake()
        loop = asyncio.get_running_loop()

        async def cut(_: int) -> None:
            """In the middle of the publish, until five cuts were felt: at once the first time."""
            if len(run.waits) < 5:
                later_s = chance.uniform(0.0, 0.05) if run.waits else 0.0
                loop.call_later(later_s, broker.proxy.cut)

        run = Run(lake, Wire(broker.exchange(), before=cut))
        await run.until(told.size, lake)
        assert await firsts(queue) == told.expected
        assert run.waits, "no cut was felt"


async def test_while_the_broker_is_away_the_relay_waits_and_then_goes_on(
    broker: ExchangeHouse,
) -> None:
    async with story() as told:
        queue, lake = await broker.bound("#"), told.lake()
        broker.proxy.swallow()
        run = Run(lake, broker.exchange(deadline_s=0.2))

        async def come_back() -> None:
            if len(run.waits) == 3:
                broker.proxy.restore()

        run.paused = come_back
        await run.until(told.size, lake)
        assert len(run.waits) >= 3
        assert run.waits[0] < run.waits[2], "it waits longer each time"
        assert ids(await arrived(queue)) == told.expected


async def test_a_missing_exchange_is_waited_for_and_nothing_is_passed_over(
    broker: ExchangeHouse,
) -> None:
    async with story() as told:
        await broker.remove()
        lake, queues = told.lake(), list[AbstractQueue]()
        run = Run(lake, broker.exchange(declare=False))

        async def make() -> None:
            await broker.declare()
            queues.append(await broker.bound("#"))

        run.paused = make
        await run.until(told.size, lake)
        assert run.waits == [follow.PERMANENT_S]
        assert ids(await arrived(queues[0])) == told.expected


async def test_an_exchange_deleted_under_it_is_made_again_and_nothing_is_passed_over(
    broker: ExchangeHouse,
) -> None:
    async with story(more=600) as told:
        lake, queues = told.lake(), [await broker.bound("#")]
        removed = False

        async def remove(number: int) -> None:
            nonlocal removed
            if number == 2 and not removed:
                removed = True
                await broker.remove()

        run = Run(lake, Wire(broker.exchange(), before=remove))

        async def bind() -> None:
            await broker.declare()
            queues.append(await broker.bound("#"))

        run.paused = bind
        await run.until(told.size, lake)
        assert len(run.waits) == 1
        assert ids(await arrived(queues[1])) == told.expected
