"""What becomes of open decisions: snapshot, then trigger, then the log is told; in that order.

The target is told only when the snapshot stands in the stored state, so it never hears two contents
under one key. What fails is tried again for ever, and stands in the decision until it works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from consumer.model import Record, timestamp
from consumer.ports import Queue
from handlers import retrain_records as records
from handlers.retrain_jobs import Ended, Jobs, wait_s
from handlers.retrain_policy import Policy
from handlers.retrain_records import Decision
from handlers.retrain_state import MAX_MESSAGE, Begun, Open, Taken
from handlers.targets.trigger import Target, Trigger

LOOK_S = 0.25  # while something is under way
GRACE_S = 15.0  # a target's own time limit says more than ours, and it cleans up
GONE = "policy-not-configured"  # any more: it is not fired, and not forgotten
SNAPSHOT_S = 86_400.0  # the longest that a snapshot may take


class TakeSnapshot(Protocol):
    """Makes the snapshot of a decision, or finds the one that was made: equal for equal decisions;
    and what the log is told of it. Raises ``Transient`` and ``Permanent``."""

    def __call__(self, decision: Decision) -> Awaitable[tuple[Taken, Record]]: ...


@dataclass(slots=True)
class Triggers:
    """Works on decisions that are handed in. Policies and targets are by the policy's name;
    ``random`` gives [0, 1)."""

    policies: Mapping[str, Policy]
    targets: Mapping[str, Target]
    snapshot: TakeSnapshot
    queue: Queue
    random: Callable[[], float]
    grace_s: float = GRACE_S
    jobs: Jobs = field(default_factory=Jobs)

    def begin_due(self, opened: Mapping[str, Open], log: str, now: datetime) -> None:
        """The next step of each policy's first decision that is due. All that ``opened`` holds is
        stored already."""
        for one in opened.values():
            policy = self.policies.get(one.decision.policy)
            if policy is None or one.begun or self.jobs.is_busy(policy.name):
                continue
            if one.due_in_s(now) > 0:
                continue
            if one.snapshot is None:
                take = partial(self._take, one.decision)
                self.jobs.begin(policy.name, one.decision.id, take, limit_s=SNAPSHOT_S)
            else:
                trigger = trigger_for(one.decision, one.snapshot, log)
                fire = partial(self._fire, trigger, one.snapshot)
                limit_s = policy.timeout_s + self.grace_s
                self.jobs.begin(policy.name, one.decision.id, fire, limit_s=limit_s)

    def take_ended(self, opened: Mapping[str, Open], now: datetime) -> bool:
        """Writes into the decisions what has ended; whether one of them can go on."""
        found = False
        for ended in self.jobs.ended():
            one = opened.get(ended.decision)
            if one is not None:  # another process may have triggered it meanwhile
                found = self._ended(one, ended, now) or found
        return found

    def failure(self, one: Open, log: str) -> Record | None:
        """How it last failed, if the log was not told of that reason yet."""
        if one.reason is None or one.reason in one.said:
            return None
        return records.failed(one.decision, reason=one.reason, **self._about(one.decision, log))

    def end(self, one: Open, log: str) -> Record | None:
        """That its target has begun."""
        if one.begun is None or one.snapshot is None:
            return None
        return records.triggered(
            one.decision,
            snapshot=one.snapshot.id,
            reference=one.begun.reference,
            already=one.begun.already,
            **self._about(one.decision, log),
        )

    def wakes(self, opened: Mapping[str, Open], now: datetime) -> list[float]:
        """In how many seconds something is due, or may have ended."""
        waiting = [
            one.due_in_s(now)
            for one in opened.values()
            if one.begun is None
            and one.decision.policy in self.policies
            and not self.jobs.is_busy(one.decision.policy)
        ]
        return [*waiting, *([LOOK_S] if len(self.jobs) else [])]

    def troubles(self, opened: Mapping[str, Open]) -> list[str]:
        return [
            reason
            for one in opened.values()
            if (reason := one.reason if one.decision.policy in self.policies else GONE)
        ]

    async def _take(self, decision: Decision) -> tuple[Taken, None]:
        taken, record = await self.snapshot(decision)
        await self.queue.put([record])
        return taken, None

    async def _fire(self, trigger: Trigger, taken: Taken) -> tuple[Taken, Begun]:
        fired = await self.targets[trigger.policy].fire(trigger)
        return taken, Begun(reference=fired.reference, already=fired.already)

    def _ended(self, one: Open, ended: Ended, now: datetime) -> bool:
        if ended.error is not None:
            one.attempts += 1
            one.reason = records.slug(ended.error.reason)
            one.message = ended.error.message[:MAX_MESSAGE]
            one.tried_at = timestamp(now)
            one.wait_s = wait_s(ended.error, one.attempts, self.random)
            return False
        taken, begun = ended.result
        one.snapshot, one.begun = one.snapshot or taken, one.begun or begun
        one.attempts, one.reason, one.message, one.tried_at, one.wait_s = 0, None, "", "", 0.0
        return True

    def _about(self, decision: Decision, log: str) -> dict[str, Any]:
        policy = self.policies.get(decision.policy)
        return {
            "key": records.idempotency_key(log, decision.policy, decision.decision),
            "target": policy.target if policy else "",
        }


def trigger_for(decision: Decision, taken: Taken, log: str) -> Trigger:
    """Made of the logged decision and its snapshot alone."""
    return Trigger(
        key=records.idempotency_key(log, decision.policy, decision.decision),
        policy=decision.policy,
        decision=decision.decision,
        reason=decision.reason,
        decided_at=decision.decided_at,
        log=log,
        log_size=decision.log_size,
        log_root=taken.log_root,
        snapshot=taken.id,
        snapshot_name=taken.name,
        snapshot_key=taken.key,
        snapshot_sha256=taken.sha256,
        tasks=taken.tasks,
        added=decision.added,
        changed=decision.changed,
    )
