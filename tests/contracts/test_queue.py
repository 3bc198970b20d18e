"""The contract of `Queue`, `Lease` and `DeadLetters`, against every adapter: RabbitMQ is the real
server, SQLite the real file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.errors import Permanent, Transient
from consumer.model import Action, Failure, LaneSpec, Message, Record, TaskEvent
from consumer.ports import LaneDepth, Lease
from tests.contracts.queue_harness import (
    AUDIT,
    DELAY_S,
    EXPORT,
    FullQueue,
    Harness,
    RabbitHarness,
    SqliteHarness,
    eventually,
)
from tests.proxy import Proxy

FAILURE = Failure(reason="platform-down", message="it is down", at="2026-01-02T03:04:05.000000Z")
EMPTY = LaneDepth(ready=0, leased=0, waiting=0, dead=0, oldest_s=0.0)


@pytest.fixture(params=["rabbitmq", "sqlite"])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    if request.param == "sqlite":
        yield SqliteHarness(tmp_path)
        return
    server = request.getfixturevalue("rabbitmq_server")
    async with Proxy(server.port) as proxy:
        rabbit = RabbitHarness(server, proxy)
        yield rabbit
        await rabbit.sweep()


@pytest.fixture
async def queue(harness: Harness) -> AsyncIterator[FullQueue]:
    async with opened(harness.queue()) as made:
        yield made


@contextlib.asynccontextmanager
async def opened(queue: FullQueue) -> AsyncIterator[FullQueue]:
    await queue.open()
    try:
        yield queue
    finally:
        await queue.close()


def event(name: str = "e1", **fields: Any) -> TaskEvent:
    return TaskEvent(
        id=name,
        source="redbrick",
        project="p1",
        task=f"task-of-{name}",
        action=Action.MOVE,
        received_at="2026-01-02T03:04:05.000000Z",
        body_sha256="0" * 64,
        **fields,
    )


async def take(queue: FullQueue, lane: LaneSpec, number: int = 1) -> list[Lease]:
    """So many leases, in as many takes as that needs."""
    leases: list[Lease] = []
    async with asyncio.timeout(20):
        while len(leases) < number:
            leases += await queue.take(lane)
    return leases


async def take_one(queue: FullQueue, lane: LaneSpec = EXPORT) -> Lease:
    (lease,) = await take(queue, lane)
    return lease


async def is_empty(queue: FullQueue, lane: LaneSpec) -> bool:
    return await queue.depth(lane) == EMPTY


async def can_put(queue: FullQueue, message: Message) -> bool:
    try:
        await queue.put([message])
    except Transient:
        return False
    return True


def ids(leases: Sequence[Lease]) -> list[str]:
    return [lease.message.id for lease in leases]


# ------------------------------------------------------------------------------ put, take, ack


async def test_a_message_arrives_in_every_lane_that_takes_it(queue: FullQueue) -> None:
    await queue.put([event(stage="Review_1")])
    for lane in (EXPORT, AUDIT):
        lease = await take_one(queue, lane)
        assert lease.message == event(stage="Review_1")
        assert (lease.attempt, lease.failure) == (1, None)


async def test_a_message_stays_out_of_lanes_that_do_not_take_it(queue: FullQueue) -> None:
    await queue.put([Record(id="r1", kind="started")])
    assert ids([await take_one(queue, AUDIT)]) == ["r1"]
    assert await is_empty(queue, EXPORT)


async def test_what_was_acknowledged_is_gone(queue: FullQueue) -> None:
    await queue.put([event()])
    await (await take_one(queue)).ack()
    await eventually(lambda: is_empty(queue, EXPORT))


async def test_what_was_put_outlives_the_process_that_put_it(harness: Harness) -> None:
    async with opened(harness.queue()) as first:
        await first.put([event()])
    async with opened(harness.queue()) as second:
        assert ids([await take_one(second)]) == ["e1"]


async def test_open_leases_are_given_back_when_the_queue_closes(harness: Harness) -> None:
    async with opened(harness.queue()) as first:
        await first.put([event("e1"), event("e2")])
        await take(first, EXPORT, 2)
    async with opened(harness.queue()) as second:
        assert sorted(ids(await take(second, EXPORT, 2))) == ["e1", "e2"]


async def test_a_waiting_take_gets_what_is_put_later(queue: FullQueue) -> None:
    waiting = asyncio.create_task(take_one(queue))
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    await queue.put([event()])
    assert (await waiting).message.id == "e1"


async def test_a_take_is_given_what_another_process_puts(
    harness: Harness, queue: FullQueue
) -> None:
    waiting = asyncio.create_task(take_one(queue))
    async with opened(harness.queue()) as other:
        await other.put([event()])
        assert (await waiting).message.id == "e1"


async def test_a_take_yields_at_most_its_batch(queue: FullQueue) -> None:
    await queue.put([event(f"e{n}") for n in range(7)])
    lane = msgspec.structs.replace(EXPORT, batch=3)
    async with asyncio.timeout(10):
        sizes = [len(await queue.take(lane)) for _ in range(3)]
    assert max(sizes) <= 3


async def test_a_take_lingers_for_a_fuller_batch(queue: FullQueue) -> None:
    lane = msgspec.structs.replace(EXPORT, batch=2, linger_s=10.0)
    waiting = asyncio.create_task(take(queue, lane))
    await queue.put([event("e1")])
    await queue.put([event("e2")])
    assert ids(await asyncio.wait_for(waiting, 5)) == ["e1", "e2"]


async def test_a_take_does_not_linger_longer_than_it_may(queue: FullQueue) -> None:
    lane = msgspec.structs.replace(EXPORT, linger_s=0.1)
    await queue.put([event()])
    async with asyncio.timeout(5):
        assert ids(await queue.take(lane)) == ["e1"]


async def test_a_cancelled_take_loses_nothing(queue: FullQueue) -> None:
    everything = {f"e{n}" for n in range(30)}
    await queue.put([event(name) for name in sorted(everything)])
    lane = msgspec.structs.replace(EXPORT, batch=1, linger_s=0.0)
    seen: set[str] = set()
    for turns in range(60):
        taking = asyncio.create_task(queue.take(lane))
        for _ in range(turns % 20):
            await asyncio.sleep(0)
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            for lease in await taking:
                seen.add(lease.message.id)
                await lease.ack()
    while seen != everything:
        for lease in await take(queue, EXPORT):
            seen.add(lease.message.id)
            await lease.ack()


async def test_a_thousand_messages_from_many_tasks_all_arrive(queue: FullQueue) -> None:
    everything = [f"e{n}" for n in range(1000)]
    groups = [everything[start : start + 10] for start in range(0, 1000, 10)]
    await asyncio.gather(*(queue.put([event(name) for name in group]) for group in groups))
    seen: list[str] = []
    while len(seen) < 1000:
        leases = await take(queue, EXPORT)
        seen += ids(leases)
        await asyncio.gather(*(lease.ack() for lease in leases))
    assert sorted(seen) == sorted(everything)
    await eventually(lambda: is_empty(queue, EXPORT))


async def test_whoever_waits_in_take_is_told_when_the_queue_closes(harness: Harness) -> None:
    async with opened(harness.queue()) as queue:
        waiting = asyncio.create_task(queue.take(EXPORT))
        await asyncio.wait([waiting], timeout=0.1)
    with pytest.raises(Transient):
        await asyncio.wait_for(waiting, 5)


# ------------------------------------------------------------------------- duplicates and size


async def test_an_id_put_twice_is_the_same_message_once_or_twice(queue: FullQueue) -> None:
    await queue.put([event("e1")])
    await queue.put([event("e1"), event("last")])
    seen: list[str] = []
    while "last" not in seen:
        for lease in await take(queue, EXPORT):
            seen.append(lease.message.id)
            await lease.ack()
    assert seen in (["e1", "last"], ["e1", "e1", "last"])
    await eventually(lambda: is_empty(queue, EXPORT))


async def test_an_id_put_again_while_it_is_leased_comes_again(queue: FullQueue) -> None:
    await queue.put([event("e1")])
    lease = await take_one(queue)
    await queue.put([event("e1")])
    await lease.ack()
    assert ids([await take_one(queue)]) == ["e1"]


async def test_a_message_of_a_mebibyte_arrives_whole(queue: FullQueue) -> None:
    big = Record(id="big", kind="started", fields={"text": "x" * 1024 * 1024})
    await queue.put([big])
    assert (await take_one(queue, AUDIT)).message == big


async def test_a_message_over_the_limit_is_refused_with_all_its_companions(
    queue: FullQueue,
) -> None:
    too_big = Record(id="big", kind="started", fields={"text": "x" * 9 * 1024 * 1024})
    with pytest.raises(Permanent) as refusal:
        await queue.put([event(), too_big])
    assert refusal.value.reason == "message-too-large"
    assert await is_empty(queue, EXPORT)


# ------------------------------------------------------------------------------- retry and bury


async def test_a_retry_comes_back_no_sooner_than_asked_and_knows_why(queue: FullQueue) -> None:
    await queue.put([event()])
    lease = await take_one(queue)
    loop = asyncio.get_running_loop()
    before = loop.time()
    await lease.retry(DELAY_S, FAILURE)
    again = await take_one(queue)
    assert loop.time() - before >= DELAY_S
    assert again.message == event()
    assert (again.attempt, again.failure) == (2, FAILURE)


async def test_attempts_are_counted_one_by_one(queue: FullQueue) -> None:
    await queue.put([event()])
    attempts = []
    for _ in range(3):
        lease = await take_one(queue)
        attempts.append(lease.attempt)
        await lease.retry(0.0, FAILURE)
    assert attempts == [1, 2, 3]


async def test_a_try_that_failed_for_reasons_all_share_is_not_counted(queue: FullQueue) -> None:
    await queue.put([event("e1")])
    lease = await take_one(queue)
    await lease.retry(DELAY_S, FAILURE, counted=False)
    again = await take_one(queue)
    assert (again.attempt, again.failure) == (1, FAILURE)


async def test_a_message_that_waits_for_its_retry_delays_no_other(queue: FullQueue) -> None:
    await queue.put([event("slow")])
    await (await take_one(queue)).retry(30.0, FAILURE)
    await queue.put([event("quick")])
    assert ids([await take_one(queue)]) == ["quick"]
    depth = await queue.depth(EXPORT)
    assert (depth.waiting, depth.leased) == (1, 1)


async def test_a_buried_message_is_among_the_dead_letters_with_its_reason(
    queue: FullQueue,
) -> None:
    await queue.put([event()])
    await (await take_one(queue)).retry(0.0, FAILURE)
    last = replace_reason("task-unknown")
    await (await take_one(queue)).bury(last)
    (letter,) = await queue.dead(EXPORT, limit=10)
    assert letter.message == event()
    assert (letter.lane, letter.attempts, letter.failure) == ("export", 2, last)
    assert (await queue.depth(EXPORT)).dead == 1


async def test_looking_at_dead_letters_leaves_them_where_they_are(queue: FullQueue) -> None:
    await bury(queue, "e1", "e2", "e3", "e4")
    for _ in range(3):
        assert [it.message.id for it in await queue.dead(EXPORT, limit=2)] == ["e1", "e2"]
    assert len(await queue.dead(EXPORT, limit=10)) == 4


async def test_dead_letters_outlive_a_process_that_was_looking(harness: Harness) -> None:
    async with opened(harness.queue()) as first:
        await bury(first, "e1", "e2")
        looking = asyncio.create_task(first.dead(EXPORT, limit=10))
        await asyncio.sleep(0)
        await harness.lose_leases()
        await asyncio.gather(looking, return_exceptions=True)
    async with opened(harness.queue()) as second:

        async def both_are_there() -> bool:
            found = await second.dead(EXPORT, limit=10)
            return [letter.message.id for letter in found] == ["e1", "e2"]

        await eventually(both_are_there)


async def test_a_replayed_dead_letter_begins_anew(queue: FullQueue) -> None:
    await bury(queue, "e1", "e2")
    letter = await queue.replay(EXPORT, "e2")
    assert letter is not None
    assert letter.message.id == "e2"
    lease = await take_one(queue)
    assert (lease.message.id, lease.attempt, lease.failure) == ("e2", 1, None)
    assert [it.message.id for it in await queue.dead(EXPORT, limit=10)] == ["e1"]


async def test_a_dropped_dead_letter_is_gone(queue: FullQueue) -> None:
    await bury(queue, "e1", "e2")
    letter = await queue.drop(EXPORT, "e1")
    assert letter is not None
    assert letter.message.id == "e1"
    assert [it.message.id for it in await queue.dead(EXPORT, limit=10)] == ["e2"]
    assert (await queue.depth(EXPORT)).ready == 0


async def test_there_is_nothing_to_replay_or_drop_under_an_unknown_id(queue: FullQueue) -> None:
    await bury(queue, "e1")
    assert await queue.replay(EXPORT, "other") is None
    assert await queue.drop(EXPORT, "other") is None
    assert await queue.replay(AUDIT, "e1") is None
    assert len(await queue.dead(EXPORT, limit=10)) == 1


@pytest.mark.parametrize("data", [b"\xff\x00 not JSON", b"", b'{"type":"event"}', b"[" * 100_000])
async def test_bytes_that_are_no_message_are_set_aside_and_the_lane_goes_on(
    harness: Harness, queue: FullQueue, data: bytes
) -> None:
    await harness.poison(EXPORT, data)
    await queue.put([event()])
    assert ids([await take_one(queue)]) == ["e1"]
    await eventually(lambda: has_dead(queue, 1))
    (letter,) = await queue.dead(EXPORT, limit=10)
    assert letter.failure.reason == "unreadable-message"
    assert isinstance(letter.message, Record)
    assert letter.message.fields["size"] == len(data)


async def test_unreadable_bytes_can_be_replayed_and_are_set_aside_again(
    harness: Harness, queue: FullQueue
) -> None:
    await harness.poison(EXPORT, b"nonsense")
    taking = asyncio.create_task(queue.take(EXPORT))
    await eventually(lambda: has_dead(queue, 1))
    (letter,) = await queue.dead(EXPORT, limit=10)
    assert await queue.replay(EXPORT, letter.message.id) == letter
    await eventually(lambda: has_dead(queue, 1))
    assert await queue.drop(EXPORT, letter.message.id) is not None
    taking.cancel()


# -------------------------------------------------------------------------------- stale leases


@pytest.mark.parametrize("verb", ["ack", "retry", "bury"])
async def test_a_verb_on_a_lost_lease_does_nothing(
    harness: Harness, queue: FullQueue, verb: str
) -> None:
    await queue.put([event()])
    lost = await take_one(queue)
    await harness.lose_leases()
    again = await take_one(queue)
    assert again.message == event()
    arguments = {"ack": (), "retry": (0.0, FAILURE), "bury": (FAILURE,)}[verb]
    await getattr(lost, verb)(*arguments)
    depth = await queue.depth(EXPORT)
    assert replace(depth, oldest_s=0.0) == replace(EMPTY, leased=1)
    await again.ack()
    await eventually(lambda: is_empty(queue, EXPORT))


async def test_only_the_first_verb_counts(queue: FullQueue) -> None:
    await queue.put([event()])
    lease = await take_one(queue)
    await lease.ack()
    await lease.bury(FAILURE)
    await lease.retry(0.0, FAILURE)
    await eventually(lambda: is_empty(queue, EXPORT))


async def test_a_lost_lease_is_delivered_again_without_counting_as_an_attempt(
    harness: Harness, queue: FullQueue
) -> None:
    await queue.put([event()])
    await take_one(queue)
    await harness.lose_leases()
    assert (await take_one(queue)).attempt == 1


async def test_a_queue_can_be_put_into_again_after_its_leases_were_lost(
    harness: Harness, queue: FullQueue
) -> None:
    await queue.put([event("e1")])
    await harness.lose_leases()
    await eventually(lambda: can_put(queue, event("e2")))
    assert {"e1", "e2"} <= set(ids(await take(queue, EXPORT, 2)))


# ----------------------------------------------------------------------------- exclusive lanes


async def test_an_exclusive_lane_has_one_consumer_at_a_time(harness: Harness) -> None:
    async with opened(harness.queue()) as second:
        async with opened(harness.queue()) as first:
            await first.put([event("e1")])
            await (await take_one(first, AUDIT)).ack()
            waiting = asyncio.create_task(take(second, AUDIT))
            await first.put([event(f"e{n}") for n in range(2, 8)])
            assert len(await take(first, AUDIT, 6)) == 6
            assert not waiting.done()
        assert ids(await waiting)[0] == "e2"


async def test_an_exclusive_lane_keeps_its_order(queue: FullQueue) -> None:
    everything = [f"e{n}" for n in range(50)]
    for name in everything:
        await queue.put([event(name)])
    seen: list[str] = []
    while len(seen) < len(everything):
        leases = await take(queue, AUDIT)
        seen += ids(leases)
        for lease in leases:
            await lease.ack()
    assert seen == everything


async def test_an_exclusive_lane_keeps_its_order_over_a_lost_lease(
    harness: Harness, queue: FullQueue
) -> None:
    everything = [f"e{n}" for n in range(10)]
    await queue.put([event(name) for name in everything])
    await take(queue, AUDIT, 10)
    await harness.lose_leases()
    assert ids(await take(queue, AUDIT, 10)) == everything


# -------------------------------------------------------------------- when it cannot be durable


async def test_a_queue_that_can_keep_a_message_is_ready(queue: FullQueue) -> None:
    await queue.ready()


async def test_a_put_fails_in_time_when_a_lane_is_gone(harness: Harness, queue: FullQueue) -> None:
    await queue.put([event("before")])
    await harness.remove(AUDIT)
    for n in range(3):
        async with asyncio.timeout(5.5):
            with pytest.raises(Transient) as failure:
                await queue.put([event(f"e{n}")])
        assert failure.value.reason == "queue-unavailable"


async def test_a_queue_is_not_ready_when_a_lane_is_gone(harness: Harness, queue: FullQueue) -> None:
    await harness.remove(AUDIT)
    async with asyncio.timeout(5.5):
        with pytest.raises(Transient):
            await queue.ready()


async def test_a_lane_stays_gone_although_somebody_is_taking_from_it(
    harness: Harness, queue: FullQueue
) -> None:
    taking = asyncio.create_task(queue.take(AUDIT))
    await queue.put([event("before")])
    await taking
    taking = asyncio.create_task(queue.take(AUDIT))
    await harness.remove(AUDIT)
    for n in range(10):
        await asyncio.wait([taking], timeout=0.1)
        with pytest.raises(Transient):
            await queue.put([event(f"e{n}")])
    taking.cancel()


async def test_a_put_fails_within_its_deadline_when_the_other_side_is_frozen(
    harness: Harness,
) -> None:
    loop = asyncio.get_running_loop()
    async with opened(harness.queue(put_deadline_s=0.5)) as queue:
        await queue.put([event("before")])
        await harness.freeze()
        for name in ("e1", "e2"):
            before = loop.time()
            with pytest.raises(Transient) as failure:
                await queue.put([event(name)])
            assert failure.value.reason == "queue-unavailable"
            assert loop.time() - before < 1.5
        with pytest.raises(Transient):
            await queue.ready()
        await harness.thaw()
        await eventually(lambda: can_put(queue, event("after")))
        seen: set[str] = set()
        while not {"before", "after"} <= seen:
            seen |= set(ids(await take(queue, EXPORT)))


async def test_numbers_come_or_fail_within_the_deadline_when_nobody_answers(
    harness: Harness,
) -> None:
    async with opened(harness.queue(put_deadline_s=0.5)) as queue:
        await harness.freeze()
        with contextlib.suppress(Transient):
            async with asyncio.timeout(2):
                await queue.depth(EXPORT)
        await harness.thaw()


async def test_a_frozen_queue_closes(harness: Harness) -> None:
    queue = harness.queue(put_deadline_s=0.5)
    await queue.open()
    taking = asyncio.create_task(queue.take(EXPORT))
    await asyncio.wait([taking], timeout=0.1)
    await harness.freeze()
    async with asyncio.timeout(9):
        await queue.close()
    await harness.thaw()
    await asyncio.gather(taking, return_exceptions=True)


# -------------------------------------------------------------------------------------- numbers


async def test_the_numbers_tell_how_a_lane_stands(queue: FullQueue) -> None:
    assert await queue.depth(EXPORT) == EMPTY
    await bury(queue, "dead")
    await queue.put([event(f"e{n}") for n in range(5)])
    lane = msgspec.structs.replace(EXPORT, batch=2)
    first, _ = await take(queue, lane, 2)
    await first.retry(30.0, FAILURE)
    depth = await queue.depth(EXPORT)
    assert replace(depth, oldest_s=0) == LaneDepth(ready=3, leased=1, waiting=1, dead=1, oldest_s=0)
    assert depth.oldest_s > 0


def replace_reason(reason: str) -> Failure:
    return msgspec.structs.replace(FAILURE, reason=reason)


async def has_dead(queue: FullQueue, number: int) -> bool:
    return (await queue.depth(EXPORT)).dead == number


async def bury(queue: FullQueue, *names: str) -> None:
    for name in names:
        await queue.put([event(name)])
        await (await take_one(queue)).bury(FAILURE)
    await eventually(lambda: has_dead(queue, len(names)))
