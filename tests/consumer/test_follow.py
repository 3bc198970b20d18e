"""One follower's loop: what it hands over, when it stores the cursor, and how it fails."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.errors import Conflict, Permanent, Rejected, Transient
from consumer.follow import BATCH, IDLE_S, KEEP_S, PERMANENT_S
from consumer.log.tail import LogTail
from consumer.model import encode
from consumer.ports import Batch, Cursor, Step
from tests.consumer.follow_house import IDENTITY, FollowHouse, Recorder
from tests.consumer.log.logs import numbered, writer
from tests.fakes_store import FakeStore, FaultyStore, each_call_once


class Crash(BaseException):
    """Nothing catches it: the process died there."""


async def test_entries_come_once_in_order_and_only_of_the_wanted_kinds() -> None:
    house = FollowHouse()
    house.log.append(2)
    house.log.append(1, kind="receipt")
    house.log.append(1)
    house.log.plan = deque([lambda: house.log.append(2), lambda: house.log.append(1, "history")])
    await house.run()
    assert house.follower.seen == [0, 1, 3, 4, 5]
    assert house.cursor().next == 7
    assert house.pauses == []


async def test_batches_follow_each_other_without_a_gap_and_say_when_the_end_is_reached() -> None:
    house = FollowHouse()
    house.log.append(2 * BATCH + 5)
    await house.run()
    batches = house.follower.batches
    assert [(b.start, b.end) for b in batches[:3]] == [
        (0, BATCH),
        (BATCH, 2 * BATCH),
        (2 * BATCH, 2 * BATCH + 5),
    ]
    assert [b.caught_up for b in batches[:3]] == [False, False, True]
    assert {b.size for b in batches} == {2 * BATCH + 5}


async def test_a_new_follower_begins_at_zero_and_one_that_ran_goes_on() -> None:
    house = FollowHouse()
    house.log.append(3)
    await house.run()
    house.log.append(2)
    house.again()
    await house.run()
    assert house.follower.starts == [Cursor(0), Cursor(3)]
    assert house.follower.seen == [0, 1, 2, 3, 4]


async def test_where_to_begin_is_the_followers_word() -> None:
    house = FollowHouse(follower=Recorder(begin=lambda _: Cursor(2)))
    house.log.append(4)
    await house.run()
    assert house.follower.seen == [2, 3]


async def test_a_log_without_entries_is_waited_for() -> None:
    house = FollowHouse()
    house.log.plan = deque([lambda: None, lambda: house.log.append(1)])
    await house.run()
    assert house.log.waits[:2] == [IDLE_S, IDLE_S]
    assert house.follower.seen == [0]


async def test_stopped_before_the_first_entry_it_ends_and_stores_nothing() -> None:
    house = FollowHouse()
    await house.run()
    assert house.follower.starts == []
    assert house.lake.objects == {}


async def test_the_cursor_is_stored_after_the_effect() -> None:
    house = FollowHouse()
    seen_at_effect: list[bool] = []

    def effect(batch: Batch) -> Step:
        seen_at_effect.append(house.key in house.lake.objects)
        return Step(Cursor(batch.end))

    house.follower.answer = effect
    house.log.append(3)
    await house.run()
    assert seen_at_effect[0] is False
    assert house.cursor().next == 3


async def test_a_changed_state_is_stored_at_once() -> None:
    house = FollowHouse()
    house.follower.answer = lambda batch: Step(Cursor(batch.end, {"seen": batch.end}), wake_s=0.1)
    house.log.append(1)
    stored: list[tuple[int, Any]] = []

    def look_and_append() -> None:
        stored.append((house.cursor().next, house.cursor().state))
        house.log.append(1)

    house.log.plan = deque([look_and_append] * 4)
    await house.run()
    assert house.log.now < KEEP_S
    assert stored == [(n, {"seen": n}) for n in (1, 2, 3, 4)]


async def test_a_cursor_that_only_went_on_is_stored_at_most_once_per_second() -> None:
    """Fifty entries come, a tenth of a second apart."""
    house = FollowHouse()
    house.log.append(1)
    times: list[float] = []
    house.follower.answer = lambda batch: Step(Cursor(batch.end), wake_s=0.1)
    house.log.plan = deque([lambda: house.log.append(1)] * 50)
    swap = house.lake.swap

    async def timed(key: str, data: bytes, *, if_match: str | None) -> str:
        times.append(house.log.now)
        return await swap(key, data, if_match=if_match)

    house.lake.swap = timed  # type: ignore[method-assign]  # the oracle itself, with a watch
    await house.run()
    assert house.cursor().next == 51
    *regular, _ = times  # the last is the stop's
    gaps = [later - earlier for earlier, later in itertools.pairwise(regular)]
    assert min(gaps) >= KEEP_S
    assert max(gaps) < 2 * KEEP_S
    assert len(gaps) >= 3


async def test_a_cursor_that_only_went_on_is_stored_soon_though_nothing_happens() -> None:
    house = FollowHouse()
    house.follower.answer = lambda batch: Step(
        Cursor(batch.end), wake_s=0.5 if batch.end == 1 else None
    )
    house.log.append(1)
    stored: list[int] = []
    house.log.plan = deque(
        [
            lambda: house.log.append(1),
            lambda: stored.append(house.cursor().next),
            lambda: stored.append(house.cursor().next),
        ]
    )
    await house.run()
    assert house.log.waits[:3] == [0.5, KEEP_S, IDLE_S]
    assert stored == [1, 2]


async def test_the_cursor_is_stored_at_the_stop() -> None:
    house = FollowHouse()
    house.log.append(1)

    def stop_with_the_second(batch: Batch) -> Step:
        if batch.end == 2:
            house.stop.set()
        return Step(Cursor(batch.end), wake_s=0.1)

    house.follower.answer = stop_with_the_second
    house.log.plan = deque([lambda: house.log.append(1)])
    await house.run()
    assert [one.next for one in house.stored()] == [1, 2]


async def test_what_is_stored_already_is_not_stored_again() -> None:
    house = FollowHouse()
    house.log.append(3)
    house.log.plan = deque([lambda: None] * 30)
    house.follower.answer = lambda batch: Step(Cursor(batch.end, {"same": [1, 2]}))
    await house.run()
    assert len(house.follower.batches) > 30
    assert len(house.stored()) == 1


async def test_a_state_is_given_back_as_it_was_stored() -> None:
    house = FollowHouse()
    state = {"a": [1, 2.5, None, "ö"], "b": {"c": True}}
    house.follower.answer = lambda batch: Step(Cursor(batch.end, state))
    house.log.append(1)
    await house.run()
    house.again()
    await house.run()
    assert house.follower.starts[-1] == Cursor(1, state)


async def test_a_cursor_that_lags_is_where_a_restart_begins() -> None:
    """What a follower holds back is not durable: it comes again."""
    house = FollowHouse()
    house.follower.answer = lambda batch: Step(Cursor(max(0, batch.end - 2)))
    house.log.append(5)
    await house.run()
    assert house.follower.seen == [0, 1, 2, 3, 4]
    house.again()
    await house.run()
    assert house.follower.seen == [0, 1, 2, 3, 4, 3, 4]


async def test_each_stored_cursor_has_the_next_sequence_also_across_restarts() -> None:
    house = FollowHouse()
    house.follower.answer = lambda batch: Step(Cursor(batch.end, {"n": len(house.follower.steps)}))
    house.log.append(1)
    house.log.plan = deque([lambda: house.log.append(1)])
    await house.run()
    house.again()
    await house.run()
    sequences = [one.sequence for one in house.stored()]
    assert sequences == list(range(1, len(sequences) + 1))
    assert len(sequences) >= 3
    house.lake.assert_sound()


@pytest.mark.parametrize(
    ("asked", "waited"), [(None, IDLE_S), (7.0, 7.0), (0.25, 0.25), (1e9, IDLE_S)]
)
async def test_a_follower_is_woken_when_it_asked_to_be(asked: float | None, waited: float) -> None:
    house = FollowHouse()
    house.follower.answer = lambda batch: Step(Cursor(batch.end), wake_s=asked)
    house.log.append(1)
    house.log.plan = deque([lambda: None])
    await house.run()
    assert house.log.waits[0] == waited
    woken = house.follower.batches[1]
    assert (woken.entries, woken.start, woken.end, woken.caught_up) == ([], 1, 1, True)


async def test_a_follower_that_asks_again_at_once_lets_others_run() -> None:
    house = FollowHouse()
    house.log.append(1)
    turns = 0

    async def other() -> None:
        nonlocal turns
        for _ in range(5):
            turns += 1
            await asyncio.sleep(0)

    def answer(batch: Batch) -> Step:
        if len(house.follower.steps) > 20:
            house.stop.set()
        return Step(Cursor(batch.end), wake_s=-1.0)

    house.follower.answer = answer
    running = asyncio.create_task(other())
    await house.run()
    assert (turns, running.done()) == (5, True)


async def test_news_end_the_wait() -> None:
    house = FollowHouse()
    house.log.append(1)
    house.log.plan = deque([lambda: house.log.append(1)])
    await house.run()
    assert house.log.waits[0] == IDLE_S
    assert house.follower.seen == [0, 1]


async def test_a_stop_ends_a_wait_at_once_and_leaves_nothing_behind() -> None:
    house = FollowHouse()
    house.log.append(1)
    store = FakeStore()
    log = writer(store)
    await log.append(numbered(range(3)))
    tail = LogTail(store, poll_s=3600.0)
    house.follower.kinds = frozenset({"receipt"})
    following = house.following()
    following.log = tail
    running = asyncio.create_task(following.run(house.stop))
    async with asyncio.timeout(10):
        while not house.follower.seen:
            await asyncio.sleep(0)
        house.stop.set()
        await running
    assert house.cursor().next == 3
    assert house.cursor().log == await tail.identity()


async def test_a_stop_between_batches_leaves_the_rest_for_the_next_run() -> None:
    house = FollowHouse()
    house.log.append(3 * BATCH)

    def answer(batch: Batch) -> Step:
        house.stop.set()
        return Step(Cursor(batch.end))

    house.follower.answer = answer
    await house.run()
    assert (len(house.follower.batches), house.cursor().next) == (1, BATCH)
    house.again()
    house.follower.answer = lambda batch: Step(Cursor(batch.end))
    await house.run()
    assert house.follower.seen == list(range(3 * BATCH))


async def test_a_cancelled_loop_ends_without_storing_what_was_not_done() -> None:
    house = FollowHouse()
    house.log.append(2)
    hanging = asyncio.Event()

    class Hanging(Recorder):
        async def follow(self, batch: Batch) -> Step:
            hanging.set()
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")

    house.follower = Hanging()
    running = asyncio.create_task(house.following().run(house.stop))
    await asyncio.wait_for(hanging.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert house.lake.objects == {}


@pytest.mark.parametrize(
    ("error", "reason", "wait_s"),
    [
        (Transient("queue-unavailable"), "queue-unavailable", 0.5),
        (Transient("slow-down", after_s=12.0), "slow-down", 12.0),
        (Transient("slow-down", after_s=0.1), "slow-down", 0.5),
        (Permanent("exchange-missing"), "exchange-missing", PERMANENT_S),
        (Rejected(422, "odd"), "odd", 0.5),
        (KeyError("secret"), "follower-crashed", 0.5),
    ],
)
async def test_a_failure_is_counted_and_waited_out_and_then_everything_comes_again(
    error: Exception, reason: str, wait_s: float
) -> None:
    house = FollowHouse(follower=Recorder(errors=deque([error])))
    house.log.append(3)
    await house.run()
    assert house.pauses == [wait_s]
    assert house.failures(reason) == 1
    assert house.follower.starts == [Cursor(0), Cursor(0)]
    assert house.follower.seen == [0, 1, 2, 0, 1, 2]
    assert house.cursor().next == 3


async def test_a_failing_start_is_tried_again() -> None:
    house = FollowHouse(follower=Recorder(start_errors=deque([Permanent("table-foreign")])))
    house.log.append(1)
    await house.run()
    assert house.pauses == [PERMANENT_S]
    assert house.follower.seen == [0]


async def test_waits_grow_while_it_fails_and_are_short_again_once_it_got_on() -> None:
    house = FollowHouse()
    house.log.append(1)
    house.follower.errors = deque([Transient("away") for _ in range(8)])

    def fail_again() -> None:
        house.log.append(1)
        house.follower.errors.append(Transient("away"))

    house.log.plan = deque([fail_again])
    await house.run()
    assert house.pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 0.5]


async def test_a_log_that_cannot_be_read_is_waited_out() -> None:
    house = FollowHouse()
    house.log.append(2)
    house.log.failing = Transient("store-unavailable")

    def mend() -> None:
        house.log.failing = None

    house.after_pause = mend
    await house.run()
    assert house.failures("store-unavailable") == 1
    assert house.follower.seen == [0, 1]


async def test_readiness_tells_why_it_does_not_follow_until_it_does() -> None:
    house = FollowHouse(patience=1)
    house.follower.errors = deque([Permanent("exchange-missing", "the exchange x is missing")])
    house.log.append(1)
    following = await house.run()
    with pytest.raises(Transient, match="the exchange x is missing") as caught:
        await following.check()
    assert caught.value.reason == "exchange-missing"
    house.again()
    await following.run(house.stop)
    await following.check()


async def test_what_nobody_expected_tells_its_kind_and_not_its_text() -> None:
    house = FollowHouse(patience=1)
    house.follower.errors = deque([ValueError("https://x?token=secret")])
    house.log.append(1)
    following = await house.run()
    with pytest.raises(Transient, match="ValueError") as caught:
        await following.check()
    assert "secret" not in str(caught.value)


async def test_who_finds_the_cursor_moved_by_another_begins_again_from_there() -> None:
    house = FollowHouse()
    house.log.append(2)
    house.follower.answer = lambda batch: Step(Cursor(batch.end, {"end": batch.end}))
    moved: list[asyncio.Task[None]] = []

    def other_process() -> None:
        house.log.append(3)
        moved.append(asyncio.create_task(house.put_cursor(4, state={"end": 4})))

    house.log.plan = deque([other_process])
    await house.run()
    await moved[0]
    assert house.follower.starts[-1] == Cursor(4, {"end": 4})
    assert house.follower.seen == [0, 1, 2, 3, 4, 4]
    assert (house.cursor().next, house.cursor().state) == (5, {"end": 5})
    assert len(house.pauses) == 1
    assert house.failures("conflict") == 0, "yielding is no failure"
    house.lake.assert_sound()


async def test_a_conflict_at_the_stop_leaves_the_others_cursor() -> None:
    house = FollowHouse()
    house.log.append(1)
    moved: list[asyncio.Task[None]] = []

    def answer(batch: Batch) -> Step:
        if batch.end == 2:
            house.stop.set()
        return Step(Cursor(batch.end), wake_s=0.1)

    def other_process() -> None:
        house.log.append(1)
        moved.append(asyncio.create_task(house.put_cursor(1, state={"by": "another"})))

    house.follower.answer = answer
    house.log.plan = deque([other_process])
    await house.run()
    assert house.cursor().state == {"by": "another"}


async def test_two_processes_on_one_follower_leave_no_gap() -> None:
    house, log = FollowHouse(), FollowHouse().log
    log.stop = house.stop
    house.log = log
    log.append(40)
    one, other = Recorder(), Recorder()
    for recorder in (one, other):
        recorder.answer = lambda batch: Step(Cursor(batch.end, {"n": batch.end}))
    loops = []
    for recorder in (one, other):
        following = house.following()
        following.follower = recorder
        loops.append(following.run(house.stop))
    log.plan = deque([lambda: log.append(1)] * 30)
    async with asyncio.timeout(20):
        await asyncio.gather(*loops)
    assert set(one.seen) | set(other.seen) == set(range(len(log.entries)))
    house.lake.assert_sound()


FOREIGN = "example.org/lake~ffffffffffff"
DEEP = b'{"follower":"recorder","log":"x","next":1,"sequence":1,"state":{"a":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"", "cursor-unreadable", "followers/recorder.json"),
        (b"\xff\xfe", "cursor-unreadable", "no cursor"),
        (b"{}", "cursor-unreadable", "remove it"),
        (DEEP, "cursor-unreadable", "no cursor"),
        (("next", -1), "cursor-unreadable", "no cursor"),
        (("next", "3"), "cursor-unreadable", "no cursor"),
        (("format", 2), "cursor-unreadable", "of this version"),
        (("state", []), "cursor-unreadable", "no cursor"),
        (("log", FOREIGN), "cursor-of-another-log", FOREIGN),
        (("log", ""), "cursor-of-another-log", IDENTITY),
        (("next", 4), "cursor-ahead", "only 3 entries"),
        (("next", 10**30), "cursor-ahead", "only 3 entries"),
    ],
)
async def test_a_cursor_that_cannot_be_this_logs_is_told_with_its_reason_and_left_alone(
    data: Any, reason: str, said: str
) -> None:
    house = FollowHouse(patience=2)
    house.log.append(3)
    if isinstance(data, tuple):
        right = {"follower": "recorder", "log": IDENTITY, "next": 1, "sequence": 1}
        data = encode({**right, data[0]: data[1]})
    house.lake.objects[house.key] = data
    following = await house.run()
    assert house.pauses == [PERMANENT_S, PERMANENT_S]
    assert house.failures(reason) == 2
    with pytest.raises(Transient, match=said):
        await following.check()
    assert house.lake.objects[house.key] == data
    assert house.follower.starts == []


async def test_a_cursor_at_the_logs_end_is_right() -> None:
    house = FollowHouse()
    house.log.append(3)
    await house.put_cursor(3)
    await house.run()
    assert (house.follower.starts, house.follower.seen) == ([Cursor(3)], [])


async def test_a_cursor_that_was_mended_is_gone_on_from() -> None:
    house = FollowHouse()
    house.log.append(3)
    house.lake.objects[house.key] = b"nonsense"

    def remove() -> None:
        house.lake.objects.pop(house.key, None)

    house.after_pause = remove
    await house.run()
    assert house.follower.seen == [0, 1, 2]
    assert house.cursor().next == 3


async def test_a_follower_that_fails_stops_no_other() -> None:
    broken, sound = FollowHouse(patience=3), FollowHouse(follower=Recorder(name="sound"))
    broken.follower.errors = deque([Permanent("no") for _ in range(9)])
    sound.lake = broken.lake
    for house in (broken, sound):
        house.log.append(3)
    await asyncio.gather(broken.run(), sound.run())
    assert sound.cursor().next == 3
    assert broken.key not in broken.lake.objects
    assert sound.failures("no") == 0


async def test_troubles_are_counted_once_and_told_as_long_as_they_last() -> None:
    house = FollowHouse()
    house.log.append(1)
    told: Sequence[tuple[str, ...]] = [("edited",), ("edited",), ("edited", "name-taken"), ()]
    house.follower.answer = lambda batch: Step(
        Cursor(batch.end), wake_s=1.0, troubles=told[min(len(house.follower.steps), 3)]
    )
    house.log.plan = deque([lambda: None] * 4)
    with capture_logs() as lines:
        await house.run()
    assert (house.failures("edited"), house.failures("name-taken")) == (1, 1)
    said = [(line["log_level"], len(line.get("troubles", ()))) for line in lines]
    assert said == [("warning", 1), ("warning", 2), ("info", 0)], "and that they are over"
    assert house.pauses == []


async def follow_all(store: Any, effects: list[int]) -> tuple[FollowHouse, int]:
    """A follower whose effect is a list, over a log of ten entries that come bit by bit, over a
    store that fails; how often the process died."""
    house, crashes = FollowHouse(lake=FakeStore()), 0

    def effect(batch: Batch) -> Step:
        effects.extend(entry.index for entry in batch.entries)
        return Step(Cursor(batch.end, {"effects": batch.end}))

    house.follower.answer = effect
    house.log.append(4)
    house.log.plan = deque([lambda: house.log.append(3), lambda: house.log.append(3)])
    while True:
        try:
            await house.run(store)
        except Crash:
            crashes += 1
            continue
        return house, crashes


@pytest.mark.parametrize("error", [Transient, Crash, Conflict])
async def test_no_failed_store_call_loses_an_effect_or_leaves_another_cursor(
    error: type[BaseException],
) -> None:
    counting = FaultyStore(undisturbed := FakeStore(), {})
    effects: list[int] = []
    await follow_all(counting, effects)
    assert effects == list(range(10))
    assert counting.calls >= 4
    right = undisturbed.objects
    for plan in each_call_once(counting.calls):
        store, effects = FakeStore(), []
        faulty = FaultyStore(store, plan, lambda: error("store-unavailable"))
        _, crashes = await follow_all(faulty, effects)
        assert len(faulty.failed) == 1
        assert crashes == (error is Crash)
        assert list(dict.fromkeys(effects)) == list(range(10)), plan
        (key,) = store.objects
        assert _but_sequence(store.objects[key]) == _but_sequence(right[key]), plan
        store.assert_sound()


def _but_sequence(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    assert found.pop("sequence") >= 1
    return found
