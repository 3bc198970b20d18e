"""The simulated RedBrick as a peer on a real socket, and what our platform reads from it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from consumer.demo.redbrick import Fault, Kind, SimulatedRedBrick
from consumer.download import Downloader
from consumer.model import Label, TaskKey, TaskSnapshot
from consumer.platforms.redbrick import RedBrick
from tests.loopback import LOOPBACK


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def connected(simulator: SimulatedRedBrick, **settings: Any) -> AsyncIterator[RedBrick]:
    downloader = Downloader(stall_s=5.0, networks=LOOPBACK)
    async with simulator.serve() as url:
        platform = RedBrick(
            "redbrick",
            **{
                "secrets": [b"token"],
                "api_key": simulator.api_key,
                "organization": simulator.org_id,
                "downloader": downloader,
                "api_url": url,
                **settings,
            },
        )
        try:
            yield platform
        finally:
            await platform.close()
            await downloader.close()


@asynccontextmanager
async def served(
    simulator: SimulatedRedBrick, operation: str, change: Callable[[dict[str, Any]], object]
) -> AsyncIterator[RedBrick]:
    """As `connected`, with what ``change`` makes of the data of each of an operation's answers."""

    def other(body: bytes) -> bytes:
        answer = json.loads(body)
        change(answer["data"])
        return json.dumps(answer).encode()

    async def no_time(_: float) -> None:
        pass

    simulator.faults.add(operation, Fault(Kind.OTHER, change=other), times=99)
    async with connected(simulator, sleep=no_time) as platform:
        yield platform


def key(simulator: SimulatedRedBrick, task_id: str) -> TaskKey:
    return TaskKey(source="redbrick", project=simulator.project_id, task=task_id)


async def answer(simulator: SimulatedRedBrick, task_id: str, **settings: Any) -> Any:
    async with connected(simulator, **settings) as platform:
        asked = key(simulator, task_id)
        return (await platform.fetch([asked]))[asked]


async def snapshot(simulator: SimulatedRedBrick, task_id: str, **settings: Any) -> TaskSnapshot:
    got = await answer(simulator, task_id, **settings)
    assert isinstance(got, TaskSnapshot)
    return got


def only_label(task: TaskSnapshot) -> Label:
    (label,) = task.labels
    return label
