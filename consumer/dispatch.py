"""One lane's loop: take, handle, settle. It has no opinions: `retry.decide` has them.

Acknowledging comes last, so a crash repeats work and every step may be repeated. Exactly one verb
is called on each lease. An exclusive lane is retried in place, in order, until it works: nothing of
it overtakes, nothing of it is buried.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from consumer.errors import Permanent, Transient
from consumer.model import Change, Failure, Outcome, Record, timestamp
from consumer.ports import Handler, Lease, Ports, Queue, Result, Sleep, Work
from consumer.retry import Bury, Policy, Retry, backoff_s, decide
from consumer.telemetry import Metrics, about, logger

IDS_IN_A_LINE = 10
LONGEST_STANDSTILL_S = 30.0  # after an outage an exclusive lane goes on within it
UNSETTLED = Transient("handler-unsettled", "the handler gave no result")


@dataclass(slots=True)
class Dispatcher:
    """Runs one lane. ``concurrency`` batches are in work at once (one, if the lane is exclusive),
    so that a slow batch does not hold up the next."""

    handler: Handler
    queue: Queue
    ports: Ports
    metrics: Metrics
    policy: Policy = field(default_factory=Policy)
    concurrency: int = 4
    sleep: Sleep = asyncio.sleep
    random: Callable[[], float] = random.random

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set; what is leased by then is finished or, when this is cancelled,
        given back by the queue."""
        loops = 1 if self.handler.LANE.exclusive else self.concurrency
        async with asyncio.TaskGroup() as group:
            for _ in range(loops):
                group.create_task(self._loop(stop))

    async def _loop(self, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            try:
                batch = await _unless(stop, self.queue.take(self.handler.LANE))
                if batch:
                    await self.dispatch(batch, stop)
                failures = 0
            except (Transient, Permanent) as error:
                failures += 1
                logger().warning("lane waits", lane=self._lane, reason=error.reason)
                await _unless(stop, self.sleep(backoff_s(failures, self.policy, self.random)))

    async def dispatch(self, batch: Sequence[Lease], stop: asyncio.Event) -> None:
        """Handles one batch and settles every lease of it."""
        if self.handler.LANE.exclusive:
            await self._in_place(batch, stop)
            return
        fresh = [lease for lease in batch if lease.attempt <= self.policy.attempts]
        open_leases = {id(lease): lease for lease in batch}
        recorded: set[str] = set()
        async with aclosing(self._results(fresh)) as results:
            async for work, result in results:
                lease = open_leases.pop(id(work))
                await self._settle(lease, result, recorded)
        for lease in open_leases.values():  # given up by the broker, or left by the handler
            await self._settle(lease, _given_up(lease) or UNSETTLED, recorded)

    async def _results(self, batch: Sequence[Lease]) -> AsyncGenerator[tuple[Work, Result], None]:
        """The handler's results; where it raises, the rest gets that as theirs."""
        left = {id(lease): lease for lease in batch}
        try:
            handling = self.handler.handle(batch, self.ports)
            async with aclosing(cast(Any, handling)) as results:
                async for work, result in results:
                    if left.pop(id(work), None) is not None:
                        yield work, result
        except (Transient, Permanent) as error:
            for lease in left.values():
                yield lease, error
        except Exception as error:
            logger().exception("handler crashed", lane=self._lane, messages=_ids(left.values()))
            crash = Transient("handler-crashed", f"unexpected {type(error).__name__}")
            for lease in left.values():
                yield lease, crash

    async def _settle(self, lease: Lease, result: Result, recorded: set[str]) -> None:
        """What happened is on its way into the log before the lease gets its one verb; when the
        queue cannot take it, the verb is to try again."""
        with about(lease.message, self._lane):
            try:
                if isinstance(result, Transient | Permanent):
                    decision = await self._record(lease, result)
                elif isinstance(result, Outcome) and result.id not in recorded:
                    await self.queue.put([result])
                    recorded.add(result.id)
                    self._tell(result)
            except (Transient, Permanent) as error:
                logger().warning("not settled", reason=error.reason)
                await lease.retry(self.policy.base_s, self._failure(error))
                return
            if isinstance(result, Transient | Permanent):
                await self._give_back(lease, result, decision)
            else:
                await lease.ack()
                self.metrics.settled(self._lane)

    def _tell(self, outcome: Outcome) -> None:
        move = outcome.move
        logger().info(
            "lake moved",
            change=move.change,
            sequence=move.sequence,
            stage=move.stage,
            ground_truth=move.ground_truth,
        )
        if move.refused and move.change == Change.EXPORTED:
            logger().warning("not everything could be made rightly", refused=list(move.refused))
            for reason in move.refused:
                self.metrics.not_made(outcome.source, reason)

    async def _record(self, lease: Lease, error: Transient | Permanent) -> Retry | Bury:
        decision = decide(error, lease.attempt, self.policy, self.random)
        await self.queue.put([_record(self._lane, lease, self._failure(error), decision)])
        return decision

    async def _give_back(
        self, lease: Lease, error: Transient | Permanent, decision: Retry | Bury
    ) -> None:
        said = {"reason": error.reason, "attempt": lease.attempt, "detail": error.message}
        if isinstance(decision, Retry):
            await lease.retry(decision.after_s, self._failure(error))
            self.metrics.retried(self._lane, error.reason)
            trace = _surprise(error)
            logger().info("retry", after_s=round(decision.after_s, 1), exc_info=trace, **said)
        else:
            await lease.bury(self._failure(error))
            self.metrics.buried(self._lane, error.reason)
            logger().error("buried", exc_info=error.__cause__, **said)

    async def _in_place(self, batch: Sequence[Lease], stop: asyncio.Event) -> None:
        left, tries = list(batch), 0
        while not stop.is_set():
            failed = await self._try_in_place(left)
            if not left:
                return
            tries += 1
            self.metrics.retried(self._lane, failed.reason)
            asked = failed.after_s if isinstance(failed, Transient) else None
            backoff = min(backoff_s(tries, self.policy, self.random), LONGEST_STANDSTILL_S)
            wait = max(backoff, asked or 0.0)
            logger().error(
                "lane stands still",
                lane=self._lane,
                messages=_ids(left),
                reason=failed.reason,
                detail=failed.message,
                after_s=round(wait, 1),
                exc_info=_surprise(failed),
            )
            await _unless(stop, self.sleep(wait))

    async def _try_in_place(self, left: list[Lease]) -> Transient | Permanent:
        """Settles what it can and takes it out of ``left``; returns why the rest is left."""
        failed: Transient | Permanent = UNSETTLED
        try:
            handling = self.handler.handle(tuple(left), self.ports)
            async with aclosing(cast(Any, handling)) as results:
                async for work, result in results:
                    if isinstance(result, Transient | Permanent):
                        failed = result
                        if not isinstance(result, Permanent) or isinstance(work.message, Outcome):
                            continue  # an outcome is never buried: a person must mend what stops it
                        await self._give_back(work, result, await self._record(work, result))
                    else:
                        await work.ack()
                        self.metrics.settled(self._lane)
                    left.remove(work)
        except (Transient, Permanent) as error:
            failed = error
        except Exception as error:
            logger().exception("handler crashed", lane=self._lane, messages=_ids(left))
            failed = Transient("handler-crashed", f"unexpected {type(error).__name__}")
        return failed

    def _failure(self, error: Transient | Permanent) -> Failure:
        at = timestamp(self.ports.clock())
        return Failure(reason=error.reason, message=error.message, at=at)

    @property
    def _lane(self) -> str:
        return self.handler.LANE.name


def _given_up(lease: Lease) -> Permanent | None:
    """Why a lease that nobody handled is to be buried: the broker stopped delivering it, mostly."""
    if lease.failure is None:
        return None
    return Permanent(lease.failure.reason, lease.failure.message)


def _ids(leases: Iterable[Lease]) -> list[str]:
    """Whose log line it is; of many, the first ones."""
    return [lease.message.id for lease in islice(leases, IDS_IN_A_LINE)]


def _surprise(error: Transient | Permanent) -> BaseException | None:
    """What is worth a traceback at each try: only what nobody foresaw."""
    return error.__cause__ if error.reason.endswith("-crashed") else None


def _record(lane: str, lease: Lease, failure: Failure, decision: Retry | Bury) -> Record:
    """Failures of one event for one reason are one entry; every burial is one."""
    message = lease.message
    fields: dict[str, Any] = {"lane": lane, "message": message.id, "reason": failure.reason}
    if not isinstance(message, Record):
        fields |= {"source": message.source, "project": message.project, "task": message.task}
    if isinstance(decision, Bury):
        fields["attempts"] = lease.attempt
        return Record(id=f"{lane}:{message.id}:{failure.at}", kind="buried", fields=fields)
    return Record(id=f"{lane}:{message.id}:{failure.reason}", kind="failed", fields=fields)


async def _unless(stop: asyncio.Event, doing: Any) -> Any:
    """The result of ``doing``, or None as soon as ``stop`` is set, ``doing`` being cancelled."""
    task = asyncio.ensure_future(doing)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, stopped):
            one.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
