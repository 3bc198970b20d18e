"""What fails at RedBrick is an error with its reason, never an empty result."""

from __future__ import annotations

import gzip

import pytest

from consumer.demo.redbrick import (
    Fault,
    Kind,
    SimulatedRedBrick,
    status,
)
from consumer.errors import Permanent, Transient
from consumer.model import Missing, TaskKey, TaskSnapshot
from tests.consumer.platforms.redbrick_peer import (
    Clock,
    answer,
    connected,
    key,
    only_label,
)


async def test_a_deleted_task_is_missing_when_its_project_can_be_read() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.delete(task_id)
    assert await answer(simulator, task_id) == Missing(
        source="redbrick", project=simulator.project_id, task=task_id
    )


async def test_a_task_of_a_project_that_went_away_meanwhile_is_not_missing() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    async with connected(simulator, clock=Clock()) as platform:
        asked = key(simulator, task_id)
        await platform.fetch([asked])
        simulator.delete(task_id)
        simulator.faults.add("getProjectSDK", Fault(Kind.GRAPHQL_ERROR))
        got = (await platform.fetch([asked]))[asked]
    assert isinstance(got, Transient)
    assert got.reason == "platform-graphql-error"


async def test_an_unknown_project_is_an_error_not_a_missing_task() -> None:
    simulator = SimulatedRedBrick()
    async with connected(simulator) as platform:
        asked = TaskKey(source="redbrick", project="elsewhere", task="x")
        got = (await platform.fetch([asked]))[asked]
    assert isinstance(got, Transient)


@pytest.mark.parametrize(
    ("fault", "reason", "after_s"),
    [
        (status(401), "platform-refused", None),
        (status(403), "platform-refused", None),
        (status(429, retry_after_s=17), "platform-rate-limited", 17.0),
        (status(503, retry_after_s=3), "platform-down", 3.0),
        (status(302), "platform-address", None),
        (status(404), "platform-address", None),
    ],
    ids=lambda value: getattr(value, "status", None),
)
async def test_what_every_task_would_meet_is_raised_as_shared(
    fault: Fault, reason: str, after_s: float | None
) -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.faults.add("taskSDK", fault)
    with pytest.raises(Transient) as raised:
        await answer(simulator, task_id)
    assert (raised.value.reason, raised.value.shared, raised.value.after_s) == (
        reason, True, after_s,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(500), "platform-failed"),
        (status(413), "platform-failed"),
        (Fault(Kind.GRAPHQL_ERROR, message="Dr. Ada Example may not"), "platform-graphql-error"),
        (Fault(Kind.TRUNCATED), "platform-truncated"),
        (Fault(Kind.CUT), "platform-answer-malformed"),
        (Fault(Kind.HANG), "platform-timeout"),
    ],
    ids=["500", "413", "graphql error", "truncated", "cut", "hang"],
)
async def test_one_task_s_failure_is_its_own_and_never_an_empty_result(
    fault: Fault, reason: str
) -> None:
    simulator = SimulatedRedBrick()
    failing, fine = simulator.create_task("study01"), simulator.create_task("study02")
    async with connected(simulator, timeout_s=1.0) as platform:
        first = await platform.fetch([key(simulator, failing)])
        assert isinstance(first[key(simulator, failing)], TaskSnapshot)
        simulator.faults.add("taskSDK", fault)
        got = await platform.fetch([key(simulator, failing), key(simulator, fine)])
    kinds = sorted(type(one).__name__ for one in got.values())
    assert kinds == ["TaskSnapshot", "Transient"]
    error = next(one for one in got.values() if isinstance(one, Transient))
    assert (error.reason, error.shared) == (reason, False)
    assert "Ada" not in str(error)


async def test_the_key_follows_no_redirect() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    there = Fault(Kind.STATUS, status=307, headers={"Location": "/graphql/"})
    simulator.faults.add("taskSDK", there)
    with pytest.raises(Transient) as raised:
        await answer(simulator, task_id)
    assert raised.value.reason == "platform-address"
    assert simulator.counters["taskSDK"] == 1


async def test_a_refused_query_is_permanent() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.faults.add("taskSDK", status(400))
    got = await answer(simulator, task_id)
    assert isinstance(got, Permanent)
    assert got.reason == "platform-query-refused"


async def test_a_wrong_key_is_refused_without_being_told() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    with pytest.raises(Transient) as raised:
        await answer(simulator, task_id, api_key="x" * 43)
    assert raised.value.reason == "platform-refused"
    assert "xxx" not in str(raised.value)


async def test_a_platform_that_is_down_is_shared() -> None:
    simulator = SimulatedRedBrick()
    asked = key(simulator, simulator.create_task("study01"))
    async with connected(simulator) as platform:
        gone = platform
    with pytest.raises(Transient) as raised:
        await gone.fetch([asked])
    await gone.close()
    assert raised.value.reason in ("platform-unreachable", "platform-down")
    assert raised.value.shared


async def test_an_answer_of_another_shape_is_malformed_not_a_crash() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.task(task_id).created_at = "yesterday"
    got = await answer(simulator, task_id)
    assert isinstance(got, Transient)
    assert got.reason == "platform-answer-malformed"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(404), "download-missing"),
        (status(403), "download-refused"),
        (status(500), "download-failed"),
        (Fault(Kind.TRUNCATED), "download-truncated"),
    ],
    ids=["404", "403", "500", "truncated"],
)
async def test_a_mask_that_does_not_come_whole_is_an_error(fault: Fault, reason: str) -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    async with connected(simulator) as platform:
        asked = key(simulator, task_id)
        task = (await platform.fetch([asked]))[asked]
        assert isinstance(task, TaskSnapshot)
        simulator.faults.add("file GET", fault, times=3)
        with pytest.raises(Transient) as raised:
            await platform.download(task, only_label(task).series[0].masks[0])
    assert raised.value.reason == reason
    assert "Signature" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[{", "labels-malformed"),
        (b"{}", "labels-malformed"),
        (b"\x1f\x8b\x08", "labels-malformed"),
    ],
    ids=["cut", "no list", "half a gzip"],
)
async def test_a_broken_file_of_labels_is_an_error_not_an_empty_label(
    content: bytes, reason: str
) -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    path = next(path for path in simulator.files if path.endswith("labels.json"))
    simulator.files[path] = content
    got = await answer(simulator, task_id)
    assert isinstance(got, Transient)
    assert got.reason == reason


async def test_a_file_of_labels_that_unpacks_beyond_the_limit_is_refused() -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    path = next(path for path in simulator.files if path.endswith("labels.json"))
    simulator.files[path] = gzip.compress(b" " * ((64 << 20) + 1), compresslevel=1)
    got = await answer(simulator, task_id)
    assert isinstance(got, Permanent)
    assert got.reason == "labels-too-large"
