"""Every part is restarted, one after the other, while people work: on RabbitMQ and S3, with two
receivers behind whoever balances the load, two exporters, one auditor, one that follows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from consumer.demo.script import Post
from consumer.stores.s3 import S3Store
from tests.end_to_end.followers import (
    FOLLOWING,
    the_mirror_is_a_plain_pull,
    the_table_is_one_built_anew,
)
from tests.end_to_end.house import House, free_port, house, until
from tests.end_to_end.sending import Careful, Sender
from tests.end_to_end.stopping import stopped_in_time
from tests.seeds import seeds
from tests.servers_rabbitmq import RabbitServer
from tests.servers_s3 import ACCESS_KEY, SECRET_KEY, S3Server, use_credentials

pytestmark = pytest.mark.chaos

WITHIN_S = 120.0  # on a machine that has other things to do
LONGEST_S = 20.0  # that a delivery takes, retries included: some receiver is always there
PARTS = {
    "receive-1": ("receive",),
    "receive-2": ("receive",),
    "export-1": ("work", "export"),
    "export-2": ("work", "export"),
    "audit": ("work", "audit"),
    "follow": ("follow",),
}


@dataclass
class Rolling:
    """The parts, each with ports of its own, which it keeps."""

    place: House
    chance: random.Random
    hooks: dict[str, int] = field(default_factory=lambda: {n: free_port() for n in PARTS})
    admin: dict[str, int] = field(default_factory=lambda: {n: free_port() for n in PARTS})
    away_s: dict[str, float] = field(default_factory=dict)  # told to stop until ready again

    def start(self, name: str) -> None:
        shared = self.place.environment
        self.place.environment = {
            **shared,
            "GROUNDWIRE_HTTP__LISTEN": f"127.0.0.1:{self.hooks[name]}",
            "GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{self.admin[name]}",
        }
        self.place.start(name, *PARTS[name])
        self.place.environment = shared

    async def restart(self, name: str) -> None:
        began = time.monotonic()
        await stopped_in_time(self.place, name)
        self.start(name)
        await self.ready(name)
        self.away_s[name] = time.monotonic() - began

    async def ready(self, name: str) -> None:
        async def is_ready() -> str | None:
            with contextlib.suppress(aiohttp.ClientError):
                async with self.place.session.get(
                    f"http://127.0.0.1:{self.admin[name]}/readyz"
                ) as got:
                    return None if got.status == 200 else await got.text()
            return f"{name} does not answer"

        await until(is_ready, within_s=WITHIN_S)

    async def each_once(self) -> None:
        """In two rounds, of any order; of a pair one is always there."""
        chosen = self.chance.sample(["1", "2"], 2)
        single = self.chance.sample(["audit", "follow"], 2)
        for number, alone in zip(chosen, single, strict=True):
            names = [f"receive-{number}", f"export-{number}", alone]
            restarts = [asyncio.create_task(self._later(name)) for name in names]
            await asyncio.gather(*restarts)

    async def _later(self, name: str) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, 1.0))
        await self.restart(name)


async def work(crowd: Careful, sender: Sender, rolling: asyncio.Task[None]) -> None:
    """People work, and platforms tell of it, until the last part was restarted; some of it is told
    twice."""
    while not rolling.done():
        crowd.turn(new=1, busy=3)
        news = crowd.place.webhooks()
        posts: list[Post] = [*news, *news[::3]]
        crowd.chance.shuffle(posts)
        await asyncio.gather(*(sender.until_answered(post) for post in posts))
        await asyncio.wait({rolling}, timeout=0.2)
    await rolling


async def all_is_told(place: House, sender: Sender) -> str | None:
    """None when the log has a receipt of all that was answered; nothing was given up."""
    log = await place.log()
    told = {one.get("body_sha256") for one in log if one["kind"] == "receipt"}
    if missing := sender.answered - told:
        return f"{len(missing)} receipts are missing"
    shown = await place.run("dead", "list")
    assert "no dead letters" in shown.stdout, shown.stdout
    return None


async def nothing_was_lost_or_doubled(place: House) -> None:
    log = await place.log()
    twice = [name for name, times in Counter(one["id"] for one in log).items() if times > 1]
    assert twice == []
    wrong = ("failed", "buried", "dropped", "foreign", "restored")
    assert [one for one in log if one["kind"] in wrong] == []
    verified = await place.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


async def followed(place: House) -> str | None:
    log = await place.log()
    last = max(i for i, one in enumerate(log) if one["kind"] == "lake")
    for name in ("mirror", "table"):
        stored = await place.store.read(f"followers/{name}.json")
        if stored is None or json.loads(stored.data)["next"] <= last:
            return f"{name} has not followed to {last}"
    return None


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", seeds(0.05))
async def test_a_rolling_restart_under_load_loses_nothing_and_shuts_nobody_out(
    seed: int,
    tmp_path: Path,
    rabbitmq_server: RabbitServer,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    use_credentials(monkeypatch)
    chance = random.Random(seed)
    prefix = s3_server.new_prefix()
    (tmp_path / "temporary").mkdir()
    environment = {
        **FOLLOWING,
        "TMPDIR": str(tmp_path / "temporary"),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "GROUNDWIRE_LAKE_ENDPOINT": s3_server.endpoint,
    }
    async with house(
        tmp_path,
        S3Store(s3_server.bucket, prefix, endpoint=s3_server.endpoint),
        queue=rabbitmq_server.url,
        lake=f"s3://{s3_server.bucket}/{prefix}",
        environment=environment,
        seed=f"rolling {seed}",
    ) as place:
        parts = Rolling(place, chance)
        for name in PARTS:
            parts.start(name)
        for name in PARTS:
            await parts.ready(name)
        sender = Sender(place.session, [parts.hooks["receive-1"], parts.hooks["receive-2"]])
        crowd = Careful(place, chance)
        await work(crowd, sender, asyncio.create_task(parts.each_once()))
        await until(lambda: crowd.exported(crowd.tasks), within_s=WITHIN_S)
        await until(lambda: all_is_told(place, sender), within_s=WITHIN_S)
        await until(lambda: followed(place), within_s=WITHIN_S)
        await nothing_was_lost_or_doubled(place)
        await the_mirror_is_a_plain_pull(place)
        await the_table_is_one_built_anew(place, tmp_path / "tables")
    assert sender.worst_s < LONGEST_S
    for what, measured in {"delivery": sender.worst_s, **parts.away_s}.items():
        record_property(f"{what} away, s", round(measured, 1))
    record_property("requests", len(sender.answered))
