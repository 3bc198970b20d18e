"""What a lane's loop does when a source is away, and with what it is told to handle apart."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import generate_latest

from consumer.errors import Permanent, Transient
from consumer.model import Failure, Record
from consumer.outage import HELD_PER_S
from consumer.ports import Ports, Result, Work
from consumer.telemetry import Metrics, configure_logging
from tests.consumer.test_dispatch import AUDIT, EXPORT, House, RaisedPermanent, outcome
from tests.fakes_platform import SOURCE, event
from tests.fakes_queue import FakeLease

DOWN = Transient("platform-down", "it is down", shared=True)


class Timed(House):
    """A house with a clock, whose queue's leases are given out again when they are asked for."""

    def __init__(self, answers: Any = None) -> None:
        super().__init__(EXPORT, answers or {})
        self.now = 0.0
        self.lines = io.StringIO()
        self.dispatcher = replace(
            self.dispatcher, metrics=Metrics((SOURCE,)), monotonic=lambda: self.now
        )
        configure_logging(stream=self.lines)

    async def turn(self) -> int:
        return await self.dispatcher.dispatch(await self.queue.take(EXPORT), asyncio.Event())

    def said(self) -> list[tuple[str, str]]:
        lines = map(json.loads, self.lines.getvalue().splitlines())
        return [(line["level"], line["event"]) for line in lines]


def failing(*tasks: str) -> dict[str, Any]:
    return {f"{task}-e1": lambda: DOWN for task in tasks}


async def test_an_outage_is_one_record_and_one_error_line_however_many_events_wait() -> None:
    tasks = [f"t{n}" for n in range(60)]
    house = Timed(failing(*tasks))
    await house.queue.put([event(task) for task in tasks])
    for _ in range(5):
        await house.turn()
    assert house.records() == [("paused", "platform-down")]
    assert house.said() == [("error", "source paused")]
    assert {lease.attempt for lease in await house.queue.take(EXPORT)} == {1}


async def test_the_end_of_an_outage_is_one_record_and_one_line_and_the_gauge_falls() -> None:
    house = Timed(failing("t1", "t2"))
    await house.queue.put([event("t1"), event("t2")])
    await house.turn()
    shown = generate_latest(house.dispatcher.metrics.registry).decode()
    assert 'groundwire_source_paused{reason="platform-down",source="clinic"} 1.0' in shown
    house.now, house.handler.answers = 100.0, {}
    await house.turn()
    await house.turn()
    assert house.records() == [("paused", "platform-down"), ("resumed", "platform-down")]
    assert house.said() == [("error", "source paused"), ("warning", "source resumed")]
    shown = generate_latest(house.dispatcher.metrics.registry).decode()
    assert 'groundwire_source_paused{reason="platform-down",source="clinic"} 0.0' in shown
    assert house.queue.messages("export") == []


async def test_while_a_source_is_paused_the_handler_gets_nothing_of_it() -> None:
    house = Timed(failing("t1", "t2"))
    await house.queue.put([event("t1"), event("t2")])
    await house.turn()
    handled = len(house.handler.handled)
    await house.queue.put([event("t3"), event("t4", source="other")])
    await house.turn()
    assert house.handler.handled[handled:] == ["t4-e1"]


async def test_a_loop_that_gets_only_what_is_paused_takes_no_faster_than_so_many_a_second() -> None:
    house = Timed(failing("t1", "t2"))
    await house.queue.put([event("t1"), event("t2")])
    await house.turn()
    assert await house.turn() == 2
    stop = asyncio.Event()

    async def sleep(seconds: float) -> None:
        house.slept.append(seconds)
        stop.set()

    house.dispatcher.sleep = sleep
    house.dispatcher.concurrency = 1
    await asyncio.wait_for(house.dispatcher.run(stop), 5)
    assert house.slept == [2 / HELD_PER_S]


async def test_what_an_event_knew_of_its_last_try_outlives_an_outage() -> None:
    house = Timed(failing("t1"))
    missing = Failure(reason="task-missing", message="", at="2026-01-01T00:00:00.000000Z")
    house.queue.add("export", event("t1"), 2, missing)
    for _ in range(3):
        await house.turn()
    (lease,) = await house.queue.take(EXPORT)
    assert (lease.attempt, lease.failure) == (2, missing)


async def test_a_record_that_the_queue_did_not_take_is_told_later() -> None:
    house = Timed(failing("t1", "t2"))
    await house.queue.put([event("t1"), event("t2")])
    leases = await house.queue.take(EXPORT)
    house.queue.failing = Transient("queue-unavailable", shared=True)
    await house.dispatcher.dispatch(leases, asyncio.Event())
    house.queue.failing, house.now, house.handler.answers = None, 100.0, {}
    await house.turn()
    assert [kind for kind, _ in house.records()] == ["paused", "resumed"]


@pytest.mark.parametrize("shared", [False, True])
async def test_an_event_whose_outcome_the_queue_cannot_take_now_keeps_its_attempts(
    shared: bool,
) -> None:
    house = Timed({"t1-e1": lambda: outcome("o1")})
    await house.queue.put([event("t1")])
    leases = await house.queue.take(EXPORT)
    house.queue.failing = (
        Transient("queue-unavailable", shared=True) if shared else Permanent("message-too-large")
    )
    await house.dispatcher.dispatch(leases, asyncio.Event())
    house.queue.failing = None
    (lease,) = await house.queue.take(EXPORT)
    assert lease.attempt == (1 if shared else 2)


@pytest.mark.parametrize("answer", [RuntimeError("bug"), RaisedPermanent("broken")])
async def test_what_ends_the_handler_is_found_by_standing_alone(answer: Exception) -> None:
    house = Timed({"t2-e1": lambda: answer})
    await house.queue.put([event(f"t{n}") for n in range(1, 6)])
    await house.turn()
    waiting = {one.id for one in house.queue.messages("export")}
    dead = {letter.message.id for letter in await house.queue.dead(EXPORT, limit=9)}
    assert waiting | dead == {"t2-e1"}
    assert not house.queue.leased["export"]


class Watched:
    """A handler that remembers which batches it was given."""

    LANE = EXPORT

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def handle(
        self, batch: Sequence[Work], ports: Ports
    ) -> AsyncIterator[tuple[Work, Result]]:
        self.batches.append([work.message.id for work in batch])
        for work in batch:
            yield work, None


async def test_what_was_lost_with_its_process_is_handled_apart() -> None:
    house = Timed()
    house.dispatcher.handler = watched = Watched()
    batch = [
        FakeLease(house.queue, "export", event(f"t{losses}"), 1, None, losses=losses)
        for losses in (0, 1, 2, 3, 7)
    ]
    house.queue.leased["export"] += batch
    await house.dispatcher.dispatch(batch, asyncio.Event())
    assert watched.batches == [["t0-e1"], ["t1-e1"], ["t2-e1"], ["t3-e1"]]
    (letter,) = await house.queue.dead(EXPORT, limit=9)
    assert (letter.message.id, letter.failure.reason) == ("t7-e1", "handler-kills")
    records = [it for put in house.queue.puts for it in put if isinstance(it, Record)]
    assert [record.fields["reason"] for record in records] == ["handler-kills"]


async def test_an_exclusive_lane_keeps_together_and_buries_no_suspect() -> None:
    house = House(AUDIT, {})
    batch = [FakeLease(house.queue, "audit", outcome(f"o{n}"), 1, None, losses=9) for n in range(3)]
    house.queue.leased["audit"] += batch
    await house.dispatcher.dispatch(batch, asyncio.Event())
    assert house.handler.handled == ["o0", "o1", "o2"]
