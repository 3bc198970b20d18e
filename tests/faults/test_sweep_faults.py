"""Whatever is lost, late, repeated or cut off: after a sweep lake and platform agree."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from consumer.errors import Transient
from consumer.model import (
    Action,
    EventType,
    Message,
    Missing,
    TaskKey,
    TaskSnapshot,
    timestamp,
)
from consumer.ports import LaneDepth
from consumer.reconcile_plan import Pace, Wish
from consumer.reconcile_state import Taken
from tests.fakes_platform import PROJECT, SOURCE, FakePlatform, history_item, nifti_label
from tests.fakes_store import Fault, FaultyStore, each_call_once
from tests.faults.sweep_house import SweepHouse
from tests.seeds import seeds

FULL = Wish("full")
STAGES = ("Label", "Review_1", "END")
DAY = 86_400.0


class Crash(BaseException):
    """Nothing catches it: the process died there."""


class Lagging(FakePlatform):
    """``late`` are answers that a replica gives before it has caught up, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.late: dict[str, TaskSnapshot | Missing] = {}

    async def fetch(self, tasks: Sequence[TaskKey]) -> Any:
        answers = await super().fetch(tasks)
        return {key: self.late.pop(key.task, answer) for key, answer in answers.items()}


class FaultyQueue:
    """A queue whose n-th call fails as the plan says."""

    def __init__(self, inner: Any, plan: dict[int, Fault], error: Callable[[], Any]) -> None:
        self._inner, self._plan, self._error = inner, plan, error
        self.calls = 0

    async def put(self, messages: Sequence[Message]) -> None:
        await self._call(self._inner.put(messages))

    async def depth(self, lane: Any) -> LaneDepth:
        depth: LaneDepth = await self._call(self._inner.depth(lane))
        return depth

    async def _call(self, doing: Any) -> Any:
        self.calls += 1
        fault = self._plan.get(self.calls)
        if fault is Fault.BEFORE:
            doing.close()
            raise self._error()
        done = await doing
        if fault is Fault.AFTER:
            raise self._error()
        return done


# what happens to tasks


def happens(house: SweepHouse, rng: random.Random, *, listed: bool = False) -> str:
    """Something happens at the platform, and its clock goes on; which task it was. With ``listed``
    only what shows in a listing of what changed."""
    house.listing.clock.advance(rng.uniform(0.001, 30))
    tasks = sorted(house.platform.tasks)
    if not tasks or rng.random() < 0.2:
        task = f"task-{rng.randrange(10**6)}"
        house.change(task)
        return task
    task = rng.choice(tasks)
    now = house.platform.tasks[task]
    assert isinstance(now, TaskSnapshot)
    what = rng.choice(["move", "save", "reject", *([] if listed else ["remove", "by hand"])])
    at = timestamp(house.listing.clock())
    if what == "remove":
        house.remove(task)
    elif what == "by hand":  # no time of the task's tells of it
        house.platform.tasks[task] = replace(now, stage=rng.choice(STAGES))
    elif what == "save":
        saved = nifti_label(version=f"v{at}", updated_at=at)
        house.change(task, labels=(saved,), **truth(now.stage, labelled=True))
    else:
        stage = "Label" if what == "reject" else rng.choice(STAGES)
        kind = EventType.REJECTED if what == "reject" else EventType.ACCEPTED
        made = replace(history_item(kind, at), id=f"{task}/{at}")
        labelled = bool(now.labels)
        house.change(
            task, stage=stage, history=(*now.history, made), **truth(stage, labelled=labelled)
        )
    return task


def truth(stage: str | None, *, labelled: bool) -> dict[str, Any]:
    final = stage == "END" and labelled
    return {"ground_truth": final, "ground_truth_label": "label-1" if final else None}


async def told(house: SweepHouse, task: str) -> None:
    """Its webhook comes through."""
    gone = task not in house.platform.tasks
    await house.tell(task, action=Action.DELETE if gone else Action.MOVE)


async def begun(rng: random.Random, **settings: Any) -> SweepHouse:
    """A house that has swept once, a while ago."""
    house = SweepHouse(**settings)
    for _ in range(12):
        happens(house, rng)
    await house.sweep()
    await house.work()
    house.listing.clock.advance(rng.uniform(1, 3600))
    assert house.differences() == []
    return house


@pytest.mark.parametrize("lost", [0.1, 1.0], ids=["a-tenth-lost", "all-lost"])
@pytest.mark.parametrize("seed", seeds())
async def test_one_sweep_makes_lake_and_platform_agree(seed: int, lost: float) -> None:
    rng = random.Random(seed)
    house = await begun(rng)
    for _ in range(40):
        task = happens(house, rng)
        if rng.random() >= lost:
            await told(house, task)
    if lost == 1.0:
        assert house.differences()
    await house.sweep(FULL)
    await house.work()
    assert house.differences() == []
    assert (await house.sweep(FULL)).gaps == {}, "what is shown once is not found again"
    house.store.assert_sound()


@pytest.mark.parametrize("seed", seeds())
async def test_what_changes_while_a_sweep_is_under_way_is_found_by_it_or_the_next(
    seed: int,
) -> None:
    """Without any overlap: the platform's time is asked for first."""
    rng = random.Random(seed)
    house = await begun(rng, pace=Pace(overlap_s=0))

    async def meanwhile(_: Any = None) -> None:
        for _ in range(rng.randrange(3)):
            happens(house, rng, listed=True)

    class Busy(FaultyQueue):
        async def put(self, messages: Sequence[Message]) -> None:
            await meanwhile()
            await super().put(messages)
            await meanwhile()

    for _ in range(6):
        happens(house, rng, listed=True)
    house.listing.before_page = meanwhile
    await house.sweep(queue=Busy(house.queue, {}, Crash))
    house.listing.before_page = None
    if rng.random() < 0.5:
        await house.work()
    tally = await house.sweep()
    assert tally.kind == "changes"
    await house.work()
    assert house.differences() == []


async def in_need() -> SweepHouse:
    """One task that stands right, one that was moved, one new, one that is gone."""
    house = SweepHouse()
    for task in ("right", "moved", "gone"):
        house.change(task)
    await house.sweep()
    await house.work()
    house.listing.clock.advance(100)
    house.change("moved", stage="END")
    house.change("new")
    house.remove("gone")
    return house


NEEDS = {"moved": "stage", "new": "unknown", "gone": "missing"}


async def until_swept(house: SweepHouse) -> None:
    """The full sweep as whoever comes next does it."""
    for number in range(3):
        house.outlive_claims()
        tallies = await house.sweeper(f"next-{number}").sweep(FULL)
        if tallies and tallies[0].failure is None:
            return
    raise AssertionError("still failing")


async def survive(house: SweepHouse, *, works: bool, **broken: Any) -> None:
    """A sweep over what is broken, then one that is whole: the same end, each gap logged once."""
    before = len(house.swept())
    with contextlib.suppress(Crash, Transient):
        await house.sweeper("first", **broken).sweep(FULL)
    project = (await house.state()).projects[PROJECT]
    finished = project.run is None and project.watermark == timestamp(house.listing.clock())
    assert not finished or {one.task for one in house.queued()} == set(NEEDS)
    if works or finished:
        await house.work()
    await until_swept(house)
    await house.work()
    assert house.differences() == []
    found = house.swept()[before:]
    assert {(one["task"], one["gap"]) for one in found} == set(NEEDS.items())
    assert Counter(one["task"] for one in found) == dict.fromkeys(NEEDS, 1)
    house.store.assert_sound()


BROKEN = [
    pytest.param(Crash, id="process-died"),
    pytest.param(lambda: Transient("store-down"), id="fails"),
    pytest.param(lambda: Transient("store-down", after_s=900.0), id="fails-for-long"),
]
WORKED = pytest.mark.parametrize("works", [False, True], ids=["nothing-exported", "exported"])


@WORKED
@pytest.mark.parametrize("error", BROKEN)
async def test_no_failed_store_call_loses_a_gap(error: Any, works: bool) -> None:
    counting = FaultyStore((house := await in_need()).store, {})
    await house.sweeper("first", store=counting).sweep(FULL)
    assert counting.calls > 10
    failed = 0
    for plan in each_call_once(counting.calls):
        house = await in_need()
        faulty = FaultyStore(house.store, plan, error)
        await survive(house, works=works, store=faulty)
        failed += len(faulty.failed)
    assert failed == 2 * counting.calls


@WORKED
@pytest.mark.parametrize("error", BROKEN)
async def test_no_failed_queue_call_loses_a_gap(error: Any, works: bool) -> None:
    counting = FaultyQueue((house := await in_need()).queue, {}, Crash)
    await house.sweeper("first", queue=counting).sweep(FULL)
    assert counting.calls == 4  # a page of two that differ, then what is missing: depth, put
    for plan in each_call_once(counting.calls):
        house = await in_need()
        await survive(house, works=works, queue=FaultyQueue(house.queue, plan, error))


@WORKED
@pytest.mark.parametrize("error", BROKEN)
async def test_no_failed_platform_call_loses_a_gap(error: Any, works: bool) -> None:
    for number in (1, 2, 3):  # its time, and two pages
        house = await in_need()
        house.listing.page_size = 2
        house.listing.failing = {house.listing.calls + number: error()}
        await survive(house, works=works)


@pytest.mark.parametrize("seed", seeds())
async def test_sweeps_that_die_anywhere_lose_nothing(seed: int) -> None:
    """Process after process dies somewhere; tasks change and exporters work in between."""
    rng = random.Random(seed)
    house = await begun(rng, pace=Pace(overlap_s=0))
    for number in range(6):
        for _ in range(rng.randrange(6)):
            happens(house, rng)
        store = FaultyStore(house.store, {rng.randrange(1, 40): rng.choice(list(Fault))}, Crash)
        queue = FaultyQueue(house.queue, {rng.randrange(1, 6): rng.choice(list(Fault))}, Crash)
        house.outlive_claims()
        wish = rng.choice([FULL, None])
        with contextlib.suppress(Crash):
            await house.sweeper(f"p{number}", store=store, queue=queue).sweep(wish)
        if rng.random() < 0.5:
            await house.work()
    await until_swept(house)
    await house.work()
    assert house.differences() == []
    once = Counter((one["task"], one["run"]) for one in house.swept())
    assert set(once.values()) <= {1}
    house.store.assert_sound()


@pytest.mark.parametrize("seed", seeds())
async def test_a_listing_or_an_answer_that_lags_deletes_nothing(seed: int) -> None:
    """Replicas lag by less than a minute: the listing shows tasks as they were or leaves them out,
    and first answers are old or say that there is none."""
    rng = random.Random(seed)
    house = await begun(rng)
    lagging = Lagging()
    lagging.tasks = house.platform.tasks
    house.platform = house.listing.platform = lagging
    old = dict(lagging.tasks)
    for _ in range(15):
        happens(house, rng, listed=True)
    for task in sorted(lagging.tasks):
        before = old.get(task)
        if rng.random() < 0.4:
            house.listing.lagging[task] = before if isinstance(before, TaskSnapshot) else None
        elif rng.random() < 0.2:
            house.listing.lagging[task] = None
        if rng.random() < 0.4:
            none = Missing(source=SOURCE, project=PROJECT, task=task)
            lagging.late[task] = before if isinstance(before, TaskSnapshot) else none
        elif rng.random() < 0.2:
            lagging.late[task] = Missing(source=SOURCE, project=PROJECT, task=task)
    await house.sweep(FULL)
    await house.work()
    changes = [one["change"] for one in house.log.entries if one["kind"] == "lake"]
    assert "deleted" not in changes[len(old) :]
    house.listing.lagging.clear()
    await house.sweep()
    await house.work()
    assert house.differences() == []


@pytest.mark.parametrize("seed", seeds())
async def test_sweeps_at_once_do_too_much_at_most(seed: int) -> None:
    """Whether they heed each other's claim or take it over, in any interleaving."""
    rng = random.Random(seed)
    house = await begun(rng, pace=Pace(overlap_s=0))
    for _ in range(12):
        happens(house, rng)

    async def turn(_: int) -> None:
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            happens(house, rng, listed=True)

    house.listing.before_page = turn

    async def one(name: str) -> None:
        for _ in range(rng.randrange(30)):
            await asyncio.sleep(0)
        try:
            await house.sweeper(name).sweep(FULL, force=rng.random() < 0.5)
        except Taken:
            return

    await asyncio.gather(*(one(f"p{number}") for number in range(3)))
    house.listing.before_page = None
    await house.work()
    house.outlive_claims()
    await house.sweep()
    await house.work()
    assert house.differences() == []
    once = Counter((one["task"], one["run"]) for one in house.swept())
    assert set(once.values()) <= {1}


@pytest.mark.parametrize("seed", seeds())
async def test_a_clock_of_ours_that_jumps_by_a_day_hides_nothing(seed: int) -> None:
    rng = random.Random(seed)
    house = await begun(rng, pace=Pace(overlap_s=0))
    for number in range(5):
        house.clock.advance(rng.choice([-DAY, DAY, 0]))
        for _ in range(rng.randrange(8)):
            happens(house, rng, listed=True)
        if rng.random() < 0.3:
            await house.sweeper("died").ledger.claim()
            house.outlive_claims()
        await house.sweep(me=f"p{number}")
        house.clock.advance(rng.choice([-DAY, DAY, 0]))
        await house.work()
        assert house.differences() == []
