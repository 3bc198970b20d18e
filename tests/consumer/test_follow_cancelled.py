"""A follower's loop that is cancelled ends, whatever it is doing just then."""

from __future__ import annotations

import asyncio

import pytest

from tests.consumer.follow_house import FakeLog, FollowHouse

TURNS = 60  # of the event loop: several rounds of the follower's


class Growing(FakeLog):
    """There is always something new, a little later."""

    async def wait(self, beyond: int, timeout_s: float) -> int:
        await asyncio.sleep(0)
        self.append()
        return len(self.entries)


@pytest.mark.parametrize("turns", range(TURNS))
async def test_one_cancellation_is_enough(turns: int) -> None:
    house = FollowHouse()
    house.log = Growing(house.stop)
    house.log.append()
    running = asyncio.create_task(house.following().run(house.stop))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    ended = running.done()
    house.stop.set()
    await asyncio.wait({running})
    assert ended
