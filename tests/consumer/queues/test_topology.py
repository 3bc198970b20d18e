"""The queues of a lane as data."""

from __future__ import annotations

import pytest

from consumer.model import LaneSpec
from consumer.queues.topology import STEPS_S, Arguments, lacking, lane_topology

EXPORT = LaneSpec(name="export", wants=("event",))
AUDIT = LaneSpec(name="audit", wants=("event",), exclusive=True)


def arguments(lane: LaneSpec) -> dict[str, Arguments]:
    return {it.name: it.arguments for it in lane_topology("gw", lane, (1, 0.25)).queues()}


def test_every_queue_of_a_lane_is_a_quorum_queue_under_the_prefix() -> None:
    queues = arguments(EXPORT)
    assert sorted(queues) == [
        "gw.export",
        "gw.export.dead",
        "gw.export.killed",
        "gw.export.wait.1000ms",
        "gw.export.wait.250ms",
    ]
    assert {it["x-queue-type"] for it in queues.values()} == {"quorum"}


@pytest.mark.parametrize("name", ["gw.export", "gw.export.wait.250ms"])
def test_dead_lettering_is_at_least_once_only_together_with_reject_publish(name: str) -> None:
    queue = arguments(EXPORT)[name]
    assert queue["x-dead-letter-strategy"] == "at-least-once"
    assert queue["x-overflow"] == "reject-publish"
    assert queue["x-dead-letter-exchange"] == ""


def test_a_wait_ends_in_the_lane_and_a_kill_beside_it() -> None:
    queues = arguments(EXPORT)
    assert queues["gw.export.wait.250ms"]["x-dead-letter-routing-key"] == "gw.export"
    assert queues["gw.export.wait.250ms"]["x-message-ttl"] == 250
    assert queues["gw.export"]["x-dead-letter-routing-key"] == "gw.export.killed"


def test_the_broker_kills_after_a_thousand_deliveries_but_never_a_dead_letter() -> None:
    queues = arguments(EXPORT)
    assert queues["gw.export"]["x-delivery-limit"] == 1000
    for name in ("gw.export.dead", "gw.export.killed"):
        limit = queues[name]["x-delivery-limit"]
        assert isinstance(limit, int)
        assert limit > 10**9


@pytest.mark.parametrize("lane", [EXPORT, AUDIT])
def test_no_queue_that_is_consumed_is_left_to_the_server_s_own_limit(lane: LaneSpec) -> None:
    """3.x has none, 4.x has 20 deliveries where none is declared, and -1 is not for all."""
    for name, queue in arguments(lane).items():
        limit = queue.get("x-delivery-limit")
        assert ".wait." in name or (isinstance(limit, int) and limit >= 1000), name


@pytest.mark.parametrize("lane", [EXPORT, AUDIT])
def test_every_argument_is_one_that_each_version_knows(lane: LaneSpec) -> None:
    known = {
        "x-queue-type",
        "x-delivery-limit",
        "x-single-active-consumer",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-overflow",
    }  # none that came after 3.10 (delayed retries, consumer timeouts), none that 4.x dropped
    for queue in arguments(lane).values():
        assert set(queue) <= known


def test_only_an_exclusive_lane_has_a_single_active_consumer() -> None:
    assert arguments(AUDIT)["gw.audit"]["x-single-active-consumer"] is True
    assert not any("x-single-active-consumer" in it for it in arguments(EXPORT).values())


@pytest.mark.parametrize(
    ("after_s", "waits_ms"),
    [(0, 1000), (1, 1000), (1.001, 2000), (59, 60_000), (3600, 3_600_000), (9999, 3_600_000)],
)
def test_a_retry_waits_for_the_smallest_step_that_is_long_enough(
    after_s: float, waits_ms: int
) -> None:
    assert lane_topology("gw", EXPORT, STEPS_S).wait_for(after_s) == f"gw.export.wait.{waits_ms}ms"


@pytest.mark.parametrize("version", ["3.10.0", "3.13.7", "4.0.1", "4.3.0-rc.1", "unknown", ""])
def test_a_server_from_3_10_on_lacks_nothing(version: str) -> None:
    assert lacking(version) == []


def test_an_older_server_is_told_what_it_lacks() -> None:
    assert lacking("3.9.29") == [
        "a time to live on quorum queues",
        "at-least-once dead-lettering",
    ]
