"""The admin listener: health, readiness with its reason, metrics, and the token."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import aiohttp
import pytest

from consumer.admin import Admin, Check
from consumer.errors import Transient
from consumer.listener import Listener
from consumer.model import LaneSpec, Record
from consumer.telemetry import Metrics
from tests.fakes_queue import FakeQueue

AUDIT = LaneSpec(name="audit", wants=("record",), exclusive=True)
Answer = tuple[int, str]


async def ask(admin: Admin, path: str, **headers: str) -> Answer:
    listener = Listener(admin.application(), header_timeout_s=5, stop_s=1)
    port = await listener.start("127.0.0.1", 0)
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{port}{path}", headers=headers) as response,
        ):
            return response.status, await response.text()
    finally:
        await listener.stop()


async def an_admin(
    *, token: str | None = None, checks: dict[str, Check] | None = None, log_size: int | None = None
) -> Admin:
    queue = FakeQueue([AUDIT])
    await queue.open()
    return Admin(
        Metrics(),
        queue,
        [AUDIT],
        checks={"queue": queue.ready} if checks is None else checks,
        log=None if log_size is None else (lambda: (log_size, 3.5)),
        token=token,
        look_s=0.1,
        ready_s=0.1,
    )


async def failing() -> None:
    raise Transient("lane-missing", "lane export is missing")


async def hanging() -> None:
    await asyncio.Event().wait()


async def test_a_process_that_answers_is_alive() -> None:
    assert await ask(await an_admin(), "/healthz") == (200, '{"alive": true}')


async def test_ready_means_that_the_queue_keeps_what_it_is_given() -> None:
    assert await ask(await an_admin(), "/readyz") == (200, '{"ready": true}')


async def test_who_is_not_ready_says_why() -> None:
    status, said = await ask(await an_admin(checks={"queue": failing}), "/readyz")
    assert status == 503
    assert "lane-missing: lane export is missing" in said


async def test_a_check_that_hangs_is_not_waited_for() -> None:
    status, said = await ask(await an_admin(checks={"queue": hanging}), "/readyz")
    assert status == 503
    assert "no answer within" in said


async def test_metrics_show_the_lanes_as_they_are_now() -> None:
    admin = await an_admin(log_size=7)
    await admin.queue.put([Record(id="1", kind="started")])
    status, said = await ask(admin, "/metrics")
    assert status == 200
    assert 'groundwire_queue_messages{lane="audit",state="ready"} 1.0' in said
    assert "groundwire_log_entries 7.0" in said
    assert "groundwire_log_age_seconds 3.5" in said


async def test_metrics_are_answered_while_the_queue_fails() -> None:
    admin = await an_admin()
    assert isinstance(admin.queue, FakeQueue)
    admin.queue.failing = Transient("queue-down")
    status, said = await ask(admin, "/metrics")
    assert status == 200
    assert 'groundwire_observed{what="queue-audit"} 0.0' in said


async def test_metrics_are_answered_while_the_queue_hangs() -> None:
    admin = await an_admin()
    assert isinstance(admin.queue, FakeQueue)
    admin.queue.holding.clear()
    status, said = await ask(admin, "/metrics")
    assert status == 200
    assert 'groundwire_observed{what="queue-audit"} 0.0' in said


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Basic tok-1234", "\u00e9"])
async def test_metrics_are_for_those_who_show_the_token(given: str) -> None:
    status, said = await ask(await an_admin(token="tok-1234"), "/metrics", Authorization=given)
    assert status == 401
    assert "groundwire" not in said


async def test_the_token_opens_metrics_and_reasons() -> None:
    admin = await an_admin(token="tok-1234", checks={"queue": failing})
    assert (await ask(admin, "/metrics", Authorization="Bearer tok-1234"))[0] == 200
    _, said = await ask(admin, "/readyz", Authorization="Bearer tok-1234")
    assert "lane-missing" in said


async def test_without_the_token_a_probe_learns_only_whether_it_is_ready() -> None:
    admin = await an_admin(token="tok-1234", checks={"queue": failing})
    assert await ask(admin, "/readyz") == (503, '{"ready": false}')
    assert (await ask(admin, "/healthz"))[0] == 200


async def test_notes_are_for_those_who_show_the_token() -> None:
    notes = {"inbox": lambda: {"waiting": 3, "broker": "away: it is down"}}
    admin = replace(await an_admin(token="tok-1234"), notes=notes)
    assert await ask(admin, "/readyz") == (200, '{"ready": true}')
    status, said = await ask(admin, "/readyz", Authorization="Bearer tok-1234")
    assert status == 200
    assert json.loads(said) == {
        "ready": True,
        "inbox": {"waiting": 3, "broker": "away: it is down"},
    }


async def test_metrics_are_brought_up_to_date_before_they_are_shown() -> None:
    admin = await an_admin()
    admin = replace(admin, measure=lambda: admin.metrics.inbox(3, away=True))
    _, said = await ask(admin, "/metrics")
    assert "groundwire_inbox_waiting 3.0" in said
    assert "groundwire_broker_away 1.0" in said


async def test_nothing_else_is_here() -> None:
    assert (await ask(await an_admin(), "/hooks/lab"))[0] == 404


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.rebound.example:9090", "[", "a@b"])
async def test_a_page_that_points_its_name_at_loopback_learns_nothing(host: str) -> None:
    admin = await an_admin(checks={"queue": failing})
    admin = replace(admin, notes={"inbox": lambda: {"waiting": 3}})
    assert (await ask(admin, "/metrics", Host=host))[0] == 401
    assert (await ask(admin, "/changes", Host=host))[0] == 401
    assert await ask(admin, "/readyz", Host=host) == (503, '{"ready": false}')


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9090", "127.0.0.2:1", "[::1]:9090"])
async def test_this_machines_own_names_need_no_token(host: str) -> None:
    assert (await ask(await an_admin(), "/metrics", Host=host))[0] == 200
