"""The dead letters of a lane on RabbitMQ: looked at without taking them away.

AMQP has no peek, so they are received and given back by closing the channel, all from one consumer,
so that the queue puts them where they were; a crash in between does the same. While somebody
looks, and for a moment after, nobody else sees what he held: a second look then shows fewer. So
what is not found is looked for once more.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from consumer.model import DeadLetter, Failure
from consumer.ports import Clock
from consumer.queues.body import shown
from consumer.queues.broker import Broker, count
from consumer.queues.envelope import Envelope, unwrap
from consumer.queues.lane import Publish
from consumer.queues.topology import LaneTopology

DEPTHS = (64, 1024, 16384)  # how deep replay and drop look, the common case first
ARRIVAL_S = 1.0  # without another message: somebody else holds the rest


class DeadLetterBox:
    """One lane's dead letters."""

    def __init__(
        self, broker: Broker, topology: LaneTopology, lane: str, publish: Publish, clock: Clock
    ) -> None:
        self._broker = broker
        self._topology = topology
        self._lane = lane
        self._publish = publish
        self._clock = clock

    async def oldest(self, limit: int) -> list[DeadLetter]:
        async with self._broker.channel() as channel:
            return [self._letter(it) for it in await self._look(channel, limit)]

    async def replay(self, message_id: str) -> DeadLetter | None:
        return await self._remove(message_id, replay=True)

    async def drop(self, message_id: str) -> DeadLetter | None:
        return await self._remove(message_id, replay=False)

    async def _remove(self, message_id: str, *, replay: bool) -> DeadLetter | None:
        removed = await self._remove_held(message_id, replay=replay)
        if removed is None:
            await asyncio.sleep(ARRIVAL_S)
            removed = await self._remove_held(message_id, replay=replay)
        return removed

    async def _remove_held(self, message_id: str, *, replay: bool) -> DeadLetter | None:
        for depth in DEPTHS:
            async with self._broker.channel() as channel:
                held = await self._look(channel, depth)
                found = next((it for it in held if shown(it.body).id == message_id), None)
                if found is not None:
                    if replay:
                        now = self._clock()
                        await self._publish(self._topology.ready, _envelope(found, now).anew(now))
                    await found.ack()
                    return self._letter(found)
            if len(held) < depth:
                break
        return None

    async def _look(self, channel: AbstractChannel, limit: int) -> list[AbstractIncomingMessage]:
        """The oldest messages, held by the channel until it closes."""
        wanted = min(limit, await count(channel, self._topology.dead))
        held: list[AbstractIncomingMessage] = []
        if wanted == 0:
            return held
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await channel.set_qos(prefetch_count=wanted)
        queue = await channel.get_queue(self._topology.dead, ensure=False)
        await queue.consume(arrived.put)
        with contextlib.suppress(TimeoutError):
            while len(held) < wanted:
                held.append(await asyncio.wait_for(arrived.get(), ARRIVAL_S))
        return held

    def _letter(self, delivery: AbstractIncomingMessage) -> DeadLetter:
        envelope = _envelope(delivery, self._clock())
        return DeadLetter(
            lane=self._lane,
            message=shown(delivery.body),
            attempts=envelope.attempt,
            failure=envelope.failure or Failure(reason="unknown", message="", at=""),
        )


def _envelope(delivery: AbstractIncomingMessage, now: datetime) -> Envelope:
    return unwrap(delivery.body, delivery.message_id, delivery.headers, now)
