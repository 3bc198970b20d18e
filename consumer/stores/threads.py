"""A few threads of a store's own, so that no blocking call ever holds up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from consumer.errors import Transient

T = TypeVar("T")


class Threads:
    """Runs calls in at most ``count`` threads and waits for each at most ``deadline_s``.

    A call that is given up may still take effect, exactly as one whose answer is lost.
    """

    def __init__(self, count: int, *, deadline_s: float) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="store")
        self._deadline_s = deadline_s

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises; ``Transient`` (``store-slow``) at the deadline."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await loop.run_in_executor(self._pool, call)
        except TimeoutError as error:
            text = f"the store did not answer within {self._deadline_s:g} s"
            raise Transient("store-slow", text, shared=True) from error

    def close(self) -> None:
        """Takes no further calls; those that run end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
