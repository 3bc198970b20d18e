"""An installation that an older release left in the middle of work, unpacked, and the platforms as
they were then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp

from consumer.demo.script import Cast
from consumer.log.read import published, read_bundle
from consumer.log.tiles import WIDTH
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, free_port, until
from tests.samples.releases import story
from tests.servers_rabbitmq import RabbitServer

ARCHIVES = sorted((Path(__file__).parents[1] / "samples" / "releases").glob("*.tar.xz"))
HERE = b"@HERE@"
DUE_S = 2.0  # what waits for another try is due so soon after we began
LEASE_S = 25.0  # what the killed process still has of its leases


@dataclass
class Release:
    """The folder as the release left it, and the house that goes on in it."""

    place: House
    entries: list[bytes]  # of the log, as the release wrote them
    cursors: dict[str, dict[str, Any]]
    pointers: dict[str, dict[str, Any]]  # by task
    told: dict[str, Any]  # rabbitmq.json

    @property
    def cast(self) -> Cast:
        return self.place.cast

    def tasks(self) -> dict[str, tuple[str | None, bool]]:
        """Where every task of both platforms stands, and whether that is the ground truth."""
        redbrick, labelbox = self.cast.redbrick, self.cast.labelbox
        held = redbrick.projects[redbrick.project_id].tasks.values()
        found = {one.task_id: (one.stage, one.stage == "END") for one in held}
        return found | {row.id: (row.stage, row.stage == "Done") for row in labelbox.rows.values()}

    async def differs(self, without: Sequence[str] = ()) -> str | None:
        """None when the lake shows what the platforms hold, but for the named tasks."""
        left_out = {self.cast.tasks[name] for name in without}
        held = {task: at for task, at in self.tasks().items() if task not in left_out}
        shown = {
            task: (one["stage"], one["ground_truth"])
            for task, one in pointers_of(self.place.directory).items()
            if one["change"] != "deleted" and task not in left_out
        }
        wrong = {task for task in held | shown if held.get(task) != shown.get(task)}
        return f"{sorted(wrong)} differ" if wrong else None

    async def followed(self) -> str | None:
        """None when every follower has seen each move, and each decision was told."""
        log = await self.place.log()
        last = max(i for i, one in enumerate(log) if one["kind"] == "lake")
        for name, cursor in cursors_of(self.place.directory).items():
            if cursor["next"] <= last:
                return f"{name} is at {cursor['next']} of {last}"
        count = Counter(one["kind"] for one in log)
        return None if count["triggered"] == count["decided"] else "a decision was not told"

    async def waits(self) -> str | None:
        """None when nothing is in any lane."""
        url = f"http://{self.place.environment['GROUNDWIRE_ADMIN__LISTEN']}/metrics"
        async with self.place.session.get(url) as got:
            lines = (await got.text()).splitlines()
        held = [one for one in lines if one.startswith("groundwire_queue_messages")]
        left = [one for one in held if float(one.rpartition(" ")[2])]
        return f"{left} are left" if left or not held else None

    async def settled(self, without: Sequence[str] = ()) -> None:
        for check in (self.waits, lambda: self.differs(without), self.followed):
            await until(check)


@contextlib.asynccontextmanager
async def release(archive: Path, folder: Path) -> AsyncIterator[Release]:
    """Unpacked as if it had been stopped a moment ago; nothing runs yet."""
    unpack(archive, folder)
    stage = story.Stage()
    admin, hooks = free_port(), free_port()
    async with (
        served(stage.cast.redbrick.serve, story.REDBRICK),
        served(stage.cast.labelbox.serve, story.LABELBOX),
        aiohttp.ClientSession() as session,
    ):
        for act in story.ACTS:
            stage.play(act)
        stage.cast.redbrick.take_webhooks()
        stage.cast.labelbox.outbox.clear()
        place = House(
            directory=folder,
            cast=stage.cast,
            environment={
                **os.environ,
                "GROUNDWIRE_HTTP__LISTEN": f"127.0.0.1:{hooks}",
                "GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{admin}",
                "GROUNDWIRE_EXPORT__DELETION_CONFIRMED_AFTER_S": "0",
                "GROUNDWIRE_RETRY__BASE_S": "0.5",
                "GROUNDWIRE_WORK__CONCURRENCY": "1",  # no task is fetched twice at once
                "GROUNDWIRE_SWEEP__EVERY_S": "0",  # what is not in the queue is not looked for
            },
            store=DirectoryStore(folder / "lake"),
            session=session,
            hooks_port=hooks,
            configuration=folder / "groundwire.toml",
        )
        try:
            yield Release(
                place,
                await raw_entries(place),
                cursors_of(folder),
                pointers_of(folder),
                json.loads((folder / "rabbitmq.json").read_text()),
            )
        finally:
            for process in place.processes.values():
                process.kill()
                process.wait()


@contextlib.asynccontextmanager
async def served(serve: Any, address: tuple[str, int]) -> AsyncIterator[str]:
    """At the very address that the lake knows, as soon as nobody else is tested there."""
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(60.0):
            while True:
                with contextlib.suppress(OSError):
                    url = await stack.enter_async_context(serve(*address))
                    break
                await asyncio.sleep(0.1)
        yield url


def unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    for path in folder.rglob("*"):
        if path.is_file() and HERE in (data := path.read_bytes()):
            path.write_bytes(data.replace(HERE, str(folder).encode()))
    shutil.copy(next(folder.glob("log-index-*.db")), folder / "run-index.db")  # as houses call it
    now = time.time()
    with contextlib.closing(sqlite3.connect(folder / "queue.db")) as db, db:
        stopped = json.loads((folder / "rabbitmq.json").read_text())["stopped_at"]
        db.execute("UPDATE messages SET due_at = ? WHERE due_at > ?", (now + DUE_S, stopped))
        db.execute("UPDATE messages SET leased_until = ? WHERE token IS NOT NULL", (now + LEASE_S,))


async def raw_entries(place: House) -> list[bytes]:
    """The bytes of the log's entries."""
    head = await published(place.store)
    size = head.size if head else 0
    bundles = range(-(-size // WIDTH))
    return [raw for number in bundles for raw in await read_bundle(place.store, number, size)]


def cursors_of(folder: Path) -> dict[str, dict[str, Any]]:
    files = (folder / "lake" / "followers").glob("*.json")
    return {one.stem: json.loads(one.read_text()) for one in files}


def pointers_of(folder: Path) -> dict[str, dict[str, Any]]:
    files = (folder / "lake").glob("*/tasks/*/current.json")
    return {one.parent.name: json.loads(one.read_text()) for one in files}


@contextlib.asynccontextmanager
async def laid_out(server: RabbitServer, told: dict[str, Any]) -> AsyncIterator[str]:
    """The release's queues with its messages in them; the prefix of their names."""
    names = [one["name"] for one in told["queues"]]
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        for one in told["queues"]:
            await channel.declare_queue(one["name"], durable=True, arguments=one["arguments"])
        for one in told["messages"]:
            message = aio_pika.Message(
                one["body"].encode(),
                headers=one["headers"],
                message_id=one["message_id"],
                content_type=one["content_type"],
                delivery_mode=one["delivery_mode"],
                timestamp=one["timestamp"],
            )
            await channel.default_exchange.publish(message, one["queue"], mandatory=True)
        try:
            yield names[0].split(".")[0]
        finally:
            for name in names:
                await channel.queue_delete(name)
