"""Every store call of the mirror fails once, before and after it took effect; the process dies at
each; two mirrors meet at each: the mirror ends as it would have undisturbed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import Conflict, Transient
from consumer.model import Change
from consumer.ports import Batch, Store
from handlers.mirror import Mirror
from tests.fakes_store import Fault, FaultyStore, each_call_once
from tests.handlers.mirror_house import CHECK_S, INTERVAL_S, Crash, MirrorHouse
from tests.handlers.pull.lakes import Mask


async def first(house: MirrorHouse) -> None:
    await house.task("t1", name="study")
    await house.task("t2", Mask("a"), Mask("b", position=1), name="other")
    await house.task("t3", name="third")


async def then(house: MirrorHouse) -> None:
    """Names meet and part, a task goes, another changes."""
    await house.task("t2", Mask("a", {2: "spleen"}), name="study")
    await house.withdraw("t3", change=Change.RETRACTED)
    await house.task("t4", name="fourth")


async def last(house: MirrorHouse) -> None:
    await house.task("t1", name="first")
    await house.task("t4", name="third")


async def play(house: MirrorHouse, mirror: Mirror, store: Store, *, batch: int = 1000) -> None:
    """The story, followed by one process after another, each of which begins at the stored
    cursor; a crash may come between a change and the next, so what was begun is never done."""
    for part in (first, then, last):
        await part(house)
        mirror = await until_done(house, mirror, store, batch)
    await house.finish(await finished(house, mirror, store))


async def until_done(house: MirrorHouse, mirror: Mirror, store: Store, batch: int) -> Mirror:
    try:
        return await house.run(mirror, batch=batch)
    except Crash:
        return house.mirror(store)


async def finished(house: MirrorHouse, mirror: Mirror, store: Store) -> Mirror:
    for _ in range(5):
        try:
            mirror = await house.run(mirror)
            await house.finish(mirror)
        except (Crash, Transient, Conflict):
            mirror = house.mirror(store)
            continue
        return mirror
    raise AssertionError("it fails again and again")


async def undisturbed(batch: int) -> tuple[dict[str, bytes], int]:
    house = MirrorHouse()
    counting = FaultyStore(house.store, {})
    await play(house, house.mirror(counting), counting, batch=batch)
    assert house.queue.records == {}
    return await house.shown(), counting.calls


async def test_the_undisturbed_story_is_what_it_should_be(tmp_path: Path) -> None:
    house = MirrorHouse()
    await play(house, house.mirror(), house.store)
    shown = await house.shown()
    assert shown == await house.pull(tmp_path)
    assert sorted(shown) == [
        "segmentations/first/series1.nii.gz",
        "segmentations/study/a.nii.gz",
        "segmentations/third/series1.nii.gz",
        "tasks.json",
    ]


@pytest.mark.parametrize(
    ("crash", "batch"),
    [
        pytest.param(False, 1, id="answer-lost-1", marks=pytest.mark.chaos),
        pytest.param(False, 1000, id="answer-lost-1000"),
        pytest.param(True, 1, id="process-died-1"),
        pytest.param(True, 1000, id="process-died-1000", marks=pytest.mark.chaos),
    ],
)
async def test_no_failed_store_call_changes_where_the_mirror_ends(crash: bool, batch: int) -> None:
    """And no file of a crash stays, nor is one of ours taken for somebody's edit."""
    expected, calls = await undisturbed(batch)
    failed = 0
    for plan in each_call_once(calls):
        house = MirrorHouse()
        faulty = FaultyStore(house.store, plan, Crash) if crash else FaultyStore(house.store, plan)
        await play(house, house.mirror(faulty), faulty, batch=batch)
        failed += len(faulty.failed)
        assert await house.shown() == expected, plan
        assert house.queue.records == {}, (plan, faulty.failed)
        house.fake.assert_sound()
    assert failed == 2 * calls


class Paused(FaultyStore):
    """Its n-th call waits, before or after it took effect, until it is let go."""

    def __init__(self, inner: Store, number: int, *, after: bool) -> None:
        super().__init__(inner, {})
        self.number, self.late = number, after
        self.arrived, self.go = asyncio.Event(), asyncio.Event()

    async def _around(self, verb: Any, *given: Any, **named: Any) -> Any:
        mine = self.calls + 1 == self.number
        if mine and not self.late:
            self.arrived.set()
            await self.go.wait()
        result = await verb(*given, **named)
        if mine and self.late:
            self.arrived.set()
            await self.go.wait()
        return result

    async def read(self, key: str) -> Any:
        return await self._around(super().read, key)

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        etag: str = await self._around(super().swap, key, data, if_match=if_match)
        return etag

    async def copy(self, source: str, target: str) -> str | None:
        version: str | None = await self._around(super().copy, source, target)
        return version

    async def delete(self, key: str) -> None:
        await self._around(super().delete, key)


async def test_two_mirrors_that_meet_at_any_call_end_as_the_pointers_say() -> None:
    """One is stopped at a call, the other does all there is and what comes then, the first goes
    on."""
    house = MirrorHouse()
    await first(house)
    await house.run()
    await then(house)
    counting = FaultyStore(house.store, {})
    await house.finish(await house.run(house.mirror(counting)))
    expected, _ = await undisturbed(1000)
    for number in range(1, counting.calls + 1):
        for after in (False, True):
            assert await met(number, after=after) == expected, (number, after)


async def met(number: int, *, after: bool) -> dict[str, bytes]:
    house = MirrorHouse()
    await first(house)
    await house.run()
    await then(house)
    store = Paused(house.store, number, after=after)
    slow = house.mirror(store)

    async def go() -> None:
        await house.finish(await house.run(slow))

    going = asyncio.create_task(go())
    arriving = asyncio.create_task(store.arrived.wait())
    await asyncio.wait({going, arriving}, return_when=asyncio.FIRST_COMPLETED)
    quick = house.mirror()
    await house.run(quick)
    await last(house)
    await house.finish(await house.run(quick))
    store.go.set()
    arriving.cancel()
    try:
        await going
    except Conflict:
        await house.finish(await house.run(slow))
    house.fake.assert_sound()
    assert house.queue.records == {}, (number, after)
    return await house.shown()


async def test_a_pointer_that_moves_while_its_task_is_placed_is_followed() -> None:
    house = MirrorHouse()
    await house.task("t1", name="a")

    class Moving(FaultyStore):
        moves = 0

        async def copy(self, source: str, target: str) -> str | None:
            version = await super().copy(source, target)
            self.moves += 1
            if self.moves <= 3:
                await house.task("t1", Mask(values={2: "spleen"}), name=f"b{self.moves}")
            return version

    store = Moving(house.store, {})
    await house.run(house.mirror(store))
    assert sorted(await house.shown()) == ["segmentations/b3/series1.nii.gz", "tasks.json"]


async def test_a_pointer_that_never_rests_is_tried_later() -> None:
    house = MirrorHouse()
    await house.task("t1", name="a")

    class Restless(FaultyStore):
        moves = 0

        async def copy(self, source: str, target: str) -> str | None:
            self.moves += 1
            await house.task("t1", Mask(values={2: "spleen"}), name=f"b{self.moves}")
            return await super().copy(source, target)

    mirror = house.mirror(Restless(house.store, {}))
    position = await house.begin(mirror)
    with pytest.raises(Transient) as caught:
        await house.feed(mirror, position)
    assert caught.value.reason == "pointer-restless"


async def test_what_another_mirror_did_is_no_edit(tmp_path: Path) -> None:
    """It was quicker to take in an entry, and the slower one looks at all files just then."""
    house = MirrorHouse()
    await first(house)
    slow, quick = await house.run(), house.mirror()
    await house.run(quick)
    await then(house)
    await house.feed(quick, 3)
    house.clock.advance(CHECK_S)
    with pytest.raises(Conflict):
        await slow.follow(Batch((), 3, 3, 3))
    await house.finish(await house.run(slow))
    assert await house.shown() == await house.pull(tmp_path)
    assert house.queue.records == {}


async def test_what_a_crash_left_is_known_until_it_is_put_right(tmp_path: Path) -> None:
    """However often the index is stored, and the process dies, before all entries are taken in."""
    house = MirrorHouse()
    await house.task("t1", name="a")
    await house.run()
    await house.task("t1", name="b")
    copied = next(n for n, verb in enumerate(await verbs(house), 1) if verb == "copy")
    with pytest.raises(Crash):
        await house.run(house.mirror(FaultyStore(house.store, {copied: Fault.AFTER}, Crash)))
    assert "segmentations/b/series1.nii.gz" in await house.shown()
    await house.task("t1", name="c")
    await house.task("t2", name="d")
    for _ in range(2):
        mirror = house.mirror()
        position = await house.begin(mirror)
        house.clock.advance(INTERVAL_S)
        given = house.entries[position : position + 1]
        step = await mirror.follow(Batch(given, position, position + 1, 9))
        house.cursor = step.cursor
    await house.finish(await house.run())
    assert await house.shown() == await house.pull(tmp_path)
    assert house.queue.records == {}


async def verbs(house: MirrorHouse) -> list[str]:
    """The store calls of a mirror that takes in all there is of such a lake."""
    twin = MirrorHouse(entries=house.entries, cursor=house.cursor)
    for key, data in house.fake.objects.items():
        twin.fake._put(key, data)
    await twin.run()
    return [verb for verb, _ in twin.fake.verbs()]
