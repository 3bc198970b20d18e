"""A topic exchange on RabbitMQ that is published to: confirmed, in order, within a deadline.

Over one channel of one connection, which is dropped whenever anything went wrong: what is on its
way may then still arrive, behind nothing that was sent after it.

The exchange is declared (or checked) by `RabbitExchange.ready` only, so that one that disappears
is told by the next publish: its bindings went with it. Messages are not mandatory: an exchange
that nothing is bound to is fine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.queues.broker import LOST, Broker, explain, within

DEADLINE_S = 5.0


class Publishable(Protocol):
    """What is published."""

    @property
    def routing_key(self) -> str:
        """At most 255 bytes."""

    @property
    def message_id(self) -> str: ...

    @property
    def content_type(self) -> str: ...

    @property
    def body(self) -> bytes: ...


class RabbitExchange:
    """One durable topic exchange; implements ``handlers.relay.Exchange``.

    ``password`` replaces the URL's; ``ca`` is the PEM text of the authority that signed the
    broker's certificate. With ``declare`` off the exchange must exist; that is all that is
    checked, since AMQP cannot read its kind.

    A publish that raised is to be repeated as a whole: then the first arrivals are in order, but
    for a message that the broker itself refused (a full queue that rejects), whose successors may
    have been taken.
    """

    def __init__(
        self,
        url: str,
        *,
        exchange: str,
        declare: bool = True,
        password: str | None = None,
        ca: str | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._broker = Broker(url, password=password, ca=ca, name="groundwire relay")
        self._name = exchange
        self._declares = declare
        self._deadline_s = deadline_s
        self._channel: AbstractChannel | None = None
        self._worked = False

    async def ready(self) -> None:
        """See the port."""
        async with self._trying(), self._broker.channel() as channel:
            await channel.declare_exchange(
                self._name,
                aio_pika.ExchangeType.TOPIC,
                durable=True,
                passive=not self._declares,
            )

    async def publish(self, publications: Sequence[Publishable]) -> None:
        """See the port."""
        async with self._trying():
            exchange = await self._exchange()
            # Each call writes its frames in its turn, and all wait for their confirms together.
            results = await asyncio.gather(
                *(
                    exchange.publish(_message(one), one.routing_key, mandatory=False)
                    for one in publications
                ),
                return_exceptions=True,
            )
            for error in results:
                if isinstance(error, BaseException):
                    raise error

    async def close(self) -> None:
        self._channel = None
        await self._broker.close()

    async def _exchange(self) -> AbstractExchange:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._broker.open_channel()
        return await self._channel.get_exchange(self._name, ensure=False)

    @contextlib.asynccontextmanager
    async def _trying(self) -> AsyncIterator[None]:
        """Says what went wrong, and lets go of the connection it went wrong on."""
        try:
            async with within(self._deadline_s, self._broker):
                try:
                    yield
                except LOST as error:
                    raise self._explain(error) from None
            self._worked = True
        except BaseException:
            self._channel = None
            self._broker.forget()
            raise

    def _explain(self, error: Exception) -> GroundwireError:
        if isinstance(error, ChannelNotFoundEntity) and self._declares:  # `ready` makes it again
            said = f"the exchange {self._name} has gone, and whatever was bound to it"
            return Transient("exchange-missing", said)
        for kind, (reason, sentence) in _FOR_A_PERSON.items():
            if isinstance(error, kind):
                return Permanent(reason, sentence.format(name=self._name))
        return explain(error, at_start=not self._worked)


_FOR_A_PERSON: dict[type[Exception], tuple[str, str]] = {
    ChannelNotFoundEntity: (
        "exchange-missing",
        "the exchange {name} does not exist: make it, or let relay.declare be true",
    ),
    ChannelPreconditionFailed: (
        "exchange-mismatch",
        "an exchange {name} of another kind exists: remove it, or choose another name",
    ),
    ChannelAccessRefused: ("exchange-denied", "the user may not use the exchange {name}"),
}


def _message(publication: Publishable) -> aio_pika.Message:
    return aio_pika.Message(
        publication.body,
        content_type=publication.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=publication.message_id,
    )
