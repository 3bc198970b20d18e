"""Groundwire as operators run it: real processes, queue and lake; simulated platforms."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from consumer.demo.configuration import write_configuration
from consumer.demo.labelbox import SimulatedLabelbox
from consumer.demo.redbrick import SimulatedRedBrick
from consumer.demo.script import Cast, Post
from consumer.log.read import entries
from consumer.model import Pointer, decode
from consumer.ports import Store

POLL_S = 0.1


@dataclass(slots=True)
class House:
    """The processes of one installation and what they share."""

    directory: Path
    cast: Cast
    environment: Mapping[str, str]
    store: Store
    session: aiohttp.ClientSession
    hooks_port: int
    configuration: Path = field(default=Path())
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        """One process of its own process group; its log lines go to ``{name}.log``."""
        environment = {**self.environment}
        environment["GROUNDWIRE_LOG__INDEX"] = str(self.directory / f"{name}-index.db")
        with (self.directory / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [*_groundwire(), *command, "--config", str(self.configuration)],
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    async def stop(self, name: str) -> int:
        """Its exit code after SIGTERM; the platforms go on answering meanwhile."""
        self.processes[name].send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.processes[name].wait, 30)

    async def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        return await asyncio.to_thread(
            subprocess.run,
            [*_groundwire(), *command, "--config", str(self.configuration)],
            env=dict(self.environment),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    async def listening(self, within_s: float = 30.0) -> None:
        """Until the receiver takes connections."""
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.hooks_port)
                    writer.close()
                    return
                await asyncio.sleep(POLL_S)

    async def post(self, post: Post) -> int:
        """Like a platform's delivery service that resends what is answered 503."""
        url = f"http://127.0.0.1:{self.hooks_port}/hooks/{post.source}"
        for _ in range(20):
            async with self.session.post(
                url,
                data=post.body,
                headers=post.headers,
                params={"token": post.token} if post.token else {},
            ) as response:
                if response.status != 503:
                    return response.status
            await asyncio.sleep(POLL_S)
        raise AssertionError("503 twenty times")

    async def post_all(self, posts: Sequence[Post], *, at_once: int = 16) -> None:
        gate = asyncio.Semaphore(at_once)

        async def one(post: Post) -> int:
            async with gate:
                return await self.post(post)

        assert set(await asyncio.gather(*(one(post) for post in posts))) <= {202}

    def webhooks(self) -> list[Post]:
        """What the platforms have to tell since the last call."""
        told = [
            Post("redbrick", {}, json.dumps(body).encode(), token=self.cast.token)
            for body in self.cast.redbrick.take_webhooks()
        ]
        told += [Post("labelbox", dict(h), body) for h, body in self.cast.labelbox.outbox]
        self.cast.labelbox.outbox.clear()
        return told

    async def pointer(self, project: str, task: str) -> Pointer | None:
        stored = await self.store.read(f"{project}/tasks/{task}/current.json")
        return decode(stored.data, Pointer) if stored else None

    async def log(self) -> list[dict[str, Any]]:
        return [entry.data async for entry in entries(self.store)]

    def downloads(self) -> int:
        """Masks that the platforms were asked for."""
        return self.cast.redbrick.counters["mask GET"] + self.cast.labelbox.counters["mask GET"]


@contextlib.asynccontextmanager
async def house(
    directory: Path,
    store: Store,
    *,
    queue: str | None = None,
    lake: str | None = None,
    environment: Mapping[str, str] | None = None,
    seed: str = "house",
) -> AsyncIterator[House]:
    """Platforms and configuration; the processes are started by the test and end with it."""
    cast = Cast(
        SimulatedRedBrick(reviews=2, seed=seed), SimulatedLabelbox(seed=seed), token="hook-token"
    )
    port = free_port()
    async with (
        cast.redbrick.serve() as redbrick_url,
        cast.labelbox.serve() as labelbox_url,
        aiohttp.ClientSession() as session,
    ):
        made = House(
            directory=directory,
            cast=cast,
            environment={
                **os.environ,
                **(environment or {}),
                "GROUNDWIRE_HTTP__LISTEN": f"127.0.0.1:{port}",
                "GROUNDWIRE_QUEUE_PREFIX": f"test-{port}",
                "GROUNDWIRE_RETRY__BASE_S": "0.5",
            },
            store=store,
            session=session,
            hooks_port=port,
        )
        made.configuration = write_configuration(
            directory, cast, redbrick_url, labelbox_url, queue=queue, lake=lake
        )
        try:
            yield made
        finally:
            for process in made.processes.values():
                process.kill()
                process.wait()


async def until(check: Any, within_s: float = 60.0) -> None:
    """Polls an async check until it returns nothing to complain about; raises the complaint."""
    deadline = time.monotonic() + within_s
    while (complaint := await check()) is not None:
        if time.monotonic() > deadline:
            raise AssertionError(complaint)
        await asyncio.sleep(POLL_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _groundwire() -> list[str]:
    return [sys.executable, "-m", "consumer.cli"]
