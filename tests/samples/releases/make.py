"""Writes a fixture of a release: what its processes leave in a lake, a log and a queue when they
are stopped or killed in the middle of work. See README.md here for how to run it.

It runs on the release's own code, which `PYTHONPATH` names, and touches nothing but a temporary
folder and the archive that it writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import story

from consumer.app_adapters import LANES
from consumer.demo.configuration import write_configuration
from consumer.demo.redbrick import Fault, Kind, status
from consumer.model import Failure, decode
from consumer.queues.body import readable
from consumer.queues.rabbitmq import RabbitQueue
from consumer.queues.topology import STEPS_S, lane_topology
from tests.servers_rabbitmq import rabbitmq

HERE = "@HERE@"  # stands for the folder, wherever it is unpacked
PREFIX = "groundwire-release"
WITHIN_S = 60.0
ASKS = "taskSDK"  # how RedBrick is asked for tasks
LEFT = ("groundwire_queue_messages", "groundwire_follower_behind_entries")


@dataclass
class Making:
    """One installation of the release."""

    folder: Path
    stage: story.Stage
    session: aiohttp.ClientSession
    configuration: Path
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    async def start(self, *command: str) -> None:
        """Until it listens."""
        name = "-".join(command)
        output = self.folder.parent / f"{name}.log"
        output.unlink(missing_ok=True)
        with output.open("wb") as file:
            self.processes[name] = subprocess.Popen(  # noqa: ASYNC220  - returns at once
                [sys.executable, "-m", "consumer.cli", *command, "-c", str(self.configuration)],
                env=self.environment, cwd=self.folder, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wanted = {"hooks", "admin"} if command[0] in ("run", "receive") else {"admin"}

        def listens() -> bool:
            for line in output.read_text().splitlines():
                said = json.loads(line)
                if said.get("event") == "listening":
                    self.addresses[said["what"]] = said["address"]
                    wanted.discard(said["what"])
            return not wanted

        await until(f"{name} listens", listens)

    async def stop(self, *command: str) -> None:
        process = self.processes.pop("-".join(command))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0

    def kill(self, *command: str) -> None:
        process = self.processes.pop("-".join(command))
        process.kill()
        process.wait()

    async def told(self) -> None:
        """What the platforms have to tell is accepted."""
        cast = self.stage.cast
        posts = [
            ("redbrick", {}, json.dumps(body).encode(), {"token": cast.token})
            for body in cast.redbrick.take_webhooks()
        ]
        posts += [("labelbox", dict(h), body, {}) for h, body in cast.labelbox.outbox]
        cast.labelbox.outbox.clear()
        for source, headers, body, query in posts:
            url = f"http://{self.addresses['hooks']}/hooks/{source}"
            async with self.session.post(url, data=body, headers=headers, params=query) as got:
                assert got.status == 202, await got.text()

    async def is_settled(self) -> bool:
        """The log tells of a training, and nothing is left to do."""
        async with self.session.get(f"http://{self.addresses['admin']}/metrics") as got:
            lines = (await got.text()).splitlines()
        left = [line for line in lines if line.startswith(LEFT)]
        trained = any(self.folder.glob("lake/snapshots/**/*.json"))
        return trained and all(float(line.rpartition(" ")[2]) == 0 for line in left)

    def rows(self, where: str) -> int:
        with contextlib.closing(sqlite3.connect(self.folder / "queue.db")) as db:
            query = f"SELECT count(*) FROM messages WHERE lane = 'export' AND {where}"  # noqa: S608
            return int(db.execute(query).fetchone()[0])

    async def command(self, *command: str) -> None:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "consumer.cli", *command, "-c", str(self.configuration)],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


async def until(what: str, check: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while True:
        found = check()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def making(folder: Path) -> AsyncIterator[Making]:
    stage = story.Stage()
    cast = stage.cast
    async with (
        cast.redbrick.serve(*story.REDBRICK) as redbrick_url,
        cast.labelbox.serve(*story.LABELBOX) as labelbox_url,
        aiohttp.ClientSession() as session,
    ):
        configuration = write_configuration(
            folder, cast, redbrick_url, labelbox_url, queue=None, lake=None, training=True
        )
        environment = {
            **os.environ,
            "GROUNDWIRE_EXPORT__DELETION_CONFIRMED_AFTER_S": "0",
        }
        made = Making(folder, stage, session, configuration, environment)
        try:
            yield made
        finally:
            for process in made.processes.values():
                process.kill()
                process.wait()


async def live(place: Making) -> None:
    """The story, until the release is gone in the middle of it."""
    play, redbrick = place.stage.play, place.stage.cast.redbrick
    await place.start("run")
    for act in (story.opening, story.sent_back):
        play(act)
        await place.told()
        await until("it is settled", place.is_settled)
    await place.command("snapshot", "create", "kept")
    await place.stop("run")

    await place.start("receive")
    play(story.exported_unlogged)
    await place.told()
    await place.start("work", "export")
    await until("it is exported", lambda: place.rows("1") == 0)
    await place.stop("work", "export")

    play(story.tried_in_vain)
    await place.told()
    redbrick.faults.add(ASKS, status(503), times=100)
    place.environment["GROUNDWIRE_RETRY__BASE_S"] = "60"  # they still wait at the end
    await place.start("work", "export")
    await until("retries wait", lambda: place.rows("attempt = 1") == 0)
    await place.stop("work", "export")

    play(story.died_over)
    await place.told()
    redbrick.faults.clear()
    redbrick.faults.add(ASKS, Fault(Kind.HANG), times=100)
    await place.start("work", "export")
    await until("the new ones are leased", lambda: place.rows("attempt = 1 AND token IS NULL") == 0)
    place.kill("work", "export")
    redbrick.faults.clear()

    play(story.left_waiting)
    await place.told()
    await place.stop("receive")


def queued(folder: Path) -> tuple[list[Any], dict[str, Failure], dict[str, Failure]]:
    """All messages; those of the lane export that wait for another try, and that are dead."""
    with contextlib.closing(sqlite3.connect(folder / "queue.db")) as db:
        rows = db.execute("SELECT id, body, failure, lane FROM messages ORDER BY seq").fetchall()
        dead = db.execute("SELECT id, body, failure, lane FROM dead ORDER BY seq").fetchall()
    bodies = {name: body for name, body, _, _ in [*rows, *dead]}
    again = {n: decode(f, Failure) for n, _, f, lane in rows if f and lane == "export"}
    given_up = {n: decode(f, Failure) for n, _, f, lane in dead if lane == "export"}
    return [readable(body) for body in bodies.values()], again, given_up


async def on_rabbitmq(folder: Path) -> dict[str, Any]:
    """The same messages as the release lays them onto RabbitMQ: queues, bodies, headers."""
    messages, again, given_up = queued(folder)
    lanes = {lane.name: lane for lane in LANES}
    with rabbitmq() as server:
        queue = RabbitQueue(server.url, LANES, prefix=PREFIX)
        await queue.open()
        await queue.put(messages)
        wanted = {**again, **given_up}
        while wanted:
            for lease in await queue.take(lanes["export"]):
                failure = wanted.pop(lease.message.id, None)
                if failure is not None and lease.message.id in given_up:
                    await lease.bury(failure)
                elif failure is not None:
                    await lease.retry(STEPS_S[2], failure)
        await queue.close()
        topologies = [lane_topology(PREFIX, lane, STEPS_S) for lane in LANES]
        specs = [spec for one in topologies for spec in one.queues()]
        async with await aio_pika.connect(server.url) as connection:
            channel = await connection.channel()
            # What waits is read first: it goes on after 5 s.
            names = sorted((spec.name for spec in specs), key=lambda name: ".wait." not in name)
            held = [one for name in names for one in await taken(channel, name)]
        return {
            "queues": [{"name": s.name, "arguments": dict(s.arguments)} for s in specs],
            "messages": held,
        }


async def taken(channel: aio_pika.abc.AbstractChannel, name: str) -> list[dict[str, Any]]:
    """By a consumer, as a queue with a single active one gives nothing otherwise."""
    queue = await channel.declare_queue(name, passive=True)
    wanted = queue.declaration_result.message_count or 0
    arrived: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
    tag = await queue.consume(arrived.put, no_ack=True)
    messages = [await asyncio.wait_for(arrived.get(), WITHIN_S) for _ in range(wanted)]
    await queue.cancel(tag)
    return [
        {
            "queue": name,
            "body": message.body.decode(),
            "headers": dict(message.headers),
            "message_id": message.message_id,
            "content_type": message.content_type,
            "delivery_mode": int(message.delivery_mode or 1),
            "timestamp": message.timestamp.timestamp() if message.timestamp else None,
        }
        for message in messages
    ]


def pack(folder: Path, archive: Path) -> None:
    """Nothing in it names the folder that it was made in: the configuration and the table's first
    commit say ``HERE`` instead."""
    for path in folder.rglob("*"):
        if path.is_file() and str(folder).encode() in path.read_bytes():
            path.write_text(path.read_text(encoding="utf-8").replace(str(folder), HERE))
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(folder, arcname=".", filter=_anybodys)


def _anybodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


async def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "release"
        folder.mkdir()
        async with making(folder) as place:
            await live(place)
        told = {"stopped_at": time.time(), **await on_rabbitmq(folder)}
        (folder / "rabbitmq.json").write_text(json.dumps(told, indent=1, sort_keys=True))
        pack(folder, archive)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).absolute()))
