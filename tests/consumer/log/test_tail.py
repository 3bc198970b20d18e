"""The log as followers read it: who it is, how long it is, what it holds, and when they learn."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import Permanent, Transient
from consumer.log.keys import CHECKPOINT, tile_key
from consumer.log.note import Signer, read_checkpoint
from consumer.log.tail import BUNDLES, LogTail
from consumer.log.tiles import ENTRIES, WIDTH, Edge, Tile, encode_bundle, grow
from consumer.ports import LogEntry, Store, Stored
from tests.consumer.log.logs import ORIGIN, SIGNER, entry, filled, numbered, restored, writer
from tests.fakes_store import FakeStore, Fault, FaultyStore

LONG_S = 3600.0  # nobody waits so long: what returns was woken


def ids(entries: Sequence[LogEntry]) -> list[str]:
    return [str(one.data["id"]) for one in entries]


def reads(store: FakeStore) -> Counter[str]:
    return Counter(call.key for call in store.calls if call.verb == "read")


async def in_time(awaitable: Any) -> Any:
    async with asyncio.timeout(10):
        return await awaitable


class HeldStore:
    """A store whose reads of the checkpoint come back when the test says so, each with what it
    saw when it began."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.held: list[asyncio.Event] = []

    async def read(self, key: str) -> Stored | None:
        found = await self._inner.read(key)
        if key == CHECKPOINT:
            self.held.append(asyncio.Event())
            await self.held[-1].wait()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def asked(self, times: int) -> None:
        async with asyncio.timeout(10):
            while len(self.held) < times:
                await asyncio.sleep(0)


async def test_a_log_without_entries_has_no_identity_yet() -> None:
    store = FakeStore()
    tail = LogTail(store)
    assert await tail.identity() == ""
    assert await tail.size() == 0
    assert await tail.read(0, 10) == []
    await filled(store, 1)
    assert (await tail.identity()).startswith(f"{ORIGIN}~")


async def test_a_log_keeps_its_identity_as_it_grows_and_for_whoever_reads_it() -> None:
    store = FakeStore()
    log = await filled(store, 3)
    tail = LogTail(store)
    before = await tail.identity()
    await log.append(numbered(range(3, 700)))
    assert await tail.size() == 700
    assert await tail.identity() == await LogTail(store).identity() == before


async def test_another_log_under_the_same_origin_is_another() -> None:
    one, other = FakeStore(), FakeStore()
    await filled(one, 3)
    log = writer(other)
    await log.append([{**entry(0), "task": "another"}])
    names = {await LogTail(store).identity() for store in (one, other)}
    assert len(names) == 2
    assert {name.rpartition("~")[0] for name in names} == {ORIGIN}


async def test_the_same_first_entry_under_another_origin_is_another_log() -> None:
    one, other = FakeStore(), FakeStore()
    await filled(one, 1)
    signer = Signer.from_seed("example.org/other", bytes(32))
    await writer(other, signer=signer, origin="example.org/other").append(numbered(range(1)))
    first, second = await LogTail(one).identity(), await LogTail(other).identity()
    assert first.rpartition("~")[2] == second.rpartition("~")[2]
    assert first != second


async def test_an_append_in_this_process_wakes_whoever_waits_at_once() -> None:
    store = FakeStore()
    log = await filled(store, 2)
    tail = LogTail(store, poll_s=LONG_S)
    assert await tail.size() == 2
    waiting = [asyncio.create_task(tail.wait(2, LONG_S)) for _ in range(5)]
    await asyncio.sleep(0)
    await log.append(numbered(range(2, 4)))
    tail.wake()
    assert await in_time(asyncio.gather(*waiting)) == [4] * 5


async def test_a_wake_between_two_waits_is_not_lost() -> None:
    store = FakeStore()
    log = await filled(store, 2)
    tail = LogTail(store, poll_s=LONG_S)
    await tail.size()
    await log.append(numbered(range(2, 3)))
    tail.wake()
    assert await in_time(tail.wait(2, LONG_S)) == 3


async def test_one_wake_is_one_look() -> None:
    store = FakeStore()
    await filled(store, 2)
    tail = LogTail(store, poll_s=LONG_S)
    await tail.size()
    store.calls.clear()
    tail.wake()
    assert await in_time(tail.wait(2, 0.02)) == 2
    assert reads(store)[CHECKPOINT] == 1


async def test_a_wake_while_the_checkpoint_is_read_is_not_lost() -> None:
    inner = FakeStore()
    log = await filled(inner, 1)
    store = HeldStore(inner)
    tail = LogTail(store, poll_s=LONG_S)
    waiting = asyncio.create_task(tail.wait(1, LONG_S))
    tail.wake()
    await store.asked(1)  # it has seen one entry
    await log.append(numbered(range(1, 2)))
    tail.wake()
    store.held[0].set()
    await store.asked(2)
    store.held[1].set()
    assert await in_time(waiting) == 2


async def test_another_process_s_append_is_found_by_looking() -> None:
    store = FakeStore()
    log = await filled(store, 2)
    tail = LogTail(store, poll_s=0.001)
    await tail.size()
    waiting = asyncio.create_task(tail.wait(2, LONG_S))
    await log.append(numbered(range(2, 3)))
    assert await in_time(waiting) == 3


async def test_what_is_known_to_be_there_is_not_waited_for_nor_asked() -> None:
    store = FakeStore()
    await filled(store, 5)
    tail = LogTail(store, poll_s=LONG_S)
    await tail.size()
    asked = len(store.calls)
    assert await in_time(tail.wait(4, LONG_S)) == 5
    assert len(store.calls) == asked


async def test_without_news_the_wait_ends_after_its_time() -> None:
    store = FakeStore()
    await filled(store, 5)
    tail = LogTail(store, poll_s=0.001)
    await tail.size()
    assert await in_time(tail.wait(5, 0.02)) == 5
    assert await in_time(tail.wait(5, 0.0)) == 5


async def test_who_waits_briefly_is_not_held_by_who_waits_long() -> None:
    store = FakeStore()
    await filled(store, 5)
    tail = LogTail(store, poll_s=LONG_S)
    await tail.size()
    patient = asyncio.create_task(tail.wait(5, LONG_S))
    await asyncio.sleep(0)
    assert await in_time(tail.wait(5, 0.01)) == 5
    assert not patient.done()
    patient.cancel()


async def test_all_who_wait_share_one_look() -> None:
    inner = FakeStore()
    log = await filled(inner, 1)
    store = HeldStore(inner)
    tail = LogTail(store, poll_s=LONG_S)
    waiting = [asyncio.create_task(tail.wait(1, LONG_S)) for _ in range(50)]
    await log.append(numbered(range(1, 2)))
    tail.wake()
    await store.asked(1)
    store.held[0].set()
    assert await in_time(asyncio.gather(*waiting)) == [2] * 50
    assert len(store.held) == 1


async def test_one_who_stops_waiting_does_not_stop_the_look_of_the_others() -> None:
    inner = FakeStore()
    log = await filled(inner, 1)
    store = HeldStore(inner)
    tail = LogTail(store, poll_s=LONG_S)
    leaver, stayer = (asyncio.create_task(tail.wait(1, LONG_S)) for _ in range(2))
    await log.append(numbered(range(1, 2)))
    tail.wake()
    await store.asked(1)
    leaver.cancel()
    await asyncio.wait({leaver})
    store.held[0].set()
    assert await in_time(stayer) == 2
    assert len(store.held) == 1


async def test_a_look_that_fails_is_told_to_all_who_wait_and_the_next_looks_anew() -> None:
    inner = FakeStore()
    await filled(inner, 1)
    store = FaultyStore(inner, {1: Fault.BEFORE})
    tail = LogTail(store, poll_s=0.001)
    waiting = [asyncio.create_task(tail.wait(0, LONG_S)) for _ in range(3)]
    results = await in_time(asyncio.gather(*waiting, return_exceptions=True))
    assert [type(one) for one in results] == [Transient] * 3
    assert await in_time(tail.wait(0, LONG_S)) == 1


async def test_a_look_that_fails_when_nobody_waits_any_more_disturbs_nobody() -> None:
    inner = FakeStore()
    await filled(inner, 1)
    store = FaultyStore(inner, {1: Fault.BEFORE})
    tail = LogTail(store, poll_s=LONG_S)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    waiting = asyncio.create_task(tail.wait(1, LONG_S))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    tail.wake()
    async with asyncio.timeout(10):
        while not store.failed:
            await asyncio.sleep(0)
    assert await tail.size() == 1
    del tail, waiting
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("found", ["shorter", "nothing"])
async def test_a_log_that_got_shorter_is_told(found: str) -> None:
    store = FakeStore()
    log = await filled(store, 5)
    before = dict(store.objects)
    await log.append(numbered(range(5, 9)))
    tail = LogTail(store)
    assert await tail.size() == 9
    store.objects = before if found == "shorter" else {}
    for ask in (tail.size, lambda: tail.wait(9, LONG_S), lambda: tail.read(8, 12)):
        with pytest.raises(Permanent, match="had 9") as caught:
            await in_time(ask())
        assert caught.value.reason == "log-shrunk"


async def test_a_slow_look_that_comes_back_after_a_later_one_is_no_shrunken_log() -> None:
    inner = FakeStore()
    log = await filled(inner, 2)
    store = HeldStore(inner)
    tail = LogTail(store)
    slow = asyncio.create_task(tail.size())
    await store.asked(1)
    await log.append(numbered(range(2, 6)))
    quick = asyncio.create_task(tail.size())
    await store.asked(2)
    store.held[1].set()
    assert await in_time(quick) == 6
    store.held[0].set()
    assert await in_time(slow) == 6


async def test_a_checkpoint_that_cannot_be_read_is_told() -> None:
    store = FakeStore()
    await filled(store, 2)
    store.objects[CHECKPOINT] = b"nonsense"
    with pytest.raises(Permanent) as caught:
        await LogTail(store).size()
    assert caught.value.reason == "log-damaged"


EDGES = (0, 1, 254, 255, 256, 257, 510, 511, 512, 513, 600)


@pytest.fixture(scope="module")
def long_log() -> dict[str, bytes]:
    store = FakeStore()
    asyncio.run(_fill(store))
    return store.objects


async def _fill(store: FakeStore) -> None:
    log = await filled(store, 255, 1, 1, 255, 88)
    await log.close()


async def test_what_is_read_begins_and_ends_where_it_was_asked_to(
    long_log: dict[str, bytes],
) -> None:
    tail = LogTail(await restored(long_log))
    for start, end in itertools.product(EDGES, (*EDGES, 601, 10_000)):
        found = await tail.read(start, end)
        assert [one.index for one in found] == list(range(start, min(end, 600)))
        assert ids(found) == [f"receipt:{n}" for n in range(start, min(end, 600))]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 513])
async def test_a_log_of_any_size_is_read_to_its_end_while_it_grows_over_the_border(
    size: int,
) -> None:
    store = FakeStore()
    log = await filled(store, size)
    tail = LogTail(store)
    assert len(await tail.read(0, size)) == size
    for longer in (size + 1, size + 2, size + 257):
        await log.append(numbered(range(longer)))
        assert await tail.size() == longer
        assert ids(await tail.read(size - 1, longer)) == [
            f"receipt:{n}" for n in range(size - 1, longer)
        ]


async def test_what_is_published_is_read_though_nobody_asked_for_the_size() -> None:
    store = FakeStore()
    log = await filled(store, 3)
    tail = LogTail(store)
    assert len(await tail.read(0, 100)) == 3
    await log.append(numbered(range(3, 5)))
    assert len(await tail.read(0, 100)) == 5


async def test_a_reader_that_knows_an_old_size_reads_on_when_its_partial_bundle_has_gone() -> None:
    store = FakeStore()
    log = await filled(store, 100)
    tail = LogTail(store)
    await tail.size()
    await log.append(numbered(range(100, 300)))
    assert tile_key(Tile(ENTRIES, 0, 100)) not in store.objects
    assert len(await tail.read(0, 100)) == 100


@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    start=st.integers(0, 1200),
    length=st.integers(0, 1200),
)
@settings(max_examples=25, deadline=None)
def test_any_part_of_any_log_is_what_was_appended(
    sizes: list[int], start: int, length: int
) -> None:
    async def check() -> None:
        store = FakeStore()
        log = await filled(store, *sizes)
        found = await LogTail(store).read(start, start + length)
        await log.close()
        assert ids(found) == [f"receipt:{n}" for n in range(sum(sizes))][start : start + length]

    asyncio.run(check())


async def test_the_root_is_what_the_checkpoint_of_that_size_said() -> None:
    store = FakeStore()
    log = writer(store)
    roots = {0: _b64(hashlib.sha256(b"").digest())}
    sizes = (1, 2, 3, 255, 256, 257, 300, 511, 512, 513, 770)
    for before, size in itertools.pairwise((0, *sizes)):
        await log.append(numbered(range(before, size)))
        said = read_checkpoint(store.objects[CHECKPOINT])
        assert said.size == size
        roots[size] = _b64(said.root)
    tail = LogTail(store)
    assert {size: await tail.root(size) for size in reversed(roots)} == roots


async def test_the_root_of_a_size_that_is_not_there_yet_is_refused() -> None:
    store = FakeStore()
    log = await filled(store, 3)
    tail = LogTail(store)
    with pytest.raises(Permanent) as caught:
        await tail.root(4)
    assert caught.value.reason == "log-index-ahead"
    await log.append(numbered(range(3, 4)))
    assert await tail.root(4)


async def test_a_log_over_65536_entries_is_read_and_its_root_told() -> None:
    """A second level of full tiles, built as the log's writer builds it, without its commits."""
    size = 65_536 + 300
    raw = [b'{"id":"%d"}' % n for n in range(size)]
    edge, made = grow(Edge(), raw)
    store = FakeStore(objects={tile_key(tile): data for tile, data in made})
    store.objects[CHECKPOINT] = SIGNER.sign(f"{ORIGIN}\n{size}\n{_b64(edge.root)}\n")
    tail = LogTail(store)
    assert await tail.size() == size
    for start, end in ((65_535, 65_538), (65_791, 65_793), (65_835, 65_840), (0, 1)):
        found = await tail.read(start, end)
        assert ids(found) == [str(n) for n in range(start, min(end, size))]
    assert await tail.root(size) == _b64(edge.root)
    before, _ = grow(Edge(), raw[:65_537])
    assert await tail.root(65_537) == _b64(before.root)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_full_bundles_are_read_once() -> None:
    store = FakeStore()
    await filled(store, 600)
    tail = LogTail(store)
    for _ in range(5):
        for start in range(0, 600, 50):
            await tail.read(start, start + 50)
    assert {key: n for key, n in reads(store).items() if "entries" in key and n > 1} == {}


async def test_the_last_bundle_is_read_again_only_when_the_log_has_grown() -> None:
    store = FakeStore()
    log = await filled(store, 10)
    tail = LogTail(store)
    for _ in range(5):
        assert len(await tail.read(0, 10)) == 10
    assert reads(store)[tile_key(Tile(ENTRIES, 0, 10))] == 1
    await log.append(numbered(range(10, 11)))
    await tail.size()
    assert len(await tail.read(0, 11)) == 11


async def bundles(store: FakeStore, raw: Sequence[bytes]) -> int:
    """A log of which only bundles and checkpoint are there; its size."""
    for number, first in enumerate(range(0, len(raw), WIDTH)):
        part = raw[first : first + WIDTH]
        await store.create(tile_key(Tile(ENTRIES, number, len(part))), encode_bundle(part))
    note = SIGNER.sign(f"{ORIGIN}\n{len(raw)}\n{_b64(bytes(32))}\n")
    await store.swap(CHECKPOINT, note, if_match=None)
    return len(raw)


async def test_a_bounded_number_of_bundles_is_kept() -> None:
    store = FakeStore()
    size = await bundles(store, [b"{}"] * WIDTH * (BUNDLES + 8))
    tail = LogTail(store)
    await tail.read(0, size)
    store.calls.clear()
    await tail.read(size - BUNDLES * WIDTH, size)
    assert sum(reads(store).values()) == 0, "the newest are kept"
    await tail.read(0, 8 * WIDTH)
    assert sum(reads(store).values()) == 8, "the oldest are not"


async def test_what_is_read_again_and_again_is_kept() -> None:
    store = FakeStore()
    size = await bundles(store, [b"{}"] * WIDTH * (BUNDLES + 8))
    tail = LogTail(store)
    for start in range(0, size, WIDTH):
        await tail.read(start, start + WIDTH)
        await tail.read(0, 1)
    assert reads(store)[tile_key(Tile(ENTRIES, 0))] == 1


async def test_large_bundles_are_kept_up_to_a_weight() -> None:
    store = FakeStore()
    large = b'{"x":"' + b"y" * 60_000 + b'"}'
    size = await bundles(store, [large] * WIDTH * 3)  # 15 MB each
    tail = LogTail(store)
    await tail.read(0, size)
    store.calls.clear()
    await tail.read(size - 1, size)
    assert sum(reads(store).values()) == 0, "the newest is kept, however large"
    await tail.read(0, 1)
    assert sum(reads(store).values()) == 1


async def test_an_entry_that_is_no_json_is_told_with_its_place() -> None:
    store = FakeStore()
    await bundles(store, [b"{}", b"[1]", b"{}"])
    with pytest.raises(Permanent, match="entry 1") as caught:
        await LogTail(store).read(0, 3)
    assert caught.value.reason == "log-damaged"


async def test_a_bundle_that_is_missing_may_come_later() -> None:
    store = FakeStore()
    await filled(store, 3)
    del store.objects[tile_key(Tile(ENTRIES, 0, 3))]
    with pytest.raises(Transient) as caught:
        await LogTail(store).read(0, 3)
    assert caught.value.reason == "log-incomplete"
