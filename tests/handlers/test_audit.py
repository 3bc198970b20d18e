"""The audit handler: what each message becomes in the log, and what a failure does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.log.read import entries
from consumer.log.report import report
from consumer.model import (
    Action,
    Change,
    EventType,
    Failure,
    HistoryItem,
    LakeMove,
    Message,
    Outcome,
    Record,
    TaskEvent,
)
from consumer.ports import Log, Ports, Result
from handlers import audit
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore

EVENT = TaskEvent(
    id="e1",
    source="lb",
    project="p",
    task="t",
    action=Action.APPROVE,
    received_at="2026-01-01T00:00:00.000000Z",
    body_sha256="ab",
    stage="Done",
)
MOVE = LakeMove(
    project_key="lb.p",
    sequence=3,
    change=Change.EXPORTED,
    stage="Done",
    old_stage="Review",
    revision="r3",
    old_revision="r2",
    ground_truth=True,
    was_ground_truth=False,
    ground_truth_label=None,
    ground_truth_reason=None,
    label_version="v3",
    recipe="rc",
    manifest_key="lb.p/tasks/t/revisions/r3.json",
    manifest_sha256="r3",
)
SUBMITTED = HistoryItem(
    id="h1", type=EventType.SUBMITTED, at="2026-01-01T00:00:00.000000Z", action=Action.MOVE
)
ACCEPTED = HistoryItem(
    id="h2",
    type=EventType.ACCEPTED,
    at="2026-01-02T00:00:00.000000Z",
    actor="u7",
    stage="Review",
    ground_truth=True,
    action=Action.APPROVE,
    final=True,
)
OUTCOME = Outcome(
    id="lb.p/t/3",
    source="lb",
    project="p",
    task="t",
    move=MOVE,
    history=(SUBMITTED, ACCEPTED),
    caused_by=("e1",),
)
RECORD = Record(id="x", kind="buried", fields={"reason": "mask-missing", "attempts": 5})


@dataclass(eq=False)
class Leased:
    """A message as a handler sees it."""

    message: Message
    attempt: int = 1
    failure: Failure | None = None


@dataclass
class Remembering:
    """A log that keeps what it is given, and refuses entries that name a poison."""

    appended: list[list[Mapping[str, Any]]] = field(default_factory=list)
    failing: GroundwireError | None = None

    async def append(self, entries: Sequence[Mapping[str, Any]]) -> int:
        if self.failing:
            raise self.failing
        if any("poison" in str(entry["id"]) for entry in entries):
            raise Permanent("entry-too-large", "it is too large")
        self.appended.append(list(entries))
        return len(entries)


def ports(log: Log) -> Ports:
    return Ports(
        platforms={},
        queue=FakeQueue(lanes=[]),
        store=FakeStore(),
        log=log,
        rules={},
        project_key=lambda key: key.project,
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )


async def handled(log: Log, *messages: Message) -> list[tuple[str, Result]]:
    work = [Leased(message) for message in messages]
    return [(one.message.id, result) async for one, result in audit.handle(work, ports(log))]


def test_the_lane_takes_everything_in_order_by_one_consumer() -> None:
    assert audit.LANE.exclusive
    assert all(audit.LANE.takes(message) for message in (EVENT, OUTCOME, RECORD))


def test_an_event_becomes_a_receipt() -> None:
    assert audit.entries_of(EVENT) == [
        {
            "id": "receipt:e1",
            "kind": "receipt",
            "source": "lb",
            "project": "p",
            "task": "t",
            "action": "APPROVE",
            "received_at": "2026-01-01T00:00:00.000000Z",
            "body_sha256": "ab",
            "stage": "Done",
        }
    ]


def test_what_a_sweep_found_is_no_receipt_for_no_webhook_came() -> None:
    found = TaskEvent(
        id="s1",
        source="lb",
        project="p",
        task="t",
        action=Action.SWEEP,
        received_at="2026-01-01T00:00:00.000000Z",
        body_sha256="",
        stage="Done",
        occurred_at="2025-12-31T00:00:00.000000Z",
        run="run-1",
        gap="stage",
    )
    assert audit.entries_of(found) == [
        {
            "id": "swept:s1",
            "kind": "swept",
            "source": "lb",
            "project": "p",
            "task": "t",
            "run": "run-1",
            "gap": "stage",
            "stage": "Done",
            "received_at": "2026-01-01T00:00:00.000000Z",
        }
    ]


def test_an_outcome_becomes_its_history_and_then_the_move() -> None:
    made = audit.entries_of(OUTCOME)
    assert [entry["id"] for entry in made] == ["history:h1", "history:h2", "lake:lb.p/t/3"]
    assert [entry["kind"] for entry in made] == ["history", "history", "lake"]


def test_an_approval_names_the_labels_and_the_revision_that_it_approved() -> None:
    submitted, accepted, _ = audit.entries_of(OUTCOME)
    assert (accepted["label_version"], accepted["revision"]) == ("v3", "r3")
    assert "revision" not in submitted
    assert (accepted["actor"], accepted["type"], accepted["final"]) == ("u7", "TASK_ACCEPTED", True)


def test_a_move_says_old_and_new() -> None:
    entry = audit.entries_of(OUTCOME)[-1]
    assert (entry["old_stage"], entry["stage"]) == ("Review", "Done")
    assert (entry["old_revision"], entry["revision"]) == ("r2", "r3")
    assert (entry["was_ground_truth"], entry["ground_truth"]) == (False, True)
    assert (entry["manifest_sha256"], entry["caused_by"]) == ("r3", ["e1"])
    assert entry["ground_truth_reason"] is None


def test_a_record_becomes_an_entry_of_its_kind() -> None:
    assert audit.entries_of(RECORD) == [
        {"id": "buried:x", "kind": "buried", "reason": "mask-missing", "attempts": 5}
    ]


async def test_a_batch_is_appended_at_once_and_answered_in_order() -> None:
    log = Remembering()
    assert await handled(log, EVENT, OUTCOME, RECORD) == [
        ("e1", None),
        ("lb.p/t/3", None),
        ("x", None),
    ]
    assert len(log.appended) == 1
    assert len(log.appended[0]) == 5


@pytest.mark.parametrize(
    "error", [Transient("store-slow"), Permanent("log-key", "the key is another's")]
)
async def test_a_failing_log_leaves_every_message_without_a_result(error: GroundwireError) -> None:
    with pytest.raises(type(error)):
        await handled(Remembering(failing=error), EVENT, OUTCOME)


async def test_an_entry_that_no_log_can_hold_fails_alone() -> None:
    poison = Record(id="poison", kind="failed", fields={})
    log = Remembering()
    results = dict(await handled(log, EVENT, poison, OUTCOME))
    assert isinstance(results["poison"], Permanent)
    assert (results["e1"], results["lb.p/t/3"]) == (None, None)
    assert log.appended[0][0]["id"] == "receipt:e1"


@pytest.mark.parametrize("name", ["id", "kind", "format", "logged_at"])
async def test_a_record_cannot_write_over_an_entrys_own_fields(name: str) -> None:
    record = Record(id="x", kind="failed", fields={name: "other"})
    ((_, result),) = await handled(Remembering(), record)
    assert isinstance(result, Permanent)


async def test_redelivered_messages_stand_in_the_real_log_once() -> None:
    store = FakeStore()
    signer = Signer.from_seed("example.org/lake", bytes(32))
    log = TileLog(
        store,
        signer=signer,
        origin="example.org/lake",
        index_path=None,
        clock=lambda: datetime(2026, 1, 3, tzinfo=UTC),
    )
    await handled(log, EVENT, OUTCOME)
    await handled(log, OUTCOME, EVENT, RECORD)
    found = [one.data async for one in entries(store)]
    assert [entry["id"] for entry in found] == [
        "receipt:e1",
        "history:h1",
        "history:h2",
        "lake:lb.p/t/3",
        "buried:x",
    ]
    (row,) = report(found, ground_truth=True)
    assert [event["eventType"] for event in row["events"]] == ["TASK_SUBMITTED", "TASK_ACCEPTED"]
