"""The receiver's inbox: what the broker does not take now is kept on this machine's disk, synced,
and forwarded when the broker is back.

A put goes to the broker while that is there. The first one that fails, or takes longer than a
sender would wait, marks the broker as away; from then on puts go into the inbox at once, and only
the forwarder looks for the broker, with one message at a time. Forwarding is at least once and
under the ids that messages came with, so consumers drop what they know. Nothing leaves the inbox
but into the broker: a message that it refuses waits, ever longer, and holds up none of the others.

Only what is received goes this way. What workers put keeps its order, so it waits for the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.model import Failure, LaneSpec, Message, timestamp
from consumer.ports import Clock, LaneDepth, Lease, Queue, Sleep
from consumer.retry import Policy, backoff_s
from consumer.telemetry import logger

INBOX = LaneSpec(name="inbox", wants=("event", "outcome", "record"), linger_s=0.0, exclusive=True)
PATIENCE_S = 2.0  # for the broker; the inbox's own deadline comes on top, and senders wait for 5
LOOKS = Policy(base_s=0.5, cap_s=5.0)  # between two looks for a broker that is away
REFUSED = Policy(base_s=1.0, cap_s=30.0)  # between two tries of a message that failed alone
POLL_S = 0.5  # how late the forwarder may learn that the broker has gone
GLANCE_S = 0.1  # for what waits, so that the first message can show whether the broker is back
END_S = 1.0  # for what is cancelled
COUNT_S = 5.0  # between two counts; in between what passes here is added up
MOST_COUNTED = 10_000  # more are only added up: counting a million takes a second, and puts wait
REMEMBER_S = 10.0  # for so long a failed write makes the inbox count as failing
MOST_WAITING = 1_000_000  # messages: about a gigabyte


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class InboxState:
    """How the inbox stands. ``away`` is why the broker takes nothing at present, ``failing`` why
    the inbox does not; None where they do."""

    waiting: int
    away: str | None
    failing: str | None

    def told(self) -> dict[str, object]:
        """For a person."""
        broker = "there" if self.away is None else f"away: {self.away}"
        failing = {} if self.failing is None else {"failing": self.failing}
        return {"waiting": self.waiting, "broker": broker, **failing}


class InboxQueue:
    """Implements `consumer.ports.Queue`: ``broker`` for everything, and ``inbox``, which has the
    one lane `INBOX`, for puts that the broker does not take."""

    def __init__(
        self,
        broker: Queue,
        inbox: Queue,
        *,
        patience_s: float = PATIENCE_S,
        most_waiting: int = MOST_WAITING,
        clock: Clock = _now,
        sleep: Sleep = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._broker = broker
        self._inbox = inbox
        self._patience_s = patience_s
        self._most_waiting = most_waiting
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._broker_open = False
        self._inbox_open = False
        self._away: str | None = "not reached yet"
        self._failing: tuple[float, str] | None = None  # since when, and why
        self._waiting = 0
        self._counted_at = -COUNT_S
        self._held: deque[Lease] = deque()
        self._taking: asyncio.Task[Sequence[Lease]] | None = None
        self._putting: set[asyncio.Task[None]] = set()
        self._forwarder: asyncio.Task[None] | None = None
        self._closed = False

    def state(self) -> InboxState:
        return InboxState(self._waiting, self._away, self._why_failing())

    async def open(self) -> None:
        """Opens the inbox; the broker is opened when it is there, by the forwarder. An inbox that
        fails for now is done without, if the broker is there."""
        try:
            await self._open_inbox()
        except Permanent as error:
            raise Permanent(error.reason, f"the inbox: {error.message}") from error
        if not self._inbox_open:
            await self._open_broker()
            self._came_back()
        self._forwarder = asyncio.create_task(self._forward_for_ever())

    async def close(self) -> None:
        """What is in the inbox stays there for the next start."""
        self._closed = True
        tasks: list[asyncio.Task[Any] | None] = [*self._putting, self._forwarder, self._taking]
        ending = {task for task in tasks if task is not None}
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=END_S)
        await asyncio.gather(self._broker.close(), self._inbox.close())

    async def ready(self) -> None:
        """A put would be kept, here or there."""
        try:
            self._require_room(1)
            if (failing := self._why_failing()) is not None:
                raise self._refused("queue-inbox-failed", failing)
            await self._inbox.ready()
        except Transient:
            if self._away is not None:
                raise
            await self._broker.ready()

    async def put(self, messages: Sequence[Message]) -> None:
        """See the port. Answers at once while the broker is known to be away."""
        if self._away is None:
            try:
                await self._put_patiently(messages)
                return
            except Transient as error:
                self._went_away(error)
            except Permanent as error:
                await self._keep(messages)  # which refuses, too, what is too large for any queue
                self._went_away(error)
                return
        await self._keep(messages)

    async def take(self, lane: LaneSpec) -> Sequence[Lease]:
        return await self._broker.take(lane)

    async def depth(self, lane: LaneSpec) -> LaneDepth:
        return await (self._inbox if lane.name == INBOX.name else self._broker).depth(lane)

    async def _put_patiently(self, messages: Sequence[Message]) -> None:
        """A put that takes too long goes on by itself, since cancelling it half-way would not take
        it back; what it still brings about is a repetition like any other."""
        putting = asyncio.create_task(self._broker.put(messages))
        self._putting.add(putting)
        putting.add_done_callback(self._putting.discard)
        putting.add_done_callback(_look)
        done, _ = await asyncio.wait({putting}, timeout=self._patience_s)
        if not done:
            raise Transient("queue-timeout", "the broker did not answer in time", shared=True)
        try:
            putting.result()
        except GroundwireError:
            raise
        except Exception as error:
            logger().exception("queue crashed")
            raise Transient("queue-crashed", "the queue failed unexpectedly") from error

    async def _keep(self, messages: Sequence[Message]) -> None:
        self._require_room(len(messages))
        try:
            if not self._inbox_open:
                raise Transient("queue-inbox-failed", "it is not open yet")
            await self._inbox.put(messages)
        except Transient as error:
            self._failing = (asyncio.get_running_loop().time(), error.message)
            raise self._refused("queue-inbox-failed", error.message) from error
        self._failing = None
        self._waiting += len(messages)

    def _require_room(self, count: int) -> None:
        if self._waiting + count > self._most_waiting:
            raise self._refused("queue-inbox-full", f"it holds {self._waiting} messages")

    def _refused(self, reason: str, why: str) -> Transient:
        return Transient(reason, f"the broker is away ({self._away}), the inbox fails: {why}")

    def _why_failing(self) -> str | None:
        """The memory of a failure fades: whoever is not ready is asked no more, and would never
        learn that the disk has room again."""
        if self._failing is None:
            return None
        since, why = self._failing
        return why if asyncio.get_running_loop().time() < since + REMEMBER_S else None

    async def _forward_for_ever(self) -> None:
        failures = 0
        while not self._closed:
            try:
                await self._forward()
                failures = 0
            except (Transient, Permanent) as error:
                self._went_away(error)
                failures += 1
                await self._sleep(backoff_s(failures, LOOKS, self._random))
            except Exception:
                logger().exception("inbox crashed")
                failures += 1
                await self._sleep(backoff_s(failures, LOOKS, self._random))

    async def _forward(self) -> None:
        """One round: looks for the broker if it is away, and hands over what waits."""
        if not self._inbox_open:
            await self._open_inbox()
        if not self._broker_open:
            await self._open_broker()
        elif self._away is not None:
            await self._broker.ready()
        await self._count()
        await self._take()
        while self._held:
            await self._hand_over()
        self._came_back()

    async def _take(self) -> None:
        """What waits in the inbox now, if anything. A take that finds nothing goes on."""
        if self._taking is None:
            self._taking = asyncio.create_task(self._inbox.take(INBOX))
        wait_s = POLL_S if self._away is None else GLANCE_S
        done, _ = await asyncio.wait({self._taking}, timeout=0 if self._held else wait_s)
        if done:
            taken, self._taking = self._taking, None
            self._held.extend(taken.result())

    async def _hand_over(self) -> None:
        """One message, or all that never failed. What failed in company is tried alone, and the
        first one after an absence is alone, too: no other is sent in vain."""
        if self._away is not None or self._held[0].attempt > 1:
            await self._send(self._held.popleft())
            self._came_back()
            return
        company = [lease for lease in self._held if lease.attempt == 1]
        self._held = deque(lease for lease in self._held if lease.attempt > 1)
        sent = await asyncio.gather(*map(self._send, company), return_exceptions=True)
        for error in sent:
            if error is not None:
                raise error

    async def _send(self, lease: Lease) -> None:
        """Into the broker, then out of the inbox."""
        try:
            await self._broker.put([lease.message])
        except (Transient, Permanent) as error:
            await self._postpone(lease, error)
            raise
        except Exception as error:
            logger().exception("queue crashed")
            crash = Transient("queue-crashed", "the queue failed unexpectedly")
            await self._postpone(lease, crash)
            raise crash from error
        await lease.ack()
        self._waiting = max(0, self._waiting - 1)

    async def _postpone(self, lease: Lease, error: GroundwireError) -> None:
        """The first try may have failed because of a neighbour's message, so the second follows at
        once; then it waits, ever longer."""
        wait_s = backoff_s(lease.attempt - 1, REFUSED, self._random) if lease.attempt > 1 else 0.0
        at = timestamp(self._clock())
        await lease.retry(wait_s, Failure(reason=error.reason, message=error.message, at=at))
        logger().warning(
            "not forwarded",
            event_id=lease.message.id,
            tried=lease.attempt,
            reason=error.reason,
            after_s=round(wait_s, 1),
        )

    async def _open_inbox(self) -> None:
        try:
            await self._inbox.open()
        except Transient as error:
            self._failing = (asyncio.get_running_loop().time(), error.message)
            logger().error("inbox not open", reason=error.reason, detail=error.message)
            return
        self._inbox_open = True
        await self._count()

    async def _open_broker(self) -> None:
        await self._broker.open()
        self._broker_open = True

    async def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        due = now >= self._counted_at + COUNT_S and self._waiting <= MOST_COUNTED
        if self._inbox_open and due:
            with contextlib.suppress(Transient):
                depth = await self._inbox.depth(INBOX)
                self._waiting = depth.ready + depth.leased + depth.waiting
                self._counted_at = now

    def _went_away(self, error: GroundwireError) -> None:
        if self._away != error.message:  # once for each reason, not for each look
            logger().error("broker away", reason=error.reason, detail=error.message)
        self._away = error.message

    def _came_back(self) -> None:
        if self._away is not None:
            logger().info("broker back", waiting=self._waiting)
        self._away = None


def _look(task: asyncio.Task[None]) -> None:
    """What came of it, even if nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
