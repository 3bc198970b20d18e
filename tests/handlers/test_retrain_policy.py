"""The policy's decision against a naive model that knows the whole story each time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.changes import TruthChange
from consumer.model import encode, timestamp
from consumer.ports import LogEntry
from handlers.retrain_ledger import Ledger
from handlers.retrain_pending import Counting
from handlers.retrain_policy import Decide, Pending, Policy, Wait, decide
from handlers.retrain_records import idempotency_key
from handlers.retrain_state import State, read_state

BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
LOG = "example.org/log~000000000000"


@dataclass(frozen=True)
class Event:
    """One entry of a story: a task that moves, or a decision on the log's first ``back`` entries
    less."""

    wait_s: int
    task: str
    project: str = "p"
    to: TruthChange | None = None
    drawn: bool = True
    decides: int | None = None


EVENTS = st.builds(
    Event,
    wait_s=st.integers(0, 50),
    task=st.sampled_from("abc"),
    project=st.sampled_from("pq"),
    to=st.sampled_from(["added", "changed", "removed", None]),
    drawn=st.booleans(),
    decides=st.sampled_from([None, None, None, None, 0, 1, 4]),
)
POLICIES = st.builds(
    Policy,
    name=st.just("x"),
    projects=st.sampled_from([("*",), ("p",), ("q-key",)]),
    min_changes=st.integers(0, 4),
    quiet_s=st.integers(0, 60),
    max_wait_s=st.none() | st.integers(1, 120),
)


def entries(story: list[Event]) -> list[LogEntry]:
    """As the log would hold it: a task that is already in the ground truth cannot be added."""
    found: list[LogEntry] = []
    now, decided = BEGAN, 0
    for index, event in enumerate(story):
        now += timedelta(seconds=event.wait_s)
        data: dict[str, Any] = {"logged_at": timestamp(now), "id": f"e{index}"}
        if event.decides is not None:
            decided += 1
            data |= {
                "kind": "decided",
                "policy": "x",
                "decision": decided,
                "log_size": max(0, index - event.decides),
                "reason": "fired-by-hand",
                "tasks": 0,
                "added": 0,
                "changed": 0,
            }
        else:
            data |= {"kind": "lake", "sequence": index, **_move(event, index)}
        found.append(LogEntry(index, data))
    return found


def _move(event: Event, index: int) -> dict[str, Any]:
    was, now = event.to in ("changed", "removed"), event.to in ("added", "changed")
    return {
        "source": "s",
        "project": event.project,
        "project_key": f"{event.project}-key",
        "task": event.task,
        "change": "exported" if event.drawn else "moved",
        "was_ground_truth": was,
        "old_revision": f"r{index}-old" if was else None,
        "ground_truth": now,
        "revision": f"r{index}" if now else None,
    }


def naive(story: list[LogEntry], policy: Policy, now: datetime) -> Decide | Wait:
    """From the beginning, and by the letter of the rules."""
    sizes = [e.data["log_size"] for e in story if e.data["kind"] == "decided"]
    since = max(sizes, default=0)
    pending: dict[tuple[str, str], list[datetime]] = {}
    last: list[datetime] = []
    for entry in story[since:]:
        data = entry.data
        if data["kind"] != "lake" or not _is_of(policy, data):
            continue
        task, at = (data["project"], data["task"]), datetime.fromisoformat(data["logged_at"])
        if data["ground_truth"] and (not data["was_ground_truth"] or data["change"] == "exported"):
            pending.setdefault(task, []).append(at)
            last.append(at)
        elif not data["ground_truth"] and data["was_ground_truth"]:
            pending.pop(task, None)
            last.append(at)
    return _naively(pending, last, policy, now)


def _is_of(policy: Policy, data: dict[str, Any]) -> bool:
    return any(one in ("*", data["project"], data["project_key"]) for one in policy.projects)


def _naively(
    pending: dict[tuple[str, str], list[datetime]],
    last: list[datetime],
    policy: Policy,
    now: datetime,
) -> Decide | Wait:
    if not pending:
        return Wait()
    calm = max(last) + timedelta(seconds=policy.quiet_s)
    enough = policy.min_changes > 0 and len(pending) >= policy.min_changes
    late = None
    if policy.max_wait_s is not None:
        late = min(times[0] for times in pending.values()) + timedelta(seconds=policy.max_wait_s)
    if enough and calm <= now and (late is None or calm <= late):
        return Decide("enough-changes")
    if late is not None and late <= now:
        return Decide("waited-long-enough")
    due = [at for at in (calm if enough else None, late) if at is not None]
    return Wait(min(due)) if due else Wait()


def read(story: list[LogEntry], policy: Policy, state: State | None = None) -> Ledger:
    ledger = Ledger([policy], state or State())
    for entry in story:
        ledger.take(entry, LOG)
    ledger.passed(len(story))
    return ledger


def decided(ledger: Ledger, policy: Policy, now: datetime) -> Decide | Wait:
    return decide(ledger.countings["x"].pending(), policy, now)


@settings(max_examples=400)
@given(st.lists(EVENTS, max_size=25), POLICIES, st.integers(-100, 200))
def test_a_policy_decides_as_its_rules_say(story: list[Event], policy: Policy, later: int) -> None:
    log = entries(story)
    now = BEGAN + timedelta(seconds=sum(event.wait_s for event in story) + later)
    made, wanted = decided(read(log, policy), policy, now), naive(log, policy, now)
    if isinstance(made, Decide) and isinstance(wanted, Decide):
        return  # both reasons may hold at one moment
    assert made == wanted


@settings(max_examples=300)
@given(st.lists(EVENTS, max_size=20), POLICIES, st.data())
def test_wherever_it_is_begun_again_it_comes_to_the_same(
    story: list[Event], policy: Policy, data: st.DataObject
) -> None:
    log = entries(story)
    whole = read(log, policy)
    cut = data.draw(st.integers(0, len(log)))
    kept = data.draw(st.sampled_from([0, 3, 5_000]))
    first = read(log[:cut], policy)
    state = read_state(plain(first, kept))
    assert state is not None
    begin = Ledger([policy], state).begin
    assert begin <= cut
    again = read(log, policy, state) if data.draw(st.booleans()) else Ledger([policy], state)
    for entry in log[min(begin, cut) :]:
        again.take(entry, LOG)
    again.passed(len(log))
    assert encode(plain(again, 5_000)) == encode(plain(whole, 5_000))


def plain(ledger: Ledger, kept: int) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(encode(ledger.state(kept=kept)))
    return found


def test_nothing_pending_never_fires() -> None:
    policy = Policy(name="x", min_changes=1, max_wait_s=1)
    assert decide(Pending(), policy, BEGAN) == Wait()


def test_the_time_that_is_waited_for_is_told() -> None:
    policy = Policy(name="x", min_changes=2, quiet_s=60, max_wait_s=600)
    one = Pending(added=1, oldest=BEGAN, newest=BEGAN)
    assert decide(one, policy, BEGAN) == Wait(BEGAN + timedelta(seconds=600))
    two = Pending(added=1, changed=1, oldest=BEGAN, newest=BEGAN + timedelta(seconds=30))
    assert decide(two, policy, BEGAN) == Wait(BEGAN + timedelta(seconds=90))
    assert decide(two, policy, BEGAN + timedelta(seconds=90)) == Decide("enough-changes")


def test_another_label_is_other_masks_though_no_file_is_new() -> None:
    log = entries([Event(0, "a", to="changed", drawn=False)])
    policy = Policy(name="x", min_changes=1)
    assert read(log, policy).countings["x"].pending().changed == 0
    log[0].data.update(ground_truth_label="l2", old_ground_truth_label="l1")
    assert read(log, policy).countings["x"].pending().changed == 1


def test_other_projects_or_classes_are_counted_anew_from_the_last_decision_on() -> None:
    log = entries([Event(0, "a", to="added"), Event(0, "b", "q", to="added")])
    counted = read(log, Policy(name="x", projects=("p",), min_changes=9)).state()
    policy = Policy(name="x", projects=("q",), min_changes=9)
    restored = Counting.restored(policy, counted.policies["x"])
    assert (restored.next, list(restored.tasks)) == (0, [])
    again = read(log, policy, counted)
    assert [one.key for one in again.countings["x"].tasks] == [("s", "q", "b")]


def test_a_key_is_one_decisions_alone_and_fits_every_target() -> None:
    keys = {
        idempotency_key(log, policy, number)
        for log in ("a~1", "b~1")
        for policy in ("x", "y" * 40)
        for number in (1, 2, 10**9)
    }
    assert len(keys) == 12
    assert all(32 <= len(key) <= 64 for key in keys)
    assert idempotency_key("a~1", "x", 1) == idempotency_key("a~1", "x", 1)


def test_a_decision_that_is_read_again_keeps_what_is_known_of_it() -> None:
    log = entries([Event(0, "a", to="added"), Event(0, "a", decides=0)])
    policy = Policy(name="x", min_changes=9)
    ledger = read(log, policy)
    ledger.open["x:1"].attempts = 7
    for entry in log:
        ledger.take(entry, LOG)
    assert ledger.open["x:1"].attempts == 7
