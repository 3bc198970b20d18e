"""One lane's loop: take, handle, settle. It has no opinions: `retry.decide` has them about one
failure, `outage` about failures that many share, `suspects` about what kills its process.

Acknowledging comes last, so a crash repeats work and every step may be repeated. Exactly one verb
is called on each lease. An exclusive lane is retried in place, in order, until it works: nothing of
it overtakes, nothing of it is buried.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from consumer.errors import Permanent, Transient
from consumer.model import Change, Failure, Outcome, Record, timestamp
from consumer.outage import HELD_PER_S, Began, Ended, Outages, Trial, Verdict, source_of
from consumer.ports import Handler, Lease, Ports, Queue, Result, Sleep, Work
from consumer.retry import Bury, Policy, Retry, backoff_s, decide
from consumer.suspects import KILLS, Room, groups, kills
from consumer.telemetry import Metrics, about, logger

IDS_IN_A_LINE = 10
LONGEST_STANDSTILL_S = 30.0  # after an outage an exclusive lane goes on within it
UNSETTLED = Transient("handler-unsettled", "the handler gave no result")
PAUSED = "source-paused"
MOST_UNTOLD = 100  # records of pauses that the queue has not taken yet


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
    monotonic: Callable[[], float] = time.monotonic
    _outages: Outages = field(init=False)
    _room: Room = field(init=False, default_factory=Room)
    _untold: list[Record] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._outages = Outages(self.monotonic, self.random, self.policy)

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
                if batch and (held := await self.dispatch(batch, stop)):
                    await _unless(stop, self.sleep(held / HELD_PER_S))
                failures = 0
            except (Transient, Permanent) as error:
                failures += 1
                logger().warning("lane waits", lane=self._lane, reason=error.reason)
                await _unless(stop, self.sleep(backoff_s(failures, self.policy, self.random)))

    async def dispatch(self, batch: Sequence[Lease], stop: asyncio.Event) -> int:
        """Handles one batch and settles every lease of it. Returns how many of it were given back
        because their sources are paused; 0 when any was handled."""
        if self.handler.LANE.exclusive:
            await self._in_place(batch, stop)
            return 0
        held = 0
        for group in groups(batch):
            async with self._room.enter(alone=group.alone):
                held += await self._try(group.leases)
        return held if held == len(batch) else 0

    async def _try(self, batch: Sequence[Lease]) -> int:
        """Handles those whose sources are not paused; returns how many were given back."""
        given_up = {id(lease): why for lease in batch if (why := self._given_up(lease))}
        handed, held = self._outages.admit(it for it in batch if id(it) not in given_up)
        trials = self._outages.trials(handed)
        recorded: set[str] = set()
        try:
            await asyncio.gather(*(self._hold(lease, after_s) for lease, after_s in held))
            await self._handle(handed, trials, recorded)
        finally:  # however it ended, no probe is out any longer
            verdicts = [self._outages.judge(source, trial) for source, trial in trials.items()]
        for verdict in verdicts:
            await self._obey(verdict, recorded)
        for lease in batch:
            if why := given_up.get(id(lease)):
                await self._settle(lease, why, recorded)
        return len(held)

    async def _handle(
        self, handed: Sequence[Lease], trials: Mapping[str, Trial], recorded: set[str]
    ) -> None:
        """Settles each as it becomes known, but for failures that many share: those wait in their
        trials until the others are known."""
        open_leases = {id(lease): lease for lease in handed}
        async with aclosing(self._results(handed)) as results:
            async for work, result in results:
                lease = open_leases.pop(id(work))
                if trials[source_of(lease)].note(lease, result):
                    await self._settle(lease, result, recorded)
        for lease in open_leases.values():
            trials[source_of(lease)].note(lease, UNSETTLED)
            await self._settle(lease, UNSETTLED, recorded)

    async def _results(self, batch: Sequence[Lease]) -> AsyncGenerator[tuple[Work, Result], None]:
        """The handler's results. Where it raises, the rest is handled one by one, so that only the
        culprit gets that as its result; unless it says that all would fail alike."""
        if not batch:
            return
        left = {id(lease): lease for lease in batch}
        try:
            handling = self.handler.handle(batch, self.ports)
            async with aclosing(cast(Any, handling)) as results:
                async for work, result in results:
                    if left.pop(id(work), None) is not None:
                        yield work, result
            return
        except (Transient, Permanent) as error:
            failed = error
        except Exception as error:
            logger().exception("handler crashed", lane=self._lane, messages=_ids(left.values()))
            failed = Transient("handler-crashed", f"unexpected {type(error).__name__}")
        shared = isinstance(failed, Transient) and failed.shared
        for lease in left.values():
            if shared or len(batch) == 1:
                yield lease, failed
                continue
            async with aclosing(self._results([lease])) as results:
                async for alone in results:
                    yield alone

    def _given_up(self, lease: Lease) -> Permanent | None:
        """Why a lease is to be buried without being handled."""
        if kills(lease):
            return KILLS
        if lease.attempt <= self.policy.attempts:
            return None
        last = lease.failure
        return Permanent(last.reason, last.message) if last else Permanent("out-of-attempts")

    async def _hold(self, lease: Lease, after_s: float) -> None:
        """Back it goes as it came: it was not tried."""
        at = timestamp(self.ports.clock())
        paused = Failure(reason=PAUSED, message="its source is paused", at=at)
        await lease.retry(after_s, lease.failure or paused, counted=False)

    async def _obey(self, verdict: Verdict, recorded: set[str]) -> None:
        if verdict.change is not None:
            self._announce(verdict.change)
        await self._tell_log()
        for lease, error in verdict.own:
            await self._settle(lease, error, recorded)
        for _, error, _ in verdict.later:
            self.metrics.retried(self._lane, error.reason)
        await asyncio.gather(
            *(
                lease.retry(after_s, lease.failure or self._failure(error), counted=False)
                for lease, error, after_s in verdict.later
            )
        )

    def _announce(self, change: Began | Ended) -> None:
        """One line at the beginning of an outage, one at its end, however many events wait."""
        at, source = timestamp(self.ports.clock()), change.source
        fields: dict[str, Any] = {"lane": self._lane, "source": source}
        if isinstance(change, Began):
            kind, fields["reason"] = "paused", change.error.reason
            said = {"detail": change.error.message, "after_s": round(change.after_s, 1)}
            logger().error("source paused", **fields, **said)
        else:
            kind, fields["reason"] = "resumed", change.reason
            fields["lasted_s"] = round(change.lasted_s)
            logger().warning("source resumed", **fields)
        self.metrics.source_paused(source, fields["reason"], paused=kind == "paused")
        record = Record(id=f"{self._lane}:{source}:{at}", kind=kind, fields=fields)
        self._untold = [*self._untold, record][-MOST_UNTOLD:]

    async def _tell_log(self) -> None:
        """When the queue takes no record now, the next batch's turn tries again."""
        untold, self._untold = self._untold, []
        if not untold:
            return
        try:
            await self.queue.put(untold)
        except (Transient, Permanent) as error:
            logger().warning("not told", reason=error.reason)
            self._untold = [*untold, *self._untold][-MOST_UNTOLD:]

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
                counted = not (isinstance(error, Transient) and error.shared)
                await lease.retry(self.policy.base_s, self._failure(error), counted=counted)
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
