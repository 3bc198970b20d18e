"""A real receiver with an inbox: it starts without the broker, is killed, and loses nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumer.demo.script import Post
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, free_port, house, until
from tests.proxy import Proxy
from tests.servers_rabbitmq import RabbitServer

TASKS = 20


@dataclass(slots=True)
class Place:
    """One installation whose broker can be away."""

    house: House
    proxy: Proxy
    admin: int

    async def start(self) -> None:
        self.house.start("receive", "receive")
        await self.house.listening()

    async def answers(self, posts: list[Post]) -> Counter[int]:
        """To each post, sent once."""
        found: Counter[int] = Counter()
        url = f"http://127.0.0.1:{self.house.hooks_port}/hooks/redbrick"
        for post in posts:
            params = {"token": post.token or ""}
            async with self.house.session.post(url, data=post.body, params=params) as response:
                found[response.status] += 1
        return found

    def posts(self, count: int) -> list[Post]:
        for number in range(count):
            self.house.cast.redbrick.create_task(f"study{number:02}")
        return self.house.webhooks()

    async def look(self, path: str) -> tuple[int, str]:
        async with self.house.session.get(f"http://127.0.0.1:{self.admin}{path}") as response:
            return response.status, await response.text()

    async def forwarded(self) -> str | None:
        _, said = await self.look("/readyz")
        inbox: dict[str, Any] = json.loads(said)["inbox"]
        return None if inbox == {"waiting": 0, "broker": "there"} else said

    async def receipts(self) -> Counter[str]:
        """How often each event is in the log."""
        log = await self.house.log()
        return Counter(entry["id"] for entry in log if entry["kind"] == "receipt")


@asynccontextmanager
async def a_place(folder: Path, server: RabbitServer) -> AsyncIterator[Place]:
    admin = free_port()
    async with (
        Proxy(server.port) as proxy,
        house(
            folder,
            DirectoryStore(folder / "lake"),
            queue=f"amqp://guest:guest@127.0.0.1:{proxy.port}/",
            environment={
                "GROUNDWIRE_INBOX": f"sqlite://{folder}/inbox.db",
                "GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{admin}",
            },
        ) as made,
    ):
        yield Place(made, proxy, admin)


async def test_a_receiver_without_its_broker_takes_events_is_killed_and_forwards_them_later(
    tmp_path: Path, rabbitmq_server: RabbitServer
) -> None:
    async with a_place(tmp_path, rabbitmq_server) as place:
        await place.proxy.refuse()
        await place.start()
        posts = place.posts(TASKS)
        assert await place.answers(posts[: TASKS // 2]) == {202: TASKS // 2}
        place.house.kill("receive")
        await place.start()
        assert await place.answers(posts[TASKS // 2 :]) == {202: len(posts) - TASKS // 2}
        status, said = await place.look("/readyz")
        told = json.loads(said)
        assert (status, told["ready"]) == (200, True)
        assert told["inbox"]["waiting"] >= len(posts)
        assert "away" in told["inbox"]["broker"]
        _, metrics = await place.look("/metrics")
        assert "groundwire_broker_away 1.0" in metrics

        await place.proxy.listen()
        await until(place.forwarded)
        assert await place.house.stop("receive") == 0
        place.house.start("audit", "work", "audit")

        async def logged() -> str | None:
            found = await place.receipts()
            return None if len(found) == len(posts) else f"{len(found)} of {len(posts)} are logged"

        await until(logged)
        assert set((await place.receipts()).values()) == {1}
