"""Runs of a DAG, at a server that keeps the rules of Airflow 3's API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from consumer.errors import Permanent, Transient
from handlers.targets.airflow import AirflowTarget
from handlers.targets.trigger import Fired
from tests.handlers.targets.peers import TRIGGER, Answer, Asked, Peer, a_peer, always, another

PASSWORD = "pässword-s3cret"
BODY = frozenset(
    {"dag_run_id", "logical_date", "data_interval_start", "data_interval_end", "run_after", "conf"}
)


@dataclass
class Airflow:
    """One DAG, and its runs by id. Tokens are good for ``uses`` requests."""

    uses: int = 1000
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=lambda: {"fixed": 1000})
    logins: int = 0

    async def answer(self, asked: Asked) -> web.Response:
        if asked.headers["content-type"] != "application/json":
            return web.Response(status=422)
        if asked.path == "/auth/token":
            return self._login(asked.json())
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) <= 0:
            return web.json_response({"detail": "Invalid JWT token"}, status=401)
        self.tokens[token] -= 1
        if asked.path != "/api/v2/dags/train.segmenter/dagRuns":
            return web.json_response({"detail": "DAG was not found"}, status=404)
        return self._run(asked.json())

    def _login(self, body: Any) -> web.Response:
        if body != {"username": "groundwire", "password": PASSWORD}:
            return web.json_response({"detail": "Invalid credentials"}, status=401)
        self.logins += 1
        token = f"token-{self.logins}"
        self.tokens[token] = self.uses
        return web.json_response({"access_token": token}, status=201)

    def _run(self, body: dict[str, Any]) -> web.Response:
        if not set(body) <= BODY or "logical_date" not in body:
            return web.json_response({"detail": "Extra inputs are not permitted"}, status=422)
        if body["dag_run_id"] in self.runs:
            return web.json_response({"detail": {"reason": "Unique constraint"}}, status=409)
        self.runs[body["dag_run_id"]] = body
        return web.json_response({"dag_run_id": body["dag_run_id"], "state": "queued"})


def a_dag(peer: Peer, **kwargs: Any) -> AirflowTarget:
    login = {} if "token" in kwargs else {"username": "groundwire", "password": PASSWORD}
    plain: dict[str, Any] = {"conf": {}, "timeout_s": 10, **login}
    dag = kwargs.pop("dag", "train.segmenter")
    return AirflowTarget(f"{peer.url}/", dag, **{**plain, **kwargs})


async def fired(target: AirflowTarget, **fields: Any) -> Fired:
    try:
        return await target.fire(another(**fields))
    finally:
        await target.close()


async def test_the_run_goes_by_the_key_and_is_told_of_the_snapshot() -> None:
    airflow = Airflow()
    async with a_peer(airflow.answer) as peer:
        assert await fired(a_dag(peer, token="fixed")) == Fired(reference=TRIGGER.key)
    run = airflow.runs[TRIGGER.key]
    assert run["logical_date"] is None
    assert run["conf"] == TRIGGER.event()["data"]
    assert airflow.logins == 0


async def test_a_run_that_is_there_already_is_a_success() -> None:
    airflow = Airflow()
    async with a_peer(airflow.answer) as peer:
        await fired(a_dag(peer, token="fixed"))
        again = await fired(a_dag(peer, token="fixed"))
    assert again == Fired(reference=TRIGGER.key, already=True)
    assert len(airflow.runs) == 1


async def test_conf_holds_what_is_configured() -> None:
    airflow = Airflow()
    async with a_peer(airflow.answer) as peer:
        conf = {"snapshot": "$snapshot", "n": "$tasks", "why": "$reason"}
        await fired(a_dag(peer, token="fixed", conf=conf), reason='"')
    assert airflow.runs[TRIGGER.key]["conf"] == {"snapshot": "5a6b7c8d", "n": "640", "why": '"'}


async def test_username_and_password_are_exchanged_for_a_token_once() -> None:
    airflow = Airflow()
    async with a_peer(airflow.answer) as peer:
        target = a_dag(peer)
        await target.fire(TRIGGER)
        await fired(target, key="other")
    assert list(airflow.runs) == [TRIGGER.key, "other"]
    assert airflow.logins == 1


async def test_a_token_that_has_expired_is_renewed() -> None:
    airflow = Airflow(uses=1)
    async with a_peer(airflow.answer) as peer:
        target = a_dag(peer)
        await target.fire(TRIGGER)
        assert await fired(target, key="other") == Fired(reference="other")
    assert airflow.logins == 2


async def test_a_new_token_that_is_refused_is_not_renewed_for_ever() -> None:
    airflow = Airflow(uses=0)
    async with a_peer(airflow.answer) as peer:
        with pytest.raises(Permanent) as raised:
            await fired(a_dag(peer))
    assert raised.value.reason == "target-refused"
    assert airflow.logins == 1


@pytest.mark.parametrize("login", [{"token": "expired"}, {"password": "wrong"}])
async def test_credentials_that_are_refused_are_for_a_person(login: dict[str, str]) -> None:
    async with a_peer(Airflow().answer) as peer:
        with pytest.raises(Permanent) as raised:
            await fired(a_dag(peer, **login))
    assert raised.value.reason == "target-refused"
    assert not any(secret in raised.value.message for secret in login.values())


async def test_a_dag_that_is_not_there_is_for_a_person() -> None:
    async with a_peer(Airflow().answer) as peer:
        with pytest.raises(Permanent) as raised:
            await fired(a_dag(peer, token="fixed", dag="train.liver"))
    assert raised.value.reason == "target-missing"
    assert "train.liver" in raised.value.message


@pytest.mark.parametrize(("status", "reason"), [(400, "target-rejected"), (422, "target-rejected")])
async def test_what_the_dag_refuses_is_for_a_person(status: int, reason: str) -> None:
    async with a_peer(always(status)) as peer:
        with pytest.raises(Permanent) as raised:
            await fired(a_dag(peer, token="fixed"))
    assert raised.value.reason == reason


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_passes_is_tried_again_also_while_logging_in(status: int) -> None:
    for login in ({"token": "fixed"}, {}):
        async with a_peer(always(status, Retry_After="5")) as peer:
            with pytest.raises(Transient) as raised:
                await fired(a_dag(peer, **login))
        assert raised.value.after_s == 5.0


def login_then(text: str) -> Answer:
    async def answer(asked: Asked) -> web.Response:
        good = asked.path != "/auth/token"
        return web.Response(text=text if good else '{"access_token": "t"}')

    return answer


@pytest.mark.parametrize("text", ["", "<html>Sign in</html>", "[]", '{"dag_run_id": "other"}'])
async def test_an_answer_that_does_not_name_the_run_is_no_success(text: str) -> None:
    async with a_peer(login_then(text)) as peer:
        with pytest.raises(Transient) as raised:
            await fired(a_dag(peer))
    assert raised.value.reason == "target-answer-malformed"


@pytest.mark.parametrize("text", ["", "[" * 60_000, '{"access_token": 7}', "{}"])
async def test_an_answer_without_a_token_is_no_token(text: str) -> None:
    async with a_peer(always(201, text=text)) as peer:
        with pytest.raises(Transient) as raised:
            await fired(a_dag(peer))
    assert raised.value.reason == "target-answer-malformed"
    assert len(peer.asked) == 1


async def test_a_token_that_no_header_could_hold_is_no_token() -> None:
    async with a_peer(always(201, text='{"access_token": "a\\r\\nX-Evil: b"}')) as peer:
        with pytest.raises(Transient):
            await fired(a_dag(peer))


async def test_logging_in_and_the_run_share_one_time_limit() -> None:
    airflow = Airflow()

    async def slowly(asked: Asked) -> web.Response:
        await asyncio.sleep(0.75)
        return await airflow.answer(asked)

    async with a_peer(slowly) as peer:
        with pytest.raises(Transient) as raised:
            await fired(a_dag(peer, timeout_s=1.0))
    assert raised.value.reason == "target-timeout"


@pytest.mark.parametrize(
    "login", [{}, {"username": "a"}, {"token": "t", "username": "a", "password": "b"}]
)
def test_there_is_one_way_in(login: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either"):
        AirflowTarget("https://a", "dag", conf={}, timeout_s=1, **login)  # type: ignore[arg-type]
