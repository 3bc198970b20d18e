"""Many things at once, a few at a time, and each tried again when that may help."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from consumer.errors import Transient
from consumer.ports import Sleep

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8
TRIES = 3
MAX_WAIT_S = 30.0


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Until all are done; the first error ends the others, and nothing runs on."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    workers = [asyncio.ensure_future(worker()) for _ in range(AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def retried(call: Callable[[], Awaitable[R]], sleep: Sleep) -> R:
    """What ``call`` gives; a ``Transient`` failure is tried again, then raised."""
    for attempt in range(1, TRIES):
        try:
            return await call()
        except Transient as error:
            await sleep(min(MAX_WAIT_S, max(error.after_s or 0.0, 0.5 * 2**attempt)))
    return await call()
