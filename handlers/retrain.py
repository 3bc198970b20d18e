"""The follower ``retrain``: a policy over the ground truth decides, a snapshot, then the trigger.

It acts only on a decision read back from the log: decision n of a policy is the first one logged,
whoever made it, and fixes the tree size. Every step has the decision's key, so a crash anywhere
begins a training once, or asks for it again with the same key and the same content.
"""

from __future__ import annotations

import random as chance
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice

import msgspec

from consumer.errors import Permanent
from consumer.model import Record
from consumer.ports import Batch, Cursor, FollowPorts, Step
from handlers import retrain_records as records
from handlers.retrain_drawn import is_drawn
from handlers.retrain_ledger import Ledger
from handlers.retrain_outbox import Outbox
from handlers.retrain_pending import Counting
from handlers.retrain_policy import Decide, Policy, decide
from handlers.retrain_state import MAX_KEPT, State, read_state
from handlers.retrain_tasks import Key, Task
from handlers.retrain_triggers import GRACE_S, TakeSnapshot, Triggers
from handlers.targets.trigger import Target
from handlers.threads import together

READ = 256  # manifests of one call
READ_AT_ONCE = 8
UNREADABLE_S = 60.0  # a manifest that cannot be had is looked for again


class Retrain:
    """Implements ``Follower``. ``targets`` are by policy, ``random`` gives [0, 1). ``kept`` is how
    many changes of pending tasks the stored state holds: with more, a start counts them again from
    the last decision on."""

    name = "retrain"
    kinds = frozenset({"lake", records.DECIDED, records.TRIGGERED})

    def __init__(
        self,
        policies: Sequence[Policy],
        targets: Mapping[str, Target],
        *,
        ports: FollowPorts,
        snapshot: TakeSnapshot,
        random: Callable[[], float] = chance.random,
        grace_s: float = GRACE_S,
        kept: int = MAX_KEPT,
    ) -> None:
        self._kept = kept
        self._policies = tuple(policies)
        self._ports = ports
        by_name = {policy.name: policy for policy in policies}
        self._triggers = Triggers(by_name, targets, snapshot, ports.queue, random, grace_s)
        self._begin_anew(State())

    def _begin_anew(self, state: State) -> None:
        self._ledger = Ledger(self._policies, state)
        self._outbox = Outbox(self._ports.queue)
        self._looked: dict[tuple[str, Key], datetime] = {}  # for manifests that could not be had
        self._log = ""

    async def start(self, cursor: Cursor) -> Cursor:
        """What is under way goes on: it is of decisions that the log holds, and to begin it again
        would only ask twice. A state that cannot be read is had from the log again."""
        state = read_state(cursor.state)
        self._begin_anew(state or State())
        if state is None:
            return Cursor()
        return Cursor(min(cursor.next, self._ledger.begin), cursor.state)

    async def close(self) -> None:
        """Ends what is under way; it is begun again at the next start."""
        await self._triggers.jobs.close()

    async def follow(self, batch: Batch) -> Step:
        self._log = self._log or await self._ports.log.identity()
        for entry in batch.entries:
            self._ledger.take(entry, self._log)
        self._ledger.passed(batch.end)
        now, opened = self._ports.clock(), self._ledger.open
        wakes: list[float] = []
        if batch.caught_up:
            self._triggers.begin_due(opened, self._log, now)  # of what is stored, before any news
        if self._triggers.take_ended(opened, now):
            wakes.append(0.0)
        if batch.caught_up:
            wakes += await self._look(now)
            wakes += await self._tell(batch.size, now)
        wakes += self._triggers.wakes(opened, now)
        return Step(self._cursor(batch), min(wakes, default=None), self._troubles())

    def _cursor(self, batch: Batch) -> Cursor:
        """It stays behind when the pending tasks are too many to be kept."""
        state = self._ledger.state(kept=self._kept)
        counted = [state.policies[one.name].next for one in self._policies]
        return Cursor(min([batch.end, *counted]), msgspec.to_builtins(state))

    async def _look(self, now: datetime) -> list[float]:
        """Reads which classes are drawn in tasks that nobody has looked at; some of them."""
        wakes: list[float] = []
        for counting in self._ledger.countings.values():
            wanted = (one for one in counting.unread() if self._may_look(counting, one, now))
            some = list(islice(wanted, READ))
            await together((self._read(counting, one, now) for one in some), at_once=READ_AT_ONCE)
            if any(counting.unread()):
                wakes.append(0.0 if len(some) == READ else UNREADABLE_S)
        return wakes

    def _may_look(self, counting: Counting, task: Task, now: datetime) -> bool:
        looked = self._looked.get((counting.policy.name, task.key))
        if task.problem is None or looked is None:
            return True
        return not 0 <= (now - looked).total_seconds() < UNREADABLE_S

    async def _read(self, counting: Counting, task: Task, now: datetime) -> None:
        """What cannot be read is no reason to stop the others: it does not count until it can."""
        try:
            found = await is_drawn(self._ports.store, task, counting.policy.classes)
        except Permanent as error:
            self._looked[counting.policy.name, task.key] = now
            counting.read(task, drawn=None, problem=error.reason)
        else:
            counting.read(task, drawn=found, problem=None)

    async def _tell(self, size: int, now: datetime) -> list[float]:
        """The log is told what is decided, what failed and what has begun; in how many seconds
        there may be more to tell."""
        news, waits = self._decisions(size, now)
        opened = self._ledger.open.values()
        ends = [end for one in opened if (end := self._triggers.end(one, self._log))]
        failures = [(one, self._triggers.failure(one, self._log)) for one in opened]
        told = [failure for _, failure in failures if failure]
        waits += await self._outbox.put([*news, *told, *ends], now)
        for one, failure in failures:
            if failure is not None and one.reason and self._outbox.was_put(failure):
                one.said = (*one.said, one.reason)
        return waits

    def _decisions(self, size: int, now: datetime) -> tuple[list[Record], list[float]]:
        """Those that are to be made now, and in how many seconds others may be."""
        news: list[Record] = []
        waits: list[float] = []
        for counting in self._ledger.countings.values():
            if any(task.problem is None for task in counting.unread()):
                continue  # not all of them are known yet
            pending = counting.pending()
            made = decide(pending, counting.policy, now)
            if isinstance(made, Decide):
                policy, number = counting.policy, counting.decided + 1
                one = records.decision_for(policy, number, pending, size, made.reason)
                news.append(records.decided(one))
            elif made.until is not None:
                waits.append((made.until - now).total_seconds())
        return news, waits

    def _troubles(self) -> tuple[str, ...]:
        unread = {
            task.problem
            for counting in self._ledger.countings.values()
            for task in counting.unread()
            if task.problem
        }
        opened = self._triggers.troubles(self._ledger.open)
        return tuple(sorted([*self._outbox.troubles(), *opened, *unread]))
