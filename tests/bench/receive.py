"""Signed webhooks of 1 KB answered 202, from 64 connections: what keeping them costs.

The peer is aiohttp that reads and answers, and keeps nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from consumer.app import LANES, FullQueue, make_queue
from consumer.demo.configuration import write_configuration
from consumer.demo.labelbox import SimulatedLabelbox
from consumer.demo.redbrick import SimulatedRedBrick
from consumer.demo.script import Cast
from consumer.settings import load
from tests.bench.load import send
from tests.bench.table import Candidate, Result, quantile
from tests.end_to_end.house import free_port
from tests.servers_rabbitmq import rabbitmq

CONNECTIONS = 64
BODY_BYTES = 1024


@dataclass(slots=True)
class Server:
    """One process under load, and what was measured of it."""

    name: str
    port: int
    queue: FullQueue | None = None
    sent: int = 0
    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


def run(*, quick: bool) -> Iterator[Result]:
    with rabbitmq() as server, tempfile.TemporaryDirectory(prefix="groundwire-bench-") as name:
        yield asyncio.run(_measure(Path(name), server.url, quick=quick))


async def _measure(folder: Path, broker: str, *, quick: bool) -> Result:
    cast = Cast(SimulatedRedBrick(seed="bench"), SimulatedLabelbox(seed="bench"), token="t")
    queues = {"groundwire, SQLite (synced)": None, "groundwire, RabbitMQ (confirmed)": broker}
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(_bare())]
        for number, (name, queue) in enumerate(queues.items()):
            place = folder / str(number)
            place.mkdir()
            path = write_configuration(
                place, cast, "http://localhost:1", "http://localhost:1", queue=queue, lake=None
            )
            servers.append(await stack.enter_async_context(_receiver(name, path)))
        for counted in [False] + [True] * (3 if quick else 7):
            for one in servers:
                await _round(one, cast, 500 if not counted or quick else 3000, counted=counted)
        candidates = [await _candidate(one) for one in servers]
    return Result(
        f"Signed {BODY_BYTES} byte POST -> 202, {CONNECTIONS} connections",
        "requests/s",
        candidates,
        columns=("p50", "p99", "kept in each lane"),
        remark=f"A synced append of 4 KiB takes {_sync_s(folder) * 1e3:.2f} ms on this disk.",
    )


async def _round(server: Server, cast: Cast, number: int, *, counted: bool) -> None:
    posts = [_post(server.sent + n, server.port, cast) for n in range(number)]
    load = await send(server.port, posts, connections=CONNECTIONS)
    server.sent += number
    if counted:
        server.rates.append(number / load.seconds)
        server.p50.append(quantile(load.latencies, 0.5))
        server.p99.append(quantile(load.latencies, 0.99))


def _post(number: int, port: int, cast: Cast) -> bytes:
    content = {"dataRow": {"id": f"row{number}"}, "project": {"id": cast.labelbox.project_id}}
    body = json.dumps(content | {"pad": ""}).encode()
    body = json.dumps(content | {"pad": "x" * (BODY_BYTES - len(body))}).encode()
    secret = cast.labelbox.webhook_secret.encode()
    head = (
        "POST /hooks/labelbox HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "X-Labelbox-Event: WORKFLOW_ACTION",
        f"X-Labelbox-Id: {number}",
        f"X-Hub-Signature-256: sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}",
    )
    return "\r\n".join((*head, "", "")).encode() + body


@contextlib.asynccontextmanager
async def _bare() -> AsyncIterator[Server]:
    port = free_port()
    async with _process([sys.executable, "-m", "tests.bench.bare", str(port)], port, os.environ):
        yield Server("aiohttp, answers and keeps nothing", port)


@contextlib.asynccontextmanager
async def _receiver(name: str, configuration: Path) -> AsyncIterator[Server]:
    port = free_port()
    environment = {**os.environ, "GROUNDWIRE_HTTP__LISTEN": f"127.0.0.1:{port}"}
    command = [sys.executable, "-m", "consumer.cli", "receive", "--config", str(configuration)]
    async with _process(command, port, environment):
        queue = make_queue(load(configuration))
        await queue.open()
        try:
            yield Server(name, port, queue)
        finally:
            await queue.close()


@contextlib.asynccontextmanager
async def _process(
    command: list[str], port: int, environment: Mapping[str, str]
) -> AsyncIterator[None]:
    """Running and listening."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.1)
        yield
    finally:
        process.terminate()
        await process.wait()


async def _candidate(server: Server) -> Candidate:
    kept = "-"
    if server.queue is not None:
        depths = [(await server.queue.depth(lane)).ready for lane in LANES]
        kept = f"{min(depths):,} of {server.sent:,}"
    milliseconds = [f"{quantile(each, 0.5) * 1e3:.1f} ms" for each in (server.p50, server.p99)]
    return Candidate(server.name, server.rates, (*milliseconds, kept))


def _sync_s(folder: Path) -> float:
    samples = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            samples.append(time.perf_counter() - began)
    return quantile(samples, 0.5)
