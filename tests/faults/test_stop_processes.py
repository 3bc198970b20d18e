"""Real processes that are told to stop at any moment of their work end in time, and nothing that
was answered 202 is lost: it is in the queue or in the log, and is worked off by who comes next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from consumer.demo.redbrick import Fault, Kind
from consumer.demo.script import Post
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house, until
from tests.end_to_end.sending import Careful, Sender
from tests.end_to_end.stopping import stopped_in_time
from tests.seeds import seeds
from tests.servers_rabbitmq import RabbitServer

pytestmark = pytest.mark.chaos

ALONE = {"run": ("run",)}
MANY = {
    "receive": ("receive",),
    "export": ("work", "export"),
    "audit": ("work", "audit"),
    "follow": ("follow",),
}


@dataclass
class Stopping:
    """One installation whose processes are stopped and started again."""

    place: House
    commands: dict[str, tuple[str, ...]]
    chance: random.Random
    crowd: Careful
    sender: Sender
    ended_s: dict[str, float] = field(default_factory=dict)  # the longest that each part took

    async def start(self) -> None:
        for name, command in self.commands.items():
            (self.place.directory / f"{name}.log").unlink(missing_ok=True)
            self.place.start(name, *command)
        await self.place.listening(within_s=90)
        await until(self._listens, within_s=90)  # what only begins ends by the signal itself

    async def _listens(self) -> str | None:
        logs = {name: self.place.directory / f"{name}.log" for name in self.commands}
        silent = [name for name, log in logs.items() if '"listening"' not in log.read_text()]
        said = [logs[name].read_text()[-500:] for name in silent]
        return f"{silent} do not listen: {said}" if silent else None

    async def stop(self, *names: str) -> None:
        """All of these at once; each has ended well and in time."""

        async def one(name: str) -> None:
            took = await stopped_in_time(self.place, name)
            self.ended_s[name] = max(took, self.ended_s.get(name, 0.0))

        await asyncio.gather(*(one(name) for name in names or self.commands))

    async def under_load(self) -> list[Post]:
        """People work until the receiver has gone, which happens at some moment; what the
        platform told and was not answered for."""
        stopping = asyncio.create_task(self._stop_some_time())
        left: list[Post] = []
        while not left:
            left = await self.sender.unanswered(self.turn())
        await stopping
        return left

    def turn(self) -> list[Post]:
        self.crowd.turn(new=2, busy=4)
        posts = self.place.webhooks()
        self.chance.shuffle(posts)
        return posts

    async def _stop_some_time(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, 1.5))
        if self.chance.random() < 0.5:  # somebody asks the platform just then
            operation = self.chance.choice(["taskSDK", "file GET"])
            self.crowd.redbrick.faults.add(operation, Fault(Kind.HANG), times=2)
            await asyncio.sleep(self.chance.uniform(0.0, 0.3))
        await self.stop()
        self.crowd.redbrick.faults.clear()

    async def log(self) -> list[dict[str, object]]:
        return await self.place.log()

    async def is_done(self) -> str | None:
        """None when the lake is what the platform holds, and each answered body has its receipts
        in the log."""
        if said := await self.crowd.exported(self.crowd.tasks):
            return said
        told = {one.get("body_sha256") for one in await self.log() if one["kind"] == "receipt"}
        missing = self.sender.answered - told
        return f"{len(missing)} receipts are missing" if missing else None

    async def nothing_went_wrong(self) -> None:
        log = await self.log()
        # A stop is nobody's failure.
        assert [one for one in log if one["kind"] in ("failed", "buried", "dropped")] == []
        twice = [name for name, times in Counter(one["id"] for one in log).items() if times > 1]
        assert twice == []
        verified = await self.place.run("verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr


@contextlib.asynccontextmanager
async def stopping(
    seed: int, folder: Path, commands: dict[str, tuple[str, ...]], queue: str | None = None
) -> AsyncIterator[Stopping]:
    chance = random.Random(seed)
    environment = {"GROUNDWIRE_EXPORT__DELETION_CONFIRMED_AFTER_S": "0"}
    async with house(
        folder,
        DirectoryStore(folder / "lake"),
        queue=queue,
        environment=environment,
        seed=f"stopping {seed}",
    ) as place:
        sender = Sender(place.session, [place.hooks_port])
        yield Stopping(place, commands, chance, Careful(place, chance), sender)


async def a_stop_loses_nothing(one: Stopping) -> None:
    await one.start()
    left = await one.under_load()
    assert one.sender.answered
    if "run" in one.commands:
        await everything_answered_is_kept(one)
    await one.start()
    while left:
        left = await one.sender.unanswered(left)
    await until(one.is_done, within_s=90)
    await one.stop()
    await one.nothing_went_wrong()


async def everything_answered_is_kept(one: Stopping) -> None:
    """With nobody there: in the queue's file, or in the log. And nothing is leased any more."""
    log = await one.log()
    told = {entry.get("body_sha256") for entry in log if entry["kind"] == "receipt"}
    with contextlib.closing(sqlite3.connect(one.place.directory / "queue.db")) as db:
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM messages")]
        leased = db.execute("SELECT count(*) FROM messages WHERE token IS NOT NULL").fetchone()[0]
    assert one.sender.answered <= told | {body.get("body_sha256") for body in bodies}
    assert leased == 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", seeds(0.05))
async def test_on_sqlite_a_stop_under_load_loses_nothing_and_ends_in_time(
    seed: int, tmp_path: Path
) -> None:
    async with stopping(seed, tmp_path, ALONE) as one:
        await a_stop_loses_nothing(one)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", seeds(0.05))
async def test_on_rabbitmq_a_stop_under_load_loses_nothing_and_ends_in_time(
    seed: int, tmp_path: Path, rabbitmq_server: RabbitServer
) -> None:
    async with stopping(seed, tmp_path, MANY, rabbitmq_server.url) as one:
        await a_stop_loses_nothing(one)
