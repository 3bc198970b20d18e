"""The log as a person asks it: decisions and what became of them, and what is pending now.

Only reads. It goes on from the follower's stored state, where there is one, so that a long log
costs no more than what is new.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from consumer.changes import TaskChange
from consumer.errors import Permanent
from consumer.ports import Cursor, LogEntry, LogReader, Store
from handlers import retrain_records as records
from handlers.retrain_drawn import drawn_classes, is_drawn
from handlers.retrain_ledger import Ledger
from handlers.retrain_pending import Counting, read_change
from handlers.retrain_policy import Decide, Pending, Policy, Wait, decide
from handlers.retrain_records import Decision, read_decision
from handlers.retrain_state import Open, State, read_state
from handlers.retrain_tasks import Key, Task
from handlers.threads import together

READ = 1024  # entries at once
READ_AT_ONCE = 8  # manifests
MAX_SOUGHT = 2_000  # manifests in which a class is looked for


@dataclass(slots=True)
class Told:
    """One decision, and what the log says of it since. ``ended`` is its ``triggered`` entry."""

    decision: Decision
    ended: Mapping[str, Any] | None = None
    failures: list[str] = field(default_factory=list)  # reasons


async def read_entries(log: LogReader, start: int, end: int) -> AsyncIterator[LogEntry]:
    for first in range(start, end, READ):
        for entry in await log.read(first, min(end, first + READ)):
            yield entry


async def decisions(log: LogReader) -> list[Told]:
    """Every decision that was logged, in their order."""
    found: dict[str, Told] = {}
    async for entry in read_entries(log, 0, await log.size()):
        data = entry.data
        kind, entry_id = data.get("kind"), str(data.get("id"))
        if kind == records.DECIDED:
            decision = read_decision(entry.index, data)
            found.setdefault(decision.id, Told(decision))
        elif kind == records.TRIGGERED:
            told = found.get(entry_id.removeprefix(f"{records.TRIGGERED}:"))
            if told is not None:
                told.ended = data
        elif kind == records.FAILED and entry_id.startswith(f"{records.FAILED}:trigger:"):
            told = found.get(f"{data.get('policy')}:{data.get('decision')}")
            if told is not None:
                told.failures.append(str(data.get("reason")))
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Standing:
    """How a policy stands. ``next`` is what it would do now; ``unreadable`` counts tasks whose
    manifest cannot be had; ``undrawn`` are classes that no ground truth was found to have, of
    ``sought`` tasks."""

    policy: Policy
    decided: int
    pending: Pending
    next: Decide | Wait
    unreadable: int = 0
    undrawn: tuple[str, ...] = ()
    sought: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """``gone`` names policies with open decisions that are not configured any more. ``behind``
    counts entries that the follower has not taken in; None: it has never run."""

    standings: tuple[Standing, ...]
    open: tuple[Open, ...]
    gone: frozenset[str]
    behind: int | None


async def overview(
    policies: Sequence[Policy],
    cursor: Cursor | None,
    *,
    log: LogReader,
    store: Store,
    now: datetime,
) -> Overview:
    """``cursor`` is the follower's stored one; None: it has never run."""
    state = (read_state(cursor.state) if cursor else None) or State()
    ledger = Ledger(policies, state)
    begin = min(cursor.next, ledger.begin) if cursor and state.policies else 0
    size = await log.size()
    identity = await log.identity()
    async for entry in read_entries(log, begin, size):
        ledger.take(entry, identity)
    ledger.passed(size)
    standings = [
        await _standing(counting, log, store, now) for counting in ledger.countings.values()
    ]
    opened = tuple(ledger.open.values())
    gone = frozenset(o.decision.policy for o in opened if ledger.is_gone(o.decision.policy))
    behind = None if cursor is None else max(0, size - cursor.next)
    return Overview(tuple(standings), opened, gone, behind)


async def _standing(counting: Counting, log: LogReader, store: Store, now: datetime) -> Standing:
    await look_all(counting, store)
    policy, pending = counting.policy, counting.pending()
    undrawn, sought = await _undrawn(policy, log, store)
    return Standing(
        policy=policy,
        decided=counting.decided,
        pending=pending,
        next=decide(pending, policy, now),
        unreadable=sum(1 for _ in counting.unread()),
        undrawn=undrawn,
        sought=sought,
    )


async def look_all(counting: Counting, store: Store) -> None:
    """Finds out which classes are drawn in all that is pending, as far as it can be had."""

    async def one(task: Task) -> None:
        try:
            found = await is_drawn(store, task, counting.policy.classes)
        except Permanent as error:
            counting.read(task, drawn=None, problem=error.reason)
        else:
            counting.read(task, drawn=found, problem=None)

    await together((one(task) for task in list(counting.unread())), at_once=READ_AT_ONCE)


async def ground_truth(log: LogReader, policy: Policy, size: int) -> list[Task]:
    """The tasks of the policy's projects that are in the ground truth at that size of the log."""
    truth: dict[Key, Task] = {}
    identity = await log.identity()
    async for entry in read_entries(log, 0, size):
        change = read_change(entry, identity)
        if change is None or change.ground_truth is None or not policy.wants(change):
            continue
        task = _task(change)
        if change.ground_truth == "removed":
            truth.pop(task.key, None)
        else:
            truth[task.key] = task
    return list(truth.values())


def _task(change: TaskChange) -> Task:
    revision, manifest = change.revision or "", change.manifest_key or ""
    of = change.source, change.project, change.task
    return Task(*of, (), None, revision, manifest, change.label)


async def _undrawn(policy: Policy, log: LogReader, store: Store) -> tuple[tuple[str, ...], int]:
    """The policy's classes that are drawn in none of the ground truth, and in how many tasks they
    were sought."""
    if not policy.classes:
        return (), 0
    wanted, sought = set(policy.classes), 0
    tasks = iter(await ground_truth(log, policy, await log.size()))
    while wanted and sought < MAX_SOUGHT and (some := list(islice(tasks, READ_AT_ONCE))):
        sought += len(some)
        for drawn in await together(drawn_classes(store, task) for task in some):
            wanted -= drawn
    return tuple(one for one in policy.classes if one in wanted), sought


async def any_drawn(tasks: Collection[Task], policy: Policy, store: Store) -> bool:
    """Whether there is anything to train on."""
    if not policy.classes:
        return bool(tasks)
    rest = iter(tasks)
    while some := list(islice(rest, READ_AT_ONCE)):
        for drawn in await together(drawn_classes(store, task) for task in some):
            if not drawn.isdisjoint(policy.classes):
                return True
    return False
