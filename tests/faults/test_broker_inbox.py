"""A broker that fails, hangs and loses confirmations at random, with a real inbox beside it: what
was accepted arrives, whenever the receiver stops and starts, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.errors import Permanent, Transient
from consumer.inbox import INBOX, InboxQueue
from consumer.model import LaneSpec, Message, Record
from consumer.queues.sqlite import SqliteQueue
from tests.fakes_queue import FakeQueue
from tests.seeds import seeds

AUDIT = LaneSpec(name="audit", wants=("record",))
STEPS = 60
PATIENCE_S = 0.02
DOWN = Transient("queue-unavailable", "the broker cannot be reached", shared=True)
BAD = ("down", "lost-confirm", "partly", "hang", "denied", "crash")
NEVER = "never"  # with what the ids begin that the broker refuses for ever


@dataclass(eq=False)
class MoodyBroker(FakeQueue):
    """Each put does what the mood of the moment is; ``held`` hangs until the mood changes."""

    rng: random.Random = field(default_factory=random.Random)
    mood: str = "well"
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def become(self, mood: str) -> None:
        self.mood = mood
        self.changed.set()
        self.changed = asyncio.Event()

    async def open(self) -> None:
        await self._suffer()
        await super().open()

    async def close(self) -> None:
        """The broker goes on; only this connection ends."""

    async def ready(self) -> None:
        await self._suffer()

    async def put(self, messages: Sequence[Message]) -> None:
        if self.mood == "partly":
            await super().put(messages[: self.rng.randrange(len(messages) + 1)])
        elif self.mood == "lost-confirm":
            await super().put(messages)
        await self._suffer()
        if any(message.id.startswith(NEVER) for message in messages):
            raise DOWN
        await super().put(messages)

    async def _suffer(self) -> None:
        if self.mood == "hang":
            await self.changed.wait()
        if self.mood == "denied":
            raise Permanent("queue-denied", "no such user")
        if self.mood == "crash":
            raise ZeroDivisionError
        if self.mood != "well":
            raise DOWN


class FickleFile(SqliteQueue):
    """An inbox on a disk that is full at times."""

    full = False

    async def put(self, messages: Sequence[Message]) -> None:
        if self.full:
            raise Transient("queue-unavailable", "the disk is full", shared=True)
        await super().put(messages)


async def soon(_: float) -> None:
    await asyncio.sleep(0.002)


@dataclass(slots=True)
class Story:
    """One receiver over its stops and starts; ``accepted`` is what a sender was told is kept."""

    rng: random.Random
    file: Path
    broker: MoodyBroker
    queue: InboxQueue
    inbox: FickleFile
    accepted: set[str] = field(default_factory=set)
    refused: int = 0
    slowest_s: float = 0.0

    async def put(self, number: int) -> None:
        name = NEVER if self.rng.random() < 0.03 else "r"
        messages = [
            Record(id=f"{name}{number}-{part}", kind="started")
            for part in range(self.rng.randint(1, 4))
        ]
        began = asyncio.get_running_loop().time()
        try:
            await self.queue.put(messages)
        except Transient:
            self.refused += 1
        else:
            self.accepted |= {message.id for message in messages}
        took = asyncio.get_running_loop().time() - began
        self.slowest_s = max(self.slowest_s, took)

    async def step(self, number: int) -> None:
        match self.rng.choices(("put", "mood", "disk", "restart", "pause"), (60, 15, 5, 5, 15))[0]:
            case "put":
                await asyncio.gather(*(self.put(4 * number + one) for one in range(3)))
            case "mood":
                self.broker.become(self.rng.choice(("well", *BAD)))
            case "disk":
                self.inbox.full = not self.inbox.full
            case "restart":
                await self.queue.close()
                await self.start()
            case "pause":
                await asyncio.sleep(0.01)

    async def start(self) -> None:
        self.inbox = FickleFile(self.file, [INBOX])
        self.queue = InboxQueue(
            self.broker, self.inbox, patience_s=PATIENCE_S, sleep=soon, random=self.rng.random
        )
        await self.queue.open()

    async def heal(self) -> None:
        """Returns when all that the broker takes at all has gone there."""
        self.inbox.full = False
        self.broker.become("well")
        async with asyncio.timeout(20):
            while not self.wanted() <= self.arrived().keys():
                await asyncio.sleep(0.01)

    def wanted(self) -> set[str]:
        return {one for one in self.accepted if not one.startswith(NEVER)}

    def arrived(self) -> Counter[str]:
        return Counter(message.id for message in self.broker.messages("audit"))


@asynccontextmanager
async def story(seed: int, folder: Path) -> AsyncIterator[Story]:
    rng = random.Random(seed)
    broker = MoodyBroker([AUDIT], rng=rng)
    inbox = FickleFile(folder / "inbox.db", [INBOX])
    told = Story(rng, folder / "inbox.db", broker, InboxQueue(broker, inbox), inbox)
    with capture_logs():
        await told.start()
        yield told
        await told.queue.close()


@pytest.mark.parametrize("seed", seeds())
async def test_what_was_accepted_arrives_whatever_broker_and_disk_do(
    seed: int, tmp_path: Path
) -> None:
    async with story(seed, tmp_path) as told:
        for number in range(STEPS):
            await told.step(number)
        await told.heal()
        assert told.accepted
        assert told.slowest_s < 2.0
    never = {one for one in told.accepted if one.startswith(NEVER)}
    assert never <= kept(tmp_path / "inbox.db", "messages")
    assert kept(tmp_path / "inbox.db", "dead") == set()


def kept(file: Path, table: str) -> set[str]:
    """The ids in the inbox, due or not."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        return {name for (name,) in db.execute(f"SELECT id FROM {table}")}  # noqa: S608
