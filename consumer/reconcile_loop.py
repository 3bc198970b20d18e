"""The periodic sweep of one source, for as long as the process runs.

It goes on by itself: what fails is tried again, later and later, and said once. A sweep that is
under way when the process is to stop is cut off; whoever sweeps next goes on with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.ports import Clock
from consumer.reconcile import Sweeper
from consumer.reconcile_plan import Tally
from consumer.reconcile_state import CLAIM_S, Kind, State, Taken
from consumer.retry import Policy, backoff_s
from consumer.sightings import Gap
from consumer.telemetry import Metrics, logger

CRASHED = "sweep-crashed"

Pause = Callable[[asyncio.Event, float], Awaitable[None]]


@dataclass(slots=True)
class SweepMetrics:
    """Watches a source's sweeps for its metrics."""

    source: str
    metrics: Metrics

    def begins(self, project: str, kind: Kind) -> None:
        pass

    def seen(self, count: int, total: int | None) -> None:
        pass

    def found(self, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            self.metrics.sweep_gap(self.source, gap.why)

    def waits(self, reason: str, waiting: int) -> None:
        pass


@dataclass(slots=True)
class Sweeping:
    """Sweeps a source every ``every_s`` seconds, whichever process does it. ``pause`` waits so
    long, or until the stop."""

    sweeper: Sweeper
    metrics: Metrics
    pause: Pause
    clock: Clock
    every_s: float
    policy: Policy = field(default_factory=lambda: Policy(base_s=2.0, cap_s=300.0))
    random: Callable[[], float] = random.random
    _failures: int = 0
    _said: frozenset[tuple[str, str]] = frozenset()  # which project fails, and why

    async def run(self, stop: asyncio.Event) -> None:
        self.metrics.sweep_interval(self._source, self.every_s)
        while not stop.is_set():
            wait_s = await _unless(stop, self._turn())
            if wait_s is not None:
                await self.pause(stop, wait_s)

    async def _turn(self) -> float:
        """Sweeps, if that is due; the seconds until the next turn."""
        try:
            state = await self.sweeper.ledger.read()
            left_s = self._left_s(state)
            tallies = None if left_s > 0 else await self.sweeper.sweep()
            if tallies is None:  # another process has swept, or does
                return max(1.0, min(left_s or CLAIM_S / 2, self.every_s))
        except Taken:
            return self.every_s
        except GroundwireError as error:
            return self._failed({("", error.reason): error})
        except Exception as error:
            logger().exception("sweep crashed", source=self._source)
            crash = Transient(CRASHED, f"unexpected {type(error).__name__}")
            return self._failed({("", CRASHED): crash})
        return self._done(tallies)

    def _left_s(self, state: State) -> float:
        """Until the next sweep is due. A last one that lies ahead is of a clock that was set."""
        if state.swept_at is None:
            return 0.0
        since_s = (self.clock() - datetime.fromisoformat(state.swept_at)).total_seconds()
        return max(0.0, self.every_s - since_s) if since_s >= 0 else 0.0

    def _done(self, tallies: Sequence[Tally]) -> float:
        for tally in tallies:
            if tally.failure is None:
                self.metrics.swept(self._source, tally.kind)
                _tell(self._source, tally)
        failed = {
            (one.project, one.failure.reason): one.failure
            for one in tallies
            if one.failure is not None
        }
        if failed:
            return self._failed(failed)
        if self._said:
            logger().info("sweep has no more troubles", source=self._source)
        self._said, self._failures = frozenset(), 0
        self.metrics.sweep_succeeded(self._source)
        return self.every_s

    def _failed(self, failed: dict[tuple[str, str], GroundwireError]) -> float:
        self._failures += 1
        wait_s = backoff_s(self._failures, self.policy, self.random)
        if any(isinstance(error, Permanent) for error in failed.values()):
            wait_s = max(wait_s, self.every_s)
        for error in failed.values():
            self.metrics.sweep_failed(self._source, error.reason)
            if isinstance(error, Transient) and error.after_s:
                wait_s = max(wait_s, error.after_s)
        for project, reason in sorted(failed.keys() - self._said):
            error = failed[project, reason]
            logger().error(
                "sweep waits",
                source=self._source,
                project=project or None,
                reason=reason,
                detail=error.message,
                after_s=round(wait_s, 1),
            )
        self._said = frozenset(failed)
        return wait_s

    @property
    def _source(self) -> str:
        return self.sweeper.ledger.source


def _tell(source: str, tally: Tally) -> None:
    if tally.gaps or tally.kind == "full":
        logger().info(
            "swept",
            source=source,
            project=tally.project,
            sweep=tally.kind,
            seen=tally.seen,
            gaps=dict(tally.gaps),
        )


async def _unless(stop: asyncio.Event, turn: Awaitable[float]) -> float | None:
    """What the turn gives; None as soon as the process is to stop, the turn being cancelled."""
    turning = asyncio.ensure_future(turn)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({turning, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return turning.result() if turning.done() else None
    finally:
        for one in (turning, stopped):
            one.cancel()
        await asyncio.gather(turning, stopped, return_exceptions=True)
