"""A worker with a handler that one message kills, as memory running out would: at once, with no
word to anybody. It ends when its lane is empty.

Arguments: where the queue is (a file, or an AMQP URL and a prefix behind ``#``), the culprit's id,
a file that gets a line for each message that was handled, and a seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from consumer.dispatch import Dispatcher
from consumer.model import LaneSpec
from consumer.ports import Ports, Result, Work
from consumer.queues.rabbitmq import RabbitQueue
from consumer.queues.sqlite import SqliteQueue
from consumer.telemetry import Metrics

EXPORT = LaneSpec(name="export", wants=("event",))
AUDIT = LaneSpec(name="audit", wants=("outcome", "record"), exclusive=True)
LOOK_S = 0.1


class Killed:
    """The handler. In which order it does its batch is chance, as it is with many tasks at once."""

    LANE = EXPORT

    def __init__(self, culprit: str, done: Path, rng: random.Random) -> None:
        self.culprit = culprit
        self.done = os.open(done, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.rng = rng

    async def handle(
        self, batch: Sequence[Work], ports: Ports
    ) -> AsyncIterator[tuple[Work, Result]]:
        for work in self.rng.sample(batch, len(batch)):
            await asyncio.sleep(0)
            if work.message.id == self.culprit:
                os._exit(9)
            os.write(self.done, f"{work.message.id} {work.attempt}\n".encode())
            yield work, None


def make_queue(place: str) -> SqliteQueue | RabbitQueue:
    if not place.startswith("amqp"):
        return SqliteQueue(Path(place), (EXPORT, AUDIT))
    url, _, prefix = place.partition("#")
    return RabbitQueue(url, (EXPORT, AUDIT), prefix=prefix, steps_s=(0.2, 30.0))


async def main(place: str, culprit: str, done: str, seed: str) -> None:
    queue = make_queue(place)
    await queue.open()
    handler = Killed(culprit, Path(done), random.Random(seed))
    ports = SimpleNamespace(clock=lambda: datetime.now(UTC))
    dispatcher = Dispatcher(
        cast(Any, handler), cast(Any, queue), cast(Any, ports), Metrics(("a",)), concurrency=4
    )
    stop = asyncio.Event()
    running = asyncio.create_task(dispatcher.run(stop))
    while not await is_empty(queue):
        await asyncio.wait([running], timeout=LOOK_S)
    stop.set()
    await running
    await queue.close()


async def is_empty(queue: SqliteQueue | RabbitQueue) -> bool:
    """Nothing is left but the one dead letter."""
    depth = await queue.depth(EXPORT)
    return depth.ready + depth.leased + depth.waiting == 0 and depth.dead == 1


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
