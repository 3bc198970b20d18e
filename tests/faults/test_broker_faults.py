"""A real broker that is away in every way that brokers are, with webhooks coming all the time:
every one is answered within 5 s, and whatever was accepted is found afterwards, once in the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.faults.broker_house import EXPORT, LANES, BrokerHouse, broker_house
from tests.seeds import seeds
from tests.servers_rabbitmq import RabbitServer

FAULTS = ("down", "black hole", "no greeting", "resets", "memory alarm", "disk alarm", "queue gone")
SCRIPT = 3  # faults of one seed
LONGEST_S = 2.0  # of one fault


@asynccontextmanager
async def suffering(house: BrokerHouse, fault: str, rng: random.Random) -> AsyncIterator[None]:
    """The fault, until the end of the block."""
    match fault:
        case "down":
            await house.proxy.refuse()
        case "black hole":  # what is sent over open connections disappears
            house.proxy.swallow()
        case "no greeting":  # connections are taken, and nobody speaks
            house.proxy.swallow()
            house.proxy.cut()
        case "resets":
            house.proxy.keep_cutting(rng, 0.2, 2.0)
        case "memory alarm":
            await operator(house, "set_vm_memory_high_watermark", "0")
        case "disk alarm":
            await operator(house, "set_disk_free_limit", "1000000GB")
        case "queue gone":
            await house.harness.remove(EXPORT)
    yield
    match fault:
        case "memory alarm":
            await operator(house, "set_vm_memory_high_watermark", "0.4")
        case "disk alarm":
            await operator(house, "set_disk_free_limit", "1MB")
        case "queue gone":  # as the next start of any process does
            queue = house.harness.queue(lanes=LANES)
            await queue.open()
            await queue.close()
    await house.proxy.heal()


async def operator(house: BrokerHouse, *said: str) -> None:
    await asyncio.to_thread(house.harness.server.control, *said)


@pytest.mark.parametrize("inbox", [False, True], ids=["without inbox", "with inbox"])
@pytest.mark.parametrize("seed", seeds(0.05))
async def test_whatever_happens_to_the_broker_answers_come_in_time_and_nothing_is_lost(
    seed: int, inbox: bool, rabbitmq_server: RabbitServer, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    faults = rng.sample(FAULTS, SCRIPT)
    gone_at = 0.0
    with capture_logs():
        async with broker_house(rabbitmq_server, tmp_path, inbox=inbox) as house:
            async with house.load():
                for fault in faults:
                    async with suffering(house, fault, rng):
                        if fault == "queue gone":  # and with it what was in it
                            gone_at = asyncio.get_running_loop().time()
                        await asyncio.sleep(rng.uniform(0.3, LONGEST_S))
            await house.back()
            receipts, exports = await house.receipts(), await house.in_lane(EXPORT)
    assert house.late_or_wrong() == []
    accepted = house.accepted()
    assert accepted
    assert accepted - receipts.keys() == set()
    assert set(receipts.values()) == {1}
    assert house.accepted(gone_at) - exports.keys() == set()
    if inbox:
        assert {one.status for one in house.answers} == {202}


@pytest.mark.parametrize("seed", seeds(0.05))
async def test_a_broker_that_is_killed_has_all_that_was_accepted_when_it_is_started_again(
    seed: int, rabbitmq_server: RabbitServer, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    with capture_logs():
        async with broker_house(rabbitmq_server, tmp_path, inbox=bool(seed % 2)) as house:
            async with house.load():
                await asyncio.sleep(rng.uniform(0.5, 1.5))
                await asyncio.to_thread(rabbitmq_server.kill)
                await asyncio.sleep(rng.uniform(0.1, 1.0))
                await asyncio.to_thread(rabbitmq_server.start)
            await house.back()
            receipts, exports = await house.receipts(), await house.in_lane(EXPORT)
    assert house.late_or_wrong() == []
    assert house.accepted()
    assert house.accepted() - receipts.keys() == set()
    assert set(receipts.values()) == {1}
    assert house.accepted() - exports.keys() == set()
