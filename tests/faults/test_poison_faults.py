"""One bad task among many reaches the dead letters alone, and its neighbours have one attempt."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from consumer.errors import Permanent, Transient
from consumer.outage import DOUBTS
from tests.faults.lane_house import LABELLED, Lane
from tests.seeds import seeds

Poison = Callable[[Lane, str], None]


def request(error: Callable[[], Exception]) -> Poison:
    """Every request that asks for the task fails so."""

    def spoil(lane: Lane, task: str) -> None:
        lane.sources["a"].bad[task] = error()

    return spoil


def mask(error: Callable[[], Exception]) -> Poison:
    def spoil(lane: Lane, task: str) -> None:
        lane.sources["a"].bad_masks[task] = error()

    return spoil


KINDS: dict[str, Poison] = {
    "request-permanent": request(lambda: Permanent("platform-gone")),
    "request-transient": request(lambda: Transient("platform-odd")),
    "request-crash": request(lambda: RecursionError()),
    "request-503": request(lambda: Transient("platform-down", shared=True)),
    "request-timeout": request(lambda: Transient("platform-timeout", shared=True)),
    "request-403": request(lambda: Transient("platform-refused", shared=True)),
    "mask-permanent": mask(lambda: Permanent("mask-not-nifti")),
    "mask-transient": mask(lambda: Transient("download-failed")),
    "mask-crash": mask(lambda: KeyError("series")),
    "mask-slow-store": mask(lambda: Transient("store-slow", shared=True)),
}


@pytest.mark.parametrize("seed", seeds(0.5))  # each kind once, at twenty
async def test_one_bad_task_among_a_thousand_is_buried_alone(seed: int) -> None:
    """Most come at once, some later: a task that looks like an outage can be told from one only
    while others come out well."""
    rng = random.Random(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    lane = Lane(rng)
    bad = rng.choice([number for number in range(1000) if number % 50])
    for number in range(1000):
        held = LABELLED if number == bad else {}
        at = rng.uniform(0, 30) if number % 50 else rng.uniform(0, 3600)
        lane.arrive("a", f"t{number}", at=at, **held)
    KINDS[kind](lane, f"t{bad}")
    await lane.work_off()
    assert [key.task for key in lane.dead] == [f"t{bad}"], kind
    assert len(lane.done) == 999
    assert {attempt for attempt, _ in lane.done.values()} == {1}, kind
    told = lane.told("a")
    assert told == ["paused", "resumed"] * (len(told) // 2)
    assert len(told) <= 2 * (DOUBTS + 1), kind
