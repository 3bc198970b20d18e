"""Outages cost no event an attempt, two entries of the log each, and the other source nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from consumer.errors import Transient
from tests.faults.lane_house import SOURCES, Lane
from tests.seeds import seeds

TROUBLES: tuple[Callable[[], Exception], ...] = (
    lambda: Transient("platform-credentials", shared=True),
    lambda: Transient("platform-refused", shared=True),
    lambda: Transient("platform-down", shared=True),
    lambda: Transient("platform-unreachable", shared=True),
    lambda: Transient("platform-rate-limited", after_s=17.0, shared=True),
    lambda: Transient("platform-rate-limited", shared=True),
)
SPAN_S = 7200.0


def outages(rng: random.Random) -> list[tuple[float, float, Exception]]:
    """Beginning, end and kind, in order, none within another."""
    times = sorted(rng.uniform(0, SPAN_S) for _ in range(2 * rng.randint(1, 6)))
    return [
        (begin, end, rng.choice(TROUBLES)())
        for begin, end in zip(times[::2], times[1::2], strict=True)
    ]


def during(planned: list[tuple[float, float, Exception]]) -> Callable[[float], Exception | None]:
    def trouble(now: float) -> Exception | None:
        return next((kind for begin, end, kind in planned if begin <= now < end), None)

    return trouble


@pytest.mark.parametrize("seed", seeds())
async def test_nothing_is_buried_and_no_attempt_spent_however_outages_come_and_go(
    seed: int,
) -> None:
    rng = random.Random(seed)
    lane = Lane(rng)
    planned = {source: outages(rng) for source in SOURCES}
    for source in SOURCES:
        lane.sources[source].trouble = during(planned[source])
        for number in range(100):
            lane.arrive(source, f"t{number}", at=rng.uniform(0, SPAN_S))
    await lane.work_off()
    assert lane.dead == {}
    assert len(lane.done) == 200
    assert {attempt for attempt, _ in lane.done.values()} == {1}
    for source in SOURCES:
        told = lane.told(source)
        assert told == ["paused", "resumed"] * (len(told) // 2)
        assert len(told) <= 2 * len(planned[source])
    assert not [record for record in lane.records if record.kind == "failed"]


@pytest.mark.parametrize("seed", seeds(0.25))
async def test_an_outage_of_an_hour_is_two_entries_and_costs_the_other_source_nothing(
    seed: int,
) -> None:
    rng = random.Random(seed)
    lane = Lane(rng)
    kind = rng.choice(TROUBLES)()
    lane.sources["a"].trouble = during([(0.0, 3600.0, kind)])
    for number in range(300):
        lane.arrive("a", f"t{number}", at=rng.uniform(0, 60))
    arrived = {lane.arrive("b", f"t{n}", at=at): at for n in range(60) if (at := n * 50.0) >= 0}
    await lane.work_off(until=3500.0)
    asked, moved = lane.requests["a"], lane.moves
    assert {key for key in lane.done if key.source == "a"} == set()
    await lane.work_off()
    assert {attempt for attempt, _ in lane.done.values()} == {1}
    assert (len(lane.done), lane.dead) == (360, {})
    assert (lane.told("a"), lane.told("b")) == (["paused", "resumed"], [])
    assert max(lane.done[key][1] - at for key, at in arrived.items()) < 1.0
    assert lane.said() == ["source paused", "source resumed"]
    assert asked < 250
    assert moved < 3600 * 20
    assert max(second for _, second in lane.done.values()) < 3600 + 240
