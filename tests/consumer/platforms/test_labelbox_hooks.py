"""Labelbox webhooks: who sent them, and what they announce."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from consumer.demo.labelbox import Drawing, SimulatedLabelbox, Webhook
from consumer.download import Downloader
from consumer.errors import Rejected
from consumer.model import Action, Delivery, TaskEvent, canonical
from consumer.platforms.labelbox import Labelbox

SECRET = b"a secret"
BODY = b'{"data_row": {"id": "r"}, "project": {"id": "p"}}'
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

Json = dict[str, Any]


def _platform(secrets: Sequence[bytes] = (SECRET,), projects: Sequence[str] = ("*",)) -> Labelbox:
    return Labelbox(
        source="lb",
        secrets=secrets,
        api_key="key",
        downloader=Downloader(),
        clock=lambda: NOW,
        projects=projects,
    )


def _signed(
    body: bytes = BODY, secret: bytes = SECRET, algorithm: Literal["sha1", "sha256"] = "sha1"
) -> str:
    return f"{algorithm}={hmac.new(secret, body, algorithm).hexdigest()}"


def _verify(headers: dict[str, str], secrets: Sequence[bytes] = (SECRET,)) -> Delivery:
    return _platform(secrets).verify(headers, {}, BODY)


def _delivery(webhook: Webhook, platform: Labelbox, secret: str) -> Delivery:
    headers = {name.lower(): value for name, value in webhook.headers.items()}
    return platform.verify(headers, {}, webhook.body)


def _parse(
    body: object, *, event: str = "WORKFLOW_ACTION", delivery_id: str | None = "d1", **given: Any
) -> list[TaskEvent]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"x-labelbox-event": event}
    if delivery_id:
        headers["x-labelbox-id"] = delivery_id
    received = given.pop("received_at", "2026-03-04T05:06:07.000000Z")
    delivery = Delivery(source="lb", body=raw, headers=headers, received_at=received)
    return _platform(**given).parse(delivery)


# who sent it


@pytest.mark.parametrize(
    "headers",
    [
        {"x-hub-signature": _signed()},
        {"x-hub-signature-256": _signed(algorithm="sha256")},
        {"x-hub-signature": _signed(), "x-hub-signature-256": _signed(algorithm="sha256")},
        {"x-hub-signature": _signed().upper().replace("SHA1", "sha1")},
    ],
)
def test_either_signature_proves_a_delivery(headers: dict[str, str]) -> None:
    assert _verify(headers).body == BODY


def test_every_live_secret_is_good_while_they_rotate() -> None:
    secrets = (b"the new one", b"the old one")

    for secret in secrets:
        assert _verify({"x-hub-signature": _signed(secret=secret)}, secrets).source == "lb"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "signature-missing"),
        ({"x-hub-signature": ""}, "signature-missing"),
        ({"x-hub-signature": _signed(secret=b"another")}, "signature-wrong"),
        ({"x-hub-signature": _signed(BODY + b" ")}, "signature-wrong"),
        ({"x-hub-signature": _signed()[:-1]}, "signature-wrong"),
        ({"x-hub-signature": _signed().partition("=")[2]}, "signature-wrong"),
        ({"x-hub-signature": "sha1="}, "signature-wrong"),
        ({"x-hub-signature": "sha1=ü" + "0" * 39}, "signature-wrong"),
        ({"x-hub-signature": "sha1=\udcff"}, "signature-wrong"),
        ({"x-hub-signature": "sha1=" + "0" * 100_000}, "signature-wrong"),
        ({"x-hub-signature": "sha512=" + _signed().partition("=")[2]}, "signature-wrong"),
        ({"x-hub-signature-256": _signed()[5:]}, "signature-wrong"),
    ],
)
def test_what_is_not_signed_by_us_both_is_refused(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        _verify(headers)
    assert (caught.value.status, caught.value.reason) == (401, reason)
    assert "0000" not in caught.value.message


def test_a_wrong_strong_signature_is_not_saved_by_a_good_weak_one() -> None:
    headers = {"x-hub-signature": _signed(), "x-hub-signature-256": "sha256=" + "0" * 64}

    with pytest.raises(Rejected):
        _verify(headers)


def test_without_a_secret_nothing_is_proved() -> None:
    for secrets in ((), (b"",)):
        with pytest.raises(Rejected):
            _verify({"x-hub-signature": _signed(secret=b"")}, secrets)


def test_a_delivery_keeps_no_signature() -> None:
    headers = {"x-hub-signature": _signed(), "x-labelbox-id": "d1", "cookie": "c"}

    assert _verify(headers).headers == {"x-labelbox-id": "d1"}


# what it announces


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_simulated_story_is_understood_in_both_versions(version: Literal["v1", "v2"]) -> None:
    simulated = SimulatedLabelbox(webhook_body=version)
    row = simulated.create_row("k", "u")
    simulated.label(row, [Drawing("Axial", 1, "liver", line=((1, 2),))])
    simulated.submit(row)
    simulated.reject(row)
    simulated.rework(row)
    simulated.approve(row)
    platform = _platform([simulated.webhook_secret.encode()])
    found = [
        event
        for webhook in simulated.outbox
        for event in platform.parse(_delivery(webhook, platform, simulated.webhook_secret))
    ]

    assert {(event.task, event.project) for event in found} == {(row, simulated.project_id)}
    first = Action.CREATE if version == "v2" else Action.MOVE  # v1 shows no history
    assert [event.action for event in found] == [
        first,
        Action.UPDATE,
        Action.MOVE,
        Action.REJECT,
        Action.REWORK,
        Action.APPROVE,
    ]
    assert len({event.id for event in found}) == len(found)


def test_a_body_with_history_says_which_item_and_stage_it_announces() -> None:
    simulated = SimulatedLabelbox()
    row = simulated.create_row("k", "u")
    simulated.submit(row)
    simulated.approve(row)
    platform = _platform([simulated.webhook_secret.encode()])

    (event,) = platform.parse(_delivery(simulated.outbox[-1], platform, ""))

    assert (event.final, event.stage) == (True, "Done")
    assert event.history_id
    assert event.occurred_at == "2026-01-05T09:00:07.000000Z"


@pytest.mark.parametrize(
    "body",
    [
        {"dataRow": {"id": "r"}, "project": {"id": "p"}},
        {"data_row": {"id": "r"}, "projects": {"p": {}}},
        {"dataRowId": "r", "projectId": "p"},
        {"data_row_id": "r", "project_id": "p"},
        [{"data_row": {"id": "r"}, "project": {"id": "p"}}],
    ],
)
def test_ids_are_found_wherever_the_vendor_puts_them(body: object) -> None:
    (event,) = _parse(body)

    assert (event.project, event.task) == ("p", "r")


def test_an_id_that_is_a_number_stays_exact() -> None:
    (event,) = _parse(b'{"data_row": {"id": 9007199254740993}, "project": {"id": "p"}}')

    assert event.task == "9007199254740993"


def test_a_redelivery_has_the_same_id() -> None:
    body = {"data_row": {"id": "r"}, "project": {"id": "p"}}
    later = "2026-03-04T09:00:00.000000Z"

    assert _parse(body)[0].id == _parse(body, received_at=later)[0].id


def test_two_events_under_one_delivery_id_have_two_ids() -> None:
    body: Json = {"data_row": {"id": "r"}, "project": {"id": "p"}}

    assert _parse(body)[0].id != _parse({**body, "action": "REJECT"})[0].id


def test_an_event_with_neither_id_nor_time_is_told_apart_by_its_arrival() -> None:
    body: Json = {"data_row": {"id": "r"}, "project": {"id": "p"}}
    later = "2026-03-04T09:00:00.000000Z"

    one = _parse(body, delivery_id=None)[0]
    assert one.id != _parse(body, delivery_id=None, received_at=later)[0].id
    timed = {**body, "createdAt": "2026-01-01T00:00:00Z"}
    assert (
        _parse(timed, delivery_id=None)[0].id
        == _parse(timed, delivery_id=None, received_at=later)[0].id
    )


def test_only_allowed_projects_are_heard() -> None:
    body = {"data_row": {"id": "r"}, "projects": {"p": {}, "q": {}}}

    assert [event.project for event in _parse(body, projects=("q",))] == ["q"]
    assert _parse(body, projects=("z",)) == []


@pytest.mark.parametrize("body", [{}, {"hello": "world"}, {"project": {"id": "p"}}])
def test_what_is_not_about_tasks_is_no_event(body: Json) -> None:
    assert _parse(body, event="PROJECT_UPDATED") == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not-json"),
        (b"{", "not-json"),
        (b"\xff\xfe\xfa", "not-json"),
        (b'{"a": NaN}', "not-json"),
        (b"1" * 5_000, "not-json"),
        (b"[" * 200_000, "nested-too-deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested-too-deep"),
        (b"7", "not-an-object"),
        (b'["x"]', "not-an-object"),
        ([{}] * 1_001, "too-many-rows"),
        ({}, "no-data-row"),
        ({"data_row": "r", "project": {"id": "p"}}, "no-data-row"),
        ({"data_row": {"id": "r"}}, "no-project"),
        ({"data_row": {"id": "r"}, "projects": []}, "no-project"),
        ({"data_row": {"id": {}}, "project": {"id": "p"}}, "bad-id"),
        ({"data_row": {"id": True}, "project": {"id": "p"}}, "bad-id"),
        ({"data_row": {"id": ""}, "project": {"id": "p"}}, "bad-id"),
        ({"data_row": {"id": "x" * 129}, "project": {"id": "p"}}, "bad-id"),
        ({"data_row": {"id": "r\n"}, "project": {"id": "p"}}, "bad-id"),
        ({"data_row": {"id": "r"}, "projects": {"": {}}}, "bad-id"),
        (b'{"data_row": {"id": "r", "id": "s"}, "project": {"id": "p"}}', "duplicate-key"),
        (b'{"data_row": {"id": "r"}, "project": {"id": "p"}, "project": {}}', "duplicate-key"),
        (
            {
                "data_row": {"id": "r"},
                "projects": {"p": {"project_details": {"workflow_history": [{"action": 1}]}}},
            },
            "bad-history",
        ),
    ],
)
def test_a_body_that_cannot_be_understood_is_refused(body: object, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        _parse(body)
    assert (caught.value.status, caught.value.reason) == (422, reason)


def test_a_key_that_does_not_matter_may_come_twice() -> None:
    body = b'{"data_row": {"id": "r"}, "project": {"id": "p"}, "note": 1, "note": 2}'

    assert len(_parse(body)) == 1


# what no webhook may do to us


def _with_step(**step: Any) -> Json:
    steps = [{"action": "MOVE", "created_at": "2026-03-04T05:00:00Z", **step}]
    details = {"project_details": {"workflow_history": steps}}
    return {"data_row": {"id": "r"}, "projects": {"p": details}}


@pytest.mark.parametrize("name", ["next_task_name", "next_task_id", "created_by", "action"])
@pytest.mark.parametrize("hostile", ["x" * 100_000, "\ud800", "a\x00b\n"])
def test_whatever_a_step_is_called_its_event_fits_the_log(name: str, hostile: str) -> None:
    (event,) = _parse(_with_step(**{name: hostile}))
    assert len(canonical(event)) < 4096


@pytest.mark.parametrize("header", ["x-labelbox-id", "x-labelbox-event"])
@pytest.mark.parametrize("hostile", ["\udcff\udcfe", "x" * 8000])
def test_whatever_a_header_holds_its_event_fits_the_log(header: str, hostile: str) -> None:
    """Bytes of a header that are no UTF-8 come as half surrogates."""
    delivery = _verify({"x-hub-signature": _signed(), header: hostile})
    (event,) = _platform().parse(delivery)
    assert len(canonical(event)) < 4096


def test_two_deliveries_of_long_ids_are_two_events() -> None:
    ids = {
        _platform()
        .parse(_verify({"x-hub-signature": _signed(), "x-labelbox-id": "d" * 300 + end}))[0]
        .delivery_id
        for end in "12"
    }
    assert len(ids) == 2


def test_one_row_in_more_projects_than_anybody_has_is_refused() -> None:
    body = {"data_row": {"id": "r"}, "projects": {f"p{n}": {} for n in range(10_001)}}
    with pytest.raises(Rejected) as refused:
        _parse(body)
    assert (refused.value.status, refused.value.reason) == (422, "too-many-events")
