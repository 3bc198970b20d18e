"""Processes that are told to stop in bad company: whatever hangs, they end within ten seconds, give
back what they had leased, and burn no attempt; told twice, they end at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from consumer.demo.redbrick import Fault, Kind
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, free_port, house, until
from tests.end_to_end.stopping import stopped_in_time
from tests.servers_s3 import use_credentials

pytestmark = pytest.mark.chaos

AT_ONCE_S = 3.0
COMMANDS = {
    "run": ("run",),
    "receive": ("receive",),
    "export": ("work", "export"),
    "audit": ("work", "audit"),
    "follow": ("follow",),
}


def rows(place: House) -> list[tuple[int, bytes | None, str | None]]:
    """Attempt, failure and token of what waits for the export."""
    with contextlib.closing(sqlite3.connect(place.directory / "queue.db")) as db:
        query = "SELECT attempt, failure, token FROM messages WHERE lane = 'export'"
        return db.execute(query).fetchall()


async def all_leased(place: House) -> str | None:
    found = rows(place)
    free = [one for one in found if one[2] is None]
    return f"{len(free)} of {len(found)} are not leased" if free or not found else None


@asynccontextmanager
async def hanging(folder: Path, **environment: str) -> AsyncIterator[House]:
    """`groundwire run` with all that it leased in the middle of a platform that does not answer."""
    store = DirectoryStore(folder / "lake")
    async with house(folder, store, environment=environment) as place:
        redbrick = place.cast.redbrick
        redbrick.faults.add("file GET", Fault(Kind.HANG), times=1000)
        place.start("run", "run")
        await place.listening(within_s=60)
        for number in range(3):
            redbrick.label(redbrick.create_task(f"study{number}"))
        await place.post_all(place.webhooks())
        await until(lambda: all_leased(place))
        await until(lambda: asks(place))
        yield place


async def asks(place: House) -> str | None:
    return None if place.cast.redbrick.counters["mask GET"] else "no mask was asked for"


async def test_it_ends_in_time_though_platform_reader_and_sender_all_hang(tmp_path: Path) -> None:
    admin = f"127.0.0.1:{free_port()}"
    async with hanging(tmp_path, GROUNDWIRE_ADMIN__LISTEN=admin) as place:
        _, silent = await asyncio.open_connection("127.0.0.1", place.hooks_port)
        silent.write(
            b"POST /hooks/redbrick?token=x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        )
        async with place.session.get(f"http://{admin}/changes") as changes:
            assert changes.status == 200
            await stopped_in_time(place, "run")
            with contextlib.suppress(aiohttp.ClientError):  # cut, or ended: it is over
                await changes.content.read()
        silent.close()
        assert {one[:2] for one in rows(place)} == {(1, None)}  # given back, with no attempt burned
        assert {one[2] for one in rows(place)} == {None}

        place.cast.redbrick.faults.clear()
        place.start("run", "run")
        await until(lambda: exported(place, 3))
        assert await place.stop("run") == 0
        log = await place.log()
        assert [one for one in log if one["kind"] in ("failed", "buried")] == []


async def exported(place: House, tasks: int) -> str | None:
    moves = [one for one in await place.log() if one["kind"] == "lake" and one["revision"]]
    return None if len(moves) >= tasks else f"{len(moves)} of {tasks} are in the lake"


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
async def test_told_twice_it_ends_at_once_and_leaves_what_a_crash_leaves(
    tmp_path: Path, again: signal.Signals
) -> None:
    async with hanging(tmp_path) as place:
        process = place.processes["run"]
        process.send_signal(signal.SIGTERM)
        await until(lambda: is_stopping(place))
        began = time.monotonic()
        process.send_signal(again)
        assert await asyncio.to_thread(process.wait, 10) == -again
        assert time.monotonic() - began < AT_ONCE_S
        assert len(rows(place)) > 0


async def is_stopping(place: House) -> str | None:
    lines = (place.directory / "run.log").read_text().splitlines()
    heard = any(json.loads(line)["event"] == "stopping" for line in lines)
    return None if heard else "it did not hear"


@asynccontextmanager
async def black_hole() -> AsyncIterator[int]:
    """The port of a server that takes what comes and never answers."""
    held: set[asyncio.StreamWriter] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.add(writer)
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in held:
            writer.close()


@pytest.mark.parametrize("unreachable", ["queue", "lake"])
async def test_it_ends_in_time_though_it_could_never_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreachable: str
) -> None:
    use_credentials(monkeypatch)
    names = [name for name in COMMANDS if unreachable == "queue" or name != "receive"]
    async with black_hole() as port:
        environment = {
            "GROUNDWIRE_LAKE_ENDPOINT": f"http://127.0.0.1:{port}",
            "GROUNDWIRE_HTTP__LISTEN": "127.0.0.1:0",
        }
        queue = f"amqp://guest:guest@127.0.0.1:{port}/" if unreachable == "queue" else None
        async with house(
            tmp_path,
            DirectoryStore(tmp_path / "lake"),
            queue=queue,
            lake="s3://lake/nowhere",
            environment=environment,
        ) as place:
            place.environment = {**place.environment, "GROUNDWIRE_HTTP__LISTEN": "127.0.0.1:0"}
            for name in names:
                place.start(name, *COMMANDS[name])
            await until(lambda: all_began(place, names))
            await asyncio.gather(*(stopped_in_time(place, name) for name in names))


async def all_began(place: House, names: list[str]) -> str | None:
    logs = {name: (place.directory / f"{name}.log").read_text() for name in names}
    silent = [name for name, text in logs.items() if '"listening"' not in text]
    return f"{silent} have not begun" if silent else None
