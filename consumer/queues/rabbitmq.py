"""The queue on RabbitMQ: lanes as quorum queues, at least once, `amqp://` and `amqps://`.

What is used, and why:

* Quorum queues (`topology`), publisher confirms, `mandatory` messages that raise when returned:
  a `put` that returns is on a majority of the nodes' disks, in every lane that takes the message.
  Each lane gets a message of its own, straight through the default exchange: one message bound to
  two queues would be confirmed even when one of them is gone.
* Two connections, one to publish and one to receive, since a broker short of memory stops reading
  from whoever publishes, and acknowledgements must still get through.
* A deadline of our own on every publish: against a broker that swallows bytes the client would
  wait for three heartbeats.
* The attempt count is a header of ours, because the broker's own counts dropped connections.
* Single active consumer for exclusive lanes: one consumer in order, another takes over when it
  goes. It does not fence: what the old one still does must be harmless.

Queues are declared by `open` only. One that disappears later stays away, and every `put` says so
until somebody declares it again: a deletion must be noticed, not papered over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from consumer.errors import Permanent
from consumer.model import DeadLetter, LaneSpec, Message
from consumer.ports import Clock, LaneDepth, Lease
from consumer.queues.broker import LOST, Broker, count, declare, explain, within
from consumer.queues.deadletters import DeadLetterBox
from consumer.queues.envelope import Envelope, wrap
from consumer.queues.lane import LaneReceiver
from consumer.queues.topology import STEPS_S, LaneTopology, lacking, lane_topology

OPEN_S = 60.0  # declaring quorum queues takes a while on a busy cluster
LOOK_S = 30.0  # for a person who looks at dead letters

_log = structlog.get_logger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class RabbitQueue:
    """`consumer.ports.Queue` and `DeadLetters` on RabbitMQ 3.10 and later.

    ``password`` replaces the URL's; ``ca`` is the PEM text of the authority that signed the
    broker's certificate, the system's authorities by default. A retry waits for the smallest of
    ``steps_s`` that is not shorter than asked for, at most the longest. With ``declare`` off the
    queues must exist; that is all that is checked, since AMQP cannot read their arguments.
    """

    def __init__(
        self,
        url: str,
        lanes: Sequence[LaneSpec],
        *,
        prefix: str = "groundwire",
        declare: bool = True,
        put_deadline_s: float = 5.0,
        password: str | None = None,
        ca: str | None = None,
        steps_s: Sequence[float] = STEPS_S,
        clock: Clock = _now,
    ) -> None:
        self._lanes = {lane.name: lane for lane in lanes}
        self._topology = {it.name: lane_topology(prefix, it, steps_s) for it in lanes}
        self._declares = declare
        self._deadline_s = put_deadline_s
        self._clock = clock
        self._out = Broker(url, password=password, ca=ca, name=f"{prefix} put")
        self._in = Broker(url, password=password, ca=ca, name=f"{prefix} take")
        self._receivers = {name: self._receiver(lane) for name, lane in self._lanes.items()}

    async def open(self) -> None:
        """Connects, checks the server's version, and declares or checks every lane's queues.

        Raises ``Transient`` when the broker cannot be reached, ``Permanent`` when a person must
        act: credentials, certificate, rights, a queue of other arguments, an old server.
        """
        try:
            async with asyncio.timeout(OPEN_S):
                self._require(await self._out.version())
                for topology in self._topology.values():
                    await self._ensure(topology)
        except (TimeoutError, *LOST) as error:
            raise explain(error, at_start=True) from None

    async def close(self) -> None:
        """Gives back what is leased; who waits in `take` gets ``Transient``."""
        await asyncio.gather(*(receiver.close() for receiver in self._receivers.values()))
        await asyncio.gather(self._in.close(), self._out.close())

    async def ready(self) -> None:
        async with within(self._deadline_s, self._out), self._out.channel() as channel:
            for topology in self._topology.values():
                await count(channel, topology.ready)

    async def put(self, messages: Sequence[Message]) -> None:
        """See the port. Raises ``Permanent`` for a message over 8 MiB, before anything is put."""
        now = self._clock()
        wrapped = [(message, wrap(message, now)) for message in messages]
        work = [
            self._out.publish(self._topology[lane.name].ready, envelope)
            for message, envelope in wrapped
            for lane in self._lanes.values()
            if lane.takes(message)
        ]
        async with within(self._deadline_s, self._out):
            results = await asyncio.gather(*work, return_exceptions=True)
            for error in results:
                if isinstance(error, BaseException):
                    raise error

    async def take(self, lane: LaneSpec) -> Sequence[Lease]:
        """See the port. At most two batches are out at a time: the broker sends no more until
        some are settled. Losses of the connection are waited out."""
        return await self._receivers[lane.name].take(lane.batch, lane.linger_s)

    async def depth(self, lane: LaneSpec) -> LaneDepth:
        """See the port. AMQP tells what is ready only, so ``leased`` and ``oldest_s`` are of what
        this process holds: 0 where nothing is, and in a process that does not take the lane."""
        topology, receiver = self._topology[lane.name], self._receivers[lane.name]
        async with within(self._deadline_s, self._out), self._out.channel() as channel:
            ready = await count(channel, topology.ready) + await count(channel, topology.killed)
            waiting = sum([await count(channel, name) for name in topology.waits])
            dead = await count(channel, topology.dead)
        oldest = receiver.oldest()
        return LaneDepth(
            ready=ready + receiver.buffered,
            leased=receiver.leased,
            waiting=waiting,
            dead=dead,
            oldest_s=max(0.0, (self._clock() - oldest).total_seconds()) if oldest else 0.0,
        )

    async def dead(self, lane: LaneSpec, *, limit: int) -> list[DeadLetter]:
        async with within(LOOK_S, self._out):
            return await self._box(lane).oldest(limit)

    async def replay(self, lane: LaneSpec, message_id: str) -> DeadLetter | None:
        async with within(LOOK_S, self._out):
            return await self._box(lane).replay(message_id)

    async def drop(self, lane: LaneSpec, message_id: str) -> DeadLetter | None:
        async with within(LOOK_S, self._out):
            return await self._box(lane).drop(message_id)

    def _box(self, lane: LaneSpec) -> DeadLetterBox:
        topology = self._topology[lane.name]
        return DeadLetterBox(self._out, topology, lane.name, self._publish, self._clock)

    def _receiver(self, lane: LaneSpec) -> LaneReceiver:
        topology = self._topology[lane.name]
        return LaneReceiver(self._in, topology, lane, self._publish, self._clock)

    async def _publish(self, queue: str, envelope: Envelope) -> None:
        async with within(self._deadline_s, self._out):
            await self._out.publish(queue, envelope)

    async def _ensure(self, topology: LaneTopology) -> None:
        async with self._out.channel() as channel:
            for queue in topology.queues():
                if self._declares:
                    await declare(channel, queue)
                else:
                    await count(channel, queue.name)

    def _require(self, version: str) -> None:
        missing = lacking(version)
        if missing:
            text = f"RabbitMQ {version} lacks {' and '.join(missing)}: 3.10 or later is needed"
            raise Permanent("queue-too-old", text)
        _log.info("queue-open", broker="rabbitmq", version=version)
