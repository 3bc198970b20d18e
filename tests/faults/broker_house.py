"""A receiver that listens, and a real broker behind a proxy that misbehaves: what was answered, how
fast, and where each accepted event is afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import aiohttp
from aio_pika.abc import AbstractIncomingMessage

from consumer.app_adapters import make_inbox
from consumer.dispatch import Dispatcher
from consumer.errors import GroundwireError
from consumer.gather import Gatherer
from consumer.inbox import InboxQueue
from consumer.listener import Listener
from consumer.log.read import entries
from consumer.model import LaneSpec
from consumer.ports import Queue
from consumer.queues.rabbitmq import RabbitQueue
from consumer.receive import Receiver
from consumer.settings import Settings
from consumer.settings_values import Place
from consumer.telemetry import Metrics
from handlers import audit
from tests.contracts.queue_harness import RabbitHarness, eventually
from tests.fakes_platform import SOURCE, FakePlatform
from tests.handlers.lake_house import lake_house
from tests.proxy import Proxy
from tests.servers_rabbitmq import RabbitServer

EXPORT = LaneSpec(name="export", wants=("event",))
LANES = (EXPORT, audit.LANE)
POSTERS = 8
PAUSE_S = 0.05  # of a poster
ANSWERED_WITHIN_S = 5.0
BACK_WITHIN_S = 40.0
WRITTEN_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """To one request; ``began`` is the loop's time."""

    event_id: str
    status: int
    began: float
    took_s: float


@dataclass(slots=True)
class BrokerHouse:
    """``queue`` is what the receiver puts into; ``harness`` is how an operator sees the broker."""

    harness: RabbitHarness
    proxy: Proxy
    queue: Queue
    port: int
    http: aiohttp.ClientSession
    answers: list[Answer] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    async def post(self) -> Answer:
        """One webhook about a task of its own."""
        task = f"task-{next(self._numbers)}"
        began = asyncio.get_running_loop().time()
        url = f"http://127.0.0.1:{self.port}/hooks/{SOURCE}"
        async with self.http.post(url, data=task.encode(), params={"token": "right"}) as response:
            await response.read()
        took_s = asyncio.get_running_loop().time() - began
        answer = Answer(f"{task}-e1", response.status, began, took_s)
        self.answers.append(answer)
        return answer

    @contextlib.asynccontextmanager
    async def load(self, posters: int = POSTERS) -> AsyncIterator[None]:
        """Webhooks come all the time, and every one is answered."""
        over = asyncio.Event()

        async def posting() -> None:
            while not over.is_set():
                await self.post()
                await asyncio.sleep(PAUSE_S)

        async with asyncio.TaskGroup() as group:
            for _ in range(posters):
                group.create_task(posting())
            yield
            over.set()

    def accepted(self, since: float = 0.0) -> set[str]:
        return {one.event_id for one in self.answers if one.status == 202 and one.began >= since}

    def late_or_wrong(self) -> list[Answer]:
        return [
            one
            for one in self.answers
            if one.status not in (202, 503) or one.took_s >= ANSWERED_WITHIN_S
        ]

    async def back(self) -> None:
        """Returns when a webhook reaches the broker again, and nothing waits in the inbox."""
        await self.proxy.heal()

        async def is_well() -> bool:
            with contextlib.suppress(GroundwireError):
                await self.queue.ready()
                return self._is_idle() and (await self.post()).status == 202
            return False

        await eventually(is_well, within_s=BACK_WITHIN_S, every_s=0.1)

    def _is_idle(self) -> bool:
        if not isinstance(self.queue, InboxQueue):
            return True
        state = self.queue.state()
        return state.away is None and state.waiting == 0

    async def in_lane(self, lane: LaneSpec) -> Counter[str]:
        """How often each event is in a lane's queue, which is emptied."""
        found: Counter[str] = Counter()
        async with self.harness.channel() as channel:
            queue = await channel.declare_queue(self.harness.name(lane), passive=True)
            held = queue.declaration_result.message_count or 0

            async def count_it(message: AbstractIncomingMessage) -> None:
                found[message.message_id or ""] += 1

            await queue.consume(count_it, no_ack=True)

            async def is_all() -> bool:
                return found.total() >= held

            await eventually(is_all)
        return found

    async def receipts(self) -> Counter[str]:
        """How often each event is in a log, once everything in the lane ``audit`` is in it."""
        queue = RabbitQueue(self.harness.server.url, LANES, prefix=self.harness.prefix)
        await queue.open()

        async def is_empty() -> bool:
            depth = await queue.depth(audit.LANE)
            return depth.ready == depth.leased == 0

        async with lake_house() as lake:
            stop = asyncio.Event()
            ports = replace(lake.ports, log=lake.log)
            dispatcher = Dispatcher(audit, queue, ports, Metrics())
            writing = asyncio.create_task(dispatcher.run(stop))
            await eventually(is_empty, within_s=WRITTEN_WITHIN_S)
            stop.set()
            await writing
            await queue.close()
            kept = [entry.data async for entry in entries(lake.store)]
        return Counter(one["id"].removeprefix("receipt:") for one in kept)

    def figures(self) -> str:
        """For whoever measures."""
        took = sorted(one.took_s for one in self.answers)
        return (
            f"{len(took)} requests, {len(self.accepted())} accepted,"
            f" median {statistics.median(took) * 1000:.0f} ms, worst {took[-1] * 1000:.0f} ms"
        )


@contextlib.asynccontextmanager
async def broker_house(
    server: RabbitServer, folder: Path, *, inbox: bool, started: bool = True
) -> AsyncIterator[BrokerHouse]:
    """``started``: the receiver has reached the broker once."""
    async with Proxy(server.port) as proxy, aiohttp.ClientSession() as http:
        harness = RabbitHarness(server, proxy)
        broker = harness.queue(lanes=LANES)
        place = Place(f"sqlite://{folder}/inbox.db") if inbox else None
        queue: Queue = make_inbox(Settings(inbox=place), broker) or broker
        app = Receiver(
            {SOURCE: FakePlatform()}, Gatherer(queue).put, Metrics([SOURCE])
        ).application()
        listener = Listener(app, header_timeout_s=5, stop_s=1)
        await queue.open()
        house = BrokerHouse(harness, proxy, queue, await listener.start("127.0.0.1", 0), http)
        if started:
            await house.back()
        yield house
        await listener.stop()
        await queue.close()
        await harness.sweep()
