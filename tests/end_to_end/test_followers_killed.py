"""Followers are killed again and again while people work: at the end each of them has what a replay
of the log from its beginning gives, nothing lost and nothing doubled."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from consumer.changes import TaskChange
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from tests.end_to_end.followers import (
    FOLLOWING,
    Crowd,
    Trainer,
    Truth,
    configure,
    every_decision_was_told_once,
    everything_is_followed,
    no_follower_complained,
    nothing_is_left_over,
    place_followers,
    reading,
    the_mirror_is_a_plain_pull,
    the_table_is_one_built_anew,
    trainer,
)
from tests.end_to_end.house import House, free_port, house, until
from tests.exchange_rabbitmq import arrived, exchange_house, ids
from tests.servers_rabbitmq import RabbitServer
from tests.servers_s3 import ACCESS_KEY, SECRET_KEY, S3Server, use_credentials

pytestmark = pytest.mark.chaos

SEED = 4
WITHIN_S = 90.0  # on a machine that has other things to do
MOMENT_S = 1.5  # after a process was seen to work, it is killed within this time


@dataclass
class Chaos:
    """Processes that follow, and what happens to them. The one called ``first`` has the stream,
    always at the same address."""

    place: House
    command: str
    chance: random.Random
    kills: int = 0
    seen: dict[str, bytes] = field(default_factory=dict)  # cursors, when the last process began
    running: list[str] = field(default_factory=list)

    async def start(self, name: str) -> None:
        self.seen = await self.cursors()
        fixed = self.place.environment
        if name != "first":
            self.place.environment = {**fixed, "GROUNDWIRE_ADMIN__LISTEN": "127.0.0.1:0"}
        self.place.start(name, self.command)
        self.place.environment = fixed
        self.running.append(name)

    async def kill(self, *names: str, working: asyncio.Task[None]) -> None:
        """At some moment after they have done something."""
        await until(self.moved, within_s=WITHIN_S)
        await asyncio.wait({working}, timeout=self.chance.uniform(0.0, MOMENT_S))
        for name in names:
            self.place.kill(name)
            self.running.remove(name)
            self.kills += 1

    def signal(self, name: str, which: signal.Signals) -> None:
        os.kill(self.place.processes[name].pid, which)

    async def cursors(self) -> dict[str, bytes]:
        found = {}
        for name in place_followers(self.place):
            stored = await self.place.store.read(f"followers/{name}.json")
            found[name] = stored.data if stored else b""
        return found

    async def moved(self) -> str | None:
        now = await self.cursors()
        if any(data != self.seen.get(name, b"") for name, data in now.items()):
            return None
        return f"nothing was followed since {self.running} began"

    async def all_moved(self, before: dict[str, bytes]) -> str | None:
        now = await self.cursors()
        idle = [name for name, data in now.items() if data == before[name]]
        return f"{idle} did nothing" if idle else None

    async def again(self, working: asyncio.Task[None]) -> None:
        await self.kill("first", working=working)
        await self.start("first")

    async def both_again(self, working: asyncio.Task[None]) -> None:
        await self.kill("first", "second", working=working)
        await self.start("second")
        await self.start("first")

    async def second_goes(self, working: asyncio.Task[None]) -> None:
        await self.kill("second", working=working)

    async def first_sleeps(self, working: asyncio.Task[None]) -> None:
        """It is stopped wherever it is, and another one takes its work over."""
        await until(self.moved, within_s=WITHIN_S)
        await asyncio.wait({working}, timeout=self.chance.uniform(0.0, MOMENT_S))
        self.signal("first", signal.SIGSTOP)
        before = await self.cursors()
        await self.start("second")
        await until(lambda: self.all_moved(before), within_s=WITHIN_S)

    async def first_wakes(self, working: asyncio.Task[None]) -> None:
        """It does not know that it slept."""
        self.signal("first", signal.SIGCONT)


async def work(crowd: Crowd, *, new: int, busy: int) -> None:
    """One turn, until the lake shows it."""
    tasks = crowd.turn(new, busy)
    await crowd.tell()
    await until(lambda: crowd.exported(tasks), within_s=WITHIN_S)


async def last_words(crowd: Crowd) -> None:
    """One more task becomes ground truth, so that a last decision is due."""
    task = crowd.come()
    crowd.redbrick.label(task, crowd.drawn())
    for _ in range(2):
        crowd.redbrick.approve(task)
    await crowd.tell()
    await until(lambda: crowd.exported([task]), within_s=WITHIN_S)


async def the_reader_has_every_change_once(place: House, came: list[TaskChange]) -> int:
    expected = (await Truth.read(place.store)).changes()

    async def complete() -> str | None:
        return None if len(came) >= len(expected) else f"{len(came)} of {len(expected)} came"

    await until(complete, within_s=WITHIN_S)
    assert came == expected
    assert {one.ground_truth for one in came} == {"added", "changed", "removed"}
    return len(came)


async def compare(place: House, told: Trainer, *, slept: bool = False) -> dict[str, int]:
    measured = {
        "files": await the_mirror_is_a_plain_pull(place),
        "rows": await the_table_is_one_built_anew(place, place.directory / "tables"),
        "decisions": await every_decision_was_told_once(place, told),
        "told": told.times,
    }
    await no_follower_complained(place, slept=slept)
    await nothing_is_left_over(place)
    return measured


def settings(folder: Path, **more: str) -> dict[str, str]:
    temporary = folder / "temporary"
    temporary.mkdir()
    return {**FOLLOWING, "TMPDIR": str(temporary), **more}


@pytest.mark.timeout(400)
async def test_on_rabbitmq_and_s3_followers_lose_nothing_and_double_nothing(
    tmp_path: Path,
    rabbitmq_server: RabbitServer,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_credentials(monkeypatch)
    prefix = s3_server.new_prefix()
    store = S3Store(s3_server.bucket, prefix, endpoint=s3_server.endpoint)
    async with trainer(SEED) as told, exchange_house(rabbitmq_server) as broker:
        listen = f"127.0.0.1:{free_port()}"
        environment = settings(
            tmp_path,
            AWS_ACCESS_KEY_ID=ACCESS_KEY,
            AWS_SECRET_ACCESS_KEY=SECRET_KEY,
            GROUNDWIRE_LAKE_ENDPOINT=s3_server.endpoint,
            GROUNDWIRE_FOLLOW__RELAY="true",
            GROUNDWIRE_RELAY__EXCHANGE=broker.name,
        )
        await broker.declare()
        everything = await broker.bound("redbrick.#")
        async with house(
            tmp_path,
            store,
            queue=rabbitmq_server.url,
            lake=f"s3://{s3_server.bucket}/{prefix}",
            environment=environment,
        ) as place:
            configure(place, told)
            place.start("receive", "receive")
            place.start("export", "work", "export")
            place.start("audit", "work", "audit")
            await place.listening(within_s=WITHIN_S)
            place.environment = {**place.environment, "GROUNDWIRE_ADMIN__LISTEN": listen}
            chaos = Chaos(place, "follow", random.Random(SEED))
            await chaos.start("first")
            came: list[TaskChange] = []
            reader = asyncio.create_task(reading(f"http://{listen}", came))
            crowd = Crowd(place, random.Random(SEED))
            for happening in (
                chaos.again,
                chaos.first_sleeps,
                chaos.first_wakes,
                chaos.both_again,
                chaos.second_goes,
            ):
                working = asyncio.create_task(work(crowd, new=3, busy=7))
                await happening(working)
                await working
            await last_words(crowd)
            await until(partial(everything_is_followed, place), within_s=WITHIN_S)
            changes = await the_reader_has_every_change_once(place, came)
            reader.cancel()
            for name in ("receive", "export", "first", "audit"):
                assert await place.stop(name) == 0, name
            messages = ids(await arrived(everything))
            expected = [one.index for one in (await Truth.read(store)).changes()]
            assert list(dict.fromkeys(messages)) == expected
            assert chaos.kills == 4
            measured = await compare(place, told, slept=True)
            measured |= {"changes": changes, "relayed": len(messages), "kills": chaos.kills}
            logging.getLogger(__name__).info("%s", measured)


@pytest.mark.timeout(400)
async def test_embedded_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    """The whole process is killed: who receives, exports and logs dies with those who follow."""
    store = DirectoryStore(tmp_path / "lake")
    listen = f"127.0.0.1:{free_port()}"
    environment = settings(tmp_path, GROUNDWIRE_ADMIN__LISTEN=listen)
    async with trainer(SEED) as told, house(tmp_path, store, environment=environment) as place:
        configure(place, told)
        chaos = Chaos(place, "run", random.Random(SEED))
        await chaos.start("first")
        await place.listening(within_s=WITHIN_S)
        came: list[TaskChange] = []
        reader = asyncio.create_task(reading(f"http://{listen}", came))
        crowd = Crowd(place, random.Random(SEED))
        for happening in [chaos.again] * 2:
            working = asyncio.create_task(work(crowd, new=4, busy=6))
            await happening(working)
            await working
        await last_words(crowd)
        await until(partial(everything_is_followed, place), within_s=WITHIN_S)
        changes = await the_reader_has_every_change_once(place, came)
        reader.cancel()
        assert await place.stop("first") == 0
        measured = await compare(place, told)
        measured |= {"changes": changes, "kills": chaos.kills}
        logging.getLogger(__name__).info("%s", measured)
