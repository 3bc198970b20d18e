"""The client of the stream: what it asks, when it comes again, and what it tells its user."""

from __future__ import annotations

import ast
import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

import consumer.client
from consumer.changes import TaskChange, change_of
from consumer.client import (
    AnotherLog,
    IndexAhead,
    StreamMalformed,
    StreamRefused,
    changes,
)
from consumer.errors import Permanent
from tests.consumer.streams import mixed, move, served, truths, until

LOG = "example.org/lake~0123456789ab"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def told(number: int, log: str = LOG) -> bytes:
    change = change_of(number, {**move(number), "logged_at": "2026-01-02T03:04:05Z"}, log)
    assert change is not None
    return b"id: %b\nevent: added\ndata: %b\n\n" % (
        change.id.encode(),
        msgspec.json.encode(change),
    )


@dataclass
class Peer:
    """A server that answers each request as the next of ``answers`` says; the last one stays."""

    answers: list[Answer]
    asked: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answers[min(len(self.asked), len(self.answers)) - 1](request)


@asynccontextmanager
async def peer(*answers: Answer) -> AsyncIterator[Peer]:
    made = Peer(list(answers))
    app = web.Application()
    app.router.add_get("/{path:.*}", made.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


def streaming(*pieces: bytes, stays: bool = False, **headers: str) -> Answer:
    """A stream of these pieces, which then ends, or stays open and silent."""

    async def answer(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **named})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if stays:
            await asyncio.Event().wait()
        return response

    return answer


def saying(status: int, body: Any = None, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body or {}, status=status, headers=named)

    return answer


@dataclass
class Naps:
    """Sleeps that take no time, and are remembered."""

    slept: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


async def first(count: int, url: str, **options: Any) -> list[TaskChange]:
    options = {"sleep": Naps(), **options}
    found: list[TaskChange] = []
    async with asyncio.timeout(20), aclosing(changes(url, **options)) as stream:
        async for change in stream:
            found.append(change)
            if len(found) == count:
                break
    return found


async def indices(count: int, url: str, **options: Any) -> list[int]:
    return [one.index for one in await first(count, url, **options)]


async def test_every_change_of_the_ground_truth_is_given_in_order() -> None:
    entries = mixed(400)
    async with served(*entries) as place:
        wanted = truths(entries)
        assert await indices(len(wanted), place.url) == wanted


async def test_it_goes_on_after_a_changes_id_or_an_index() -> None:
    entries = mixed(400)
    wanted = truths(entries)
    async with served(*entries) as place:
        (seen, *_) = (await first(50, place.url))[-1:]
        assert await indices(10, place.url, after=seen.id) == wanted[50:60]
        assert await indices(10, place.url, after=seen.index) == wanted[50:60]


async def test_it_asks_for_what_its_user_wants() -> None:
    async with peer(streaming(told(0))) as server:
        await first(1, server.url, ground_truth=False, projects=["a", "b&c"], token="tok-1")
        asked = server.asked[0]
        assert asked.path == "/changes"
        assert asked.query.getall("project") == ["a", "b&c"]
        assert asked.query["ground_truth"] == "false"
        assert asked.headers["Authorization"] == "Bearer tok-1"
        assert "Last-Event-ID" not in asked.headers


@pytest.mark.parametrize("path", ["", "/", "/changes", "/changes/"])
async def test_the_url_is_the_listeners_or_the_streams(path: str) -> None:
    async with peer(streaming(told(0))) as server:
        await first(1, server.url + path)
        assert server.asked[0].path == "/changes"


async def test_after_a_lost_connection_it_goes_on_where_it_was() -> None:
    async with peer(streaming(told(0), told(3)), streaming(told(4))) as server:
        assert await indices(3, server.url) == [0, 3, 4]
        assert server.asked[1].headers["Last-Event-ID"] == f"3@{LOG}"


async def test_what_it_was_told_before_it_does_not_tell_again() -> None:
    async with peer(
        streaming(told(0), told(3), told(3), told(2)), streaming(*map(told, range(6)))
    ) as server:
        assert await indices(4, server.url) == [0, 3, 4, 5]


async def test_half_an_event_does_not_move_its_place() -> None:
    async with peer(streaming(told(0), told(1)[:-20]), streaming(told(1))) as server:
        assert await indices(2, server.url) == [0, 1]
        assert server.asked[1].headers["Last-Event-ID"] == f"0@{LOG}"


async def test_a_heartbeat_moves_its_place() -> None:
    beat = f": nothing else\nid: 40@{LOG}\n\n".encode()
    async with peer(streaming(told(0), beat), streaming(told(41))) as server:
        assert await indices(2, server.url) == [0, 41]
        assert server.asked[1].headers["Last-Event-ID"] == f"40@{LOG}"


async def test_a_silent_connection_counts_as_lost() -> None:
    async with peer(streaming(told(0), stays=True), streaming(told(1))) as server:
        assert await indices(2, server.url, silent_s=0.1) == [0, 1]


async def test_silence_is_measured_in_the_servers_own_heartbeats() -> None:
    silent = streaming(told(0), stays=True, Groundwire_Heartbeat="0.1")
    async with peer(silent, streaming(told(1))) as server:
        assert await indices(2, server.url) == [0, 1]


async def test_what_its_user_does_meanwhile_is_no_silence() -> None:
    async with peer(streaming(told(0), told(1), stays=True), saying(400)) as server:
        stream = changes(server.url, silent_s=0.2)
        assert (await anext(stream)).index == 0
        await asyncio.sleep(0.3)  # the user's own work
        assert (await anext(stream)).index == 1
        assert len(server.asked) == 1


async def test_a_server_that_is_not_there_is_asked_less_and_less_often() -> None:
    naps = Naps()
    down = [saying(503)] * 5
    async with peer(*down, streaming(told(0))) as server:
        await first(1, server.url, sleep=naps, random=lambda: 1.0, base_s=1.0, cap_s=6.0)
    assert naps.slept == [1.0, 2.0, 4.0, 6.0, 6.0]


async def test_waits_are_spread_so_that_not_all_come_at_once() -> None:
    naps = Naps()
    spread = itertools.cycle([0.0, 0.5])
    async with peer(*[saying(503)] * 2, streaming(told(0))) as server:
        await first(1, server.url, sleep=naps, random=lambda: next(spread), base_s=1.0)
    assert naps.slept == [0.5, 1.5]


async def test_what_came_begins_the_waits_anew() -> None:
    naps = Naps()
    async with peer(saying(500), saying(500), streaming(told(0)), streaming(told(1))) as server:
        await first(2, server.url, sleep=naps, random=lambda: 1.0, base_s=1.0)
    assert naps.slept == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("99999999", 3600.0), ("soon", 0.5)])
async def test_it_waits_for_as_long_as_the_server_asks(asked: str, waited: float) -> None:
    naps = Naps()
    async with peer(saying(503, Retry_After=asked), streaming(told(0))) as server:
        await first(1, server.url, sleep=naps, random=lambda: 1.0)
    assert naps.slept == [waited]


async def test_a_server_that_does_not_answer_is_asked_again() -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async with peer(hang, streaming(told(0))) as server:
        assert await indices(1, server.url, silent_s=0.1) == [0]


async def test_it_waits_for_a_server_that_is_not_there_yet() -> None:
    async with served(move(0)) as place:
        await place.stop()
        naps = Naps()
        asking = asyncio.create_task(first(1, place.url, sleep=naps))
        await until(lambda: len(naps.slept) > 2)
        await place.start()
        assert [one.index for one in await asking] == [0]


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (409, {"error": "another-log", "message": "of another log"}, AnotherLog),
        (409, {"error": "index-ahead", "message": "has 5 entries"}, IndexAhead),
        (400, {"error": "bad-project", "message": "at most 100"}, StreamRefused),
        (401, {}, StreamRefused),
        (403, {"error": "Not A Slug!", "message": "no\nway"}, StreamRefused),
        (404, {}, StreamRefused),
        (302, {}, StreamRefused),
    ],
)
async def test_what_asking_again_would_not_help_is_raised(
    status: int, said: dict[str, str], kind: type[StreamRefused]
) -> None:
    async with peer(saying(status, said, Location="http://127.0.0.1:9/")) as server:
        with pytest.raises(kind) as raised:
            await first(1, server.url, token="tok-secret")
        assert len(server.asked) == 1
    assert isinstance(raised.value, Permanent)
    assert raised.value.status == status
    assert str(status) in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.reason == (said.get("error") if status in (400, 409) else "stream-refused")


async def test_the_real_server_refuses_a_place_of_another_log_and_one_ahead() -> None:
    async with served(*mixed(20)) as place:
        with pytest.raises(AnotherLog, match="another log"):
            await first(1, place.url, after="3@elsewhere~00")
        with pytest.raises(IndexAhead, match="no index 20 yet"):
            await first(1, place.url, after=20)


async def test_another_log_behind_the_same_url_is_noticed_in_the_stream() -> None:
    async with peer(streaming(told(0)), streaming(told(1, log="other~1"))) as server:
        with pytest.raises(AnotherLog):
            await first(2, server.url)


@pytest.mark.parametrize(
    "answer",
    [
        saying(200, {"hello": "proxy"}),
        streaming(b"id: nonsense here\ndata: {}\n\n"),
        streaming(f"id: 1@{LOG}\ndata: {{}}\n\n".encode()),
        streaming(f"id: 1@{LOG}\ndata: {'[' * 200_000}\n\n".encode()),
        streaming(b"data: " + b"x" * 300_000),
    ],
)
async def test_what_is_no_stream_of_changes_is_said(answer: Answer) -> None:
    async with peer(answer) as server:
        with pytest.raises(StreamMalformed):
            await first(1, server.url)


async def test_fields_of_a_newer_server_are_passed_over() -> None:
    newer = told(0).replace(b'data: {"', b'data: {"novel":1,"')
    async with peer(streaming(newer)) as server:
        assert await indices(1, server.url) == [0]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:9090",
        "ftp://host/",
        "http://",
        "http://u:p@host/",
        "http://h/changes?after=1",
    ],
)
async def test_what_is_no_url_is_said_before_anything_is_asked(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        await first(1, url)


@pytest.mark.parametrize("after", ["", "x", "-1", -1, "5 @log"])
async def test_what_is_no_position_is_said_before_anything_is_asked(after: str | int) -> None:
    with pytest.raises(ValueError, match="must be an index"):
        await first(1, "http://127.0.0.1:9/", after=after)


async def test_whoever_has_enough_leaves_no_connection_behind() -> None:
    async with served(*mixed(50)) as place:
        await first(3, place.url)
        await until(lambda: place.readers() == 0)


async def test_the_token_is_in_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with peer(saying(503), saying(401)) as server:
        with pytest.raises(StreamRefused) as raised:
            await first(1, server.url, token="tok-secret")
    assert "tok-secret" not in str(raised.value) + caplog.text
    assert "503" in caplog.text


def test_it_needs_nothing_of_groundwire_but_what_a_change_is() -> None:
    tree = ast.parse(Path(consumer.client.__file__).read_text())
    ours = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and str(node.module).startswith(("consumer", "handlers"))
    }
    assert ours <= {"consumer.changes", "consumer.errors", "consumer.model"}
