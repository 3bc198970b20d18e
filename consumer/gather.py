"""Puts of concurrent requests go together: one broker round trip for many of them.

Each caller still waits for the confirmation of its own messages, and for at most ``timeout_s``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from consumer.errors import GroundwireError, Transient
from consumer.model import Message
from consumer.ports import Queue
from consumer.telemetry import logger

READY_S = 1.0

Waiting = tuple[Sequence[Message], "asyncio.Future[None]"]


class Gatherer:
    """Puts into ``queue``. The first put goes at once; what comes meanwhile goes with the next."""

    def __init__(
        self,
        queue: Queue,
        *,
        batch: int = 256,
        at_once: int = 2,
        most_waiting: int = 20_000,
        timeout_s: float = 4.5,
    ) -> None:
        self._queue = queue
        self._batch = batch
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._timeout_s = timeout_s
        self._waiting: deque[Waiting] = deque()
        self._messages = 0
        self._ready_at = float("-inf")
        self._putting: set[asyncio.Task[None]] = set()

    async def ready(self) -> None:
        """As the queue's own, asked at most once in `READY_S` while it says yes."""
        now = asyncio.get_running_loop().time()
        if now - self._ready_at >= READY_S:
            await self._queue.ready()
            self._ready_at = now

    async def put(self, messages: Sequence[Message]) -> None:
        """Returns when all are durable; raises ``Transient`` within ``timeout_s`` otherwise."""
        if self._messages + len(messages) > self._most_waiting:
            raise Transient("queue-overloaded", "too many events wait for the queue")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, done))
        self._messages += len(messages)
        if len(self._putting) < self._at_once:
            task = asyncio.create_task(self._put_waiting())
            self._putting.add(task)
            task.add_done_callback(self._putting.discard)
        try:
            async with asyncio.timeout(self._timeout_s):
                await done
        except TimeoutError as error:
            raise Transient("queue-timeout", "the queue did not confirm in time") from error

    async def _put_waiting(self) -> None:
        while batch := self._next():
            messages = [message for part, _ in batch for message in part]
            error: GroundwireError | None = None
            try:
                async with asyncio.timeout(2 * self._timeout_s):  # its own deadline is shorter
                    await self._queue.put(messages)
            except GroundwireError as raised:
                error = raised
            except Exception:
                logger().exception("queue crashed")
                error = Transient("queue-crashed", "the queue failed unexpectedly")
            for _, done in batch:
                if done.done():
                    continue  # nobody waits any longer
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    def _next(self) -> list[Waiting]:
        """The next callers' messages; whoever gave up before his were sent is left out."""
        taken: list[Waiting] = []
        count = 0
        while self._waiting and (not taken or count + len(self._waiting[0][0]) <= self._batch):
            messages, done = self._waiting.popleft()
            self._messages -= len(messages)
            if not done.done():
                taken.append((messages, done))
                count += len(messages)
        return taken
