"""What the queues can tell of messages that were lost with whoever had them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from consumer.model import Failure
from consumer.ports import ALONE_AFTER, Lease
from consumer.queues.rabbitmq import RabbitQueue
from consumer.queues.sqlite import SqliteQueue
from tests.contracts.queue_harness import AUDIT, EXPORT, RabbitHarness, SqliteHarness
from tests.fakes_platform import event
from tests.proxy import Proxy
from tests.servers_rabbitmq import RabbitServer

FAILURE = Failure(reason="platform-down", message="", at="2026-01-02T03:04:05.000000Z")

# Takes once from a lane, says so, and waits to be killed.
TAKER = """
import asyncio, sys
from pathlib import Path
from consumer.queues.sqlite import SqliteQueue
from tests.contracts.queue_harness import AUDIT, EXPORT

async def main(path, lane):
    queue = SqliteQueue(Path(path), (EXPORT, AUDIT))
    await queue.open()
    print(len(await queue.take(EXPORT if lane == "export" else AUDIT)), flush=True)
    await asyncio.Future()

asyncio.run(main(*sys.argv[1:]))
"""


async def opened(queue: SqliteQueue) -> SqliteQueue:
    await queue.open()
    return queue


async def taken_and_killed(harness: SqliteHarness, lane: str = "export") -> int:
    """A process takes a batch and dies with it; the batch's size."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TAKER, str(harness.path), lane, stdout=PIPE
    )
    assert process.stdout is not None
    size = int(await asyncio.wait_for(process.stdout.readline(), 30))
    process.send_signal(signal.SIGKILL)
    await process.wait()
    return size


async def take(queue: SqliteQueue | RabbitQueue) -> Sequence[Lease]:
    async with asyncio.timeout(20):
        return await queue.take(EXPORT)


def losses(leases: Sequence[Lease]) -> dict[str, int]:
    return {lease.message.id: lease.losses for lease in leases}


@pytest.fixture
def file(tmp_path: Path) -> SqliteHarness:
    return SqliteHarness(tmp_path)


async def test_a_process_that_dies_loses_what_it_had_and_only_that(file: SqliteHarness) -> None:
    queue = await opened(file.queue())
    await queue.put([event(f"t{n}") for n in range(12)])
    assert await taken_and_killed(file) == 10
    first = await take(queue)
    assert losses(first) == {f"t{n}-e1": 1 for n in range(10)}
    assert losses(await take(queue)) == {"t10-e1": 0, "t11-e1": 0}
    await queue.close()


async def test_what_was_lost_again_comes_alone_and_one_at_a_time(file: SqliteHarness) -> None:
    queue = await opened(file.queue())
    await queue.put([event(f"t{n}") for n in range(3)])
    for _ in range(ALONE_AFTER):
        assert await taken_and_killed(file) == 3
    await queue.put([event("t3")])
    (alone,) = await take(queue)
    assert losses([alone]) == {"t0-e1": ALONE_AFTER}
    assert losses(await take(queue)) == {"t3-e1": 0}, "another alone beside the first"
    await alone.ack()
    assert losses(await take(queue)) == {"t1-e1": ALONE_AFTER}
    await queue.close()


async def test_what_merely_waits_to_be_handled_alone_is_not_lost_with_the_process(
    file: SqliteHarness,
) -> None:
    queue = await opened(file.queue())
    await queue.put([event("t0"), event("t1")])
    for _ in range(ALONE_AFTER):
        await taken_and_killed(file)
    for _ in range(3):
        assert await taken_and_killed(file) == 1
    (first,) = await take(queue)
    await first.ack()
    assert losses(await take(queue)) == {"t1-e1": ALONE_AFTER}
    assert losses([first]) == {"t0-e1": ALONE_AFTER + 3}
    await queue.close()


@pytest.mark.parametrize("counted", [True, False])
async def test_a_verb_forgets_what_was_lost_before(file: SqliteHarness, counted: bool) -> None:
    queue = await opened(file.queue())
    await queue.put([event("t0")])
    await taken_and_killed(file)
    (lease,) = await take(queue)
    await lease.retry(0.0, FAILURE, counted=counted)
    assert losses(await take(queue)) == {"t0-e1": 0}
    await queue.close()


async def test_what_is_given_back_at_the_end_is_not_lost(file: SqliteHarness) -> None:
    queue = await opened(file.queue())
    await queue.put([event("t0")])
    await take(queue)
    await queue.close()
    again = await opened(file.queue())
    assert losses(await take(again)) == {"t0-e1": 0}
    await again.close()


async def test_a_lease_whose_time_ran_out_makes_suspect_and_never_guilty(
    file: SqliteHarness,
) -> None:
    queue = await opened(file.queue())
    await queue.put([event("t0")])
    seen = []
    for _ in range(10):
        seen += losses(await take(queue)).values()
        await file.lose_leases()
    assert seen == [0, 1] + [ALONE_AFTER] * 8
    await queue.close()


async def test_an_exclusive_lane_keeps_its_order_whatever_was_lost(file: SqliteHarness) -> None:
    queue = await opened(file.queue())
    await queue.put([event("t0"), event("t1")])
    for _ in range(ALONE_AFTER + 1):
        assert await taken_and_killed(file, "audit") == 2
    await queue.put([event("t2")])
    async with asyncio.timeout(20):
        found = await queue.take(AUDIT)
    assert [lease.message.id for lease in found] == ["t0-e1", "t1-e1", "t2-e1"]
    await queue.close()


async def test_a_file_of_a_release_that_counted_no_losses_is_completed(
    file: SqliteHarness,
) -> None:
    queue = await opened(file.queue())
    await queue.put([event("t0")])
    await queue.close()
    with contextlib.closing(sqlite3.connect(file.path)) as db:
        db.execute("ALTER TABLE messages DROP COLUMN losses")
    again = await opened(file.queue())
    assert losses(await take(again)) == {"t0-e1": 0}
    await again.close()


@pytest.fixture
async def broker(rabbitmq_server: RabbitServer) -> AsyncIterator[RabbitHarness]:
    async with Proxy(rabbitmq_server.port) as proxy:
        harness = RabbitHarness(rabbitmq_server, proxy)
        yield harness
        await harness.sweep()


async def test_connections_dropped_again_and_again_make_nobody_suspect_in_one_process(
    broker: RabbitHarness,
) -> None:
    queue = broker.queue()
    await queue.open()
    await queue.put([event(f"t{n}") for n in range(5)])
    for _ in range(20):
        found: dict[str, int] = {}
        while len(found) < 5:
            found |= losses(await take(queue))
        assert set(found.values()) == {0}
        broker.proxy.cut()
    await queue.close()


async def test_dropped_between_living_processes_it_is_suspect_and_never_guilty(
    broker: RabbitHarness,
) -> None:
    """Each names itself once, so there are never more losses than processes."""
    queues = [broker.queue() for _ in range(3)]
    for queue in queues:
        await queue.open()
    await queues[0].put([event("t0")])
    most = 0
    for _ in range(25):
        takes = [asyncio.create_task(queue.take(EXPORT)) for queue in queues]
        done, left = await asyncio.wait(takes, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        most = max(most, *(lease.losses for one in done for lease in one.result()))
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        broker.proxy.cut()
    assert most <= 3
    for queue in queues:
        await queue.close()


async def test_lost_by_dead_processes_a_message_comes_alone_while_its_neighbours_wait_untouched(
    broker: RabbitHarness,
) -> None:
    """A queue that is closed gives back as the broker does for a process that died."""
    first = broker.queue()
    await first.open()
    await first.put([event("t0"), event("t1")])
    seen: list[int] = []
    for _ in range(5):
        queue = broker.queue()
        await queue.open()
        found = await take(queue)
        seen.append(max(lease.losses for lease in found))
        if seen[-1] >= ALONE_AFTER:
            assert len(found) == 1
        await queue.close()
    await first.close()
    assert seen == sorted(seen)
    assert seen[-1] > ALONE_AFTER


async def test_a_verb_wipes_the_names_of_the_lost(broker: RabbitHarness) -> None:
    first = broker.queue()
    await first.open()
    await first.put([event("t0")])
    await take(first)
    await first.close()
    second = broker.queue()
    await second.open()
    (lease,) = await take(second)
    assert lease.losses == 1
    await lease.retry(0.0, FAILURE)
    assert losses(await take(second)) == {"t0-e1": 0}
    await second.close()
