"""The simulated RedBrick refuses what the real one refuses, and fails on request."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import aiohttp
import pytest

from consumer.demo.redbrick import Fault, Kind, SimulatedRedBrick, status

TASK = (
    "query taskSDK($orgId: UUID!, $projectId: UUID!, $taskId: UUID!) {"
    " task(orgId: $orgId, projectId: $projectId, taskId: $taskId) {"
    " taskId stage: currentStageName latestTaskData { tdId labelsMap(presigned: true)"
    " { labelName } } } }"
)


async def ask(
    url: str, simulator: SimulatedRedBrick, query: str, *, key: str | None = None, **more: str
) -> tuple[int, Any]:
    variables = {"orgId": simulator.org_id, "projectId": simulator.project_id, **more}
    body = base64.b64encode(
        gzip.compress(json.dumps({"query": query, "variables": variables}).encode())
    )
    headers = {"ApiKey": simulator.api_key if key is None else key, "Content-Encoding-RB": "gzip"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/graphql/", data=body, headers=headers) as answer,
    ):
        kind = answer.content_type
        return answer.status, await (answer.json() if "json" in kind else answer.text())


async def test_an_answer_holds_the_fields_asked_for_under_their_aliases() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    async with simulator.serve() as url:
        code, answer = await ask(url, simulator, TASK, taskId=task_id)
    assert code == 200
    assert sorted(answer["data"]["task"]) == ["latestTaskData", "stage", "taskId"]
    assert answer["data"]["task"]["stage"] == "Label"
    assert simulator.counters["taskSDK"] == 1


async def test_a_field_that_does_not_exist_is_refused() -> None:
    simulator = SimulatedRedBrick()
    async with simulator.serve() as url:
        query = "query q { me { userId shoeSize } }"
        assert (await ask(url, simulator, query))[0] == 400


@pytest.mark.parametrize("key", ["", "x" * 43, "\u00e4" * 43])
async def test_a_wrong_key_is_refused(key: str) -> None:
    simulator = SimulatedRedBrick()
    async with simulator.serve() as url:
        assert (await ask(url, simulator, TASK, key=key, taskId="x"))[0] == 401


async def test_a_deleted_task_is_null_and_its_project_still_readable() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.delete(task_id)
    async with simulator.serve() as url:
        _, answer = await ask(url, simulator, TASK, taskId=task_id)
    assert answer == {"data": {"task": None}}


async def test_another_organisation_s_project_is_an_error_inside_a_200() -> None:
    simulator = SimulatedRedBrick()
    async with simulator.serve() as url:
        code, answer = await ask(url, simulator, TASK, orgId="other", taskId="x")
    assert code == 200
    assert answer["errors"][0]["message"] == "Organization not found"


async def test_a_presigned_file_opens_without_and_only_without_a_credential() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    async with simulator.serve() as url, aiohttp.ClientSession() as session:
        _, answer = await ask(url, simulator, TASK, taskId=task_id)
        signed = answer["data"]["task"]["latestTaskData"]["labelsMap"][0]["labelName"]
        for target, headers, expected in [
            (signed, {}, 200),
            (signed, {"ApiKey": simulator.api_key}, 400),
            (signed, {"Authorization": "Bearer x"}, 400),
            (signed.split("?")[0], {}, 403),
            (signed.replace("Expires=", "Expires=9"), {}, 403),
        ]:
            async with session.get(target, headers=headers) as response:
                assert response.status == expected, target.split("?")[0]


async def test_faults_are_given_once_each_and_in_order() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.faults.add("taskSDK", status(429, retry_after_s=7))
    simulator.faults.add("taskSDK", Fault(Kind.GRAPHQL_ERROR))
    async with simulator.serve() as url:
        codes = [(await ask(url, simulator, TASK, taskId=task_id)) for _ in range(3)]
    assert [code for code, _ in codes] == [429, 200, 200]
    assert "errors" in codes[1][1]
    assert codes[2][1]["data"]["task"]["taskId"] == task_id


async def test_a_stale_answer_shows_the_task_before_its_last_change() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.approve(task_id)
    simulator.faults.add("taskSDK", Fault(Kind.STALE))
    async with simulator.serve() as url:
        answers = [(await ask(url, simulator, TASK, taskId=task_id))[1] for _ in range(2)]
    assert [a["data"]["task"]["stage"] for a in answers] == ["Review_1", "END"]


def test_only_creation_stages_and_deletion_are_announced() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.comment(task_id, "fine")
    simulator.reject(task_id)
    simulator.skip(task_id)
    simulator.move(task_id, "END")
    simulator.delete(task_id)
    told = [body["payload"][0] for body in simulator.take_webhooks()]
    assert [(t["event"], t["data"].get("stageName")) for t in told] == [
        ("TASK_CREATED", None),
        ("TASK_ENTERED_STAGE", "Label"),
        ("TASK_ENTERED_STAGE", "Review_1"),
        ("TASK_ENTERED_STAGE", "Label"),
        ("TASK_ENTERED_STAGE", "END"),
        ("TASK_DELETED", None),
    ]
    assert {t["data"]["taskId"] for t in told} == {task_id}
    assert simulator.take_webhooks() == []


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = SimulatedRedBrick(seed="a"), SimulatedRedBrick(seed="a")
    for simulator in (first, second):
        simulator.label(simulator.create_task("study01"))
    assert first.outbox == second.outbox
    assert first.files == second.files
    assert SimulatedRedBrick(seed="b").org_id != first.org_id
