"""A message as it travels through RabbitMQ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.model import Action, Failure, Record, TaskEvent, decode_message
from consumer.queues.envelope import MAX_FAILURE_CHARS, Envelope, unwrap, wrap

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = datetime(2026, 1, 3, tzinfo=UTC)
EVENT = TaskEvent(
    id="e1",
    source="redbrick",
    project="p",
    task="t",
    action=Action.APPROVE,
    received_at="2026-01-02T03:04:05.000000Z",
    body_sha256="0" * 64,
)
FAILURE = Failure(reason="platform-down", message="it is down", at="2026-01-02T03:04:06.000000Z")


def travelled(envelope: Envelope) -> Envelope:
    return unwrap(envelope.body, envelope.message_id, envelope.headers(), LATER)


def test_a_message_is_a_cloud_event_in_binary_mode() -> None:
    envelope = wrap(EVENT, NOW)
    assert envelope.headers() == {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": "e1",
        "cloudEvents:type": "groundwire.event",
        "cloudEvents:source": "/groundwire/redbrick",
        "cloudEvents:time": "2026-01-02T03:04:05.678901Z",
        "groundwire-attempt": 1,
    }
    assert decode_message(envelope.body) == EVENT


def test_a_record_comes_from_groundwire_itself() -> None:
    headers = wrap(Record(id="r", kind="started"), NOW).headers()
    assert (headers["cloudEvents:type"], headers["cloudEvents:source"]) == (
        "groundwire.record",
        "/groundwire/",
    )


def test_an_envelope_survives_the_journey() -> None:
    envelope = wrap(EVENT, NOW).again(FAILURE, counted=True)
    assert travelled(envelope) == envelope


def test_a_retry_counts_and_a_burial_does_not() -> None:
    envelope = wrap(EVENT, NOW)
    assert envelope.again(FAILURE, counted=True).attempt == 2
    assert envelope.again(FAILURE, counted=False).attempt == 1
    assert envelope.failed(FAILURE).attempt == 1


def test_a_replay_forgets_attempts_and_failure() -> None:
    envelope = wrap(EVENT, NOW).again(FAILURE, counted=True)
    assert envelope.anew(LATER) == wrap(EVENT, LATER)


def test_a_long_failure_is_cut_to_fit_into_a_frame() -> None:
    long = Failure(reason="r", message="x" * 100_000, at="")
    header = wrap(EVENT, NOW).failed(long).headers()["groundwire-failure-message"]
    assert header == "x" * MAX_FAILURE_CHARS


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"groundwire-attempt": "three", "cloudEvents:time": 7, "cloudEvents:type": b"x"},
        {"groundwire-attempt": -1, "cloudEvents:time": "yesterday"},
        {"groundwire-attempt": None, "groundwire-failure-reason": 4},
    ],
)
def test_foreign_headers_get_defaults(headers: dict[str, Any]) -> None:
    envelope = unwrap(b"?", None, headers, LATER)
    assert (envelope.attempt, envelope.put_at, envelope.failure) == (1, LATER, None)


def test_a_time_without_a_zone_is_utc() -> None:
    headers = {"cloudEvents:time": "2026-01-03T00:00:00"}
    assert unwrap(b"?", None, headers, NOW).put_at == LATER
