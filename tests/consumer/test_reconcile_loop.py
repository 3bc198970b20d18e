"""The periodic sweep: when it is due, what fails, and how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from consumer.errors import Permanent, Transient
from consumer.reconcile_loop import Sweeping, SweepMetrics
from consumer.reconcile_state import state_key
from consumer.retry import Policy
from consumer.telemetry import Metrics
from tests.fakes_platform import PROJECT, SOURCE
from tests.faults.sweep_house import SweepHouse

EVERY_S = 600.0


@dataclass
class Round:
    """A loop whose pauses are counted; it stops after ``turns`` of them. ``between`` is called
    with the number of each pause, from 0."""

    house: SweepHouse = field(default_factory=SweepHouse)
    turns: int = 1
    between: Callable[[int], None] = lambda _: None
    pauses: list[float] = field(default_factory=list)
    lines: list[tuple[str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.metrics = Metrics([SOURCE], now=lambda: self.house.clock().timestamp())
        self.house.watch = SweepMetrics(SOURCE, self.metrics)  # type: ignore[assignment]

    async def run(self, me: str = "one") -> None:
        stop = asyncio.Event()
        self.pauses.clear()

        async def pause(_: asyncio.Event, seconds: float) -> None:
            self.pauses.append(seconds)
            self.house.clock.advance(seconds)
            self.house.listing.clock.advance(seconds)
            self.between(len(self.pauses) - 1)
            if len(self.pauses) == self.turns:
                stop.set()

        loop = Sweeping(
            self.house.sweeper(me),
            metrics=self.metrics,
            pause=pause,
            clock=self.house.clock,
            every_s=EVERY_S,
            policy=Policy(base_s=2.0, cap_s=300.0),
            random=lambda: 1.0,
        )
        with capture_logs() as lines:
            await asyncio.wait_for(loop.run(stop), 10)
        self.lines = [(one["event"], one.get("reason")) for one in lines]

    def metric(self, name: str) -> dict[str, float]:
        """By the last label but the source."""
        families = text_string_to_metric_families(self.metrics.render().decode())
        return {
            next((v for k, v in one.labels.items() if k != "source"), ""): one.value
            for family in families
            for one in family.samples
            if one.name == f"groundwire_{name}"
        }


async def test_a_source_is_swept_at_once_and_then_once_per_interval() -> None:
    around = Round(turns=3)
    around.house.change("t1")
    await around.run()
    assert around.pauses == [EVERY_S] * 3
    assert len(around.house.listing.windows) == 3
    assert around.metric("sweeps_total") == {"full": 1, "changes": 2}
    assert around.metric("sweep_gaps_total") == {"unknown": 3}  # nobody exports it meanwhile


async def test_of_several_processes_one_sweeps_in_an_interval() -> None:
    around = Round()
    await around.run("one")
    around.house.clock.advance(-EVERY_S + 100)  # another process looks a little later
    await around.run("two")
    assert len(around.house.listing.windows) == 1
    assert around.pauses == [EVERY_S - 100]


async def test_while_another_sweeps_it_looks_again_soon_and_says_nothing() -> None:
    around = Round()
    await around.house.sweeper("other").ledger.claim()
    await around.run()
    assert around.pauses == [60.0]
    assert around.lines == []
    assert around.metric("sweep_failures_total") == {}


async def test_a_last_sweep_that_lies_ahead_of_our_clock_does_not_hold_it_up() -> None:
    around = Round()
    await around.run()
    around.house.clock.advance(-86_400)
    await around.run()
    assert len(around.house.listing.windows) == 2


async def test_what_fails_is_tried_again_later_and_later_and_said_once() -> None:
    around = Round(turns=4)
    around.house.listing.known = {PROJECT: Transient("platform-down", shared=True)}

    def mended(number: int) -> None:
        if number == 2:
            around.house.listing.known = {}

    around.between = mended
    await around.run()
    assert around.pauses == [2.0, 4.0, 8.0, EVERY_S]
    assert around.lines == [
        ("sweep waits", "platform-down"),
        ("swept", None),
        ("sweep has no more troubles", None),
    ]
    assert around.metric("sweep_failures_total") == {"platform-down": 3}


async def test_what_was_asked_to_wait_for_is_waited_for() -> None:
    around = Round()
    around.house.listing.known = {PROJECT: Transient("platform-rate-limit", after_s=99.0)}
    await around.run()
    assert around.pauses == [99.0]


async def test_what_a_person_must_mend_is_tried_once_per_interval() -> None:
    around = Round(turns=2)
    around.house.listing.known = {PROJECT: Permanent("project-unknown")}
    await around.run()
    assert around.pauses == [EVERY_S] * 2
    assert around.lines == [("sweep waits", "project-unknown")]


async def test_a_state_that_is_refused_is_said_and_does_not_end_the_process() -> None:
    around = Round()
    await around.house.store.swap(state_key(SOURCE), b"{", if_match=None)
    await around.run()
    assert around.lines == [("sweep waits", "sweep-state-unreadable")]


async def test_a_crash_is_a_failure_like_any_other() -> None:
    around = Round(turns=2)
    around.house.listing.failing = {1: ZeroDivisionError()}
    await around.run()
    assert ("sweep waits", "sweep-crashed") in around.lines
    assert around.metric("sweep_failures_total") == {"sweep-crashed": 1}
    assert around.metric("sweeps_total") == {"full": 1}


async def test_the_last_success_is_told_and_until_there_is_one_the_start() -> None:
    around = Round(turns=2)
    began = around.house.clock().timestamp()
    around.house.listing.known = {PROJECT: Permanent("project-unknown")}
    await around.run()
    assert around.metric("sweep_succeeded_timestamp_seconds") == {"": began}
    assert around.metric("sweep_interval_seconds") == {"": EVERY_S}
    around.house.listing.known = {}
    around.turns = 1
    swept_at = around.house.clock().timestamp()
    await around.run()
    assert around.metric("sweep_succeeded_timestamp_seconds") == {"": swept_at}


@pytest.mark.parametrize("where", ["asking", "pausing"])
async def test_it_stops_at_once(where: str) -> None:
    house, stop = SweepHouse(), asyncio.Event()
    reached = asyncio.Event()

    async def hang(*_: object) -> None:
        reached.set()
        await (asyncio.Event().wait() if where == "asking" else stop.wait())

    house.change("t1")
    if where == "asking":
        house.listing.before_page = hang
    loop = Sweeping(
        house.sweeper(), Metrics([SOURCE]), pause=hang, clock=house.clock, every_s=EVERY_S
    )
    running = asyncio.create_task(loop.run(stop))
    await reached.wait()
    stop.set()
    await asyncio.wait_for(running, 5)
    assert house.queued() == [] if where == "asking" else house.queued()
