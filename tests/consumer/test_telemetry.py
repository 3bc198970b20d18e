"""Log lines and metrics: nothing secret, and no label that a stranger chooses."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from consumer.model import Action, Record, TaskEvent
from consumer.ports import LaneDepth
from consumer.redact import GONE, MAX_TEXT, Redactor
from consumer.telemetry import Metrics, about, configure_logging, logger


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is a setting of the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("GET https://b.s3.amazonaws.com/m.nii.gz?X-Amz-Signature=0a1b2c", "0a1b2c"),
        ("see /hooks/redbrick?token=s3cr3t-value for more", "s3cr3t-value"),
        ("amqps://rabbit:pass-w0rd@host/vhost is down", "pass-w0rd"),
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("header Bearer abcdef123456 refused", "abcdef123456"),
        ("{'api_key': 'zzzyyyxxx'}", "zzzyyyxxx"),
        ('{"token":"zzzyyyxxx"}', "zzzyyyxxx"),
        ("x-hub-signature: sha1=deadbeef01", "deadbeef01"),
        ("a jwt eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln here", "eyJzdWIiOiIx"),
        ("drawn by ann.other+x@clinic.example.org today", "ann.other"),
        ("password=hunter2;", "hunter2"),
    ],
)
def test_a_text_loses_what_is_secret(text: str, secret: str) -> None:
    assert secret not in Redactor().text(text)


@pytest.mark.parametrize(
    "text",
    [
        "task 3f2a went to Review_1",
        "reason platform-unreachable, attempt 3",
        "https://api.labelbox.com/graphql answered 503",
        "12:30 at /hooks/labelbox-prod",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert Redactor().text(text) == text


@given(st.text(alphabet="abcXYZ019-_", min_size=4, max_size=40), st.text(), st.text())
def test_a_known_secret_is_taken_out_wherever_it_is(secret: str, before: str, after: str) -> None:
    text = Redactor([secret]).text(before + secret + after)
    assert secret not in text.replace(GONE, "").replace("[e-mail]", "")


def test_values_are_redacted_however_deep_and_keys_that_say_so_entirely() -> None:
    value = {"a": [{"api_key": "x1"}, ("mail bob@example.org",)], "token": "x2", "n": 3}
    assert Redactor().value(value) == {
        "a": [{"api_key": GONE}, ["mail [e-mail]"]],
        "token": GONE,
        "n": 3,
    }


def test_what_nests_without_end_is_cut() -> None:
    value: list[Any] = []
    value.append(value)
    assert "..." in json.dumps(Redactor().value(value))


def test_a_text_without_end_is_cut() -> None:
    assert len(Redactor().text("x" * 1_000_000)) <= MAX_TEXT + 3


def test_log_lines_are_json_when_nobody_watches() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    logger().info("accepted", source="lab")
    assert [(one["event"], one["source"], one["level"]) for one in lines(stream)] == [
        ("accepted", "lab", "info")
    ]


def test_log_lines_are_for_the_eye_on_a_terminal() -> None:
    stream = Terminal()
    configure_logging(stream=stream)
    logger().info("accepted", source="lab")
    assert "accepted" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_log_lines_within_know_their_event_task_and_lane() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    event = TaskEvent(
        id="e1",
        source="s",
        project="p",
        task="t1",
        action=Action.MOVE,
        received_at="",
        body_sha256="",
    )
    with about(event, "export"):
        logger().info("within")
    with about(Record(id="r1", kind="started"), "audit"):
        logger().info("a record")
    logger().info("without")
    found = [(one.get("event_id"), one.get("task"), one.get("lane")) for one in lines(stream)]
    assert found == [("e1", "t1", "export"), ("r1", None, "audit"), (None, None, None)]


def test_no_log_line_holds_a_secret_even_in_a_stack_trace() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream, secrets=["very-secret-1"])
    try:
        raise ValueError("got very-secret-1 from ann@example.org")
    except ValueError:
        logger().exception("crashed", detail="https://x/y?sig=very-secret-1")
    assert "ValueError" in stream.getvalue()
    assert "very-secret-1" not in stream.getvalue()
    assert "ann@" not in stream.getvalue()


def test_what_libraries_log_is_redacted_too() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    logging.getLogger("aiohttp.server").warning("bad request %s", "/hooks/x?token=abcdef")
    logging.getLogger("botocore").info("not shown")
    assert [one["event"] for one in lines(stream)] == [f"bad request /hooks/x?{GONE}"]


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"groundwire_{name}", labels)


def test_accepted_events_and_the_time_of_the_last_webhook_are_kept_by_source() -> None:
    metrics = Metrics(["lab"], now=lambda: 1234.5)
    metrics.accepted("lab", 3)
    metrics.accepted("lab", 0)
    assert sample(metrics, "events_accepted_total", source="lab") == 3
    assert sample(metrics, "last_webhook_timestamp_seconds", source="lab") == 1234.5


def test_a_source_that_is_none_of_ours_becomes_unknown() -> None:
    metrics = Metrics(["lab"])
    for name in ("../../etc", "x" * 500, "other"):
        metrics.refused(name, "unknown-source")
    reason = "unknown-source"
    assert sample(metrics, "requests_refused_total", source="unknown", reason=reason) == 3
    assert b"/etc" not in metrics.render()


def test_a_reason_that_is_no_slug_becomes_other() -> None:
    metrics = Metrics(["lab"])
    metrics.refused("lab", "Bad thing: ann@example.org")
    assert sample(metrics, "requests_refused_total", source="lab", reason="other") == 1


def test_reasons_without_end_do_not_make_metrics_without_end() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.retried("export", f"reason-{number}")
    assert metrics.render().count(b"groundwire_retries_total{") <= 201


def test_every_metric_of_a_lane_has_its_number() -> None:
    metrics = Metrics()
    metrics.lane_depth("export", LaneDepth(ready=1, leased=2, waiting=3, dead=4, oldest_s=5.5))
    metrics.settled("export", 6)
    metrics.retried("export", "platform-down")
    metrics.buried("export", "mask-truncated")
    states = [
        sample(metrics, "queue_messages", lane="export", state=state)
        for state in ("ready", "leased", "waiting")
    ]
    assert states == [1, 2, 3]
    assert sample(metrics, "dead_letters", lane="export") == 4
    assert sample(metrics, "queue_oldest_seconds", lane="export") == 5.5
    assert sample(metrics, "settled_total", lane="export") == 6
    assert sample(metrics, "retries_total", lane="export", reason="platform-down") == 1
    assert sample(metrics, "buried_total", lane="export", reason="mask-truncated") == 1


def test_times_of_fetches_and_downloads_are_histograms() -> None:
    metrics = Metrics(["lab"])
    metrics.fetched("lab", 0.2, ok=True)
    metrics.fetched("lab", 7.0, ok=False)
    metrics.downloaded("lab", 1.5, 1000)
    assert sample(metrics, "fetch_seconds_count", source="lab", ok="true") == 1
    assert sample(metrics, "fetch_seconds_sum", source="lab", ok="false") == 7.0
    assert sample(metrics, "download_seconds_count", source="lab") == 1
    assert sample(metrics, "download_bytes_total", source="lab") == 1000


def test_the_log_has_a_size_and_an_age() -> None:
    metrics = Metrics()
    metrics.log_state(42, None)
    metrics.log_state(43, 12.5)
    assert sample(metrics, "log_entries") == 43
    assert sample(metrics, "log_age_seconds") == 12.5


def test_a_process_that_writes_no_log_says_nothing_of_it() -> None:
    assert b"groundwire_log_" not in Metrics(["lab"]).render()


def test_an_empty_log_has_a_size_and_no_age() -> None:
    metrics = Metrics()
    metrics.log_state(0, None)
    assert sample(metrics, "log_entries") == 0
    assert b"groundwire_log_age_seconds" not in metrics.render()
