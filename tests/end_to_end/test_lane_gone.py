"""A lane's queue is deleted under a running receiver: no 2xx until the lane is there again."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import aio_pika
import pytest

from consumer.demo.script import Post
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, free_port, house, until
from tests.servers_rabbitmq import RabbitServer


async def answer(place: House, post: Post) -> tuple[int, Mapping[str, str]]:
    """One POST, not sent again."""
    url = f"http://127.0.0.1:{place.hooks_port}/hooks/{post.source}"
    async with place.session.post(url, data=post.body, params={"token": post.token or ""}) as got:
        await got.read()
        return got.status, got.headers


async def readiness(port: int) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("lane", ["audit", "export"])
async def test_a_deleted_lane_means_503_and_another_process_mends_it(
    tmp_path: Path, rabbitmq_server: RabbitServer, lane: str
) -> None:
    admin = free_port()
    async with house(
        tmp_path,
        DirectoryStore(tmp_path / "lake"),
        queue=rabbitmq_server.url,
        environment={"GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{admin}"},
    ) as place:
        place.start("receive", "receive")
        await place.listening()
        place.cast.redbrick.create_task("study01")
        first, *_ = place.webhooks()
        assert (await answer(place, first))[0] == 202

        async with await aio_pika.connect(rabbitmq_server.url) as connection:
            channel = await connection.channel()
            await channel.queue_delete(f"{place.environment['GROUNDWIRE_QUEUE_PREFIX']}.{lane}")

        for _ in range(3):
            status, headers = await answer(place, first)
            assert status == 503
            assert int(headers["Retry-After"]) >= 1
        status, said = await readiness(admin)
        assert status == 503
        assert "does not exist" in json.loads(said)["reasons"]["queue"]

        declared = await place.run("dead", "list")  # any process declares what is missing
        assert declared.returncode == 0, declared.stderr
        await until(lambda: kept(place, first), within_s=20)


async def kept(place: House, post: Post) -> str | None:
    status, _ = await answer(place, post)
    return None if status == 202 else f"still {status}"
