"""Every call of the store fails once, before and after it took effect; writers race and pause."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from consumer.errors import Permanent, Transient
from consumer.log.note import read_checkpoint
from consumer.log.verify import verify
from consumer.ports import Listed, Store, Stored
from tests.consumer.log.logs import SIGNER, HandClock, entry, filled, ids, numbered, writer
from tests.fakes_store import FakeStore, Fault, FaultyStore, each_call_once

BATCHES = (range(250), range(250, 251), range(251, 270))  # fills tiles, drops partial ones
T = TypeVar("T")
VKEY = SIGNER.verifier.vkey


class Crash(Exception):
    """The process dies here."""


async def run(store: Store) -> None:
    log = writer(store)
    await log.open()
    for batch in BATCHES:
        await log.append(numbered(batch))


@dataclass(frozen=True)
class Undisturbed:
    """What a run without faults leaves, and how many calls it makes."""

    objects: dict[str, bytes]
    calls: int

    @classmethod
    async def made(cls) -> Undisturbed:
        inner = FakeStore()
        store = FaultyStore(inner, {})
        await run(store)
        return cls(inner.objects, store.calls)


async def assert_the_whole_log(store: FakeStore, wanted: Undisturbed) -> None:
    """As after an undisturbed run, and so in absolute terms."""
    store.assert_sound()
    assert await ids(store) == [f"receipt:{number}" for number in range(270)]
    assert store.objects == wanted.objects
    assert (await verify(store, vkey=VKEY)).ok


async def test_a_failing_call_is_made_good_by_appending_again() -> None:
    wanted = await Undisturbed.made()
    for plan in each_call_once(wanted.calls):
        inner = FakeStore()
        log = writer(FaultyStore(inner, plan))
        for batch in BATCHES:
            try:
                await log.append(numbered(batch))
            except Transient:
                await log.append(numbered(batch))
        await log.open()
        await assert_the_whole_log(inner, wanted)


async def test_a_crash_at_any_call_is_finished_by_the_next_start(tmp_path: Path) -> None:
    wanted = await Undisturbed.made()
    for number, plan in enumerate(each_call_once(wanted.calls)):
        inner = FakeStore()
        with pytest.raises(Crash):
            await run(FaultyStore(inner, plan, Crash))
        log = writer(inner, index=tmp_path / f"{number}.db")
        await log.open()
        if "log/head" in inner.objects:
            assert (await verify(inner, vkey=VKEY)).ok
        for batch in BATCHES:
            await log.append(numbered(batch))
        await log.close()
        await drop_orphans(inner)
        await assert_the_whole_log(inner, wanted)


async def drop_orphans(store: FakeStore) -> None:
    """A crash before the swap leaves a stage that nothing names, and nothing else."""
    orphans = [key for key in store.objects if key.startswith("log/stage/")]
    assert list((await verify(store, vkey=VKEY)).unreferenced) == orphans
    assert len(orphans) <= 1
    for key in orphans:
        del store.objects[key]


async def committed_and_crashed(store: FakeStore, batch: Iterable[int]) -> None:
    """The last that a writer does is the swap of head."""
    for number in itertools.count(1):
        faulty = FaultyStore(store, {number: Fault.AFTER}, Crash)
        with contextlib.suppress(Crash):
            await writer(faulty).append(numbered(batch))
        if faulty.failed and faulty.failed[-1][:2] == ("swap", "log/head"):
            return


async def test_a_stranger_finishes_a_committed_batch_from_the_stage_alone() -> None:
    store = FakeStore()
    await filled(store, 250)
    await committed_and_crashed(store, range(250, 300))
    assert len(await ids(store)) == 250
    await writer(store).open()
    assert await ids(store) == [f"receipt:{number}" for number in range(300)]


async def test_a_committed_and_unpublished_batch_is_no_fault_of_the_log() -> None:
    store = FakeStore()
    await committed_and_crashed(store, range(10))
    found = await verify(store, vkey=VKEY)
    assert found.ok, found.findings
    assert found.notes == ("10 entries are committed and not published yet",)


async def test_a_committed_batch_whose_stage_is_gone_is_found_and_not_grown() -> None:
    store = FakeStore()
    await filled(store, 5)
    await committed_and_crashed(store, range(5, 9))
    (stage,) = (key for key in store.objects if key.startswith("log/stage/"))
    del store.objects[stage]
    found = await verify(store, vkey=VKEY)
    assert stage in [finding.place for finding in found.findings]
    with pytest.raises(Permanent, match="log/head"):
        await writer(store).append([entry(10)])


async def test_no_batch_is_committed_while_the_last_one_is_unpublished() -> None:
    store = FakeStore()
    await committed_and_crashed(store, range(10))
    store.calls.clear()
    await writer(store).append([entry(10)])
    verbs = store.verbs()
    assert verbs.index(("swap", "log/checkpoint")) < verbs.index(("swap", "log/head"))
    assert len(await ids(store)) == 11


async def test_a_batch_is_not_finished_on_a_damaged_tree() -> None:
    store = FakeStore()
    await filled(store, 5)
    await committed_and_crashed(store, range(5, 9))
    tile = store.objects["log/tile/0/000.p/5"]
    store.objects["log/tile/0/000.p/5"] = tile[:-1] + bytes([tile[-1] ^ 1])
    before = dict(store.objects)
    with pytest.raises(Permanent, match="do not lead from the published tree") as caught:
        await writer(store).open()
    assert caught.value.reason == "log-damaged"
    assert store.objects == before


class Late(FakeStore):
    """The first swap of head is lost on the way, and arrives just before the second."""

    late: tuple[bytes, str | None] | None = None
    swaps = 0

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        if key != "log/head":
            return await super().swap(key, data, if_match=if_match)
        self.swaps += 1
        if self.swaps == 1:
            self.late = (data, if_match)
            raise Transient("store-slow", "no answer in time")
        if self.late:
            (late, tag), self.late = self.late, None
            await super().swap(key, late, if_match=tag)
        return await super().swap(key, data, if_match=if_match)


async def test_a_swap_that_arrives_after_it_was_given_up_still_finds_its_stage() -> None:
    store, clock = Late(), HandClock()
    log = writer(store, clock=clock)
    with pytest.raises(Transient):
        await log.append(numbered(range(3)))
    clock.move(1)  # so that the second stage is another
    await log.append(numbered(range(5)))
    assert await ids(store) == [f"receipt:{number}" for number in range(5)]
    assert (await verify(store, vkey=VKEY)).ok
    assert not [key for key in store.objects if key.startswith("log/stage/")]


async def test_two_writers_racing_lose_nothing_and_repeat_nothing() -> None:
    store = Yielding()
    writers = [writer(store), writer(store)]

    async def work(number: int) -> None:
        for batch in range(10):
            shared = numbered(range(batch * 20, batch * 20 + 20))
            await writers[number].append([*shared, entry(1_000 * (number + 1) + batch)])

    await asyncio.gather(work(0), work(1))
    store.assert_sound()
    found = await ids(store)
    assert len(found) == len(set(found)) == 220
    assert (await verify(store, vkey=VKEY)).ok
    assert not [key for key in store.objects if key.startswith("log/stage/")]


@pytest.mark.parametrize("same", [False, True], ids=["other entries", "the same entries"])
async def test_a_paused_writer_that_wakes_rolls_nothing_back(same: bool) -> None:
    for number in itertools.count(1):
        for after in (False, True):
            store = FakeStore()
            await filled(store, 250)
            pausing = Pausing(store, number, after=after)
            paused = asyncio.create_task(writer(pausing).append(numbered(range(250, 260))))
            await asyncio.wait(
                {paused, asyncio.create_task(pausing.reached.wait())},
                return_when=asyncio.FIRST_COMPLETED,
            )
            if paused.done():
                return
            other = writer(store)
            await other.append(numbered(range(250, 260) if same else range(260, 270)))
            await other.append(numbered(range(270, 300)))
            pausing.go_on.set()
            await paused
            await assert_nothing_lost(store, 300 if not same else 290)


async def assert_nothing_lost(store: FakeStore, size: int) -> None:
    store.assert_sound()
    found = await ids(store)
    assert len(found) == len(set(found)) == size
    assert (await verify(store, vkey=VKEY)).ok
    swaps = [c.data for c in store.calls if (c.verb, c.key) == ("swap", "log/checkpoint")]
    taken = [read_checkpoint(note).size for note in swaps if note not in rejected(store)]
    assert taken == sorted(taken)


def rejected(store: FakeStore) -> list[bytes]:
    return [call.data for call in store.conflicts]


class Pausing:
    """A store whose n-th call waits, before or after it took effect, until it may go on."""

    def __init__(self, inner: FakeStore, number: int, *, after: bool) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self._inner = inner
        self._left = number
        self._after = after

    async def read(self, key: str) -> Stored | None:
        return await self._around(self._inner.read(key))

    async def create(self, key: str, data: bytes) -> None:
        await self._around(self._inner.create(key, data))

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        return await self._around(self._inner.swap(key, data, if_match=if_match))

    async def delete(self, key: str) -> None:
        await self._around(self._inner.delete(key))

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        async for listed in self._inner.list(prefix):
            yield listed

    async def _around(self, call: Awaitable[T]) -> T:
        self._left -= 1
        here = self._left == 0
        if here and not self._after:
            await self._wait()
        try:
            return await call
        finally:
            if here and self._after:
                await self._wait()

    async def _wait(self) -> None:
        self.reached.set()
        await self.go_on.wait()


class Yielding(FakeStore):
    """Lets the other writers go on before and after every call."""

    async def read(self, key: str) -> Stored | None:
        await asyncio.sleep(0)
        found = await super().read(key)
        await asyncio.sleep(0)
        return found

    async def create(self, key: str, data: bytes) -> None:
        await asyncio.sleep(0)
        await super().create(key, data)

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        await asyncio.sleep(0)
        etag = await super().swap(key, data, if_match=if_match)
        await asyncio.sleep(0)
        return etag
