"""Bodies as JSON: strict, exact, and never held up by what they hold."""

from __future__ import annotations

import gc
import json
import time

import pytest

from consumer.errors import Rejected
from consumer.model import Delivery
from consumer.platforms import labelbox_hooks, redbrick_webhook
from consumer.platforms.bodies import MAX_LISTS, read_body


def delivery(body: bytes) -> Delivery:
    headers = {"x-labelbox-event": "MOVE"}
    return Delivery("s", body, headers, received_at="2026-01-01T00:00:00.000000Z")


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63) - 1, 10**400])
def test_integers_are_exact_however_large(number: int) -> None:
    assert read_body(json.dumps({"id": number}).encode(), dict) == {"id": number}


def test_an_id_beyond_what_a_float_holds_stays_that_id() -> None:
    body = b'{"data_row": {"id": 9007199254740993}, "project": {"id": 18446744073709551617}}'
    (event,) = labelbox_hooks.events(delivery(body), ["*"])
    assert (event.task, event.project) == ("9007199254740993", "18446744073709551617")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 100_000, "nested-too-deep"),
        (b'{"a":' * 100_000, "nested-too-deep"),
        (b"[" + b"[]," * MAX_LISTS + b"0]", "too-many-lists"),
        (b"[NaN]", "not-json"),
        (b"[-Infinity]", "not-json"),
        (b"[" + b"9" * 5000 + b"]", "not-json"),
        (b'"\xff"', "not-json"),
        (b"", "not-json"),
        (b"{} {}", "not-json"),
    ],
)
def test_what_is_no_sound_json_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        read_body(body, dict)
    assert (refused.value.status, refused.value.reason) == (422, reason)
    assert refused.value.__cause__ is None  # which would repeat the body


def test_garbage_is_collected_again_afterwards() -> None:
    for body in (b"[]", b"[", b"[" * 100_000):
        try:
            read_body(body, dict)
        except Rejected:
            assert body != b"[]"
        assert gc.isenabled()


def test_ten_thousand_events_are_understood_in_less_than_each_would_take_to_hash() -> None:
    """Hashing the body anew for each would take half a minute."""
    item = {"event": "TASK_UPDATED", "id": "e", "data": {"projectId": "p", "taskId": "t"}}
    items = [{**item, "id": str(n), "pad": "x" * 30} for n in range(10_000)]
    body = json.dumps({"payload": items}).encode()
    began = time.process_time()
    events = redbrick_webhook.events_of(
        delivery(body), organization="o", projects={"*"}, final=set()
    )
    assert len({event.id for event in events}) == 10_000
    assert time.process_time() - began < 8
