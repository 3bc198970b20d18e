"""The decision about a failure: pure, so every corner is a line."""

from __future__ import annotations

import pytest

from consumer.errors import Permanent, Transient
from consumer.retry import Bury, Policy, Retry, backoff_s, decide

POLICY = Policy(attempts=5, base_s=2.0, cap_s=60.0)


def never() -> float:
    return 0.0


def almost_one() -> float:
    return 0.999999


def test_a_permanent_failure_is_buried_at_once() -> None:
    assert decide(Permanent("mask-not-nifti"), 1, POLICY, never) == Bury()


def test_a_transient_failure_is_tried_again_until_its_attempts_are_spent() -> None:
    decisions = [decide(Transient("x"), attempt, POLICY, never) for attempt in range(1, 7)]
    assert [type(one) for one in decisions] == [Retry, Retry, Retry, Retry, Bury, Bury]


@pytest.mark.parametrize(("attempt", "least", "most"), [(1, 1, 2), (2, 2, 4), (3, 4, 8)])
def test_waits_double_and_are_jittered_between_half_and_all(
    attempt: int, least: float, most: float
) -> None:
    assert backoff_s(attempt, POLICY, never) == least
    assert least < backoff_s(attempt, POLICY, almost_one) < most


def test_waits_stop_growing_at_the_cap() -> None:
    assert backoff_s(1_000_000, POLICY, almost_one) <= POLICY.cap_s


def test_what_the_other_side_asked_for_is_the_least_wait() -> None:
    asked = Transient("rate-limited", after_s=45.0)
    assert decide(asked, 1, POLICY, never) == Retry(45.0)
    assert decide(Transient("rate-limited", after_s=0.1), 1, POLICY, never) == Retry(1.0)
