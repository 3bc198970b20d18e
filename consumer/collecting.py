"""Collects garbage when few are connected: Python's own full collections look at all that lives.

Of 4,000 connections those took 0.1 s, in which nobody was answered, and a crowd that comes and goes
had one every second. What is loaded at the start is never looked at again; the young are collected
as ever; and what a connection leaves is freed without any of it.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

QUIET = 500  # connections: a full collection takes some 10 ms then
LOOK_S = 5.0
LONGEST_S = 300.0  # between two of them in a crowd that does not go
WORTH = 10  # collections of the middle-aged since the last full one, as by default

_NEVER = 1 << 30


async def collect_when_quiet(
    stop: asyncio.Event,
    connections: Callable[[], int],
    *,
    look_s: float = LOOK_S,
    longest_s: float = LONGEST_S,
) -> None:
    """Until ``stop``."""
    with _by_hand():
        collected = time.monotonic()
        while not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(look_s):
                    await stop.wait()
            due = time.monotonic() - collected > longest_s
            if gc.get_count()[2] > WORTH and (due or connections() <= QUIET):
                gc.collect()
                collected = time.monotonic()


@contextmanager
def _by_hand() -> Iterator[None]:
    young, middle, old = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, middle, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)
        gc.unfreeze()
