"""A few threads of a store's own, so that no blocking call ever holds up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
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
        self._started = 0
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises; ``Transient`` (``store-slow``) at the
        deadline, or (``store-no-thread``) where memory is too short for any."""
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
            self._closed = True
        for _ in range(self._started):
            self._calls.put(None)

    def _start(self) -> None:
        """As many as there is memory for; the others when there is more."""
        with self._starting:
            if self._closed:
                raise RuntimeError("the store is closed")
            while self._started < self._count:
                try:
                    Thread(target=self._work, name=f"store-{self._started}", daemon=True).start()
                except (RuntimeError, MemoryError):
                    if not self._started:
                        text = "there is no memory for a thread that asks the store"
                        raise Transient("store-no-thread", text, shared=True) from None
                    return
                self._started += 1

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            call, answer = given
            if not answer.set_running_or_notify_cancel():
                continue  # nobody waits any more
            try:
                answer.set_result(call())
            except BaseException as error:
                with suppress(Exception):  # no memory even to say so: then it is slow
                    answer.set_exception(error)
