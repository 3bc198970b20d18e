"""A few threads of a store's own, so that no blocking call ever holds up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from consumer.errors import Transient

T = TypeVar("T")


class Threads:
    """Runs calls in at most ``count`` threads and waits for each at most ``deadline_s``.

    A call that is given up may still take effect, exactly as one whose answer is lost. The threads
    are daemons: a server that stalls must not keep a process from ending, and a write that ends
    with its process is a crash like any other.
    """

    def __init__(self, count: int, *, deadline_s: float) -> None:
        self._count = count
        self._deadline_s = deadline_s
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._starting = Lock()
        self._state = "new"

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises; ``Transient`` (``store-slow``) at the deadline."""
        self._start()
        answer: Future[T] = Future()
        self._calls.put((call, answer))
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.wrap_future(answer)
        except TimeoutError as error:
            text = f"the store did not answer within {self._deadline_s:g} s"
            raise Transient("store-slow", text, shared=True) from error

    def close(self) -> None:
        """Takes no further calls; those that run end by themselves."""
        with self._starting:
            started, self._state = self._state == "started", "closed"
        for _ in range(self._count if started else 0):
            self._calls.put(None)

    def _start(self) -> None:
        with self._starting:
            if self._state == "closed":
                raise RuntimeError("the store is closed")
            if self._state == "new":
                for number in range(self._count):
                    Thread(target=self._work, name=f"store-{number}", daemon=True).start()
                self._state = "started"

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            call, answer = given
            if not answer.set_running_or_notify_cancel():
                continue  # nobody waits any more
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)
