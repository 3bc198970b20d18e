"""Full collections wait until few are connected."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from consumer.collecting import QUIET, collect_when_quiet


class Loop:
    """Makes itself unreachable, and knows whether it is still there."""

    def __init__(self) -> None:
        self.own = self
        Loop.alive += 1

    alive = 0

    def __del__(self) -> None:
        Loop.alive -= 1


def _age() -> None:
    """An old one is dropped, and the middle-aged were collected often since."""
    Loop.alive = 0
    one = Loop()
    for _ in range(30):
        gc.collect(1)
    del one


async def test_a_crowd_is_not_held_up_and_what_is_left_is_collected_when_it_has_gone() -> None:
    stop, connected, looks = asyncio.Event(), [QUIET + 1], [0]

    def connections() -> int:
        looks[0] += 1
        return connected[0]

    running = asyncio.create_task(collect_when_quiet(stop, connections, look_s=0.01))
    await asyncio.sleep(0)
    _age()
    junk = [[n] for n in range(200_000)]  # by default this would end in full collections
    del junk
    await _until(lambda: looks[0] > 5)
    assert Loop.alive == 1
    connected[0] = QUIET
    await _until(lambda: Loop.alive == 0)
    stop.set()
    await running


async def test_a_crowd_that_does_not_go_is_held_up_after_long() -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(
        collect_when_quiet(stop, lambda: QUIET + 1, look_s=0.01, longest_s=0.02)
    )
    await asyncio.sleep(0)
    _age()
    await _until(lambda: Loop.alive == 0)
    stop.set()
    await running


async def test_python_collects_by_itself_again_afterwards() -> None:
    before = gc.get_threshold()
    stop = asyncio.Event()
    running = asyncio.create_task(collect_when_quiet(stop, lambda: 0))
    await asyncio.sleep(0)
    assert gc.get_threshold() != before
    stop.set()
    await running
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
