"""One lane's loop: one verb for each lease, an event's failure is its own."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from prometheus_client import generate_latest

from consumer.dispatch import Dispatcher
from consumer.errors import Permanent, Transient
from consumer.model import Change, LakeMove, LaneSpec, Message, Outcome, Record
from consumer.ports import Ports, Result, Work
from consumer.retry import Policy
from consumer.telemetry import Metrics, configure_logging
from tests.fakes_platform import event
from tests.fakes_queue import FakeQueue

EXPORT = LaneSpec(name="export", wants=("event",))
AUDIT = LaneSpec(name="audit", wants=("event", "outcome", "record"), exclusive=True)

Answer = Result | Exception


def outcome(outcome_id: str) -> Outcome:
    move = LakeMove(
        project_key="p",
        sequence=1,
        change=Change.MOVED,
        stage=None,
        old_stage=None,
        revision=None,
        old_revision=None,
        ground_truth=False,
        was_ground_truth=False,
        ground_truth_label=None,
        ground_truth_reason=None,
        label_version=None,
        recipe="r",
        manifest_key=None,
        manifest_sha256=None,
    )
    return Outcome(id=outcome_id, source="s", project="p", task="t", move=move)


class Scripted:
    """A handler that answers each event by its id; an exception that is no `Result` is raised."""

    def __init__(self, lane: LaneSpec, answers: dict[str, Callable[[], Answer]]) -> None:
        self.LANE = lane
        self.answers = answers
        self.handled: list[str] = []

    async def handle(
        self, batch: Sequence[Work], ports: Ports
    ) -> AsyncIterator[tuple[Work, Result]]:
        for work in batch:
            self.handled.append(work.message.id)
            answer = self.answers.get(work.message.id, lambda: None)()
            if isinstance(answer, RaisedPermanent):
                raise answer
            if isinstance(answer, Transient | Permanent) or not isinstance(answer, Exception):
                yield work, answer
            else:
                raise answer


class RaisedPermanent(Permanent):
    """Raised by the handler as a whole, not given as one event's result."""


class House:
    """A queue, a dispatcher and a sleep that returns at once and remembers."""

    def __init__(
        self, lane: LaneSpec, answers: dict[str, Callable[[], Answer]], *, attempts: int = 3
    ) -> None:
        self.queue = FakeQueue((EXPORT, AUDIT), opened=True)
        self.handler = Scripted(lane, answers)
        self.slept: list[float] = []
        ports = cast(Any, type("P", (), {"clock": lambda: datetime(2026, 1, 2, tzinfo=UTC)}))
        self.dispatcher = Dispatcher(
            handler=self.handler,
            queue=cast(Any, self.queue),
            ports=ports,
            metrics=Metrics(()),
            policy=Policy(attempts=attempts, base_s=2.0),
            sleep=self._sleep,
            random=lambda: 0.0,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def work_off(self, *events: Message) -> None:
        """Until the lane is empty."""
        await self.queue.put(events)
        lane = self.handler.LANE
        while self.queue.messages(lane.name):
            await self.dispatcher.dispatch(await self.queue.take(lane), asyncio.Event())

    def records(self) -> list[tuple[str, str]]:
        audit = [m for put in self.queue.puts for m in put if isinstance(m, Record)]
        return [(record.kind, str(record.fields["reason"])) for record in audit]


async def test_a_handled_event_is_acknowledged() -> None:
    house = House(EXPORT, {})
    await house.work_off(event("t1"))
    assert house.handler.handled == ["t1-e1"]
    assert not house.queue.leased["export"]


async def test_one_failing_event_neither_repeats_nor_delays_its_neighbours() -> None:
    house = House(EXPORT, {"t2-e1": lambda: Transient("platform-down")})
    await house.work_off(event("t1"), event("t2"), event("t3"))
    assert house.handler.handled == ["t1-e1", "t2-e1", "t3-e1", "t2-e1", "t2-e1"]
    assert [letter.message.id for letter in await house.queue.dead(EXPORT, limit=9)] == ["t2-e1"]


async def test_out_of_attempts_it_is_buried_with_reason_and_attempts() -> None:
    house = House(EXPORT, {"t1-e1": lambda: Transient("platform-down", "it is down")})
    await house.work_off(event("t1"))
    (letter,) = await house.queue.dead(EXPORT, limit=9)
    assert (letter.attempts, letter.failure.reason) == (3, "platform-down")
    assert letter.failure.message == "it is down"
    assert house.queue.waits == [1.0, 2.0]
    assert house.records() == [("failed", "platform-down")] * 2 + [("buried", "platform-down")]


async def test_a_permanent_failure_is_buried_at_its_first_try() -> None:
    house = House(EXPORT, {"t1-e1": lambda: Permanent("mask-not-nifti")})
    await house.work_off(event("t1"))
    (letter,) = await house.queue.dead(EXPORT, limit=9)
    assert letter.attempts == 1
    assert house.queue.waits == []


async def test_what_the_platform_asked_to_wait_is_waited() -> None:
    house = House(EXPORT, {"t1-e1": lambda: Transient("rate-limited", after_s=77.0)}, attempts=2)
    await house.work_off(event("t1"))
    assert house.queue.waits == [77.0]


async def test_a_crash_of_the_handler_is_a_try_of_those_it_left_only() -> None:
    house = House(EXPORT, {"t2-e1": lambda: RuntimeError("bug")}, attempts=1)
    await house.work_off(event("t1"), event("t2"))
    dead = await house.queue.dead(EXPORT, limit=9)
    assert [(letter.message.id, letter.failure.reason) for letter in dead] == [
        ("t2-e1", "handler-crashed")
    ]


async def test_the_same_failure_is_one_log_entry_however_often_it_happens() -> None:
    house = House(EXPORT, {"t1-e1": lambda: Transient("platform-down")}, attempts=9)
    await house.work_off(event("t1"))
    failed = {
        m.id
        for put in house.queue.puts
        for m in put
        if isinstance(m, Record) and m.kind == "failed"
    }
    assert len(failed) == 1


async def test_an_event_that_the_broker_gave_up_is_buried_unhandled() -> None:
    house = House(EXPORT, {})
    house.queue.add("export", event("t1"), 1_000_000, None)
    await house.dispatcher.dispatch(await house.queue.take(EXPORT), asyncio.Event())
    assert house.handler.handled == []
    assert len(await house.queue.dead(EXPORT, limit=9)) == 1


async def test_an_exclusive_lane_is_retried_in_place_until_it_works() -> None:
    answers = iter([Transient("lake-down"), OSError("surprise"), None])
    house = House(AUDIT, {"t1-e1": lambda: next(answers)})
    await house.work_off(event("t1"), event("t2"))
    assert house.handler.handled == ["t1-e1", "t2-e1", "t1-e1", "t1-e1"]
    assert house.slept == [1.0, 2.0]
    assert await house.queue.dead(AUDIT, limit=9) == []


async def test_an_exclusive_lane_buries_a_message_that_can_never_be_logged() -> None:
    house = House(AUDIT, {"t1-e1": lambda: Permanent("entry-too-large")})
    await house.work_off(event("t1"), event("t2"))
    (letter,) = await house.queue.dead(AUDIT, limit=9)
    assert letter.message.id == "t1-e1"
    assert ("buried", "entry-too-large") in house.records()
    assert house.slept == []


async def test_an_outcome_is_never_buried() -> None:
    answers = iter([Permanent("entry-too-large")] * 5 + [None])
    house = House(AUDIT, {"o1": lambda: next(answers)}, attempts=2)
    await house.work_off(outcome("o1"))
    assert house.handler.handled == ["o1"] * 6
    assert await house.queue.dead(AUDIT, limit=9) == []


async def test_a_failure_of_the_log_as_a_whole_buries_nothing() -> None:
    answers = iter([RaisedPermanent("log-key-mismatch")] * 4 + [None])
    house = House(AUDIT, {"t1-e1": lambda: next(answers)}, attempts=2)
    await house.work_off(event("t1"))
    assert len(house.slept) == 4
    assert await house.queue.dead(AUDIT, limit=9) == []


async def test_when_the_queue_takes_no_record_the_lease_goes_back_unchanged_in_place() -> None:
    house = House(EXPORT, {"t1-e1": lambda: Transient("platform-down")})
    await house.queue.put([event("t1")])
    leases = await house.queue.take(EXPORT)
    house.queue.failing = Transient("queue-unavailable")
    await house.dispatcher.dispatch(leases, asyncio.Event())
    assert [lease.verb for lease in leases] == ["retry"]
    assert house.queue.messages("export") == [event("t1")]


async def test_stopping_ends_the_wait_for_work() -> None:
    house = House(EXPORT, {})
    stop = asyncio.Event()
    running = asyncio.ensure_future(house.dispatcher.run(stop))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(running, 5)


async def test_the_loop_goes_on_when_the_queue_comes_back() -> None:
    house = House(EXPORT, {})
    await house.queue.put([event("t1")])
    house.queue.failing = Transient("queue-unavailable")
    stop = asyncio.Event()

    async def mend(seconds: float) -> None:
        house.slept.append(seconds)
        house.queue.failing = None

    house.dispatcher.sleep = mend
    running = asyncio.ensure_future(house.dispatcher.run(stop))
    async with asyncio.timeout(5):
        while house.queue.leased["export"] or house.queue.messages("export"):
            await asyncio.sleep(0)
    stop.set()
    await running
    assert house.handler.handled == ["t1-e1"]


@pytest.mark.parametrize("attempts", [1, 5])
async def test_every_lease_gets_exactly_one_verb(attempts: int) -> None:
    answers: dict[str, Callable[[], Answer]] = {
        "t1-e1": lambda: None,
        "t2-e1": lambda: Transient("x"),
        "t3-e1": lambda: Permanent("y"),
    }
    house = House(EXPORT, answers, attempts=attempts)
    await house.work_off(event("t1"), event("t2"), event("t3"))
    assert not house.queue.leased["export"]  # the fake asserts that no verb came twice


async def test_what_moved_the_lake_is_a_log_line_with_event_task_and_lane() -> None:
    house = House(EXPORT, {"t1-e1": lambda: outcome("o1")})
    lines = io.StringIO()
    configure_logging(stream=lines)
    await house.work_off(event("t1"))
    (line,) = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert line["event"] == "lake moved"
    assert (line["event_id"], line["task"], line["lane"]) == ("t1-e1", "t1", "export")
    assert (line["change"], line["sequence"]) == ("moved", 1)


async def test_what_could_not_be_made_rightly_is_counted_and_said_once() -> None:
    made = outcome("o1")
    move = msgspec.structs.replace(made.move, change=Change.EXPORTED, refused=("dicom-tilted",))
    moved = msgspec.structs.replace(move, change=Change.MOVED, sequence=2)
    answers: dict[str, Any] = {
        "t1-e1": lambda: msgspec.structs.replace(made, move=move),
        "t2-e1": lambda: msgspec.structs.replace(made, id="o2", move=moved),
    }
    house = House(EXPORT, answers)
    lines = io.StringIO()
    configure_logging(stream=lines)
    await house.work_off(event("t1"))
    await house.work_off(event("t2"))
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    warned = [one for one in told if one["level"] == "warning"]
    assert [one["refused"] for one in warned] == [["dicom-tilted"]]
    shown = generate_latest(house.dispatcher.metrics.registry).decode()
    assert 'groundwire_not_made_total{reason="dicom-tilted",source="unknown"} 1.0' in shown
