"""Budgets of refused requests and of log lines."""

from __future__ import annotations

import pytest

from consumer.limits import GOOD_S, Buckets, Failures, Recent, Sample, address_of, counted_as
from tests.fakes_clock import Seconds


def test_an_address_over_its_budget_waits_until_one_more_fits() -> None:
    now = Seconds()
    failures = Failures(per_address=3, per_source=100, now=now)
    for _ in range(3):
        assert failures.over("a", "lab") is None
        failures.refused("a", "lab")
    assert failures.over("a", "lab") == ("flood-address", 20)
    assert failures.over("b", "lab") is None
    now.at += 20
    assert failures.over("a", "lab") is None


def test_a_wait_does_not_grow_with_what_is_refused_meanwhile() -> None:
    failures = Failures(per_address=3, per_source=100, now=Seconds())
    for _ in range(1000):
        failures.refused("a", "lab")
    assert failures.over("a", "lab") == ("flood-address", 20)


def test_many_addresses_together_use_up_the_budget_of_their_source_alone() -> None:
    failures = Failures(per_address=3, per_source=10, now=Seconds())
    for n in range(10):
        failures.refused(f"a{n}", "lab")
    assert failures.over("new", "lab") == ("flood-source", 6)
    assert failures.over("new", "other") is None


def test_who_sent_a_good_request_is_never_made_to_wait_for_a_day() -> None:
    now = Seconds()
    failures = Failures(per_address=3, per_source=3, now=now)
    failures.good("a")
    for _ in range(100):
        failures.refused("a", "lab")
        failures.refused("b", "lab")
    assert failures.over("a", "lab") is None
    now.at += GOOD_S - 1
    for _ in range(100):
        failures.refused("a", "lab")
        failures.refused("b", "lab")
    assert failures.over("a", "lab") is None
    now.at += 1
    assert failures.over("a", "lab") is not None


def test_what_a_known_sender_has_refused_costs_no_stranger() -> None:
    failures = Failures(per_address=3, per_source=3, now=Seconds())
    failures.good("a")
    for _ in range(100):
        failures.refused("a", "lab")
    assert failures.over("b", "lab") is None


def test_a_million_addresses_are_not_all_remembered() -> None:
    now = Seconds()
    recent, buckets = Recent(60, 1000, now), Buckets(60, 1000, now)
    for n in range(20_000):
        recent.add(n)
        buckets.add(n)
    assert (len(recent), len(buckets)) == (1000, 1000)
    assert 19_999 in recent
    assert 0 not in recent


def test_what_is_long_ago_is_forgotten() -> None:
    now = Seconds()
    recent = Recent(60, 1000, now)
    for n in range(500):
        recent.add(n)
        now.at += 1
    assert len(recent) == 60


def test_log_lines_beyond_some_a_second_are_left_out_and_counted() -> None:
    now = Seconds()
    sample = Sample(per_s=10, now=now)
    assert [sample.take() for _ in range(10)] == [0] * 10
    assert [sample.take() for _ in range(990)] == [None] * 990
    now.at += 0.1
    assert [sample.take(), sample.take()] == [990, None]


@pytest.mark.parametrize(
    ("address", "counts"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nonsense", ""),
        (None, ""),
    ],
)
def test_an_address_counts_as_itself_or_as_its_network(address: str | None, counts: str) -> None:
    assert counted_as(address) == counts


def test_a_zone_that_somebody_made_up_is_no_part_of_an_address() -> None:
    assert str(address_of("fe80::1%token=secret\x1b[31m")) == "fe80::1"
