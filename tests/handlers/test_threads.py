"""What is done together ends together."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from handlers.threads import together


async def test_what_never_began_is_closed_when_all_is_cancelled() -> None:
    """Else Python says, when it is collected, that it was never awaited."""
    begun = asyncio.Event()

    async def one() -> None:
        begun.set()
        await asyncio.Event().wait()

    doing = [one() for _ in range(3)]
    task = asyncio.create_task(together(doing, at_once=1))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {inspect.getcoroutinestate(each) for each in doing} == {inspect.CORO_CLOSED}
