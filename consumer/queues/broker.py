"""One connection to RabbitMQ: opened when needed, dropped when in doubt, never repaired in place.

A publish returns when the broker has confirmed it, and raises when it was returned (no such queue),
refused, or the connection was lost; there is no fourth outcome, because messages are mandatory and
returned ones raise. Channels and connections are aio_pika's plain ones, not its robust ones: what
was leased over a dead channel must stay dead, since the broker has given it to somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from weakref import WeakValueDictionary

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.connection import make_url
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from aiormq.exceptions import ChannelAccessRefused, ConnectionNotAllowed

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.queues.envelope import CONTENT_TYPE, Envelope
from consumer.queues.topology import QueueSpec

HEARTBEAT_S = 10  # a silent broker is noticed after three of them
CONNECT_S = 10.0
GOODBYE_S = 2.0  # for a polite close

LOST = (AMQPError, OSError, RuntimeError, EOFError)  # how aio_pika says that it did not work


class Broker:
    """One lazily opened connection; safe to use from several tasks."""

    def __init__(self, url: str, *, password: str | None, ca: str | None, name: str) -> None:
        self._url = _complete(url, password)
        self._ca = ca
        self._name = name
        self._connection: AbstractConnection | None = None
        self._publishers: dict[str, AbstractChannel] = {}
        self._opening = asyncio.Lock()
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._goodbyes: set[asyncio.Task[None]] = set()

    async def version(self) -> str:
        """The server's version; empty when it does not tell."""
        connection = await self._connect()
        transport = connection.transport
        properties = transport.connection.server_properties if transport else {}
        version = dict(properties or {}).get("version", "")
        return version.decode() if isinstance(version, bytes) else str(version)

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel of its own; what was taken over it and not settled is given back at the end."""
        channel = await self.open_channel()
        try:
            yield channel
        except BaseException:
            self._leave(channel)  # without waiting: a deadline may have passed
            raise
        await say_goodbye(channel)

    async def open_channel(self) -> AbstractChannel:
        connection = await self._connect()
        channel = connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.initialize()
        return channel

    async def publish(self, queue: str, envelope: Envelope) -> None:
        """Returns when the queue has it durably."""
        # aiormq finds the publish that a returned message belongs to by its message id alone, so
        # one id may be on its way once per channel: else a lost message is taken for a kept one.
        turn = self._turns.setdefault((queue, envelope.message_id), asyncio.Lock())
        async with turn:
            channel = await self._publisher(queue)
            message = aio_pika.Message(
                envelope.body,
                headers=dict(envelope.headers()),
                content_type=CONTENT_TYPE,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=envelope.message_id,
                timestamp=envelope.put_at,
            )
            await channel.default_exchange.publish(message, queue, mandatory=True)

    def forget(self) -> None:
        """Drops the connection without waiting; the next use opens another."""
        connection, self._connection = self._connection, None
        self._publishers.clear()
        if connection is not None:
            self._leave(connection)

    async def close(self) -> None:
        self.forget()
        while self._goodbyes:
            await asyncio.wait(tuple(self._goodbyes))

    async def _connect(self) -> AbstractConnection:
        async with self._opening:
            if self._connection is None or _is_lost(self._connection):
                self.forget()
                self._connection = await self._new()
            return self._connection

    async def _new(self) -> AbstractConnection:
        connection = aio_pika.Connection(
            make_url(self._url),
            ssl_context=self._tls(),
            client_properties={"connection_name": self._name},
        )
        try:
            await connection.connect(timeout=CONNECT_S)
        except BaseException:
            await connection.close()  # at once: else whichever thread collects it would try to
            raise
        return connection

    async def _publisher(self, queue: str) -> AbstractChannel:
        connection = await self._connect()
        async with self._opening:
            channel = self._publishers.get(queue)
            if channel is None or channel.is_closed:
                channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                await channel.initialize()
                self._publishers[queue] = channel
            return channel

    def _leave(self, left: AbstractConnection | AbstractChannel) -> None:
        goodbye = asyncio.create_task(say_goodbye(left))
        self._goodbyes.add(goodbye)
        goodbye.add_done_callback(self._goodbyes.discard)

    def _tls(self) -> ssl.SSLContext | None:
        if not self._url.startswith("amqps:"):
            return None
        return ssl.create_default_context(cadata=self._ca)


@contextlib.asynccontextmanager
async def within(seconds: float, broker: Broker) -> AsyncIterator[None]:
    """Turns whatever goes wrong inside into ``Transient``, after ``seconds`` at the latest.

    A connection that was silent for so long is dropped: what is still on its way over it may
    arrive, but nobody waits for it any more.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        broker.forget()
        raise explain(error) from None
    except LOST as error:
        raise explain(error) from None
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        raise _unavailable("the connection was lost") from None


async def declare(channel: AbstractChannel, queue: QueueSpec) -> None:
    await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))


async def count(channel: AbstractChannel, queue: str) -> int:
    """How many messages are ready in a queue; raises when there is no such queue."""
    found = await channel.declare_queue(queue, passive=True)
    return found.declaration_result.message_count or 0


_FOR_A_PERSON: dict[type[Exception], tuple[str, str]] = {
    AuthenticationError: ("queue-denied", "the broker refuses the user or the password"),
    ProbableAuthenticationError: ("queue-denied", "the broker refuses the user or the password"),
    InvalidFrameError: ("queue-denied", "the broker has no such virtual host for this user"),
    ConnectionNotAllowed: ("queue-denied", "the broker has no such virtual host for this user"),
    ChannelAccessRefused: ("queue-denied", "the user may not use the lanes' queues"),
    ChannelNotFoundEntity: ("queue-missing", "a lane's queue does not exist"),
    ChannelPreconditionFailed: (
        "queue-mismatch",
        "a queue of this name exists with other arguments: remove it, or choose another prefix",
    ),
    ssl.SSLCertVerificationError: ("queue-denied", "the broker's certificate is not trusted"),
}
_IN_TIME: dict[type[Exception], str] = {
    TimeoutError: "the broker did not answer in time",
    PublishError: "a lane's queue does not exist",
    DeliveryError: "the broker refused a message",
}


def explain(error: Exception, *, at_start: bool = False) -> GroundwireError:
    """What a failure means to us; the broker's own text is not repeated, it may hold addresses.

    ``at_start`` a person must mend some of them; later, whatever worked once may work again.
    """
    causes = _causes(error)
    for kind, (reason, sentence) in _FOR_A_PERSON.items():
        if any(isinstance(cause, kind) for cause in causes):
            return Permanent(reason, sentence) if at_start else _unavailable(sentence)
    for kind, sentence in _IN_TIME.items():
        if isinstance(error, kind):
            return _unavailable(sentence)
    return _unavailable("the broker cannot be reached")


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what it came from: a refused certificate is wrapped by the client."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _unavailable(sentence: str) -> Transient:
    return Transient("queue-unavailable", sentence, shared=True)


def _complete(url: str, password: str | None) -> str:
    """The URL with the password and the heartbeat in it."""
    parts = urlsplit(url)
    user, host = parts.username or "guest", parts.netloc.rpartition("@")[2]
    secret = quote(password, safe="") if password is not None else parts.password or "guest"
    query = {"heartbeat": str(HEARTBEAT_S)} | dict(parse_qsl(parts.query))
    return urlunsplit(
        (parts.scheme, f"{user}:{secret}@{host}", parts.path or "/", urlencode(query), "")
    )


def _is_lost(connection: AbstractConnection) -> bool:
    """A plain connection calls itself closed only after its own ``close``."""
    return connection.transport is None or connection.transport.connection.is_closed


async def say_goodbye(left: AbstractConnection | AbstractChannel) -> None:
    """Closes it politely, but not at any price: the other side may be gone or frozen."""
    try:
        async with asyncio.timeout(GOODBYE_S):
            await left.close()
    except (TimeoutError, *LOST):
        pass  # whoever it was, he is gone
    except asyncio.CancelledError:
        if _is_cancelled():
            raise


def _is_cancelled() -> bool:
    """Whether somebody cancelled this task: aiormq cancels waiters when it closes a channel."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
