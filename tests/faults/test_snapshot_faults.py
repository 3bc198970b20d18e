"""Every store call of a snapshot fails once, before and after it took effect, and the process dies
there: either no snapshot or the whole, and whoever begins again finishes with the same bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from consumer.errors import Permanent
from consumer.log.tail import LogTail
from handlers.snapshots import stored
from handlers.snapshots.create import Snapshot
from tests.fakes_store import FakeStore, FaultyStore, each_call_once
from tests.handlers.lake_house import LakeHouse, lake_house
from tests.handlers.snapshots.making import made

NAMES = {"manifest.jsonl", "manifest.parquet", "snapshot.json"}


class Crash(BaseException):
    """Nothing catches it: the process died there."""


@pytest.fixture
async def house() -> AsyncIterator[LakeHouse]:
    async with lake_house() as opened:
        for task in ("t1", "t2", "t3"):
            await opened.approve(task)
        await opened.send_back("t3")
        yield opened


def a_copy(house: LakeHouse) -> FakeStore:
    return FakeStore(objects=dict(house.store.objects), _modified=dict(house.store._modified))


async def created(house: LakeHouse, store: Any) -> Snapshot:
    return await made(house, store=store, log=LogTail(store))


async def undisturbed(house: LakeHouse) -> tuple[dict[str, bytes], int]:
    store = a_copy(house)
    counting = FaultyStore(store, {})
    await created(house, counting)
    return dict(store.objects), counting.calls


async def test_the_undisturbed_snapshot_is_what_it_should_be(house: LakeHouse) -> None:
    objects, calls = await undisturbed(house)
    new = objects.keys() - house.store.objects.keys()
    assert {key.rpartition("/")[2] for key in new} == NAMES
    assert calls >= 9  # checkpoint, bundles, edge, two manifests, three objects


async def test_a_death_at_any_call_leaves_none_or_the_whole_and_a_repeat_the_same(
    house: LakeHouse,
) -> None:
    objects, calls = await undisturbed(house)
    none = whole = 0
    for plan in each_call_once(calls):
        store = a_copy(house)
        with pytest.raises(Crash):
            await created(house, FaultyStore(store, plan, Crash))
        if await stored.found(store):
            assert store.objects == objects, plan
            whole += 1
        else:
            assert not any(key.endswith("snapshot.json") for key in store.objects), plan
            with pytest.raises(Permanent):
                await stored.find(store, "lungs")
            none += 1
        await created(house, store)
        assert store.objects == objects, plan
        store.assert_sound()
    assert (none, whole) == (2 * calls - 1, 1)


async def test_an_answer_lost_at_any_call_changes_nothing(house: LakeHouse) -> None:
    objects, calls = await undisturbed(house)
    for plan in each_call_once(calls):
        store = a_copy(house)
        faulty = FaultyStore(store, plan)
        await created(house, faulty)
        assert store.objects == objects, plan
        assert len(faulty.failed) == 1
        store.assert_sound()


async def test_two_who_make_it_at_once_make_one(house: LakeHouse) -> None:
    import asyncio

    objects, _ = await undisturbed(house)
    store = a_copy(house)
    several = await asyncio.gather(*(created(house, store) for _ in range(4)))
    assert len({one.sha256 for one in several}) == 1
    assert store.objects == objects
    assert store.conflicts == []
