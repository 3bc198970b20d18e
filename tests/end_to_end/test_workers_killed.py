"""Exporters and auditors are killed, and stopped until the broker has given their work to others,
while people work: nothing is lost, nothing doubled, no pointer goes back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from consumer.demo.redbrick import Drawing, Instance, SeriesSpec
from consumer.stores.s3 import S3Store
from tests.end_to_end.house import House, house, until
from tests.end_to_end.test_crowd import Agreement, check_the_end, everything_is_logged, shuffled
from tests.seeds import seeds
from tests.servers_rabbitmq import RabbitServer
from tests.servers_s3 import ACCESS_KEY, SECRET_KEY, S3Server, use_credentials

pytestmark = pytest.mark.chaos

WITHIN_S = 60.0  # on a machine that has other things to do
EXPORTERS = ("export-1", "export-2")
AUDITORS = ("audit-1", "audit-2")
TASKS_OF_A_TURN = 6


@dataclass
class Workers:
    """Two of each lane; some sleep."""

    place: House
    broker: RabbitServer
    lot: random.Random
    asleep: list[str] = field(default_factory=list)

    def start(self, name: str) -> None:
        self.place.start(name, "work", name.partition("-")[0])

    def signal(self, name: str, which: signal.Signals) -> None:
        os.kill(self.place.processes[name].pid, which)

    async def one_is_killed(self) -> None:
        name = self.lot.choice([*EXPORTERS, *AUDITORS])
        if name in self.asleep:
            self.asleep.remove(name)
        self.place.kill(name)
        self.start(name)

    async def one_falls_asleep(self) -> None:
        """Its connection is closed meanwhile, so that its work is given to the other."""
        pairs = [one for one in (EXPORTERS, AUDITORS) if not set(one) & set(self.asleep)]
        name = self.lot.choice(self.lot.choice(pairs))
        self.signal(name, signal.SIGSTOP)
        self.asleep.append(name)
        await asyncio.to_thread(self.broker.control, "close_all_connections", "asleep")

    async def one_wakes(self) -> None:
        if self.asleep:
            self.signal(self.asleep.pop(0), signal.SIGCONT)


async def turn(place: House, number: int, happening: Callable[[], Awaitable[None]]) -> None:
    """New tasks come, older ones are approved, sent back and resubmitted, in disorder."""
    redbrick, tasks = place.cast.redbrick, place.cast.tasks
    for n in range(TASKS_OF_A_TURN):
        name = f"task-{number}-{n}"
        tasks[name] = redbrick.create_task(name, [SeriesSpec(name="ct", dimensions=(8, 6, 4))])
        redbrick.label(tasks[name], [Drawing(0)])
    for n, (name, task) in enumerate(tasks.items()):
        if name.startswith(f"task-{number - 1}-"):
            redbrick.approve(task)
            redbrick.approve(task, by="dora")
            if n % 2:
                redbrick.move(task, "Label")
                redbrick.label(task, [Drawing(0, (Instance(2),))])  # a resubmission
    posting = asyncio.ensure_future(place.post_all(shuffled(place.webhooks(), number)))
    await happening()
    await posting


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", seeds(0.05))
async def test_workers_that_die_and_sleep_lose_nothing_and_double_nothing(
    seed: int,
    tmp_path: Path,
    rabbitmq_server: RabbitServer,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_credentials(monkeypatch)
    prefix = s3_server.new_prefix()
    store = S3Store(s3_server.bucket, prefix, endpoint=s3_server.endpoint)
    async with house(
        tmp_path,
        store,
        queue=rabbitmq_server.url,
        lake=f"s3://{s3_server.bucket}/{prefix}",
        environment={
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "GROUNDWIRE_LAKE_ENDPOINT": s3_server.endpoint,
        },
        seed=f"workers-{seed}",
    ) as place:
        place.start("receive", "receive")
        workers = Workers(place, rabbitmq_server, random.Random(seed))
        for name in (*EXPORTERS, *AUDITORS):
            workers.start(name)
        await place.listening(within_s=WITHIN_S)
        happenings = (
            workers.one_falls_asleep,
            workers.one_is_killed,
            workers.one_falls_asleep,
            workers.one_wakes,
        )
        for number, happening in enumerate(happenings):
            await turn(place, number, happening)
        await until(Agreement(place), within_s=WITHIN_S)
        await until(lambda: everything_is_logged(place), within_s=WITHIN_S)
        while workers.asleep:  # after everything was done without them
            await workers.one_wakes()
        for name in (*EXPORTERS, *AUDITORS):
            assert await place.stop(name) == 0, name
        await check_the_end(place)
