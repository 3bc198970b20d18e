"""What is configured under [retrain.NAME.target] reaches the target that it is meant for."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from consumer.app_adapters import Close
from consumer.app_targets import make_target
from consumer.settings import ConfigurationError, load
from handlers.targets.trigger import Fired, Target
from tests.handlers.targets.peers import TRIGGER, Asked, a_peer, always

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(64))).decode().rstrip("=")
ENVIRON = {"HOOK": SECRET, "OLD_HOOK": OLD_SECRET, "TOKEN": "Bearer s3cret", "PASSWORD": "pa55"}


@asynccontextmanager
async def a_target(
    folder: Path, section: str, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Target]:
    file = folder / "groundwire.toml"
    file.write_text(f"[retrain.nightly]\nmin_changes = 50\n[retrain.nightly.target]\n{section}")
    settings = load(file, ENVIRON)
    closing: list[Close] = []
    yield make_target(settings.retrain["nightly"].target, closing, environ=environ)
    for close in closing:
        await close()


def mistakes(folder: Path, section: str, **environ: str) -> tuple[str, ...]:
    file = folder / "groundwire.toml"
    file.write_text(f"[retrain.nightly]\nmin_changes = 50\n[retrain.nightly.target]\n{section}")
    with pytest.raises(ConfigurationError) as raised:
        make_target(load(file, {**ENVIRON, **environ}).retrain["nightly"].target, [])
    return tuple(raised.value.mistakes)


async def test_a_webhook_is_signed_with_the_secret_and_the_one_before(tmp_path: Path) -> None:
    async with a_peer(always(202)) as peer:
        section = f'type = "webhook"\nurl = "{peer.url}"\nsecret = "env:HOOK"'
        async with a_target(tmp_path, f'{section}\nold_secret = "env:OLD_HOOK"') as target:
            assert await target.fire(TRIGGER) == Fired()
    (asked,) = peer.asked
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(asked.body, asked.headers) == TRIGGER.event()


async def test_a_request_of_one_s_own_is_made_as_it_is_written(tmp_path: Path) -> None:
    async with a_peer(always(409)) as peer:
        section = f"""
type = "http"
url = "{peer.url}/$policy"
method = "PUT"
headers = {{ X-Key = "$key" }}
secret_headers = {{ Authorization = "env:TOKEN" }}
body = '{{"n": $tasks}}'
success = [201, 409]
"""
        async with a_target(tmp_path, section) as target:
            assert await target.fire(TRIGGER) == Fired(already=True)
    (asked,) = peer.asked
    assert (asked.method, asked.path, asked.json()) == ("PUT", "/nightly", {"n": 640})
    assert asked.headers["x-key"] == TRIGGER.key
    assert asked.headers["authorization"] == "Bearer s3cret"


async def test_airflow_is_logged_in_to(tmp_path: Path) -> None:
    async def answer(asked: Asked) -> web.Response:
        if asked.path == "/auth/token":
            assert asked.json() == {"username": "groundwire", "password": "pa55"}
            return web.json_response({"access_token": "t"}, status=201)
        assert asked.headers["authorization"] == "Bearer t"
        return web.json_response({"dag_run_id": asked.json()["dag_run_id"]})

    async with a_peer(answer) as peer:
        section = f"""
type = "airflow"
url = "{peer.url}"
dag = "train"
username = "groundwire"
password = "env:PASSWORD"
conf = {{ snapshot = "$snapshot" }}
"""
        async with a_target(tmp_path, section) as target:
            assert await target.fire(TRIGGER) == Fired(TRIGGER.key)
    assert peer.asked[-1].json()["conf"] == {"snapshot": TRIGGER.snapshot}


async def test_a_pipeline_is_started_at_the_configured_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    arn = "arn:aws:sagemaker:eu-west-3:123456789012:pipeline/train/execution/1"
    async with a_peer(always(200, text=json.dumps({"PipelineExecutionArn": arn}))) as peer:
        section = f"""
type = "sagemaker"
pipeline = "train"
region = "eu-west-3"
endpoint = "{peer.url}"
parameters = {{ Snapshot = "$snapshot_key" }}
"""
        async with a_target(tmp_path, section) as target:
            assert await target.fire(TRIGGER) == Fired(arn)
    (asked,) = peer.asked
    assert "/eu-west-3/sagemaker/" in asked.headers["authorization"]
    assert asked.json()["PipelineParameters"] == [
        {"Name": "Snapshot", "Value": TRIGGER.snapshot_key}
    ]


async def test_a_command_is_run_in_a_clean_environment(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"import json, os; json.dump(dict(os.environ), open({str(told)!r}, 'w'))"
    section = f'type = "command"\ncommand = {json.dumps([sys.executable, "-c", script])}'
    environ = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": "s3cret"}
    async with a_target(tmp_path, section, environ) as target:
        assert await target.fire(TRIGGER) == Fired()
    assert json.loads(told.read_text())["GROUNDWIRE_KEY"] == TRIGGER.key
    assert "s3cret" not in told.read_text()


async def test_what_a_command_is_told_is_no_setting_of_ours(tmp_path: Path) -> None:
    """So it may run ``groundwire`` itself, to pull its snapshot."""
    told = tmp_path / "told"
    script = f"import json, os; json.dump(dict(os.environ), open({str(told)!r}, 'w'))"
    section = f'type = "command"\ncommand = {json.dumps([sys.executable, "-c", script])}'
    async with a_target(tmp_path, section) as target:
        await target.fire(TRIGGER)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert load(empty, json.loads(told.read_text())) == load(empty, {})


@pytest.mark.parametrize(
    "secret",
    [
        "s3cret",
        "whsec_",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_no+base64!" + "A" * 32,
        "whpk_" + base64.b64encode(bytes(32)).decode(),
    ],
)
def test_a_secret_that_signs_nothing_is_found_at_start(tmp_path: Path, secret: str) -> None:
    section = 'type = "webhook"\nurl = "https://example.org"\nsecret = "env:HOOK"'
    (said,) = mistakes(tmp_path, section, HOOK=secret)
    assert said.startswith("retrain.nightly.target.secret: ")
    assert secret.removeprefix("whsec_") not in said or secret == "whsec_"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('type = "http"\nurl = "https://h"\nbody = "{not json}"', "target: the body is not JSON"),
        ('type = "http"\nurl = "https://h"\nbody = "$wrong"', "target.body: knows no $wrong"),
        ('type = "http"\nurl = "https://h"\nsuccess = []', "target.success: must not be empty"),
        ('type = "http"\nurl = "https://$policy.h"', "target: the URL's host"),
        ('type = "http"\nurl = "https://h"\nheaders = {Connection = "x"}', "is not to be set"),
        ('type = "airflow"\nurl = "https://h"\ndag = "d"', "target: needs either token"),
        ('type = "training"', "target.type: must be one of webhook, http, airflow, sagemaker"),
        ('url = "https://h"', "target.type: is missing: one of webhook"),
    ],
)
def test_a_target_that_could_never_be_fired_is_said_by_its_key(
    tmp_path: Path, section: str, said: str
) -> None:
    (mistake,) = mistakes(tmp_path, section)
    assert said in mistake


async def test_targets_are_closed_with_the_process(tmp_path: Path) -> None:
    async with a_peer(always(202)) as peer:
        section = f'type = "webhook"\nurl = "{peer.url}"\nsecret = "env:HOOK"'
        async with a_target(tmp_path, section) as target:
            await target.fire(TRIGGER)
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(target.fire(TRIGGER), 10)
