"""What a real process says of itself while it works: metrics with the right numbers, and log lines
that a machine can read and that hold no secret."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from consumer.demo.redbrick import Drawing, Instance
from consumer.demo.redbrick_faults import status
from consumer.demo.script import Post
from consumer.settings import load
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, free_port, house, until

BODY_LIMIT = 3000


@dataclass
class Observed:
    """A running `groundwire run` and how it is looked at."""

    place: House
    admin: int

    async def metric(self, name: str, **labels: str) -> float:
        url = f"http://127.0.0.1:{self.admin}/metrics"
        async with self.place.session.get(url) as got:
            families = text_string_to_metric_families(await got.text())
        samples = (one for family in families for one in family.samples)
        return sum(
            one.value
            for one in samples
            if one.name == f"groundwire_{name}" and labels.items() <= one.labels.items()
        )

    async def idle(self) -> str | None:
        held = await self.metric("queue_messages")
        return f"{held} messages are queued" if held else None

    async def paused(self) -> str | None:
        return None if await self.metric("source_paused") else "no source is paused"

    async def send(self, post: Post, path: str = "", **headers: str) -> int:
        url = f"http://127.0.0.1:{self.place.hooks_port}/hooks/{path or post.source}"
        query = {"token": post.token or ""}
        async with self.place.session.post(
            url, data=post.body, params=query, headers={**post.headers, **headers}
        ) as got:
            return got.status

    def lines(self) -> list[dict[str, Any]]:
        text = (self.place.directory / "run.log").read_text()
        return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def observed(folder: Path) -> AsyncIterator[Observed]:
    admin = free_port()
    environment = {
        "GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{admin}",
        "GROUNDWIRE_HTTP__BODY_LIMIT_BYTES": str(BODY_LIMIT),
        "GROUNDWIRE_HTTP__TRUSTED_PROXIES": "127.0.0.1",
    }
    store = DirectoryStore(folder / "lake")
    async with house(folder, store, environment=environment) as place:
        place.start("run", "run")
        await place.listening()
        yield Observed(place, admin)
        assert await place.stop("run") == 0


async def test_every_metric_has_the_number_of_what_happened(tmp_path: Path) -> None:
    async with observed(tmp_path) as seen:
        place, redbrick, began = seen.place, seen.place.cast.redbrick, time.time()
        redbrick.faults.add("taskSDK", status(503), times=1)
        good, bad = redbrick.create_task("good"), redbrick.create_task("bad")
        redbrick.label(good)
        redbrick.label(bad, [Drawing(0, (Instance(1),), b"this is no NIfTI")])
        posts = place.webhooks()
        assert await seen.send(posts[0]) == 202
        await until(seen.paused)
        assert [await seen.send(post) for post in posts[1:]] == [202] * len(posts[1:])
        assert await seen.send(Post("redbrick", {}, b"{}", token="guess")) == 401
        assert await seen.send(Post("redbrick", {}, b" " * (BODY_LIMIT + 1), token="x")) == 413
        await until(seen.idle)

        events = sum(len(json.loads(post.body)["payload"]) for post in posts)
        assert await seen.metric("events_accepted_total", source="redbrick") == events
        assert await seen.metric("requests_refused_total", reason="token-wrong") == 1
        assert await seen.metric("requests_refused_total", reason="body-too-large") == 1
        last = await seen.metric("last_webhook_timestamp_seconds", source="redbrick")
        assert began <= last <= time.time()
        assert await seen.metric("retries_total", lane="export", reason="platform-down") > 0
        assert await seen.metric("source_paused", source="redbrick", reason="platform-down") == 0
        dead = await seen.metric("dead_letters", lane="export")
        assert dead > 0
        assert dead == await seen.metric("buried_total", lane="export")
        assert await seen.metric("settled_total", lane="export") == events - dead
        assert await seen.metric("fetch_seconds_count", ok="false") == 1
        assert await seen.metric("fetch_seconds_count", ok="true") > 0
        downloads = await seen.metric("download_seconds_count", source="redbrick")
        assert downloads == place.downloads() > 0
        assert await seen.metric("log_entries") == len(await place.log())
        assert 0 < await seen.metric("log_age_seconds") < 60
        assert await seen.metric("observed", what="queue-export") == 1


async def test_log_lines_are_json_say_which_event_and_hold_no_secret(tmp_path: Path) -> None:
    async with observed(tmp_path) as seen:
        redbrick, token = seen.place.cast.redbrick, seen.place.cast.token
        task = redbrick.create_task("study01")
        redbrick.label(task)
        for post in seen.place.webhooks():
            await seen.send(post)
        away = Post("nobody", {}, b"{}", token=token)
        assert await seen.send(away, path=token, **{"X-Forwarded-For": "203.0.113.7"}) == 404
        await until(seen.idle)

        lines = seen.lines()
        (moved, *_) = [line for line in lines if line["event"] == "lake moved"]
        assert (moved["task"], moved["lane"]) == (task, "export")
        accepted = [one for line in lines for one in line.get("event_ids", [])]
        assert moved["event_id"] in accepted
        refused = [line for line in lines if line["event"] == "refused"]
        assert [line["reason"] for line in refused] == ["unknown-source"]
        assert refused[0]["remote"] == "203.0.113.7"
        text = (tmp_path / "run.log").read_text()
        assert token not in text
        assert redbrick.api_key not in text


async def test_the_start_is_logged_with_the_hash_of_the_configuration(tmp_path: Path) -> None:
    async with observed(tmp_path) as seen:
        await until(seen.idle)
        settings = load(seen.place.configuration, seen.place.environment)
        (started, *_) = [entry for entry in await seen.place.log() if entry["kind"] == "started"]
        known = load(seen.place.configuration, run_environment(seen, tmp_path)).fingerprint()
        assert (started["command"], started["configuration_sha256"]) == ("run", known)
        assert settings.fingerprint() != known  # another setting, another hash


def run_environment(seen: Observed, folder: Path) -> dict[str, str]:
    """As the process was started with."""
    return {**seen.place.environment, "GROUNDWIRE_LOG__INDEX": str(folder / "run-index.db")}
