"""Receiving from one lane: a channel that is re-opened when lost, and the leases it gave.

A lease belongs to the channel it came over. When that is gone the broker gives the message to
somebody else, so the lease is stale and its verbs do nothing. Whatever a verb moves elsewhere is
confirmed there before it is acknowledged here: a crash in between duplicates, never loses.

What kills its process is told from what merely went down with it by this rule. The broker says that
a message was given out before (``redelivered``, the same on every version; its counts are not). If
this process held it then, the connection was lost and nobody died: it is handed out as ever. Else
this process writes its name into the message, with a confirmed publish and before handing it out:
the first time back into the lane, later into ``killed``, which is received one at a time. So there
only what was out alone, to be handled, can be given out again; what merely waits there is not. A
verb wipes the names, and nobody writes his twice. Nor does he write it within a minute of losing
his own connection: then the others lost theirs, too, and a crowd of living processes over a line
that breaks all the time would condemn whatever passes between them. An exclusive lane keeps its
order instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from consumer.errors import GroundwireError, Transient
from consumer.model import Failure, LaneSpec, Message, timestamp
from consumer.ports import ALONE_AFTER, Clock
from consumer.queues.body import UNREADABLE, readable
from consumer.queues.broker import LOST, Broker, count, say_goodbye, within
from consumer.queues.envelope import Envelope, unwrap
from consumer.queues.topology import LaneTopology

PREFETCH_BATCHES = 2  # one being worked on, one on its way; fewer than one would never fill
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # between attempts to receive again
ATTACH_S = 10.0
CALM_S = 60.0  # after a lost connection, before what others lost makes anything suspect
MOST_SURVIVED = 65_535  # ids of messages whose connection was lost here

_log = structlog.get_logger(__name__)

Publish = Callable[[str, Envelope], Awaitable[None]]


@dataclass(eq=False, slots=True)
class RabbitLease:
    """A message of a lane, until its verb is called or its channel is gone."""

    message: Message
    envelope: Envelope
    alone: bool
    _channel: AbstractChannel
    _delivery: AbstractIncomingMessage
    _receiver: LaneReceiver
    _open: bool = True

    @property
    def attempt(self) -> int:
        return self.envelope.attempt

    @property
    def failure(self) -> Failure | None:
        return self.envelope.failure

    @property
    def losses(self) -> int:
        return max(len(self.envelope.lost), ALONE_AFTER if self.alone else 0)

    async def ack(self) -> None:
        if self._settle():
            await self._receiver.acknowledge(self._delivery)

    async def retry(self, after_s: float, failure: Failure, *, counted: bool = True) -> None:
        if self._settle():
            target = self._receiver.topology.wait_for(after_s)
            again = self.envelope.again(failure, counted=counted)
            await self._receiver.move(self._delivery, target, again)

    async def bury(self, failure: Failure) -> None:
        if self._settle():
            target = self._receiver.topology.dead
            await self._receiver.move(self._delivery, target, self.envelope.failed(failure))

    def _settle(self) -> bool:
        """Whether a verb may still act; the first call only, and only on a live channel."""
        acts, self._open = self._open, False
        self._receiver.settled(self)
        return acts and not self._channel.is_closed


class LaneReceiver:
    """One lane's consumer in this process."""

    def __init__(
        self, broker: Broker, topology: LaneTopology, lane: LaneSpec, publish: Publish, clock: Clock
    ) -> None:
        self.topology = topology
        self._broker = broker
        self._prefetch = min(PREFETCH_BATCHES * lane.batch, 65535)
        self._name = secrets.token_hex(4)
        self._survived: OrderedDict[str, None] = OrderedDict()
        self._shaky_until = 0.0  # of the loop's time
        self._publish = publish
        self._clock = clock
        self._channel: AbstractChannel | None = None
        self._attaching = asyncio.Lock()
        self._changed = asyncio.Event()
        self._arrived: deque[RabbitLease] = deque()
        self._leased: set[RabbitLease] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def buffered(self) -> int:
        return len(self._arrived)

    @property
    def leased(self) -> int:
        return len(self._leased)

    def oldest(self) -> datetime | None:
        """When the oldest message that this process holds was put."""
        return min((it.envelope.put_at for it in (*self._arrived, *self._leased)), default=None)

    async def take(self, batch: int, linger_s: float) -> list[RabbitLease]:
        """At least one lease; waits as long as that takes, through lost connections."""
        while True:
            await self._attach()
            await self._until(1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(linger_s):
                    await self._until(batch)
            size = 1 if self._arrived and self._arrived[0].alone else batch
            leases = [self._arrived.popleft() for _ in range(min(size, len(self._arrived)))]
            self._leased.update(leases)
            if leases:
                return leases

    async def close(self) -> None:
        """Gives back what is held; who waits in `take` gets ``Transient``."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()
        channel, self._channel = self._channel, None
        self._lost()
        if channel is not None:
            await say_goodbye(channel)

    def settled(self, lease: RabbitLease) -> None:
        self._leased.discard(lease)

    async def acknowledge(self, delivery: AbstractIncomingMessage) -> None:
        with contextlib.suppress(*LOST):  # a lost channel: it will be delivered again
            await delivery.ack()

    async def move(self, delivery: AbstractIncomingMessage, queue: str, envelope: Envelope) -> None:
        """Into another queue, then out of this one; back into this one when that fails."""
        try:
            await self._publish(queue, envelope)
        except Transient as error:
            _log.warning("message-kept", queue=queue, reason=error.reason, error=error.message)
            self._spawn(self._give_back(delivery))
        else:
            await self.acknowledge(delivery)

    async def _give_back(self, delivery: AbstractIncomingMessage) -> None:
        """Later, so that a message which cannot be moved does not circle as fast as it can."""
        await asyncio.sleep(PAUSES_S[-1])
        self._survive(delivery.message_id or "")
        with contextlib.suppress(*LOST):
            await delivery.reject(requeue=True)

    async def _attach(self) -> None:
        async with self._attaching:
            attempt = 0
            while self._channel is None or self._channel.is_closed:
                if self._closed:
                    raise Transient("queue-unavailable", "the queue is closed")
                try:
                    async with within(ATTACH_S, self._broker):
                        await self._consume()
                except GroundwireError as error:
                    if attempt == 0:
                        _log.warning("lane-lost", queue=self.topology.ready, error=error.message)
                    await asyncio.sleep(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
                    attempt += 1

    async def _consume(self) -> None:
        channel = await self._broker.open_channel()
        try:
            for queue in (self.topology.killed, self.topology.ready):
                await count(channel, queue)  # consuming from what is not there closes the channel
            underlay = await channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(lambda _: self._cancelled(channel))
            channel.close_callbacks.add(lambda *_: self._lost(channel))
            self._lost()
            self._channel = channel
            watches = not self.topology.exclusive
            for queue, killed in ((self.topology.killed, True), (self.topology.ready, False)):
                prefetch = 1 if killed and watches else self._prefetch
                await channel.set_qos(prefetch_count=prefetch)  # of the next consumer only
                source = await channel.get_queue(queue, ensure=False)
                await source.consume(partial(self._received, channel, killed))
        except BaseException:
            self._channel = None
            await say_goodbye(channel)
            raise

    async def _received(
        self, channel: AbstractChannel, killed: bool, delivery: AbstractIncomingMessage
    ) -> None:
        if channel.is_closed:
            return
        now = self._clock()
        envelope = unwrap(delivery.body, delivery.message_id, delivery.headers, now)
        message = readable(delivery.body)
        if message is None:
            text = "the bytes in the queue are not a message"
            failure = Failure(reason=UNREADABLE, message=text, at=timestamp(now))
            self._spawn(self.move(delivery, self.topology.dead, envelope.failed(failure)))
            return
        if self.topology.exclusive:
            self._arrive(RabbitLease(message, envelope, False, channel, delivery, self))
        elif self._was_lost(delivery, envelope):
            found = envelope.found(self._name)
            again = killed or len(found.lost) >= ALONE_AFTER
            target = self.topology.killed if again else self.topology.ready
            self._spawn(self.move(delivery, target, found))
        else:
            self._arrive(RabbitLease(message, envelope, killed, channel, delivery, self))

    def _arrive(self, lease: RabbitLease) -> None:
        if lease.alone:
            self._arrived.appendleft(lease)
        else:
            self._arrived.append(lease)
        self._changed.set()

    def _was_lost(self, delivery: AbstractIncomingMessage, envelope: Envelope) -> bool:
        """Whether another process had it, which may be dead."""
        if not delivery.redelivered:
            return False
        survived = envelope.message_id in self._survived
        self._survived.pop(envelope.message_id, None)
        shaky = asyncio.get_running_loop().time() < self._shaky_until
        return not survived and not shaky and self._name not in envelope.lost

    def _survive(self, message_id: str) -> None:
        self._survived[message_id] = None
        if len(self._survived) > MOST_SURVIVED:
            self._survived.popitem(last=False)

    async def _until(self, size: int) -> None:
        """Until so many have arrived, or the channel is lost."""
        while len(self._arrived) < size and self._channel and not self._channel.is_closed:
            self._changed.clear()
            await self._changed.wait()

    def _cancelled(self, channel: AbstractChannel) -> None:
        """The broker ended a consumer: its queue was deleted or moved. Begin anew."""
        self._spawn(say_goodbye(channel))

    def _lost(self, channel: AbstractChannel | None = None) -> None:
        """Forgets what the lost channel brought; a newer channel's messages stay."""
        if channel is not None:
            self._shaky_until = asyncio.get_running_loop().time() + CALM_S
        if channel is not None and channel is not self._channel:
            return
        for lease in (*self._arrived, *self._leased):
            self._survive(lease.envelope.message_id)
        self._arrived.clear()
        self._leased.clear()
        self._changed.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
