"""Webhooks arrive, a policy decides, a target is told: with real processes, killed in between."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from consumer.demo.redbrick import Drawing, Instance, SeriesSpec
from consumer.model import digest
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house, until

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
AT_ONCE = {"GROUNDWIRE_EXPORT__DELETION_CONFIRMED_AFTER_S": "0", "SIGNING": SECRET}


@dataclass
class Trainer:
    """What is told to train: it checks each message as its maker's library does."""

    url: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.told.append(Webhook(SECRET).verify(body, dict(request.headers)))
        self.ids.append(request.headers["webhook-id"])
        await self.answers.wait()
        return web.Response(status=202)


@asynccontextmanager
async def trainer() -> AsyncIterator[Trainer]:
    made = Trainer()
    made.answers.set()
    application = web.Application()
    application.router.add_post("/train", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/train"
    try:
        yield made
    finally:
        await runner.cleanup()


def configure(place: House, trainer: Trainer, command: Path) -> None:
    place.configuration.write_text(
        place.configuration.read_text()
        + f"""
[retrain.told]
min_changes = 2
[retrain.told.target]
type = "webhook"
url = "{trainer.url}"
secret = "env:SIGNING"

[retrain.livers]
classes = ["liver", "vessel"]
min_changes = 2
[retrain.livers.target]
type = "command"
command = ["/bin/sh", "{command}"]

[retrain.vessels]
classes = ["vessel"]
min_changes = 2
[retrain.vessels.target]
type = "command"
command = ["/bin/false"]
"""
    )


def approved(place: House, *names: str) -> None:
    redbrick = place.cast.redbrick
    for name in names:
        task = redbrick.create_task(name, [SeriesSpec(name="ct", dimensions=(12, 10, 6))])
        redbrick.label(task, [Drawing(0, (Instance(1), Instance(2, 1)))])
        for _ in range(2):
            redbrick.approve(task)


async def decided(place: House) -> list[dict[str, Any]]:
    done = await place.run("retrain", "list", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def ended(place: House, *names: str) -> None:
    async def check() -> str | None:
        entries = [one for one in await place.log() if one["kind"] == "triggered"]
        there = {f"{one['policy']} {one['decision']}" for one in entries}
        return None if set(names) <= there else f"only {there} were triggered"

    await until(check, within_s=60)


@pytest.mark.timeout(240)
async def test_what_webhooks_bring_is_decided_and_told_in_spite_of_a_kill(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    command, got = tmp_path / "train.sh", tmp_path / "event.json"
    command.write_text(f"cat > {got}.part && mv {got}.part {got}\n")
    async with trainer() as told, house(tmp_path, store, environment=AT_ONCE) as place:
        configure(place, told, command)
        told.answers.clear()  # it has begun, and does not say so
        place.start("run", "run")
        await place.listening()
        approved(place, "study01", "study02")
        await place.post_all(place.webhooks())

        async def heard() -> str | None:
            return None if told.told else "the target was not told"

        await until(heard, within_s=60)
        place.kill("run")
        told.answers.set()
        place.start("run", "run")
        await ended(place, "told 1", "livers 1")
        assert len(told.ids) >= 2
        assert len(set(told.ids)) == 1
        assert all(one == told.told[0] for one in told.told)
        await the_trigger_leads_to_the_snapshot(place, told.told[0], json.loads(got.read_text()))
        await by_hand(place, told)
        assert await place.stop("run") == 0
        verified = await place.run("verify")
        assert verified.returncode == 0, verified.stdout


async def the_trigger_leads_to_the_snapshot(
    place: House, event: dict[str, Any], of_command: dict[str, Any]
) -> None:
    data = event["data"]
    assert (data["policy"], data["added"], data["tasks"]) == ("told", 2, 2)
    assert (event["subject"], of_command["subject"]) == ("told", "livers")
    stored = await place.store.read(data["snapshot"]["key"])
    assert stored is not None
    assert digest(stored.data) == data["snapshot"]["sha256"]
    assert json.loads(stored.data)["size"] == data["log"]["size"]
    mine = [one for one in await decided(place) if one["policy"] == "told"]
    assert [one["triggered"]["key"] for one in mine] == [event["id"]]
    log = await place.log()
    told = [one["id"] for one in log if one["kind"] == "snapshot"]
    assert f"snapshot:told:{data['snapshot']['id']}" in told
    shown = await place.run("retrain", "status")
    assert shown.returncode == 0, shown.stderr
    assert "told: 1 decision(s); 0 task(s) pending" in shown.stdout
    assert "vessels: 0 decision(s); 0 task(s) pending" in shown.stdout
    assert "no ground truth has vessel yet" in shown.stdout


async def by_hand(place: House, told: Trainer) -> None:
    done = await place.run("retrain", "fire", "told", "--reason", "a new protocol", "--by", "ann")
    assert (done.returncode, "told 2: decided" in done.stdout) == (0, True), done.stderr
    await ended(place, "told 2")
    assert [one["data"]["reason"] for one in told.told][-1] == "fired-by-hand"
    (entry,) = [e for e in await place.log() if e.get("id") == "decided:told:2"]
    assert entry["who"] == "ann"
    note = await place.store.read(f"notes/{entry['reason_note']}.json")
    assert note is not None
    assert json.loads(note.data)["text"] == "a new protocol"
    listed = (await place.run("retrain", "list", "told")).stdout.splitlines()
    assert len(listed) == 2
    assert "fired-by-hand by ann" in listed[1]
    assert "triggered" in listed[1]
    vessels = await place.run("retrain", "fire", "vessels", "--reason", "x")
    assert vessels.returncode == 1
    assert "nothing of what vessels trains on" in vessels.stderr
