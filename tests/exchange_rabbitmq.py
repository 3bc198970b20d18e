"""A topic exchange on a real broker, as its readers see it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from consumer.queues.exchange import RabbitExchange
from tests.proxy import Proxy
from tests.servers_rabbitmq import RabbitServer


@dataclass
class ExchangeHouse:
    """One exchange of its own behind a proxy; readers look past the proxy, as operators do."""

    server: RabbitServer
    proxy: Proxy
    channel: AbstractChannel
    name: str
    made: list[RabbitExchange] = field(default_factory=list)

    def exchange(self, *, declare: bool = True, deadline_s: float = 5.0) -> RabbitExchange:
        """As another process would make it."""
        made = RabbitExchange(
            f"amqp://guest@127.0.0.1:{self.proxy.port}/",
            exchange=self.name,
            declare=declare,
            password="guest",
            deadline_s=deadline_s,
        )
        self.made.append(made)
        return made

    async def declare(self) -> None:
        await self.channel.declare_exchange(self.name, aio_pika.ExchangeType.TOPIC, durable=True)

    async def remove(self) -> None:
        await self.channel.exchange_delete(self.name)

    async def bound(self, pattern: str, arguments: dict[str, Any] | None = None) -> AbstractQueue:
        """A queue that gets what fits the pattern; the exchange must be there."""
        name = f"{self.name}.{secrets.token_hex(4)}"
        queue = await self.channel.declare_queue(name, exclusive=True, arguments=arguments)
        await queue.bind(self.name, pattern)
        return queue


async def arrived(queue: AbstractQueue) -> list[AbstractIncomingMessage]:
    """All that is in the queue now, taken out of it."""
    found = []
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        found.append(message)
    return found


def ids(messages: Sequence[AbstractIncomingMessage]) -> list[int]:
    return [int(message.message_id or -1) for message in messages]


@contextlib.asynccontextmanager
async def exchange_house(server: RabbitServer) -> AsyncIterator[ExchangeHouse]:
    async with Proxy(server.port) as proxy, await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        house = ExchangeHouse(server, proxy, channel, f"test-{secrets.token_hex(4)}.changes")
        try:
            yield house
        finally:
            for one in house.made:
                await one.close()
            await house.remove()
