"""Which sources of a lane are paused, since what failed there is not one task's own failure.

A shared failure (``Transient.shared``: credentials, rate limit, unreachable, down) spends no
attempt and pauses its source. While it is paused nothing of it is handled; then one lease alone is
let through, the probe: an answer ends the pause, another shared failure prolongs it.

One bad task can look like an outage. So a shared failure is that task's own, and counts, when
other tasks of its batch came out well after it (the platform is there), or when this task alone
caused so many pauses that ended with the next task's answer; and once that was so, also while
nobody else is there to compare with. A rate limit never counts. What the store or the queue refuses
may begin in the middle of a batch, so there other tasks prove nothing.

No I/O; the clock (monotonic, seconds) and chance are arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from consumer.errors import Permanent, Transient
from consumer.model import Record, TaskKey
from consumer.ports import Lease, Result
from consumer.retry import Policy, backoff_s

LONGEST_PAUSE_S = 60.0  # so that a source which is mended goes on within a minute or two
LONGEST_ASKED_S = 3600.0  # that a platform may ask for (Retry-After)
RETURNS_PER_S = 100.0  # leases of one paused source that come back; they are given back at once
HELD_PER_S = 250.0  # that one loop gives back while it gets nothing else
PROBE_S = 1.0  # the least wait while a probe is out
SUSPECT = 3.0  # times as long the failed probe waits, when there are others to ask with
DOUBTS = 3  # pauses that one task alone may cause before its failures are its own
MAX_DOUBTED = 1000  # tasks


@dataclass(slots=True)
class Pause:
    """A source's outage. ``only`` is the task that alone has failed in it so far."""

    reason: str
    began: float
    until: float
    only: TaskKey | None
    failures: int = 1
    held: int = 0  # tasks given back since the last probe failed, to ask with instead of it
    probing: bool = False
    next_return: float = 0.0


@dataclass(frozen=True, slots=True)
class Began:
    """A source is paused from here on."""

    source: str
    error: Transient
    after_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A source answers again, after so many seconds."""

    source: str
    reason: str
    lasted_s: float


@dataclass(slots=True)
class Trial:
    """What became of one source's works of one batch, in the order in which it was known."""

    probe: bool = False
    began: float = 0.0
    failed: list[tuple[Lease, Transient]] = field(default_factory=list)
    well: set[TaskKey] = field(default_factory=set)
    well_after: set[TaskKey] = field(default_factory=set)  # after the first shared failure
    answered: bool = False  # though perhaps with a failure of the task's own

    def note(self, lease: Lease, result: Result) -> bool:
        """Whether the result can be settled now; a shared failure waits for the others."""
        if isinstance(result, Transient) and result.shared:
            self.failed.append((lease, result))
            return False
        if not isinstance(result, Transient | Permanent):
            self.well.add(task_of(lease))
            if self.failed:
                self.well_after.add(task_of(lease))
        self.answered |= not isinstance(result, Transient) or not result.reason.endswith(UNKNOWN)
        return True

    @property
    def tasks(self) -> set[TaskKey]:
        return {task_of(lease) for lease, _ in self.failed}


UNKNOWN = ("-crashed", "-unsettled")  # failures that do not tell whether the platform answered


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the shared failures of a trial are: ``own`` count as the task's, ``later`` are tried
    again after so many seconds with no attempt spent."""

    own: Sequence[tuple[Lease, Transient]] = ()
    later: Sequence[tuple[Lease, Transient, float]] = ()
    change: Began | Ended | None = None


class Outages:
    """Of one lane, in this process."""

    def __init__(
        self, now: Callable[[], float], random: Callable[[], float], policy: Policy
    ) -> None:
        cap_s = min(policy.cap_s, LONGEST_PAUSE_S)
        self._policy = Policy(base_s=min(policy.base_s, cap_s), cap_s=cap_s)
        self._now = now
        self._random = random
        self._pauses: dict[str, Pause] = {}
        self._ended: dict[str, float] = {}
        self._doubts: OrderedDict[TaskKey, int] = OrderedDict()

    def admit(self, leases: Iterable[Lease]) -> tuple[list[Lease], list[tuple[Lease, float]]]:
        """What may be handled now, and what is given back for so many seconds."""
        handed: list[Lease] = []
        held: list[tuple[Lease, float]] = []
        for source, works in by_source(leases).items():
            pause = self._pauses.get(source)
            if pause is None:
                handed += works
                continue
            if not pause.probing and self._now() >= pause.until:
                works.remove(probe := _probe(works, pause))
                handed.append(probe)
                pause.probing = True
            held += [(lease, self._wait_s(pause)) for lease in works]
            pause.held += len(works)
        return handed, held

    def trials(self, handed: Iterable[Lease]) -> dict[str, Trial]:
        """One for each source of a batch that `admit` let through."""
        now = self._now()
        return {source: Trial(source in self._pauses, now) for source in by_source(handed)}

    def judge(self, source: str, trial: Trial) -> Verdict:
        """Called once for each trial, when its batch is over, however it ended."""
        pause = self._pauses.get(source)
        for task in trial.well:
            self._doubts.pop(task, None)
        if not trial.failed:
            return self._answered(source, pause, trial)
        if self._is_own(trial):
            if pause is not None and trial.probe:
                pause.probing = False
            return Verdict(own=trial.failed)
        if pause is not None:
            self._prolong(pause, trial)
            return Verdict(later=self._later(pause, trial))
        error = trial.failed[0][1]
        pause = Pause(error.reason, self._now(), 0.0, only=_only(trial))
        after_s = self._wait_again(pause, trial)
        later = self._later(pause, trial)
        if trial.began < self._ended.get(source, trial.began):
            return Verdict(later=later)  # news of an outage that is over
        self._pauses[source] = pause
        return Verdict(later=later, change=Began(source, error, after_s))

    def _answered(self, source: str, pause: Pause | None, trial: Trial) -> Verdict:
        if pause is None or not trial.probe:
            return Verdict()
        pause.probing = False
        if not trial.answered:
            return Verdict()
        del self._pauses[source]
        self._ended[source] = self._now()
        if pause.only is not None and pause.only not in trial.well:
            self._doubts[pause.only] = self._doubts.pop(pause.only, 0) + 1
            if len(self._doubts) > MAX_DOUBTED:
                self._doubts.popitem(last=False)
        return Verdict(change=Ended(source, pause.reason, self._now() - pause.began))

    def _is_own(self, trial: Trial) -> bool:
        reason, tasks = trial.failed[0][1].reason, trial.tasks
        if is_rate_limit(reason):
            return False
        witnessed = not reason.startswith(("store-", "queue-"))
        if witnessed and len(trial.well_after) >= len(tasks):
            return True
        if len(tasks) > 1:
            return False
        counted = all(_was_counted(lease, error) for lease, error in trial.failed)
        return counted or self._doubts.get(min(tasks, key=str), 0) >= DOUBTS

    def _prolong(self, pause: Pause, trial: Trial) -> None:
        if pause.only != _only(trial):
            pause.only = None
        if not trial.probe:  # it was on its way when the pause began
            pause.until = max(pause.until, self._now() + _asked_s(trial))
            return
        pause.probing = False
        pause.failures += 1
        self._wait_again(pause, trial)

    def _wait_again(self, pause: Pause, trial: Trial) -> float:
        after_s = max(backoff_s(pause.failures, self._policy, self._random), _asked_s(trial))
        pause.until = self._now() + after_s
        return after_s

    def _later(self, pause: Pause, trial: Trial) -> list[tuple[Lease, Transient, float]]:
        """A probe that failed comes after the others, lest a bad task be asked with for ever."""
        if trial.probe and pause.held:
            pause.held = 0
            wait_s = (pause.until - self._now()) * SUSPECT
            return [(lease, error, wait_s) for lease, error in trial.failed]
        pause.held += len(trial.tasks) - 1
        return [(lease, error, self._wait_s(pause)) for lease, error in trial.failed]

    def _wait_s(self, pause: Pause) -> float:
        """One after the other once the pause is over, so that waiting costs the queue little
        however many wait."""
        now = self._now()
        earliest = max(pause.until, now + PROBE_S if pause.probing else now)
        pause.next_return = max(earliest, pause.next_return + 1 / RETURNS_PER_S)
        return pause.next_return - now


def by_source(leases: Iterable[Lease]) -> dict[str, list[Lease]]:
    """Records have no source; they stand together under an empty name."""
    found: dict[str, list[Lease]] = {}
    for lease in leases:
        found.setdefault(source_of(lease), []).append(lease)
    return found


def source_of(lease: Lease) -> str:
    return "" if isinstance(lease.message, Record) else lease.message.source


def task_of(lease: Lease) -> TaskKey:
    message = lease.message
    return TaskKey("", "", message.id) if isinstance(message, Record) else message.key


def is_rate_limit(reason: str) -> bool:
    return reason.endswith("rate-limited")


def _probe(works: Sequence[Lease], pause: Pause) -> Lease:
    return next((lease for lease in works if task_of(lease) != pause.only), works[0])


def _was_counted(lease: Lease, error: Transient) -> bool:
    """It was found to be this task's own before, by this process or another."""
    failure = lease.failure
    return lease.attempt > 1 and failure is not None and failure.reason == error.reason


def _only(trial: Trial) -> TaskKey | None:
    tasks = trial.tasks
    return next(iter(tasks)) if len(tasks) == 1 else None


def _asked_s(trial: Trial) -> float:
    asked = max((error.after_s or 0.0 for _, error in trial.failed), default=0.0)
    return min(asked, LONGEST_ASKED_S)
