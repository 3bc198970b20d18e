"""The long-running process: it starts without the broker, stops in time, gives its work back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest

from consumer.errors import Permanent, Transient
from consumer.model import LaneSpec, Record
from consumer.serve import OVERDUE, Failed, Loop, Process
from tests.fakes_queue import FakeQueue

AUDIT = LaneSpec(name="audit", wants=("record",), exclusive=True)
STARTED = Record(id="1", kind="started")


def a_process(
    *, queue: FakeQueue | None = None, stop_s: float = 5.0, **lanes: Loop
) -> tuple[Process, FakeQueue]:
    queue = queue or FakeQueue([AUDIT])
    return Process(queue=queue, started=STARTED, stop_s=stop_s, lanes=lanes), queue


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def idle(stop: asyncio.Event) -> None:
    await stop.wait()


async def test_a_start_is_in_the_log_before_anything_else() -> None:
    process, queue = a_process(audit=idle)
    running = asyncio.create_task(process.run())
    await until(lambda: bool(queue.puts))
    process.stop.set()
    await running
    assert queue.puts == [[STARTED]]
    assert not queue.opened


async def test_it_waits_for_a_queue_that_is_not_there_yet_and_is_not_ready() -> None:
    process, queue = a_process(queue=FakeQueue([AUDIT], failing=Transient("queue-down")))
    running = asyncio.create_task(process.run())
    with pytest.raises(Transient) as caught:
        await process.check_queue()
    assert caught.value.reason == "starting"
    queue.failing = None
    await until(lambda: bool(queue.puts))
    await process.check_queue()
    process.stop.set()
    await running


async def test_a_stop_ends_the_wait_for_the_queue() -> None:
    process, _ = a_process(queue=FakeQueue([AUDIT], failing=Transient("queue-down")))
    running = asyncio.create_task(process.run())
    await asyncio.sleep(0)
    process.stop.set()
    await asyncio.wait_for(running, 2)


async def test_a_stop_ends_the_opening_of_a_queue_that_does_not_answer() -> None:
    asked = asyncio.Event()

    class Silent(FakeQueue):
        async def open(self) -> None:
            asked.set()
            await asyncio.Event().wait()

    process, _ = a_process(queue=Silent([AUDIT]))
    running = asyncio.create_task(process.run())
    await asked.wait()
    process.stop.set()
    await asyncio.wait_for(running, 2)


async def test_a_queue_that_a_person_must_mend_ends_it_with_a_sentence() -> None:
    wrong = Permanent("queue-mismatch", "the queue export has other arguments")
    process, _ = a_process(queue=FakeQueue([AUDIT], failing=wrong))
    with pytest.raises(Failed, match="the queue export has other arguments"):
        await process.run()


async def test_a_lane_that_ends_by_itself_ends_the_process() -> None:
    async def crashing(stop: asyncio.Event) -> None:
        raise Permanent("log-key", "the log in the lake has another key")

    process, queue = a_process(audit=crashing)
    with pytest.raises(Failed, match="lane audit: the log in the lake has another key"):
        await process.run()
    assert not queue.opened


async def test_ready_means_that_its_lanes_are_worked_on() -> None:
    begun = asyncio.Event()

    async def working(stop: asyncio.Event) -> None:
        begun.set()
        await stop.wait()

    process, _ = a_process(audit=working)
    with pytest.raises(Transient):
        await process.check_lane("audit")
    running = asyncio.create_task(process.run())
    await begun.wait()
    await process.check_lane("audit")
    process.stop.set()
    await running
    with pytest.raises(Transient) as caught:
        await process.check_queue()
    assert caught.value.reason == "stopping"


async def test_what_is_in_work_is_finished_before_it_ends() -> None:
    finished: list[str] = []

    async def working(stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(0.1)
        finished.append("done")

    process, queue = a_process(export=working)
    running = asyncio.create_task(process.run())
    await until(lambda: bool(queue.puts))
    process.stop.set()
    await running
    assert finished == ["done"]


async def test_what_does_not_finish_in_time_is_cancelled_while_the_queue_is_open() -> None:
    open_then: list[bool] = []

    async def stuck(stop: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            open_then.append(queue.opened)

    process, queue = a_process(stop_s=2.2, export=stuck)
    running = asyncio.create_task(process.run())
    await until(lambda: bool(queue.puts))
    process.stop.set()
    await asyncio.wait_for(running, 4)
    assert open_then == [True]
    assert not queue.opened


HANGS = """
import asyncio, time
from consumer.serve import end_at_the_latest

async def main():
    stop = asyncio.Event()
    last = asyncio.create_task(end_at_the_latest(stop, 1.0))
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    stop.set()
    await last

asyncio.run(main())
"""


async def test_a_thread_that_hangs_keeps_no_process_from_ending() -> None:
    """Python itself would wait for it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANGS, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == OVERDUE
    assert b"not stopped in time" in said
