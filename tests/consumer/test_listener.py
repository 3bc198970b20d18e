"""What the listener does about connections that ask little, or too much at once."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest_asyncio
from aiohttp import web
from structlog.testing import capture_logs

from consumer.crowd import Crowd
from consumer.listener import GUEST, MAX_AHEAD, MAX_HEAD_BYTES, RESERVED_FILES, Listener

GET = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Served:
    """A listener, and what it told."""

    port: int
    crowd: Crowd
    closed: list[str] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer

    async def answer(self, sent: bytes) -> bytes:
        """The first line that comes back, empty when the connection is closed instead."""
        reader, writer = await self.connect(sent)
        try:
            return await asyncio.wait_for(reader.readline(), 10)
        except ConnectionError:
            return b""
        finally:
            writer.close()


Serve = Callable[..., Awaitable[Served]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    listeners: list[Listener] = []

    async def started(
        most: int = 100, most_bytes: int = 1 << 20, unread_s: float = 5.0, header_s: float = 30.0
    ) -> Served:
        crowd = Crowd(most, most_bytes)
        served = Served(0, crowd)

        async def quick(_: web.Request) -> web.Response:
            served.asked += 1
            return web.Response(text="x" * 1000)

        async def large(_: web.Request) -> web.Response:
            return web.Response(body=bytes(16 << 20))

        async def held(request: web.Request) -> web.Response:
            await request.read()
            crowd.verified(request[GUEST])
            served.asked += 1
            await served.hold.wait()
            return web.Response()

        app = web.Application()
        app.router.add_get("/quick", quick)
        app.router.add_get("/large", large)
        app.router.add_post("/held", held)
        listener = Listener(
            app,
            header_timeout_s=header_s,
            stop_s=1,
            crowd=crowd,
            unread_s=unread_s,
            closed=served.closed.append,
        )
        listeners.append(listener)
        served.port = await listener.start("127.0.0.1", 0)
        return served

    yield started
    for listener in listeners:
        await listener.stop()


async def test_idle_connections_make_room_for_one_that_asks(serve: Serve) -> None:
    served = await serve(most=20)
    idle = [await served.connect(b"GET / HT") for _ in range(60)]
    assert (await served.answer(GET)).startswith(b"HTTP/1.1 200")
    assert len(served.crowd) <= 20
    assert served.closed.count("too-crowded") >= 40
    for _, writer in idle:
        writer.close()


async def test_a_request_that_is_being_kept_outlives_the_crowd(serve: Serve) -> None:
    served = await serve(most=10)
    reader, kept = await served.connect(
        b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]"
    )
    await until(lambda: served.asked == 1)
    idle = [await served.connect() for _ in range(50)]
    await until(lambda: served.closed.count("too-crowded") >= 41)
    served.hold.set()
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200")
    for _, writer in [*idle, (reader, kept)]:
        writer.close()


async def test_one_that_is_turned_away_finds_room_when_the_others_are_answered(
    serve: Serve,
) -> None:
    served = await serve(most=2)
    post = b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    kept = [await served.connect(post) for _ in range(2)]
    await until(lambda: served.asked == 2)
    assert await served.answer(GET) == b""
    served.hold.set()
    for reader, _ in kept:
        await reader.readline()
    assert (await served.answer(GET)).startswith(b"HTTP/1.1 200")
    for _, writer in kept:
        writer.close()


async def test_a_head_that_never_ends_is_cut_off(serve: Serve) -> None:
    served = await serve()
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 4000) for n in range(12))
    with capture_logs() as logged:
        assert await served.answer(b"GET /quick HTTP/1.1\r\nHost: x\r\n" + lines) == b""
    assert served.closed == ["sent-too-much"]
    assert [line["reason"] for line in logged] == ["request-too-long"]


async def test_a_whole_head_beyond_the_limit_gets_431(serve: Serve) -> None:
    served = await serve()
    line = b"X: " + b"v" * 8000 + b"\r\n"
    head = b"GET /quick HTTP/1.1\r\nHost: x\r\n" + line * (MAX_HEAD_BYTES // len(line) + 1)
    assert await served.answer(head + b"\r\n") in (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
        b"",
    )
    assert served.asked == 0


async def test_what_is_asked_far_ahead_is_cut_off(serve: Serve) -> None:
    served = await serve()
    post = b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    assert await served.answer(post * (MAX_AHEAD + 1)) == b""
    assert served.closed == ["sent-too-much"]
    assert served.asked <= 1


async def test_a_few_requests_ahead_are_answered_in_order(serve: Serve) -> None:
    served = await serve()
    reader, writer = await served.connect(GET * MAX_AHEAD)
    for _ in range(MAX_AHEAD):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(1000)
    writer.close()


async def test_who_does_not_read_his_answers_is_closed(serve: Serve) -> None:
    served = await serve(unread_s=0.1)
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, ("127.0.0.1", served.port))
    await loop.sock_sendall(deaf, GET.replace(b"quick", b"large"))
    await until(lambda: bool(served.closed))
    assert served.closed == ["read-nothing"]
    deaf.close()


async def test_bodies_that_never_end_are_bounded_together(serve: Serve) -> None:
    served = await serve(most_bytes=1 << 20)
    head = b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    dripping = [await served.connect(head + bytes(50_000)) for _ in range(40)]
    await until(lambda: served.closed.count("too-crowded") >= 20)
    assert served.crowd.held <= 1 << 20
    assert (await served.answer(GET)).startswith(b"HTTP/1.1 200")
    for _, writer in dripping:
        writer.close()


async def test_a_connection_that_is_closed_is_forgotten(serve: Serve) -> None:
    served = await serve()
    for _ in range(30):
        assert await served.answer(GET)
    await until(lambda: len(served.crowd) == 0)
    assert served.crowd.held == 0


async def test_a_connection_that_has_gone_waits_for_no_collection(serve: Serve) -> None:
    served = await serve()
    gc.collect()
    others = _alive("consumer.listener", "_Connection")  # that other tests in this process hold
    known = {id(one) for one in others}
    gc.disable()
    try:
        for sent in (b"", b"GET / HT", GET):
            for _ in range(10):
                _, writer = await served.connect(sent)
                await until(lambda: len(served.crowd) == 1)
                writer.transport.abort()
                await until(lambda: len(served.crowd) == 0)
        await until(
            lambda: {id(one) for one in _alive("consumer.listener", "_Connection")} <= known
        )
        left = _alive("asyncio.selector_events", "_SelectorSocketTransport")
        assert not [one for one in left if one.get_extra_info("sockname")[1] == served.port]
    finally:
        gc.enable()


def _alive(module: str, name: str) -> list[Any]:
    kinds = (module, name)
    return [one for one in gc.get_objects() if (type(one).__module__, type(one).__name__) == kinds]


def test_connections_are_as_many_as_there_may_be_files() -> None:
    """In a process of its own, whose limits are lowered."""
    code = (
        "import resource\nfrom consumer.listener import room_for\n"
        "for files in (1000, 200, 128):\n"
        " resource.setrlimit(resource.RLIMIT_NOFILE, (100, files))\n"
        " print('fit', room_for(500), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fit = [line.split()[1:] for line in told.stdout.splitlines() if line.startswith("fit")]
    assert fit == [["500", "1000"], [str(200 - RESERVED_FILES), "200"], ["32", "128"]]
    assert told.stdout.count("fewer connections") == 2


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)
