"""What is under way for the policies: side by side, for each policy at most one thing at a time.

Nothing that hangs holds anybody up: each has a time limit, and whoever follows the log only looks
in for what has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from consumer.errors import GroundwireError, Permanent, Transient

CANCEL_S = 15.0  # for whatever it must clean up
BASE_S, CAP_S = 0.5, 600.0  # between two tries
MAX_AFTER_S = 86_400.0  # the longest that a target may ask us to wait

Work = Coroutine[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one step of one decision."""

    decision: str
    result: Any
    error: GroundwireError | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    decision: str
    task: asyncio.Task[Any]


class Jobs:
    """Owned by the follower. A job outlives the follower's restarts, because the same decision
    would only begin it again; `close` ends all."""

    def __init__(self) -> None:
        self._running: dict[str, _Job] = {}  # by policy

    def __len__(self) -> int:
        return len(self._running)

    def is_busy(self, policy: str) -> bool:
        return policy in self._running

    def begin(
        self, policy: str, decision: str, work: Callable[[], Work], *, limit_s: float
    ) -> None:
        task = asyncio.create_task(_limited(work, limit_s), name=f"retrain {decision}")
        self._running[policy] = _Job(decision, task)

    def ended(self) -> list[Ended]:
        """What ended since it was asked last. Raises what nobody may catch."""
        found = []
        for policy, job in list(self._running.items()):
            if job.task.done():
                del self._running[policy]
                found.append(_outcome(job))
        return found

    async def close(self) -> None:
        """Cancels what runs, and waits until it is gone."""
        running = [job.task for job in self._running.values()]
        self._running.clear()
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=CANCEL_S)


def wait_s(error: GroundwireError, attempts: int, random: Callable[[], float]) -> float:
    """Before the next try, after ``attempts``; ``random`` gives [0, 1). What a person must mend is
    tried again as rarely as anything; what the other side asked for is the least wait."""
    if isinstance(error, Permanent):
        return CAP_S
    full = min(CAP_S, BASE_S * 2.0 ** min(attempts - 1, 30))
    asked = (error.after_s or 0.0) if isinstance(error, Transient) else 0.0
    return max(full * (0.5 + random() / 2), min(asked, MAX_AFTER_S))


async def _limited(work: Callable[[], Work], limit_s: float) -> Any:
    task = asyncio.create_task(work())
    try:
        await asyncio.wait({task}, timeout=limit_s)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S)
    if not task.done() or task.cancelled():
        raise Transient("target-timeout", f"it had not ended after {limit_s:g} s")
    return task.result()


def _outcome(job: _Job) -> Ended:
    if job.task.cancelled():
        return Ended(job.decision, None, Transient("target-cancelled", "it was cancelled"))
    error = job.task.exception()
    if error is None:
        return Ended(job.decision, job.task.result())
    if isinstance(error, GroundwireError):
        return Ended(job.decision, None, error)
    if not isinstance(error, Exception):
        raise error
    said = f"unexpected {type(error).__name__}"
    return Ended(job.decision, None, Transient("target-crashed", said))
