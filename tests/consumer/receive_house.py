"""A receiver that listens, with a made-up platform in front of it and a queue in memory behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from consumer.crowd import Crowd
from consumer.errors import Permanent, Rejected, Transient
from consumer.gather import Gatherer
from consumer.listener import Listener
from consumer.model import (
    Action,
    Delivery,
    LaneSpec,
    Mask,
    Missing,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
)
from consumer.receive import Receiver
from consumer.signature import token_matches
from consumer.telemetry import Metrics
from tests.fakes_queue import FakeQueue

EXPORT = LaneSpec(name="export", wants=("event",))
AUDIT = LaneSpec(name="audit", wants=("event", "outcome", "record"), exclusive=True)
TOKEN = "tok-secret-123456"


class FakePlatform:
    """Its token comes in ``?token=`` or ``x-token``; its body is a list of task ids."""

    source = "lab"

    def verify(self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Delivery:
        if not token_matches(headers.get("x-token") or query.get("token", ""), [TOKEN.encode()]):
            raise Rejected(401, "bad-token")
        return Delivery(source=self.source, body=body, headers={}, received_at="now")

    def parse(self, delivery: Delivery) -> list[TaskEvent]:
        try:
            tasks = json.loads(delivery.body)
        except ValueError as error:
            raise Rejected(422, "not-json", "the body is not JSON") from error
        if tasks == "crash":
            raise ZeroDivisionError
        return [event(task) for task in tasks]

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        raise AssertionError("the receiver fetches nothing")

    async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
        raise AssertionError("the receiver downloads nothing")


def event(task: str) -> TaskEvent:
    """One whose name begins with ``now:`` is told apart by the platform."""
    return TaskEvent(
        id=f"id-{task}",
        source="lab",
        project="p",
        task=task,
        action=Action.MOVE,
        received_at="2026-01-01T00:00:00.000000Z",
        body_sha256="0" * 64,
        delivery_id="delivery" if task.startswith("now:") else None,
    )


@dataclass
class House:
    """A receiver that listens, and what stands behind it."""

    queue: FakeQueue
    metrics: Metrics
    port: int
    http: aiohttp.ClientSession

    async def post(
        self, body: Any = b'["t1"]', path: str = "/hooks/lab", **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        given = {"x-token": TOKEN} | {k.replace("_", "-"): v for k, v in headers.items()}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.http.post(url, data=body, headers=given) as response:
            return response.status, await response.json(), response.headers

    async def raw(self, *parts: bytes, until_closed: bool = True) -> bytes:
        """Writes the parts to a bare socket and reads until the other side closes, or what comes
        first."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await asyncio.wait_for(reader.read(-1 if until_closed else 4096), 10)
        finally:
            writer.close()

    def refusals(self, reason: str, source: str = "lab") -> float:
        labels = {"source": source, "reason": reason}
        value = self.metrics.registry.get_sample_value("groundwire_requests_refused_total", labels)
        return value or 0.0


Make = Callable[..., Awaitable[House]]


@contextlib.asynccontextmanager
async def houses() -> AsyncIterator[Make]:
    """Makes houses, and closes them at the end."""
    listeners: list[Listener] = []
    sessions: list[aiohttp.ClientSession] = []

    async def made(
        *,
        put_timeout_s: float = 5.0,
        header_timeout_s: float = 5.0,
        crowd: Crowd | None = None,
        **receiver: Any,
    ) -> House:
        queue = FakeQueue([EXPORT, AUDIT])
        await queue.open()
        metrics = Metrics(["lab"])
        put = Gatherer(queue, timeout_s=put_timeout_s).put
        at = Receiver({"lab": FakePlatform()}, put, metrics, queue.ready, crowd=crowd, **receiver)
        listener = Listener(
            at.application(),
            header_timeout_s=header_timeout_s,
            stop_s=1,
            crowd=crowd,
            malformed=at.malformed,
        )
        listeners.append(listener)
        port = await listener.start("127.0.0.1", 0)
        sessions.append(aiohttp.ClientSession())
        return House(queue, metrics, port, sessions[-1])

    yield made
    for session in sessions:
        await session.close()
    for listener in listeners:
        await listener.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
