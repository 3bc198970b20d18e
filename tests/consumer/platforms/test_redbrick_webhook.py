"""What RedBrick's webhooks become, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.demo.redbrick import SimulatedRedBrick
from consumer.download import Downloader
from consumer.errors import Rejected
from consumer.model import Action, Delivery, TaskEvent
from consumer.platforms.redbrick import RedBrick

SAMPLES = Path(__file__).parents[2] / "samples"
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def platform(**settings: Any) -> RedBrick:
    return RedBrick(
        "redbrick",
        **{
            "secrets": [b"first-token", "zweites-\u00e4".encode()],
            "api_key": "k" * 43,
            "organization": "org-1",
            "downloader": Downloader(),
            "clock": lambda: NOW,
            **settings,
        },
    )


def delivery(body: Any, received_at: str = "2026-01-05T12:00:00.000000Z") -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(source="redbrick", body=raw, headers={}, received_at=received_at)


def item(event: str = "TASK_ENTERED_STAGE", **changes: Any) -> dict[str, Any]:
    data = {"orgId": "org-1", "projectId": "project-1", "taskId": "task-1", "updatedBy": "u"}
    data |= {"stageName": "Review_1"} if event == "TASK_ENTERED_STAGE" else {"taskName": "study01"}
    data |= changes.pop("data", {})
    return {"event": event, "id": "event-1", "timestamp": 1767614400, "data": data, **changes}


def webhook(*items: Any) -> dict[str, Any]:
    return {"version": "v1.0", "events": len(items), "payload": list(items)}


def parsed(*items: Any, **settings: Any) -> list[TaskEvent]:
    return platform(**settings).parse(delivery(webhook(*items)))


def refusal(body: Any) -> str:
    with pytest.raises(Rejected) as refused:
        platform().parse(delivery(body))
    assert refused.value.status == 422
    return refused.value.reason


@pytest.mark.parametrize("token", ["first-token", "zweites-\u00e4"])
def test_every_live_token_is_accepted(token: str) -> None:
    made = platform().verify({"host": "x"}, {"token": token}, b"{}")
    assert made == Delivery(
        source="redbrick",
        body=b"{}",
        headers={"host": "x"},
        received_at="2026-01-05T12:00:00.000000Z",
    )


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"token": ""},
        {"token": "first-toke"},
        {"token": "\udcff\u20ac"},
        {"token": "x" * 10_000},
    ],
    ids=["none", "empty", "wrong", "not text", "huge"],
)
def test_any_other_token_is_refused_without_being_told(query: dict[str, str]) -> None:
    with pytest.raises(Rejected) as refused:
        platform().verify({}, query, b"{}")
    assert (refused.value.status, refused.value.reason) == (401, "token-wrong")
    assert "first" not in str(refused.value)


@pytest.mark.parametrize("secrets", [[], [b""]], ids=["no secret", "an empty one"])
def test_without_a_secret_nothing_is_accepted(secrets: list[bytes]) -> None:
    with pytest.raises(Rejected):
        platform(secrets=secrets).verify({}, {"token": ""}, b"{}")


def test_the_sample_is_read_as_a_batch_of_events() -> None:
    body = (SAMPLES / "redbrick_webhook.json").read_bytes()
    events = platform(organization="8d5b1a52-6a0c-4bd3-9d21-0b51c1a4f001").parse(delivery(body))
    assert [(e.action, e.stage, e.final) for e in events] == [
        (Action.CREATE, None, False),
        (Action.MOVE, "Review_1", False),
        (Action.APPROVE, "END", True),
        (Action.DELETE, None, False),
    ]
    assert {e.task for e in events} == {"9c0f6e0a-35a4-4f3f-8f3e-3f7b7f0d0001"}
    assert [e.occurred_at for e in events[:2]] == [
        "2026-01-05T12:00:00.000000Z",
        "2026-01-05T12:00:01.250000Z",
    ]


@pytest.mark.parametrize(
    ("given_timestamp", "expected"),
    [
        (1767614400, "2026-01-05T12:00:00.000000Z"),
        (1767614400.25, "2026-01-05T12:00:00.250000Z"),
        (1767614400250, "2026-01-05T12:00:00.250000Z"),
        ("2026-01-05T13:00:00+01:00", "2026-01-05T12:00:00.000000Z"),
        (None, None),
    ],
)
def test_a_timestamp_may_be_seconds_milliseconds_or_text(
    given_timestamp: Any, expected: str | None
) -> None:
    (event,) = parsed(item(timestamp=given_timestamp))
    assert event.occurred_at == expected


def test_a_redelivery_has_the_same_id_and_another_event_has_not() -> None:
    first, again = (
        platform().parse(delivery(webhook(item()), at))[0]
        for at in ("2026-01-05T12:00:00.000000Z", "2026-01-05T13:00:00.000000Z")
    )
    assert first.id == again.id
    assert parsed(item(id="event-2"))[0].id != first.id
    assert parsed(item(data={"taskId": "task-2"}))[0].id != first.id


def test_without_id_and_timestamp_every_arrival_is_its_own_event() -> None:
    bare = webhook(item(id=None, timestamp=None), item(id=None, timestamp=None))
    ids = [
        event.id
        for at in ("2026-01-05T12:00:00.000000Z", "2026-01-05T13:00:00.000000Z")
        for event in platform().parse(delivery(bare, at))
    ]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("name", ["END", "end", "Output", "OUTPUT"])
def test_the_last_stage_may_be_called_end_or_output_in_any_case(name: str) -> None:
    (event,) = parsed(item(data={"stageName": name}))
    assert (event.action, event.final) == (Action.APPROVE, True)
    assert (event.stage or "").casefold() == "end"


def test_which_stages_are_ground_truth_is_configurable() -> None:
    (event,) = parsed(item(data={"stageName": "Review_1"}), ground_truth_stages=["review_1"])
    assert (event.action, event.final, event.stage) == (Action.APPROVE, True, "Review_1")


def test_a_stage_that_a_task_only_passes_through_is_not_waited_for() -> None:
    (event,) = parsed(item(data={"stageName": "Failed_Review_1"}))
    assert (event.action, event.stage) == (Action.REJECT, None)


def test_what_is_not_about_an_allowed_project_s_tasks_is_left_out() -> None:
    others = [
        item("PROJECT_CREATED"),
        item(data={"orgId": "org-2"}),
        item(data={"projectId": "project-2"}),
    ]
    assert parsed(*others, projects=["project-1"]) == []
    assert len(parsed(*others, item(), projects=["project-1"])) == 1
    assert len(parsed(*others, projects=["*"])) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not-json"),
        (b"\xff\xfe", "not-json"),
        (b'{"payload": NaN}', "not-json"),
        (b"[" * 200_000, "nested-too-deep"),
        (b'{"payload": [], "payload": []}', "duplicate-keys"),
        ([], "payload-missing"),
        ({"payload": {}}, "payload-missing"),
        (webhook("text"), "event-malformed"),
        (webhook({"id": "x"}), "event-malformed"),
        (webhook(item(data={"taskId": 7})), "event-malformed"),
        (webhook(item(data={"taskId": ""})), "event-malformed"),
        (webhook(item(data={"taskId": "x" * 201})), "event-malformed"),
        (webhook(item(data={"projectId": None})), "event-malformed"),
        (webhook(item(data={"taskId": "a\nb"})), "event-malformed"),
        (webhook(item(timestamp=True)), "timestamp-malformed"),
        (webhook(item(timestamp=1e300)), "timestamp-malformed"),
        (webhook(item(timestamp="soon")), "timestamp-malformed"),
        (webhook(item(timestamp=[])), "timestamp-malformed"),
        (webhook(*[{"event": "X"}] * 10_001), "too-many-events"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_understood_is_refused(body: Any, reason: str) -> None:
    assert refusal(body) == reason


def answered_or_refused(body: bytes) -> bool:
    try:
        return isinstance(platform().parse(delivery(body)), list)
    except Rejected as refused:
        return refused.status == 422


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_no_body_makes_it_fail_otherwise(body: bytes) -> None:
    assert answered_or_refused(body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {"event": st.sampled_from(["TASK_CREATED", "TASK_ENTERED_STAGE"]) | _JSON},
        optional={
            "id": _JSON,
            "timestamp": _JSON,
            "data": _JSON
            | st.fixed_dictionaries(
                {}, optional=dict.fromkeys(["projectId", "taskId", "stageName", "orgId"], _JSON)
            ),
        },
    )
)
def test_no_event_makes_it_fail_otherwise(made: dict[str, Any]) -> None:
    assert answered_or_refused(json.dumps({"payload": [made]}).encode())


def test_the_simulated_platform_s_webhooks_are_understood() -> None:
    simulator = SimulatedRedBrick(announce_transit=True, webhook_milliseconds=False)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.reject(task_id)
    simulator.label(task_id)
    simulator.approve(task_id)
    told = platform(organization=simulator.org_id)
    events = [e for body in simulator.take_webhooks() for e in told.parse(delivery(body))]
    assert [(e.action.value, e.stage) for e in events] == [
        ("CREATE", None),
        ("MOVE", "Label"),
        ("MOVE", "Review_1"),
        ("REJECT", None),
        ("MOVE", "Label"),
        ("MOVE", "Review_1"),
        ("APPROVE", "END"),
        ("APPROVE", "END"),
    ]
    assert len({e.id for e in events}) == 8


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
def test_a_timestamp_may_be_in_seconds_or_in_a_thousandth_or_less(unit: int) -> None:
    (event,) = parsed(item(timestamp=1767614400 * unit))
    assert event.occurred_at == "2026-01-05T12:00:00.000000Z"


@pytest.mark.parametrize("stamp", ["0001-01-02T00:00:00", -1e11 + 1, 1e25, 10**400, "1" * 5000])
def test_a_time_that_no_clock_shows_is_refused(stamp: Any) -> None:
    assert refusal(webhook(item(timestamp=stamp))) == "timestamp-malformed"


@pytest.mark.parametrize("name", ["TASK_\ud800", "TASK_" + "X" * 300, "TASK_\x00"])
def test_an_event_of_no_printable_name_is_refused(name: str) -> None:
    assert refusal(webhook(item(name))) == "event-malformed"
