"""Doing things side by side: a few at a time, and conversions in two threads.

Two for the whole process, so that its memory is bounded by two volumes however many tasks are in
work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CONVERSIONS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="convert")


async def converted(convert: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the call returns, made in one of the threads."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(CONVERSIONS, lambda: convert(*args, **kwargs))


async def together(
    doing: Iterable[Coroutine[Any, Any, T]], *, at_once: int | None = None
) -> list[T]:
    """All results in order; nothing of it runs on when this is cancelled or one of them raises."""
    gate = asyncio.Semaphore(at_once) if at_once else None
    coroutines = list(doing)

    async def gated(one: Awaitable[T]) -> T:
        if gate is None:
            return await one
        async with gate:
            return await one

    tasks = [asyncio.ensure_future(gated(one)) for one in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in coroutines:  # of which some may never have begun
            one.close()
