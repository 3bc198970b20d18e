"""Which sources are paused: decisions only, by a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from consumer.errors import Permanent, Transient
from consumer.model import Failure
from consumer.outage import DOUBTS, LONGEST_ASKED_S, SUSPECT, Began, Ended, Outages, Verdict
from consumer.ports import Result
from consumer.retry import Policy
from tests.fakes_platform import event
from tests.fakes_queue import FakeLease, FakeQueue

DOWN = Transient("platform-down", "it is down", shared=True)
LIMITED = Transient("platform-rate-limited", after_s=20.0, shared=True)
FULL = Transient("store-full", shared=True)


@dataclass
class Lane:
    """A lane's outages; each batch is given as the results of its tasks, in order."""

    now: float = 0.0
    outages: Outages = field(init=False)

    def __post_init__(self) -> None:
        self.outages = Outages(lambda: self.now, lambda: 1.0, Policy())

    def batch(self, results: dict[str, Result], source: str = "s") -> Verdict:
        handed, held = self.outages.admit([lease(task, source) for task in results])
        assert not held
        trials = self.outages.trials(handed)
        for one in handed:
            trials[source].note(one, results[one.message.task])  # type: ignore[union-attr]
        return self.outages.judge(source, trials[source])

    def pause(self, *tasks: str) -> Began:
        change = self.batch(dict.fromkeys(tasks or ("t1", "t2"), DOWN)).change
        assert isinstance(change, Began)
        return change

    def probe(self, task: str, result: Result, *others: str) -> Verdict:
        """The pause is over, and this one is let through."""
        self.now += 100.0
        handed, held = self.outages.admit([lease(name) for name in (task, *others)])
        assert [one.message.task for one in handed] == [task]  # type: ignore[union-attr]
        assert len(held) == len(others)
        trials = self.outages.trials(handed)
        trials["s"].note(handed[0], result)
        return self.outages.judge("s", trials["s"])


def lease(task: str, source: str = "s") -> FakeLease:
    queue = FakeQueue(())
    return FakeLease(queue, "export", event(task, source=source), 1, None)


def held_s(lane: Lane, *tasks: str, source: str = "s") -> list[float]:
    handed, held = lane.outages.admit([lease(task, source) for task in tasks])
    assert not handed
    return [after_s for _, after_s in held]


def test_a_shared_failure_of_all_begins_one_pause_and_counts_nobody() -> None:
    verdict = Lane().batch({"t1": DOWN, "t2": DOWN})
    assert isinstance(verdict.change, Began)
    assert (verdict.change.error, verdict.change.after_s) == (DOWN, 2.0)
    assert verdict.own == ()
    assert len(verdict.later) == 2


def test_while_a_source_is_paused_its_leases_are_held_and_those_of_others_handed_over() -> None:
    lane = Lane()
    lane.pause()
    assert held_s(lane, "t3") == [pytest.approx(2.02)]
    handed, held = lane.outages.admit([lease("t1", "other")])
    assert len(handed) == 1
    assert not held


def test_after_the_pause_one_lease_alone_is_let_through() -> None:
    lane = Lane()
    lane.pause()
    lane.now = 2.0
    handed, held = lane.outages.admit([lease("t1"), lease("t2"), lease("t3")])
    assert (len(handed), len(held)) == (1, 2)
    assert held_s(lane, "t4")[0] >= 1.0


def test_an_answer_ends_the_pause_and_tells_how_long_it_was() -> None:
    lane = Lane()
    lane.pause()
    assert lane.probe("t3", None).change == Ended("s", "platform-down", 100.0)
    assert lane.batch({"t1": None, "t2": None}) == Verdict()


@pytest.mark.parametrize("own", [Permanent("mask-not-nifti"), Transient("event-not-showing")])
def test_a_failure_of_its_own_is_an_answer_as_well(own: Result) -> None:
    lane = Lane()
    lane.pause()
    assert isinstance(lane.probe("t3", own).change, Ended)


def test_a_crash_is_no_answer_and_the_next_lease_is_let_through() -> None:
    lane = Lane()
    lane.pause()
    assert lane.probe("t3", Transient("export-crashed")).change is None
    assert isinstance(lane.probe("t4", None).change, Ended)


def test_each_failed_probe_doubles_the_pause_up_to_a_minute() -> None:
    lane = Lane()
    lane.pause("t3")
    waits = [lane.probe("t3", DOWN).later[0][2] for _ in range(8)]
    assert waits == [4, 8, 16, 32, 60, 60, 60, 60]


def test_what_the_platform_asked_to_wait_is_waited_within_reason() -> None:
    lane = Lane()
    change = lane.batch({"t1": LIMITED}).change
    assert isinstance(change, Began)
    assert change.after_s == 20.0
    forever = Transient("platform-down", after_s=1e9, shared=True)
    assert lane.probe("t1", forever).later[0][2] == LONGEST_ASKED_S


def test_what_waits_comes_back_one_after_the_other() -> None:
    lane = Lane()
    lane.pause()
    waits = held_s(lane, *(f"t{n}" for n in range(1000)))
    assert waits == sorted(set(waits))
    assert waits[-1] - waits[0] == pytest.approx(9.99)


def test_a_bad_task_among_others_that_come_out_well_counts_and_pauses_nothing() -> None:
    verdict = Lane().batch({"bad": DOWN, "t1": None, "t2": None})
    assert [one.message.task for one, _ in verdict.own] == ["bad"]  # type: ignore[union-attr]
    assert (list(verdict.later), verdict.change) == ([], None)


def test_an_outage_that_begins_in_the_middle_of_a_batch_counts_nobody() -> None:
    verdict = Lane().batch({"t1": None, "t2": None, "t3": DOWN, "t4": DOWN})
    assert (list(verdict.own), len(verdict.later)) == ([], 2)


@pytest.mark.parametrize("failure", [LIMITED, FULL])
def test_for_a_rate_limit_and_for_the_store_others_prove_nothing(failure: Transient) -> None:
    verdict = Lane().batch({"t1": failure, "t2": None, "t3": None})
    assert (list(verdict.own), len(verdict.later)) == ([], 1)


def test_a_task_that_alone_caused_pause_after_pause_is_at_fault() -> None:
    lane = Lane()
    for _ in range(DOUBTS):
        lane.pause("bad")
        assert isinstance(lane.probe("good", None).change, Ended)
    verdict = lane.batch({"bad": DOWN})
    assert (len(verdict.own), verdict.change) == (1, None)


def test_a_task_that_came_out_well_is_above_suspicion_again() -> None:
    lane = Lane()
    for _ in range(DOUBTS):
        lane.pause("t1")
        lane.probe("good", None)
    lane.batch({"t1": None})
    lane.pause("t1")


def test_what_was_found_to_be_its_own_stays_so_when_nobody_is_left_to_compare_with() -> None:
    again = lease("bad")
    again.attempt, again.failure = 2, Failure(reason=DOWN.reason, message="", at="")
    outages = Lane().outages
    trial = outages.trials([again])["s"]
    trial.note(again, DOWN)
    assert len(outages.judge("s", trial).own) == 1


def test_a_rate_limit_never_counts() -> None:
    lane = Lane()
    for _ in range(DOUBTS + 5):
        assert list(lane.batch({"t1": LIMITED}).own) == []
        lane.probe("good", None)


def test_a_probe_that_failed_is_asked_with_after_the_others() -> None:
    lane = Lane()
    lane.pause("bad", "t1")
    verdict = lane.probe("bad", DOWN, "t1")
    assert verdict.later[0][2] == 4.0 * SUSPECT


def test_of_several_the_one_that_alone_failed_is_not_the_probe() -> None:
    lane = Lane()
    lane.pause("bad")
    lane.now = 2.0
    handed, _ = lane.outages.admit([lease("bad"), lease("t1")])
    assert [one.message.task for one in handed] == ["t1"]  # type: ignore[union-attr]


def test_news_of_an_outage_that_is_over_begins_no_other() -> None:
    lane = Lane()
    late, _ = lane.outages.admit([lease("late")])
    trials = lane.outages.trials(late)
    lane.pause()
    lane.probe("t3", None)
    trials["s"].note(late[0], DOWN)
    verdict = lane.outages.judge("s", trials["s"])
    assert (verdict.change, len(verdict.later)) == (None, 1)
