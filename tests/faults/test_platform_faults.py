"""Whatever a platform answers, a task is fetched rightly or not at all: no wrong snapshot, no task
that is missing though it is there, and no error but those that the lanes know."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from consumer.demo import labelbox as lb
from consumer.demo import redbrick as rb
from consumer.errors import GroundwireError, Permanent, Transient
from consumer.live_secrets import LiveSecret
from consumer.model import Mask, TaskSnapshot
from consumer.settings_values import Secret
from tests.faults.damage import as_json, cut, damage
from tests.faults.platform_peers import KINDS, Peer, ids, peer
from tests.seeds import seeds

DAMAGES = 8  # of one seed and kind

GRAPHQL = {
    "redbrick": ["taskSDK", "getProjectSDK", "presignItemsSDK", "tasksPagedSDK", "currentUserSDK"],
    "labelbox": ["export", "poll", "export header", "export offset", "user", "project"],
}
FILES = {"redbrick": ["file GET"], "labelbox": ["export file GET", "mask GET"]}

kinds = pytest.mark.parametrize("kind", KINDS)
each_seed = pytest.mark.parametrize("seed", seeds())


def _settings(kind: str, rng: random.Random) -> dict[str, Any]:
    if kind == "labelbox":
        return {"legacy": rng.random() < 0.5, "export_polls": rng.randrange(2)}
    return {"consensus": rng.random() < 0.5, "labels_in_files": rng.random() < 0.5}


def _order(of: Peer, operation: str, change: Callable[[bytes], bytes], times: int = 1) -> None:
    if of.kind == "redbrick":
        of.simulated.faults.add(operation, rb.Fault(rb.Kind.OTHER, change=change), times=times)
    else:
        of.simulated.faults.order(operation, lb.Fault("other", change=change), times=times)


def _order_status(
    of: Peer,
    operation: str,
    code: int,
    *,
    after: str | None = None,
    location: str | None = None,
    times: int = 1,
) -> None:
    if of.kind == "labelbox":
        wrong = lb.Fault("status", code, retry_after=after, location=location)
        of.simulated.faults.order(operation, wrong, times=times)
        return
    given = {"Retry-After": after, "Location": location}
    headers = {name: value for name, value in given.items() if value is not None}
    fault = rb.Fault(rb.Kind.STATUS, status=code, headers=headers)
    of.simulated.faults.add(operation, fault, times=times)


def _masks(snapshot: TaskSnapshot) -> list[Mask]:
    return [mask for one in snapshot.labels for series in one.series for mask in series.masks]


def _essence(snapshot: TaskSnapshot) -> object:
    """What an export makes a task of."""
    return (
        snapshot.stage,
        snapshot.ground_truth,
        snapshot.ground_truth_label,
        {label.id: label.skipped for label in snapshot.labels},
        sorted(mask.reference for mask in _masks(snapshot)),
    )


def _is_stale(got: TaskSnapshot, truth: TaskSnapshot) -> bool:
    """As the export finds it: then it is asked for again and replaces nothing."""
    shown = {item.id for item in got.history}
    return any(item.workflow and item.id not in shown for item in truth.history)


async def _tried(work: Awaitable[Any]) -> Any:
    """What comes, or the error that the lanes know; anything else fails the test."""
    try:
        return await work
    except (Transient, Permanent) as error:
        return error


def _check(got: Any, truth: TaskSnapshot, how: object) -> None:
    if isinstance(got, Transient | Permanent):
        return
    assert isinstance(got, TaskSnapshot), f"{got} where the task is there: {how}"
    assert _is_stale(got, truth) or _essence(got) == _essence(truth), how


# answers that are not what they should be


@kinds
@each_seed
async def test_a_damaged_answer_gives_the_truth_or_an_error(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    async with peer(kind, **_settings(kind, rng)) as platform:
        task = platform.finished()
        truth = await platform.snapshot(task)
        mask = _masks(truth)[0]
        data = await platform.platform.download(truth, mask)
        for _ in range(DAMAGES):
            operation, how = rng.choice(GRAPHQL[kind]), ["nothing"]
            _order(platform, operation, _damaging(rng, how))
            _check(await _tried(platform.fetch(task)), truth, (operation, how))
            got = await _tried(platform.platform.download(truth, mask))
            assert got == data or isinstance(got, Transient | Permanent), (operation, how)
            told = await _tried(platform.listed())
            assert isinstance(told, Transient | Permanent) or ids(told) == {task}, (operation, how)
            platform.simulated.faults.clear()
        assert _essence(await platform.snapshot(task)) == _essence(truth)


def _damaging(rng: random.Random, how: list[str]) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        answer = json.loads(body)
        how[0] = damage(answer, rng)
        return as_json(answer)

    return change


@each_seed
@pytest.mark.parametrize("legacy", [False, True], ids=["current", "legacy"])
async def test_a_damaged_row_gives_the_truth_or_an_error(seed: int, legacy: bool) -> None:
    rng, how = random.Random(seed), ["nothing"]
    async with peer("labelbox", legacy=legacy) as platform:
        task, other = platform.finished(), platform.finished()
        truth, others = await platform.snapshot(task), await platform.snapshot(other)
        start = platform.simulated.start_export

        def damaged(request: Any) -> Any:
            job = start(request)
            row = json.loads(job.lines[0])
            how[0] = damage(row, rng)
            job.lines[0] = as_json(row) + b"\n"
            return job

        platform.simulated.start_export = damaged
        for _ in range(DAMAGES):
            keys = [platform.key(task), platform.key(other)]
            got = await _tried(platform.platform.fetch(keys))
            for key, true in zip(keys, (truth, others), strict=True):
                _check(got[key] if isinstance(got, dict) else got, true, how)
            told = await _tried(platform.listed())
            assert isinstance(told, Transient | Permanent) or ids(told) == {task, other}, how


@kinds
@pytest.mark.parametrize("seed", seeds(0.5))
async def test_an_answer_that_breaks_off_is_an_error(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    async with peer(kind, **_settings(kind, rng)) as platform:
        task = platform.finished()
        truth = await platform.snapshot(task)
        for _ in range(4):
            operation = rng.choice(GRAPHQL[kind] + FILES[kind][:1])
            _order(platform, operation, lambda body: cut(body, rng))
            _check(await _tried(platform.fetch(task)), truth, operation)
            platform.simulated.faults.clear()


# answers that say that something is wrong


@kinds
@each_seed
async def test_whatever_fails_for_a_while_is_an_error_and_then_the_truth(
    kind: str, seed: int
) -> None:
    rng = random.Random(seed)
    async with peer(kind, **_settings(kind, rng)) as platform:
        task = platform.finished()
        truth = await platform.snapshot(task)
        mask = _masks(truth)[0]
        data = await platform.platform.download(truth, mask)
        for _ in range(rng.randrange(1, 5)):
            operation = rng.choice(GRAPHQL[kind] + FILES[kind])
            code = rng.choice([429, 429, 500, 502, 503, 504, 401, 403, 404, 413, 400, 302, 206])
            after = rng.choice([None, "3", "Mon, 05 Jan 2026 23:59:59 GMT", "-1", "x" * 5000])
            _order_status(platform, operation, code, after=after, times=rng.randrange(1, 6))
        for _ in range(7):
            _check(await _tried(platform.fetch(task)), truth, seed)
            got = await _tried(platform.platform.download(truth, mask))
            assert got == data or isinstance(got, Transient | Permanent)
        platform.simulated.faults.clear()
        assert _essence(await platform.snapshot(task)) == _essence(truth)
        assert await platform.platform.download(truth, mask) == data


@kinds
@pytest.mark.parametrize(
    ("after", "seconds"),
    [(None, None), ("17", 17.0), ("Mon, 05 Jan 2026 10:00:00 GMT", 1800.0), ("soon", None)],
)
async def test_a_rate_limit_says_for_how_long_by_number_or_date(
    kind: str, after: str | None, seconds: float | None
) -> None:
    async with peer(kind) as platform:
        task = platform.create()
        platform.simulated.told_date = "Mon, 05 Jan 2026 09:30:00 GMT"
        first = GRAPHQL[kind][0]
        _order_status(platform, first, 429, after=after)
        error = await _tried(platform.fetch(task))
    assert isinstance(error, Transient)
    assert (error.reason, error.after_s, error.shared) == ("platform-rate-limited", seconds, True)


@kinds
async def test_an_answer_that_does_not_come_is_given_up(kind: str) -> None:
    async with peer(kind) as platform:
        task = platform.create()
        if kind == "redbrick":
            platform.simulated.faults.add("taskSDK", rb.Fault(rb.Kind.HANG))
        else:
            platform.simulated.faults.order("export", lb.Fault("hang"))
        error = await _tried(platform.fetch(task))
        assert isinstance(error, Transient)
        assert error.reason == "platform-timeout"


# presigned URLs that expired


EXPIRED = pytest.mark.parametrize("code", [400, 401, 403, 410])


@kinds
@EXPIRED
async def test_a_file_whose_url_expired_is_asked_for_anew_within_the_same_work(
    kind: str, code: int, tmp_path: Path
) -> None:
    settings = {"labels_in_files": True} if kind == "redbrick" else {}
    async with peer(kind, **settings) as platform:
        task = platform.finished()
        _order_status(platform, FILES[kind][0], code, times=2)
        snapshot = await platform.snapshot(task)
        assert _masks(snapshot)
        if kind == "redbrick":
            _order_status(platform, "file GET", code, times=2)
            assert await platform.platform.download(snapshot, _masks(snapshot)[0])
            assert platform.simulated.counters["presignItemsSDK"] == 6


@kinds
@EXPIRED
async def test_a_url_that_never_opens_is_asked_for_three_times(kind: str, code: int) -> None:
    settings = {"labels_in_files": True} if kind == "redbrick" else {}
    async with peer(kind, **settings) as platform:
        task = platform.finished()
        _order_status(platform, FILES[kind][0], code, times=99)
        error = await _tried(platform.fetch(task))
        assert isinstance(error, Transient)
        assert error.reason == "download-refused"
        asked = {"redbrick": "presignItemsSDK", "labelbox": "export offset"}[kind]
        assert platform.simulated.counters[asked] == 3


# keys


@kinds
async def test_a_revoked_key_is_an_error_that_all_share_until_its_file_holds_a_good_one(
    kind: str, tmp_path: Path
) -> None:
    file, now = tmp_path / "key", [0.0]
    file.write_text("to be replaced")
    live = LiveSecret(Secret(f"file:{file}", "to be replaced"), now=lambda: now[0])

    def key_is(text: str) -> None:
        file.write_text(text)
        now[0] += 1.0

    async with peer(kind, api_key=live) as platform:
        good = platform.simulated.api_key
        key_is(good)
        task = platform.finished()
        snapshot = await platform.snapshot(task)
        for revoked in ("another-key", ""):
            key_is(revoked)
            works = [
                platform.fetch(task), platform.platform.download(snapshot, _masks(snapshot)[0]),
                platform.listed(), platform.platform.now(),
            ]  # fmt: skip
            for work in works:
                error = await _tried(work)
                assert isinstance(error, Transient)
                assert error.shared
                assert error.reason == _REFUSED[kind]
                assert not [word for word in (good, "another-key") if word in _all_of(error)]
        key_is(good)
        assert _essence(await platform.snapshot(task)) == _essence(snapshot)
        assert await platform.platform.download(snapshot, _masks(snapshot)[0])
        assert platform.slept == []


_REFUSED = {"redbrick": "platform-refused", "labelbox": "platform-credentials"}


def _all_of(error: GroundwireError) -> str:
    texts, at = [], error.__cause__
    while at is not None:
        texts.append(repr(at))
        at = at.__cause__
    return " ".join([str(error), error.reason, error.message, *texts])


@asynccontextmanager
async def _listener() -> AsyncIterator[tuple[str, list[str]]]:
    """The URL of another host, and every header that it is sent."""
    heard: list[str] = []

    async def hear(request: web.Request) -> web.Response:
        heard.extend(f"{name}: {value}" for name, value in request.headers.items())
        return web.Response(body=b"heard")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hear)
    async with TestServer(app) as server:
        yield str(server.make_url("/elsewhere")), heard


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@kinds
async def test_nothing_follows_a_redirect_of_the_api(kind: str, code: int) -> None:
    async with peer(kind) as platform, _listener() as (there, heard):
        task = platform.create()
        for operation in GRAPHQL[kind]:
            _order_status(platform, operation, code, location=there, times=9)
        for work in (platform.fetch(task), platform.platform.now(), platform.listed()):
            assert isinstance(await _tried(work), Transient)
    assert heard == []


@kinds
async def test_a_file_that_lies_elsewhere_now_is_fetched_there_without_the_key(kind: str) -> None:
    async with peer(kind) as platform, _listener() as (there, heard):
        snapshot = await platform.snapshot(platform.finished())
        _order_status(platform, FILES[kind][-1], 302, location=there)
        assert await platform.platform.download(snapshot, _masks(snapshot)[0]) == b"heard"
        assert heard
        assert not [line for line in heard if platform.simulated.api_key in line]
