"""What targets are fired at: servers on loopback that answer as told, or misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from handlers.targets.trigger import Trigger

TRIGGER = Trigger(
    key="nightly-12-0a1b2c3d",
    policy="nightly",
    decision=12,
    reason="min-changes",
    decided_at="2025-03-04T05:06:07.890123Z",
    log="example.org/ground-truth~0a1b2c3d4e5f",
    log_size=12345,
    log_root="cm9vdC1oYXNo/+==",
    snapshot="5a6b7c8d",
    snapshot_name="nightly",
    snapshot_key="snapshots/nightly/12",
    snapshot_sha256="ab" * 32,
    tasks=640,
    added=50,
    changed=7,
)


def another(**fields: Any) -> Trigger:
    return msgspec.structs.replace(TRIGGER, **fields)


@dataclass
class Asked:
    method: str
    path: str  # with its query, as it came
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


Answer = Callable[[Asked], Awaitable[web.StreamResponse]]


@dataclass
class Peer:
    """Answers as ``answer`` says, and remembers what it was asked."""

    answer: Answer
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.casefold(): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.raw_path, headers, await request.read())
        self.asked.append(asked)
        return await self.answer(asked)


def always(status: int = 200, *, text: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_: Asked) -> web.Response:
        return web.Response(status=status, text=text, headers=named)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """One after another; the last for ever."""
    left = list(answers)

    async def answer(asked: Asked) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(asked)

    return answer


@asynccontextmanager
async def a_peer(answer: Answer) -> AsyncIterator[Peer]:
    peer = Peer(answer)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{rest:.*}", peer.take)
    server = TestServer(app)
    await server.start_server()
    peer.url = f"http://127.0.0.1:{server.port}"
    try:
        yield peer
    finally:
        await server.close()


Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts, takes what comes, and never answers."""
    while await reader.read(1 << 16):
        pass


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says 200, then a byte of the body at a time, for ever."""
    await reader.read(1 << 16)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says 200, and a body without an end, as fast as it is taken."""
    await reader.read(1 << 16)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
    while True:
        writer.write(b" " * (1 << 16))
        await writer.drain()


async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the request, and hangs up."""
    await reader.read(1 << 16)
    writer.close()


@asynccontextmanager
async def a_socket(speak: Speak) -> AsyncIterator[int]:
    """The port of a server that speaks so on every connection."""
    speaking: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        speaking.add(task)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await speak(reader, writer)
        finally:
            speaking.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(speaking):
            task.cancel()
        await asyncio.gather(*speaking, return_exceptions=True)


async def a_closed_port() -> int:
    async with a_socket(says_nothing) as port:
        return port
