"""A mirror is stopped at any call and sleeps while another takes its work over; it wakes at any
later moment, does a few calls more and dies: nothing of that is taken for somebody's edit, and the
lake shows what the pointers say once all files have been looked at."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from consumer.errors import Conflict
from consumer.ports import Batch, Store
from tests.fakes_store import Fault, FaultyStore
from tests.faults.test_mirror_faults import Paused, first, last, then
from tests.handlers.mirror_house import CHECK_S, INTERVAL_S, Crash, MirrorHouse
from tests.seeds import seeds

CALLS = 60  # about as many as the sleeper would make


class Sleeper(Paused):
    """Its n-th call waits; when it is awake it makes a few more calls, and dies."""

    def __init__(self, inner: Store, lot: random.Random) -> None:
        number = lot.randrange(1, CALLS)
        dies = FaultyStore(inner, {number + lot.choice((1, 1, 2, 3, 9)): Fault.BEFORE}, Crash)
        super().__init__(dies, number, after=lot.random() < 0.5)


async def settles(house: MirrorHouse, *, checks: int) -> None:
    """Whoever follows now looks at everything, so many times."""
    mirror = await house.run()
    for _ in range(checks):
        house.clock.advance(CHECK_S)
        with suppress(Conflict):
            size = len(house.entries)
            house.cursor = (await mirror.follow(Batch((), size, size, size))).cursor
            continue
        mirror = await house.run()
    await house.finish(mirror)


async def ended(house: MirrorHouse) -> dict[str, bytes]:
    await settles(house, checks=1)
    return await house.shown()


async def undisturbed() -> dict[str, bytes]:
    house = MirrorHouse()
    for part in (first, then, last):
        await part(house)
        await house.run()
    return await ended(house)


async def dozed_off(house: MirrorHouse, store: Sleeper) -> asyncio.Task[Any]:
    async def go() -> None:
        slow = house.mirror(store)
        await house.finish(await house.run(slow))

    going = asyncio.create_task(go())
    arriving = asyncio.create_task(store.arrived.wait())
    await asyncio.wait({going, arriving}, return_when=asyncio.FIRST_COMPLETED)
    arriving.cancel()
    return going


@pytest.mark.parametrize("seed", seeds())
async def test_what_a_sleeper_did_when_it_woke_is_nobodys_edit(seed: int) -> None:
    lot = random.Random(seed)
    house = MirrorHouse()
    await first(house)
    await house.run()
    await then(house)
    store = Sleeper(house.store, lot)
    going = await dozed_off(house, store)
    quick = await house.run()
    awake = lot.randrange(3)
    for hour in range(3):
        if hour == awake:
            store.go.set()
            with suppress(Crash, Conflict):
                await going
        if hour == 0:
            await last(house)
        house.clock.advance(lot.uniform(1, CHECK_S / 3))
        size = len(house.entries)
        with suppress(Conflict):
            await house.feed(quick, house.cursor.next)
            house.cursor = (await quick.follow(Batch((), size, size, size))).cursor
            continue
        quick = await house.run()
    await house.finish(quick)
    assert await ended(house) == await undisturbed()
    assert house.queue.records == {}
    house.fake.assert_sound()


async def a_crash_in_the_middle(house: MirrorHouse) -> None:
    """One file of two was placed, and nothing says so but the intent."""
    await house.task("t1", name="a")
    await house.run()
    await house.task("t1", name="b")
    dying = FaultyStore(house.store, {await the_copy(house): Fault.AFTER}, Crash)
    with pytest.raises(Crash):
        await house.run(house.mirror(dying))


async def the_copy(house: MirrorHouse) -> int:
    """Which of its calls copies."""
    twin = MirrorHouse(entries=house.entries, cursor=house.cursor)
    for key, data in house.fake.objects.items():
        twin.fake._put(key, data)
    await twin.run()
    return [verb for verb, _ in twin.fake.verbs()].index("copy") + 1


async def test_an_edit_is_told_again_once_a_sleeper_must_be_awake() -> None:
    """Until then an edit in its folders is put right without a word."""
    house = MirrorHouse()
    await a_crash_in_the_middle(house)
    mirror = await house.run()
    path = "segmentations/b/series1.nii.gz"
    for told in (0, 1):
        house.edit(path, b"by hand")
        house.clock.advance(CHECK_S)
        size = len(house.entries)
        await mirror.follow(Batch((), size, size, size))
        house.clock.advance(INTERVAL_S)
        house.cursor = (await mirror.follow(Batch((), size, size, size))).cursor
        assert (await house.shown())[path] != b"by hand"
        assert len(house.queue.of("restored")) == told


async def test_who_comes_after_a_crash_of_its_successor_knows_of_the_sleeper() -> None:
    house = MirrorHouse()
    await a_crash_in_the_middle(house)
    await house.finish(await house.run())
    house.clock.advance(CHECK_S / 2)
    mirror = await house.run()
    house.edit("segmentations/b/series1.nii.gz", b"of the sleeper")
    house.clock.advance(CHECK_S)
    size = len(house.entries)
    await mirror.follow(Batch((), size, size, size))
    assert house.queue.records == {}
