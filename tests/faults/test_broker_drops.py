"""Connections that drop a thousand times: every drop counts toward the broker's delivery limit, and
no innocent event is given up for it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import aio_pika
import pytest

from consumer.dispatch import Dispatcher
from consumer.model import LaneSpec
from consumer.ports import ALONE_AFTER, Ports, Result, Work
from consumer.queues.topology import KILLED_AFTER
from consumer.telemetry import Metrics
from tests.contracts.queue_harness import EXPORT, RabbitHarness, eventually
from tests.fakes_platform import event
from tests.handlers.export_house import House
from tests.proxy import Proxy
from tests.seeds import seeds
from tests.servers_rabbitmq import RabbitServer

EVENTS = 6
CUTS = 25
PROCESSES = 8


class Slow:
    """A handler that is at work when the connection drops, each time, and then is too late."""

    LANE: LaneSpec = EXPORT

    def __init__(self) -> None:
        self.attempts: Counter[int] = Counter()
        self.sizes: Counter[int] = Counter()
        self.done: set[str] = set()
        self.at_work = asyncio.Event()
        self.may_finish = asyncio.Event()

    def drop(self) -> None:
        """Whatever is at work is over, in vain."""
        before, self.may_finish = self.may_finish, asyncio.Event()
        self.at_work.clear()
        before.set()

    async def handle(
        self, batch: Sequence[Work], ports: Ports
    ) -> AsyncIterator[tuple[Work, Result]]:
        self.sizes[len(batch)] += 1
        self.at_work.set()
        await self.may_finish.wait()
        for work in batch:
            self.attempts[work.attempt] += 1
            self.done.add(work.message.id)
            yield work, None


@pytest.mark.parametrize("seed", seeds(0.05))
async def test_a_thousand_dropped_connections_give_up_no_innocent_event(
    seed: int, rabbitmq_server: RabbitServer
) -> None:
    rng = random.Random(seed)
    async with Proxy(rabbitmq_server.port) as proxy:
        broker = RabbitHarness(rabbitmq_server, proxy)
        queue, handler, stop = broker.queue(), Slow(), asyncio.Event()
        await queue.open()
        await queue.put([event(f"t{number}") for number in range(EVENTS)])
        await deliver_in_vain(broker, 1)  # to another process, which is noted once
        dispatcher = Dispatcher(handler, queue, House().ports, Metrics())
        running = asyncio.create_task(dispatcher.run(stop))
        await asyncio.wait_for(handler.at_work.wait(), 20)
        await proxy.refuse()
        handler.drop()
        await deliver_in_vain(broker, KILLED_AFTER - CUTS // 2)
        await proxy.listen()
        for _ in range(CUTS):  # the limit is reached in the middle of them
            await asyncio.wait_for(handler.at_work.wait(), 20)
            await asyncio.sleep(rng.uniform(0.0, 0.05))
            proxy.cut()
            handler.drop()
        handler.may_finish.set()

        async def is_done() -> bool:
            depth = await queue.depth(EXPORT)
            return depth.ready == depth.leased == depth.waiting == 0

        await eventually(is_done, within_s=60)
        assert (await queue.depth(EXPORT)).dead == 0
        assert len(handler.done) == EVENTS
        assert set(handler.attempts) == {1}
        assert handler.sizes[1] >= EVENTS  # what reached the limit comes alone
        stop.set()
        await running
        await queue.close()
        await broker.sweep()


async def deliver_in_vain(broker: RabbitHarness, times: int) -> None:
    """Every message of the lane is delivered so often to somebody who gives it back. For the count
    it is the same as a connection that drops; the limit itself is reached by real ones."""
    async with broker.channel() as channel:
        deliveries: Counter[str | None] = Counter()
        over = asyncio.Event()
        lane = await channel.get_queue(broker.name(EXPORT))

        async def give_back(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            if deliveries[message.message_id] < times:
                deliveries[message.message_id] += 1
                await message.reject(requeue=True)
            elif len(deliveries) == EVENTS and min(deliveries.values()) >= times:
                over.set()

        await lane.consume(give_back)
        await asyncio.wait_for(over.wait(), 60)


@pytest.mark.parametrize("seed", seeds(0.05))
async def test_many_living_processes_over_a_shaky_line_condemn_nothing(
    seed: int, rabbitmq_server: RabbitServer
) -> None:
    rng = random.Random(seed)
    async with Proxy(rabbitmq_server.port) as proxy:
        broker = RabbitHarness(rabbitmq_server, proxy)
        queues = [broker.queue() for _ in range(PROCESSES)]
        for queue in queues:
            await queue.open()
        await queues[0].put([event()])
        takes = [asyncio.create_task(queue.take(EXPORT)) for queue in queues]
        for _ in range(CUTS):
            await asyncio.wait(takes, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            leased = [(number, take) for number, take in enumerate(takes) if take.done()]
            assert leased
            assert all(one.losses < ALONE_AFTER for _, take in leased for one in take.result())
            await asyncio.sleep(rng.uniform(0.0, 0.02))
            proxy.cut()
            for number, _ in leased:
                takes[number] = asyncio.create_task(queues[number].take(EXPORT))
        for take in takes:
            take.cancel()
        await asyncio.gather(*takes, return_exceptions=True)
        for queue in queues:
            await queue.close()
        await broker.sweep()
