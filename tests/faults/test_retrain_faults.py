"""Each call of retraining fails once, before and after it took effect, or the process dies there:
every decision is logged once, told to its target under one key, and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from consumer.errors import Transient
from consumer.model import Message
from handlers.retrain_policy import Policy
from tests.fakes_queue import FakeQueue
from tests.fakes_store import Fault, FaultyStore, each_call_once
from tests.handlers.retrain_house import Process, RetrainHouse, retrain_house

POLICIES = (
    Policy(name="any", min_changes=2),
    Policy(name="liver", classes=("liver",), min_changes=1),
    Policy(name="dry", min_changes=3, dry_run=True),
)
DECIDED = [("any", 1, 2), ("liver", 1, 1), ("dry", 1, 3), ("any", 2, 2), ("liver", 2, 1)]


class Crash(BaseException):
    """Nothing catches it: the process died there."""


def lost() -> BaseException:
    return Transient("queue-disconnected", "the queue broke the connection")


@dataclass
class FaultyQueue:
    """The queue, whose n-th put fails as the plan says."""

    inner: FakeQueue
    plan: Mapping[int, Fault]
    error: Callable[[], BaseException] = lost
    puts: int = 0
    failed: int = 0

    async def put(self, messages: Sequence[Message]) -> None:
        self.puts += 1
        fault = self.plan.get(self.puts)
        if fault is not Fault.BEFORE:
            await self.inner.put(messages)
        if fault is not None:
            self.failed += 1
            raise self.error()


@dataclass
class Disturbed:
    """The story, told to followers over a store and a queue that fail; begun again when dead."""

    house: RetrainHouse
    store: FaultyStore
    queue: FaultyQueue
    beside: int = 1  # so many at once
    running: list[Process] = field(default_factory=list)
    deaths: int = 0

    async def play(self) -> None:
        self.running = [self._new() for _ in range(self.beside)]
        await self.begin()
        await self.settle()
        await self.go_on()
        await self.settle()

    async def begin(self) -> None:
        await self.house.lake.approve("a", value=2)
        await self.house.lake.approve("b")

    async def go_on(self) -> None:
        await self.house.lake.approve("c", value=2)
        await self.house.lake.approve("a", version="v2")

    async def settle(self) -> None:
        """Failures are tried again within the hour."""
        for _ in range(6):
            try:
                await self.house.settle(*self.running)
            except Crash:
                self.deaths += 1
                self.running = [await self._reborn(one) for one in self.running]
                await self.house.settle(*self.running)
            self.house.lake.pass_time(600)

    def _new(self) -> Process:
        return self.house.process(store=self.store, queue=cast(Any, self.queue))

    async def _reborn(self, process: Process) -> Process:
        await process.follower.close()
        return self._new()


@asynccontextmanager
async def disturbed(
    *,
    calls: Mapping[int, Fault] | None = None,
    puts: Mapping[int, Fault] | None = None,
    crash: bool = False,
    beside: int = 1,
) -> AsyncIterator[Disturbed]:
    async with retrain_house(*POLICIES) as house:
        error = {"error": Crash} if crash else {}
        store = FaultyStore(house.lake.store, calls or {}, **cast(Any, error))
        queue = FaultyQueue(house.lake.queue, puts or {}, **cast(Any, error))
        yield Disturbed(house, store, queue, beside)
        house.lake.store.assert_sound()


async def assert_as_undisturbed(played: Disturbed) -> None:
    house = played.house
    assert sorted(await house.decisions()) == sorted(DECIDED)
    await house.assert_every_decision_ends()
    assert all(process.troubles == () for process in played.running)


async def test_undisturbed_each_decision_is_told_once() -> None:
    async with disturbed() as played:
        await played.play()
        await assert_as_undisturbed(played)
        assert len(played.house.target.told) == 4


async def counted() -> tuple[int, int]:
    async with disturbed() as played:
        await played.play()
        return played.store.calls, played.queue.puts


@pytest.mark.parametrize(
    "crash", [pytest.param(False, marks=pytest.mark.chaos), True], ids=["failure", "death"]
)
@pytest.mark.timeout(600)
async def test_every_store_call_may_fail_once(crash: bool) -> None:
    calls, _ = await counted()
    assert calls > 40
    for plan in each_call_once(calls):
        async with disturbed(calls=plan, crash=crash) as played:
            await played.play()
            assert played.store.failed, plan
            assert played.deaths == (1 if crash else 0)
            await assert_as_undisturbed(played)


@pytest.mark.parametrize("crash", [False, True], ids=["failure", "death"])
async def test_every_put_may_fail_once(crash: bool) -> None:
    _, puts = await counted()
    assert puts >= 8
    for plan in each_call_once(puts):
        async with disturbed(puts=plan, crash=crash) as played:
            await played.play()
            assert played.queue.failed == 1
            await assert_as_undisturbed(played)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("error", [Transient("target-down"), Crash(), OSError()])
async def test_a_target_that_began_and_could_not_say_so_hears_the_same_key_again(
    number: int, error: BaseException
) -> None:
    async with disturbed() as played:
        target = played.house.target
        target.broken = {number: error}
        await played.play()
        await assert_as_undisturbed(played)
        assert len(target.told) in (5, 6)  # a death ends what is under way for another policy, too
        assert len(target.keys) == 4


@pytest.mark.parametrize("turn", range(0, 24, 2))
@pytest.mark.parametrize("forgetting", [False, True], ids=["restarted", "state lost"])
async def test_killed_between_any_two_turns_it_goes_on(turn: int, forgetting: bool) -> None:
    async with disturbed() as played:
        house = played.house
        await played.begin()
        played.running = [played._new()]
        for number in range(40):
            if number == turn:
                played.running = [await played._reborn(played.running[0])]
                if forgetting:
                    house.lake.store.objects.pop("followers/retrain.json", None)
                    house.lake.store._held.pop("followers/retrain.json", None)
            await played.running[0].turn()
            if number % 3 == 0:
                await house.lake.write_log()
        await played.go_on()
        await played.settle()
        await assert_as_undisturbed(played)


async def test_two_at_once_decide_once_and_tell_one_key() -> None:
    async with disturbed(beside=2) as played:
        await played.play()
        await assert_as_undisturbed(played)
        assert len(played.house.target.keys) == 4


@pytest.mark.timeout(600)
async def test_two_at_once_of_which_one_dies() -> None:
    calls, _ = await counted()
    for number in range(3, calls, 7):
        async with disturbed(calls={number: Fault.AFTER}, crash=True, beside=2) as played:
            await played.play()
            await assert_as_undisturbed(played)
