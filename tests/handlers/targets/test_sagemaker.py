"""Executions of a pipeline: boto3 itself, at a server that speaks SageMaker's wire protocol."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from consumer.errors import GroundwireError, Permanent, Transient
from handlers.targets.sagemaker import MAX_VALUE, SageMakerTarget, display_name, request_token
from handlers.targets.trigger import Fired
from tests.handlers.targets.peers import TRIGGER, Answer, Asked, a_peer, always, another

ARN = "arn:aws:sagemaker:eu-central-1:123456789012:pipeline/segmenter/execution/"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Invented ones, and nothing of this machine's."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-access-key")


@dataclass
class Pipelines:
    """One pipeline; what it executes goes by the token that it was asked with."""

    executions: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def answer(self, asked: Asked) -> web.Response:
        if asked.headers["x-amz-target"] != "SageMaker.StartPipelineExecution":
            return failed("UnknownOperationException")
        if "Credential=AKIAEXAMPLE/" not in asked.headers["authorization"]:
            return failed("UnrecognizedClientException", status=403)
        body = asked.json()
        if body["PipelineName"] != "segmenter":
            return failed("ResourceNotFound")
        token = body["ClientRequestToken"]
        if not 32 <= len(token) <= 128:
            return failed("ValidationException")
        self.executions.setdefault(token, body)
        number = list(self.executions).index(token)
        return web.json_response({"PipelineExecutionArn": f"{ARN}{number}"})


def failed(code: str, *, status: int = 400, **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    said = "User: arn:aws:iam::123456789012:user/jane.doe may not"
    return web.json_response({"__type": code, "message": said}, status=status, headers=named)


def always_failing(code: str, status: int = 400, **headers: str) -> Answer:
    async def answer(_: Asked) -> web.Response:
        return failed(code, status=status, **headers)

    return answer


def a_pipeline(endpoint: str, name: str = "segmenter", **kwargs: Any) -> SageMakerTarget:
    plain: dict[str, Any] = {"parameters": {}, "region": "eu-central-1", "timeout_s": 20}
    return SageMakerTarget(name, endpoint=endpoint, **{**plain, **kwargs})


async def test_an_execution_is_started_with_the_configured_parameters() -> None:
    pipelines = Pipelines()
    async with a_peer(pipelines.answer) as peer:
        parameters = {"Snapshot": "s3://lake/$snapshot_key", "Tasks": "$tasks"}
        assert await a_pipeline(peer.url, parameters=parameters).fire(TRIGGER) == Fired(f"{ARN}0")
    (body,) = pipelines.executions.values()
    assert body["PipelineExecutionDisplayName"] == TRIGGER.key
    assert body["PipelineParameters"] == [
        {"Name": "Snapshot", "Value": "s3://lake/snapshots/nightly/12"},
        {"Name": "Tasks", "Value": "640"},
    ]


async def test_the_same_key_is_the_same_execution_also_after_a_restart() -> None:
    pipelines = Pipelines()
    async with a_peer(pipelines.answer) as peer:
        first = await a_pipeline(peer.url).fire(TRIGGER)
        second = await a_pipeline(peer.url).fire(TRIGGER)
        other = await a_pipeline(peer.url).fire(another(key="other"))
    assert first == second != other
    assert len(pipelines.executions) == 2


@pytest.mark.parametrize(
    ("code", "status", "kind", "reason"),
    [
        ("ThrottlingException", 400, Transient, "target-rate-limited"),
        ("ServiceUnavailable", 503, Transient, "target-rate-limited"),
        ("InternalFailure", 500, Transient, "target-failed"),
        ("ResourceLimitExceeded", 400, Transient, "target-failed"),
        ("ConflictException", 400, Transient, "target-failed"),
        ("ExpiredTokenException", 400, Transient, "target-credentials"),
        ("UnrecognizedClientException", 400, Transient, "target-credentials"),
        ("ResourceNotFound", 400, Permanent, "target-missing"),
        ("ValidationException", 400, Permanent, "target-rejected"),
        ("AccessDeniedException", 400, Permanent, "target-refused"),
    ],
)
async def test_who_must_act_is_told_by_the_error_s_code(
    code: str, status: int, kind: type[GroundwireError], reason: str
) -> None:
    async with a_peer(always_failing(code, status)) as peer:
        with pytest.raises(kind) as raised:
            await a_pipeline(peer.url).fire(TRIGGER)
    assert raised.value.reason == reason
    assert "jane" not in raised.value.message
    assert len(peer.asked) == 1  # botocore does not retry by itself


async def test_it_waits_as_long_as_it_is_asked_to() -> None:
    async with a_peer(always_failing("ThrottlingException", 429, Retry_After="9")) as peer:
        with pytest.raises(Transient) as raised:
            await a_pipeline(peer.url).fire(TRIGGER)
    assert raised.value.after_s == 9.0


async def test_a_code_that_is_none_is_not_repeated() -> None:
    async with a_peer(always_failing("Doe, Jane!")) as peer:
        with pytest.raises(Transient) as raised:
            await a_pipeline(peer.url).fire(TRIGGER)
    assert "Doe" not in raised.value.message


@pytest.mark.parametrize("text", ["<html>Sign in</html>", "[]", "{}", '"a"', "[" * 50_000])
async def test_an_answer_that_names_no_execution_is_no_success(text: str) -> None:
    async with a_peer(always(200, text=text)) as peer:
        with pytest.raises(Transient) as raised:
            await a_pipeline(peer.url).fire(TRIGGER)
    assert raised.value.reason == "target-answer-malformed"


async def test_without_credentials_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with a_peer(Pipelines().answer) as peer:
        target = a_pipeline(peer.url)
        with pytest.raises(Transient) as raised:
            await target.fire(TRIGGER)
    assert raised.value.reason == "target-credentials"
    assert peer.asked == []


async def test_credentials_that_have_come_meanwhile_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as without:
        without.delenv("AWS_ACCESS_KEY_ID")
        without.delenv("AWS_SECRET_ACCESS_KEY")
        async with a_peer(Pipelines().answer) as peer:
            target = a_pipeline(peer.url)
            with pytest.raises(Transient):
                await target.fire(TRIGGER)
            without.undo()
            assert await target.fire(TRIGGER) == Fired(f"{ARN}0")


async def test_without_a_region_a_person_is_asked_for_one() -> None:
    with pytest.raises(Permanent) as raised:
        await a_pipeline("", region="").fire(TRIGGER)
    assert "region" in raised.value.message


async def test_an_endpoint_that_is_none_is_for_a_person() -> None:
    with pytest.raises(Permanent) as raised:
        await a_pipeline("no url?s3cret").fire(TRIGGER)
    assert "s3cret" not in raised.value.message


async def test_a_parameter_that_grew_too_long_is_not_sent() -> None:
    async with a_peer(Pipelines().answer) as peer:
        target = a_pipeline(peer.url, parameters={"Why": "$reason"})
        assert await target.fire(another(reason="x" * MAX_VALUE)) == Fired(f"{ARN}0")
        with pytest.raises(Permanent) as raised:
            await target.fire(another(reason="x" * (MAX_VALUE + 1)))
    assert raised.value.reason == "target-request"
    assert len(peer.asked) == 1


async def test_a_call_that_was_given_up_ends_before_the_next_begins() -> None:
    opened = asyncio.Event()

    async def answer(_: Asked) -> web.Response:
        await opened.wait()
        return web.json_response({"PipelineExecutionArn": f"{ARN}0"})

    async with a_peer(answer) as peer:
        target = a_pipeline(peer.url)
        given_up = asyncio.ensure_future(target.fire(TRIGGER))
        while not peer.asked:
            await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.wait([given_up])
        assert given_up.cancelled()
        with pytest.raises(TimeoutError):  # it waits for the call that is still under way
            await asyncio.wait_for(target.fire(TRIGGER), 1.5)
        assert len(peer.asked) == 1
        opened.set()
        assert await target.fire(TRIGGER) == Fired(f"{ARN}0")
        assert len(peer.asked) == 2


@pytest.mark.parametrize("key", ["a", "a.b_c-d", "-x-", "...", "x" * 64, "a--b"])
def test_every_key_makes_a_token_and_a_name_that_the_api_takes(key: str) -> None:
    assert 32 <= len(request_token(key, "segmenter")) <= 128
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,81}", display_name(key))


def test_another_pipeline_is_another_token() -> None:
    assert request_token("k", "a") != request_token("k", "b")
