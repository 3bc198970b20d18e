"""A person fires a policy: a decision like any other, whose reason is his.

It is put into the log and counts when it is read back: if another decision took its number
meanwhile, it takes the next. Whoever follows the log does the rest, wherever that runs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from consumer.errors import Permanent, Transient
from consumer.ports import LogReader, Queue, Store
from handlers import retrain_records as records
from handlers.retrain_ledger import Ledger
from handlers.retrain_policy import Policy
from handlers.retrain_reading import any_drawn, ground_truth, look_all, read_entries
from handlers.retrain_records import Decision, read_decision
from handlers.retrain_state import State

TRIES = 10  # numbers that others may take meanwhile
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Hand:
    """Who fires; ``reason_note`` is the hash of the note that says why, ``nonce`` is his alone."""

    who: str
    reason_note: str
    nonce: str


async def check(policy: Policy, *, store: Store, log: LogReader) -> None:
    """Raises ``Permanent`` (``empty-ground-truth``) when there is nothing to train on."""
    tasks = await ground_truth(log, policy, await log.size())
    if not await any_drawn(tasks, policy, store):
        said = f"nothing of what {policy.name} trains on is in the ground truth"
        raise Permanent("empty-ground-truth", said)


async def fire(
    policy: Policy,
    hand: Hand,
    *,
    queue: Queue,
    store: Store,
    log: LogReader,
    within_s: float,
) -> Decision:
    """The decision as the log holds it.

    Raises ``Transient`` (``not-logged-yet``) when the log does not show it in time, and it may yet.
    """
    size = await log.size()
    ledger = Ledger([policy], State())
    identity, read = await log.identity(), 0
    for _ in range(TRIES):
        async for entry in read_entries(log, read, size):
            ledger.take(entry, identity)
        ledger.passed(size)
        read = size
        decision = await _decision(ledger, policy, hand, size, store)
        await queue.put([records.decided(decision)])
        there = await _logged(log, decision, size, within_s)
        if there.nonce == hand.nonce:
            return there
        size = await log.size()
    raise Transient("decision-contended", "others decided first each time; try again")


async def _decision(
    ledger: Ledger, policy: Policy, hand: Hand, size: int, store: Store
) -> Decision:
    counting = ledger.countings[policy.name]
    await look_all(counting, store)
    return records.decision_for(
        policy,
        counting.decided + 1,
        counting.pending(),
        size,
        "fired-by-hand",
        who=hand.who,
        reason_note=hand.reason_note,
        nonce=hand.nonce,
    )


async def _logged(log: LogReader, wanted: Decision, start: int, within_s: float) -> Decision:
    """The first decision of that number from ``start`` on, as soon as the log shows one."""
    entry_id = f"{records.DECIDED}:{wanted.id}"
    now = asyncio.get_running_loop().time
    deadline = now() + within_s
    while (left := deadline - now()) > 0:
        size = await log.wait(start, min(LOOK_S, left))
        async for entry in read_entries(log, start, size):
            if entry.data.get("id") == entry_id:
                return read_decision(entry.index, entry.data)
        start = max(start, size)
    said = (
        f"decision {wanted.decision} of {wanted.policy} is queued, and the log does not show it "
        "yet: does groundwire run, or groundwire work audit?"
    )
    raise Transient("not-logged-yet", said)
