"""A message that kills every process which handles it is buried, and nobody else with it."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest

from consumer.model import Record
from consumer.ports import ALONE_AFTER
from consumer.suspects import LOSSES_ALONE
from tests.fakes_platform import event
from tests.faults.killing_child import AUDIT, EXPORT, make_queue
from tests.seeds import seeds

EVENTS = 300
PER_DEATH = 260  # what four batches of 64 can have in work, and a little


@pytest.fixture(params=["sqlite", "rabbitmq"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "queue.db")
        return
    url = request.getfixturevalue("rabbitmq_server").url
    prefix = f"kills-{secrets.token_hex(4)}"
    yield f"{url}#{prefix}"
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for lane in (EXPORT, AUDIT):
            for end in ("", ".killed", ".dead", ".wait.200ms", ".wait.30000ms"):
                await channel.queue_delete(f"{prefix}.{lane.name}{end}")


async def run_until_it_ends(place: str, culprit: str, done: Path, rng: random.Random) -> int:
    """As a supervisor would; how often it died."""
    for deaths in range(20):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.killing_child"),
            *(place, culprit, str(done), str(rng.random())),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await asyncio.wait_for(child.wait(), 60) == 0:
            return deaths
    raise AssertionError("it dies and dies")


@pytest.mark.parametrize("seed", seeds(0.05))
async def test_a_message_that_kills_its_process_is_buried_alone(
    seed: int, place: str, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    events = [event(f"t{number}", source="a") for number in range(EVENTS)]
    culprit = rng.choice(events)
    queue = make_queue(place)
    await queue.open()
    await queue.put(events)
    deaths = await run_until_it_ends(place, culprit.id, tmp_path / "done", rng)
    (letter,) = await queue.dead(EXPORT, limit=10)
    assert (letter.message, letter.failure.reason) == (culprit, "handler-kills")
    assert deaths == ALONE_AFTER + LOSSES_ALONE
    handled = [line.split() for line in (tmp_path / "done").read_text().splitlines()]
    assert {name for name, _ in handled} == {one.id for one in events if one != culprit}
    assert {attempt for _, attempt in handled} == {"1"}
    again = Counter(name for name, _ in handled)
    assert sum(again.values()) - len(again) <= PER_DEATH
    told = await queue.take(AUDIT)
    assert [it.message.kind for it in told if isinstance(it.message, Record)] == ["buried"]
    await queue.close()
