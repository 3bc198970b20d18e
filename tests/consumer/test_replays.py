"""What was queued lately is known again."""

from __future__ import annotations

import msgspec

from consumer.model import Action, TaskEvent
from consumer.replays import Replays
from tests.fakes_clock import Seconds


def event(
    number: str = "1", *, delivery: str | None = "d", occurred: str | None = None, body: str = "0"
) -> TaskEvent:
    return TaskEvent(
        id=f"id-{number}",
        source="lab",
        project="p",
        task="t",
        action=Action.MOVE,
        received_at="2026-01-01T00:10:00.000000Z",
        body_sha256=body * 64,
        occurred_at=occurred,
        delivery_id=delivery,
    )


def test_what_was_queued_lately_is_not_fresh_until_its_time_is_over() -> None:
    now = Seconds()
    replays = Replays(300, now=now)
    replays.queued([event()])
    assert replays.fresh([event(), event("2")]) == [event("2")]
    now.at += 300
    assert replays.fresh([event()]) == [event()]


def test_what_was_not_queued_is_fresh() -> None:
    replays = Replays(300)
    assert replays.fresh([event()]) == [event()]
    assert replays.fresh([event()]) == [event()]


def test_one_delivery_names_an_event_once() -> None:
    assert Replays().fresh([event(), event(), event("2")]) == [event(), event("2")]


def test_another_body_with_the_same_id_is_fresh() -> None:
    replays = Replays()
    replays.queued([event()])
    assert replays.fresh([event(body="1")])


def test_what_the_platform_does_not_tell_apart_is_always_fresh() -> None:
    replays = Replays()
    untold = event(delivery=None)
    replays.queued([untold])
    assert replays.fresh([untold])
    assert len(replays) == 0


def test_a_time_that_is_about_now_tells_events_apart_and_an_old_one_does_not() -> None:
    replays = Replays(300)
    told = event("told", delivery=None, occurred="2026-01-01T00:06:00.000000Z")
    old = event("old", delivery=None, occurred="2026-01-01T00:04:59.000000Z")
    replays.queued([told, old])
    assert replays.fresh([told, old]) == [old]


def test_only_the_newest_are_remembered() -> None:
    replays = Replays(300, most=10)
    replays.queued([event(str(n)) for n in range(1000)])
    assert len(replays) == 10
    assert replays.fresh([event("0"), event("999")]) == [event("0")]


def test_no_time_at_all_switches_it_off() -> None:
    replays = Replays(0)
    replays.queued([event()])
    assert replays.fresh([event()])


def test_an_event_of_the_sweep_is_compared_like_any_other() -> None:
    swept = msgspec.structs.replace(event(delivery=None), action=Action.SWEEP)
    assert Replays().fresh([swept]) == [swept]
