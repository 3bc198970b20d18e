"""Blocking calls stay off the event loop, are given up in time, and keep no process alive."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from consumer.errors import Conflict, Transient
from consumer.stores.threads import Threads


async def test_what_a_call_raises_is_raised() -> None:
    def call() -> None:
        raise Conflict("a")

    with pytest.raises(Conflict):
        await Threads(1, deadline_s=5).run(call)


async def test_calls_run_side_by_side_in_as_many_threads_as_were_asked_for() -> None:
    threads = Threads(3, deadline_s=10)
    together = threading.Barrier(3)
    await asyncio.gather(*(threads.run(together.wait) for _ in range(3)))


async def test_a_call_that_takes_too_long_is_given_up_and_its_thread_comes_back() -> None:
    threads = Threads(1, deadline_s=0.05)
    goes_on = threading.Event()
    with pytest.raises(Transient) as caught:
        await threads.run(goes_on.wait)
    assert caught.value.reason == "store-slow"
    goes_on.set()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await threads.run(lambda: 1) == 1
                break
            except Transient:
                continue


async def test_a_call_that_waits_for_a_thread_and_is_given_up_never_runs() -> None:
    threads = Threads(1, deadline_s=10)
    goes_on = threading.Event()
    ran: list[str] = []
    first = asyncio.create_task(threads.run(goes_on.wait))
    second = asyncio.create_task(threads.run(lambda: ran.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    goes_on.set()
    await first
    await threads.run(lambda: ran.append("third"))
    assert ran == ["third"]


async def test_a_closed_store_takes_no_calls() -> None:
    threads = Threads(1, deadline_s=5)
    await threads.run(lambda: None)
    threads.close()
    with pytest.raises(RuntimeError):
        await threads.run(lambda: None)


def test_a_call_that_hangs_keeps_no_process_alive() -> None:
    program = (
        "import asyncio, threading\n"
        "from consumer.stores.threads import Threads\n"
        "threads = Threads(1, deadline_s=0.05)\n"
        "try:\n"
        "    asyncio.run(threads.run(threading.Event().wait))\n"
        "except Exception as error:\n"
        "    print(error.reason)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stdout == "store-slow\n"
    assert run.stderr == ""
