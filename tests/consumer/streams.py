"""Logs whose changes a test knows, served as `groundwire run` does, and ways to read and to break
the stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from consumer.admin import Admin
from consumer.listener import Listener
from consumer.log.log import TileLog
from consumer.log.tail import LogTail
from consumer.ports import Store
from consumer.stream import ChangeStream
from consumer.telemetry import Metrics
from tests.consumer.log.logs import writer
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore

PROJECTS = ("p-0", "p-1", "p-2")
TRUTHS = {  # what a move did to the ground truth: (was it, old revision, is it, revision)
    None: (False, "a", False, "b"),
    "added": (False, "a", True, "b"),
    "changed": (True, "a", True, "b"),
    "removed": (True, "a", False, "a"),
}


def move(
    number: int, *, project: str = "p-0", truth: str | None = "added", change: str = "exported"
) -> dict[str, Any]:
    """A ``lake`` entry as the audit lane writes them."""
    was, old, now, revision = TRUTHS[truth]
    return {
        "id": f"lake:{number}",
        "kind": "lake",
        "source": "rb",
        "platform": "redbrick",
        "project": project,
        "project_key": f"key-{project}",
        "task": f"task-{number}",
        "sequence": 1,
        "change": change,
        "stage": "Label",
        "old_stage": None,
        "revision": revision,
        "old_revision": old,
        "ground_truth": now,
        "was_ground_truth": was,
        "manifest_key": f"key-{project}/tasks/task-{number}/revisions/{revision}.json",
    }


def receipt(number: int) -> dict[str, Any]:
    return {"id": f"receipt:{number}", "kind": "receipt", "task": f"task-{number}"}


def mixed(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Entries of all sorts: some tell of no move, some moves change no ground truth."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(count):
        if chance.random() < 0.3:
            made.append(receipt(number))
            continue
        truth = chance.choice((None, *TRUTHS))
        made.append(move(number, project=chance.choice(PROJECTS), truth=truth))
    return made


def truths(entries: Sequence[dict[str, Any]], *, projects: Sequence[str] = PROJECTS) -> list[int]:
    """The indices at which the ground truth of the projects changed, read without our code."""
    return [
        index
        for index, one in enumerate(entries)
        if one["kind"] == "lake"
        and one["project"] in projects
        and (one["ground_truth"] or one["was_ground_truth"])
    ]


def moves(entries: Sequence[dict[str, Any]]) -> list[int]:
    return [index for index, one in enumerate(entries) if one["kind"] == "lake"]


@dataclass
class Served:
    """A log and a server of its changes, which can be restarted on its port."""

    store: FakeStore = field(default_factory=FakeStore)
    max_readers: int = 64
    heartbeat_s: float = 15.0
    stalled_s: float = 30.0
    token: str | None = None
    reads: Callable[[Store], Store] = lambda store: store
    port: int = 0

    def __post_init__(self) -> None:
        self.log: TileLog = writer(self.store)
        self.metrics = Metrics()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def append(self, *entries: dict[str, Any]) -> None:
        await self.log.append(entries)
        self.tail.wake()

    async def start(self) -> None:
        self.tail = LogTail(self.reads(self.store), poll_s=0.01)
        self.stream = ChangeStream(
            self.tail,
            self.metrics,
            max_readers=self.max_readers,
            heartbeat_s=self.heartbeat_s,
            stalled_s=self.stalled_s,
        )
        admin = Admin(self.metrics, FakeQueue([]), [], changes=self.stream.handle, token=self.token)
        self._listener = Listener(admin.application(), header_timeout_s=5, stop_s=1.0, cancels=True)
        self.port = await self._listener.start("127.0.0.1", self.port)

    async def stop(self) -> None:
        await self.stream.close()
        await self._listener.stop()

    def readers(self) -> float:
        return self.metrics.registry.get_sample_value("groundwire_stream_readers") or 0.0


@asynccontextmanager
async def served(*entries: dict[str, Any], **settings: Any) -> AsyncIterator[Served]:
    place = Served(**settings)
    if entries:
        await place.log.append(entries)
    await place.start()
    try:
        yield place
    finally:
        await place.stop()
        await place.log.close()


class Reader:
    """What a request for changes is answered, block by block, without our parser."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def block(self) -> dict[str, str]:
        """The fields of the next block that has an ``id``; a comment is the field without a name.
        Raises ``EOFError`` when the stream ends."""
        while True:
            found: dict[str, str] = {}
            while line := (await self._line()).rstrip("\n"):
                name, _, value = line.partition(":")
                found[name] = value.removeprefix(" ")
            if "id" in found:
                return found

    async def blocks(self, count: int) -> list[dict[str, str]]:
        return [await self.block() for _ in range(count)]

    async def indices(self, count: int) -> list[int]:
        return [int(one["id"].partition("@")[0]) for one in await self.blocks(count)]

    async def ended(self) -> bool:
        """Whether the stream ends, whatever comes before."""
        async with asyncio.timeout(10):
            while await self.response.content.readany():
                pass
        return True

    async def _line(self) -> str:
        async with asyncio.timeout(10):
            line = await self.response.content.readline()
        if not line:
            raise EOFError
        return line.decode()


@asynccontextmanager
async def reading(place: Served, query: str = "", **headers: str) -> AsyncIterator[Reader]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{place.url}/changes{query}", headers=named) as response,
    ):
        yield Reader(response)


async def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.005)


class CuttingProxy:
    """Between client and server: resets each connection after a random number of bytes that the
    server sent, from none on; ``connections`` counts them."""

    def __init__(self, place: Served, seed: int, most_bytes: int) -> None:
        self._place = place
        self._chance = random.Random(seed)
        self._most_bytes = most_bytes
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        left = self._chance.randrange(self._most_bytes) * self._chance.choice((0, 1, 1, 1))
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._place.port)
        except OSError:
            writer.transport.abort()
            return
        ask = asyncio.create_task(self._ask(reader, back))
        self._pumps.add(ask)
        try:
            with suppress(OSError):
                while data := await there.read(min(4096, left) if left else 0):
                    writer.write(data)
                    await writer.drain()
                    left -= len(data)
        finally:
            ask.cancel()
            self._pumps.discard(ask)
            with suppress(OSError):
                await writer.drain()
            writer.close() if self._chance.random() < 0.5 else writer.transport.abort()
            back.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(4096):
                back.write(data)
                await back.drain()
