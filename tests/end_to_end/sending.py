"""Webhooks that are sent while receivers come and go: as a platform sends them, once each, or as a
load balancer in front of several receivers does, which tries the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import aiohttp

from consumer.demo.script import Post
from consumer.model import digest
from tests.end_to_end.followers import Crowd

WITHIN_S = 60.0
AWAY = frozenset({502, 503, 504})


@dataclass
class Sender:
    """Remembers what was answered 202, by the body's hash, and how long nothing was."""

    session: aiohttp.ClientSession
    ports: Sequence[int]
    answered: set[str] = field(default_factory=set)
    worst_s: float = 0.0  # the longest that one delivery took, its tries together
    refused: int = 0  # answers and connections that were to be tried elsewhere

    def __post_init__(self) -> None:
        self._next = cycle(self.ports)

    async def once(self, post: Post) -> bool:
        """Whether it was answered 202; a connection that was cut is no answer."""
        url = f"http://127.0.0.1:{next(self._next)}/hooks/{post.source}"
        query = {"token": post.token} if post.token else {}
        try:
            async with self.session.post(
                url, data=post.body, headers=post.headers, params=query
            ) as got:
                status = got.status
        except (aiohttp.ClientError, OSError):
            self.refused += 1
            return False
        if status == 202:
            self.answered.add(digest(post.body))
            return True
        assert status in AWAY, status
        self.refused += 1
        return False

    async def until_answered(self, post: Post) -> None:
        """Tries the receivers in turn."""
        began = time.monotonic()
        while not await self.once(post):
            assert time.monotonic() - began < WITHIN_S, "no receiver took it"
            await asyncio.sleep(0.05)
        self.worst_s = max(self.worst_s, time.monotonic() - began)

    async def unanswered(self, posts: Iterable[Post], *, at_once: int = 8) -> list[Post]:
        """Sends each once; those that nobody answered."""
        gate = asyncio.Semaphore(at_once)

        async def one(post: Post) -> bool:
            async with gate:
                return await self.once(post)

        sent = list(posts)
        went = await asyncio.gather(*(one(post) for post in sent))
        return [post for post, well in zip(sent, went, strict=True) if not well]


class Careful(Crowd):
    """People who delete nothing: of a task that came and went before anybody looked at it nothing
    can be told but that there is none, which is given up at once."""

    def reopen(self, task: str) -> None:
        self.redbrick.move(task, "Label")
        self.redbrick.label(task, self.drawn())
        self.review(task)
