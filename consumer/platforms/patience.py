"""Asking again within one piece of work: a listing that took an hour is not begun anew for one
answer that failed, nor a task for a presigned URL that expired. Both are bounded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from consumer.errors import Transient
from consumer.ports import Sleep

WAITS_S = (1.0, 4.0, 16.0, 64.0)  # between the tries of one question
MOST_S = 300.0  # that another side may make one question wait
URLS = 3  # that are asked for, for one file

_FOR_A_PERSON = frozenset({"platform-refused", "platform-credentials", "platform-address"})

T = TypeVar("T")


async def patient(ask: Callable[[], Awaitable[T]], sleep: Sleep) -> T:
    """The answer to a question that may be asked again; what another side wants to wait counts.
    Raises ``Transient`` at once where only a person can help, or the wait would be too long."""
    for wait_s in WAITS_S:
        try:
            return await ask()
        except Transient as error:
            if error.reason in _FOR_A_PERSON or (error.after_s or 0.0) > MOST_S:
                raise
            await sleep(max(wait_s, error.after_s or 0.0))
    return await ask()


async def presigned(fetch: Callable[[], Awaitable[T]]) -> T:
    """What a presigned URL opens. ``fetch`` asks for a new URL each time: one that is refused has
    expired, mostly."""
    for _ in range(URLS - 1):
        try:
            return await fetch()
        except Transient as error:
            if error.reason != "download-refused":
                raise
    return await fetch()
