"""The log as retraining reads it: what is pending for each policy, and which decisions are open.

A fold without I/O: whoever reads the same entries comes to the same, from 0 or from a stored state,
however the entries were batched; entries that were read before change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumer.ports import LogEntry
from handlers.retrain_pending import Count, Counting, has_other_masks, read_change
from handlers.retrain_policy import Policy
from handlers.retrain_records import DECIDED, TRIGGERED, read_decision
from handlers.retrain_state import MAX_KEPT, Open, State, fits


class Ledger:
    """``open`` are the decisions that no entry says were triggered, in their order."""

    def __init__(self, policies: Sequence[Policy], state: State) -> None:
        self.countings = {
            one.name: Counting.restored(one, state.policies.get(one.name)) for one in policies
        }
        self.open: dict[str, Open] = dict(state.open)
        self._gone = {
            name: count for name, count in state.policies.items() if name not in self.countings
        }

    @property
    def begin(self) -> int:
        """The first entry that one of the policies has not counted."""
        return min((one.next for one in self.countings.values()), default=0)

    def take(self, entry: LogEntry, log: str) -> None:
        """``log`` is the log's identity. Raises ``Permanent`` for an entry that is none."""
        kind = entry.data.get("kind")
        if kind == "lake":
            self._lake(entry, log)
        elif kind == DECIDED:
            self._decided(entry)
        elif kind == TRIGGERED:
            self.open.pop(str(entry.data.get("id")).removeprefix(f"{TRIGGERED}:"), None)

    def passed(self, end: int) -> None:
        """Every entry before ``end`` was given."""
        for counting in self.countings.values():
            counting.passed(end)

    def is_gone(self, policy: str) -> bool:
        """Whether it is not configured any more."""
        return policy not in self.countings

    def state(self, *, kept: int = MAX_KEPT) -> State:
        """To be stored; `Ledger` of it goes on at its smallest ``next``. Pending tasks are in it
        if they have at most ``kept`` changes."""
        is_whole = fits(self.countings.values(), kept)
        counts = {
            name: counting.stored(with_tasks=is_whole) for name, counting in self.countings.items()
        }
        return State(policies={**self._gone, **counts}, open=self.open)

    def _lake(self, entry: LogEntry, log: str) -> None:
        change = read_change(entry, log)
        if change is None or change.ground_truth is None:
            return
        other_masks = has_other_masks(entry.data, change)
        for counting in self.countings.values():
            counting.take(change, other_masks=other_masks)

    def _decided(self, entry: LogEntry) -> None:
        decision = read_decision(entry.index, entry.data)
        if not self._is_new(decision.policy, decision.decision, decision.log_size):
            return
        if not decision.dry_run:
            self.open[decision.id] = Open(decision=decision)

    def _is_new(self, policy: str, number: int, size: int) -> bool:
        counting = self.countings.get(policy)
        if counting is not None:
            return counting.decide(number, size)
        before = self._gone.get(policy, Count())
        if number <= before.decided:
            return False
        since = max(before.since, size)
        self._gone[policy] = Count(decided=number, since=since, next=since)
        return True
