"""Several processes at one SQLite file, and what their deaths and pauses do to it.

Leases last 30 s here, so whatever comes sooner came because the death was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.model import Action, Failure, LaneSpec, TaskEvent
from consumer.ports import Lease
from consumer.queues.sqlite import SqliteQueue
from tests.contracts.queue_harness import AUDIT, EXPORT, SqliteHarness

FAILURE = Failure(reason="platform-down", message="it is down", at="2026-01-02T03:04:05.000000Z")

# Takes from a lane and prints each id; acknowledges at once, or all when it is told to, or never.
OTHER = """
import asyncio, sys
from pathlib import Path
from consumer.queues.sqlite import SqliteQueue
from tests.contracts.queue_harness import LANES

async def main(path, lane_name, what):
    lane = {lane.name: lane for lane in LANES}[lane_name]
    queue = SqliteQueue(Path(path), LANES)
    await queue.open()
    while True:
        for lease in await queue.take(lane):
            if what == "ack":
                await lease.ack()
            print(lease.message.id, flush=True)
            if what == "ask":
                await asyncio.to_thread(sys.stdin.readline)
                await lease.ack()
                print("acknowledged", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def harness(tmp_path: Path) -> SqliteHarness:
    return SqliteHarness(tmp_path)


@pytest.fixture
async def queue(harness: SqliteHarness) -> AsyncIterator[SqliteQueue]:
    queue = harness.queue()
    await queue.open()
    yield queue
    await queue.close()


@contextlib.asynccontextmanager
async def other_process(path: Path, lane: LaneSpec, what: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER, str(path), lane.name, what, stdin=PIPE, stdout=PIPE
    )
    try:
        yield process
    finally:
        await kill(process)


async def kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def says(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()


def event(name: str = "e1") -> TaskEvent:
    return TaskEvent(
        id=name,
        source="redbrick",
        project="p",
        task="t",
        action=Action.MOVE,
        received_at="2026-01-02T03:04:05.000000Z",
        body_sha256="0" * 64,
    )


async def take_one(queue: SqliteQueue, lane: LaneSpec = EXPORT, *, within_s: float = 20) -> Lease:
    async with asyncio.timeout(within_s):
        (lease,) = await queue.take(lane)
    return lease


async def nothing_comes(queue: SqliteQueue, lane: LaneSpec = EXPORT) -> None:
    with pytest.raises(TimeoutError):
        await take_one(queue, lane, within_s=0.7)  # a take looks several times


def holders(harness: SqliteHarness) -> list[str]:
    return [path.name for path in harness.path.with_name("queue.db-holders").iterdir()]


async def test_two_processes_share_the_work(harness: SqliteHarness, queue: SqliteQueue) -> None:
    everything = {f"e{n}" for n in range(200)}
    async with other_process(harness.path, EXPORT, "ack") as other:
        await queue.put([event("warm")])
        assert await says(other) == "warm"
        await queue.put([event(name) for name in sorted(everything)])
        here: list[str] = []
        with contextlib.suppress(TimeoutError):
            while True:
                for lease in await asyncio.wait_for(queue.take(EXPORT), 2):
                    here.append(lease.message.id)
                    await lease.ack()
        other.terminate()
        assert other.stdout is not None
        there = (await other.stdout.read()).decode().split()
    assert sorted([*here, *there]) == sorted(everything)


async def test_what_a_killed_process_had_leased_comes_within_a_second(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    await queue.put([event()])
    async with other_process(harness.path, EXPORT, "keep") as other:
        assert await says(other) == "e1"
        await kill(other)
        lease = await take_one(queue, within_s=1)
    assert (lease.message.id, lease.attempt) == ("e1", 1)


async def test_the_next_start_has_it_within_a_second_too(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    await queue.put([event()])
    async with other_process(harness.path, EXPORT, "keep") as other:
        assert await says(other) == "e1"
        await kill(other)
    restarted = harness.queue()
    await restarted.open()
    assert (await take_one(restarted, within_s=1)).message.id == "e1"
    await restarted.close()


async def test_a_death_ends_nobody_else_s_leases(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    await queue.put([event("ours")])
    await take_one(queue)
    await queue.put([event("theirs")])
    async with other_process(harness.path, EXPORT, "keep") as other:
        assert await says(other) == "theirs"
        await kill(other)
    assert (await take_one(queue, within_s=1)).message.id == "theirs"
    await nothing_comes(queue)
    assert (await queue.depth(EXPORT)).leased == 2


async def test_a_living_process_keeps_its_leases(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    await queue.put([event()])
    async with other_process(harness.path, EXPORT, "keep") as other:
        assert await says(other) == "e1"
        await nothing_comes(queue)


async def test_two_queues_of_one_process_keep_their_leases_from_each_other(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    second = harness.queue()
    await second.open()
    await queue.put([event()])
    lease = await take_one(second)
    await nothing_comes(queue)
    await lease.ack()
    assert (await queue.depth(EXPORT)).leased == 0
    await second.close()


async def test_an_exclusive_lane_passes_on_within_a_second_when_its_consumer_is_killed(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    await queue.put([event("e1")])
    async with other_process(harness.path, AUDIT, "ack") as other:
        assert await says(other) == "e1"
        await queue.put([event("e2")])
        await nothing_comes(queue, AUDIT)
        assert await says(other) == "e2"
        await kill(other)
        await queue.put([event("e3")])
        assert (await take_one(queue, AUDIT, within_s=1)).message.id == "e3"


async def test_a_stopped_process_loses_its_leases_by_time_and_can_end_none_when_it_wakes(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    await queue.put([event()])
    async with other_process(harness.path, EXPORT, "ask") as other:
        assert await says(other) == "e1"
        other.send_signal(signal.SIGSTOP)
        await nothing_comes(queue)
        await harness.lose_leases()
        ours = await take_one(queue)
        other.send_signal(signal.SIGCONT)
        assert other.stdin is not None
        other.stdin.write(b"\n")
        assert await says(other) == "acknowledged"
        await ours.retry(0, FAILURE)
        assert (await take_one(queue)).attempt == 2


async def test_where_its_lock_is_lost_a_killed_process_loses_its_leases_by_time(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    await queue.put([event()])
    async with other_process(harness.path, EXPORT, "keep") as other:
        assert await says(other) == "e1"
        shutil.rmtree(harness.path.with_name("queue.db-holders"))
        await kill(other)
        await nothing_comes(queue)
        await harness.lose_leases()
        assert (await take_one(queue)).message.id == "e1"


async def test_only_the_living_have_files(harness: SqliteHarness) -> None:
    queue = harness.queue()
    await queue.open()
    await queue.put([event()])
    async with other_process(harness.path, EXPORT, "keep") as other:
        assert await says(other) == "e1"
        assert len(holders(harness)) == 2
        await kill(other)
        await take_one(queue)
        assert len(holders(harness)) == 1
    await queue.close()
    assert holders(harness) == []


async def test_a_queue_that_could_not_give_back_as_it_closed_counts_as_dead(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    hasty = harness.queue(put_deadline_s=0.1)
    await hasty.open()
    await queue.put([event()])
    await take_one(hasty)
    await harness.freeze()
    await hasty.close()
    await harness.thaw()
    assert (await take_one(queue, within_s=1)).message.id == "e1"
