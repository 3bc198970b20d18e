"""A simulated platform of either kind on a real socket, our adapter for it, and its people's verbs
under one name each."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from consumer.demo.labelbox import DONE, Drawing, SimulatedLabelbox
from consumer.demo.redbrick import SimulatedRedBrick
from consumer.download import Downloader
from consumer.model import Missing, TaskKey, TaskSnapshot
from consumer.platforms.labelbox import Labelbox, Limits
from consumer.platforms.redbrick import RedBrick
from consumer.sightings import Page, Sighting, Window
from tests.loopback import LOOPBACK

KINDS = ("redbrick", "labelbox")
OUR_NOW = datetime(2011, 11, 11, tzinfo=UTC)  # what our own clock says: nothing may come of it
EVERYTHING = Window()
LONGEST_S = 1.0  # that an answer may take
_PNG = b"\x89PNG\r\n\x1a\n%sIEND\xaeB`\x82"


@dataclass
class Peer:
    """A platform, and the adapter that looks at it. ``while_waiting`` is called at every sleep."""

    kind: str
    simulated: Any
    platform: Any
    slept: list[float] = field(default_factory=list)
    while_waiting: Callable[[], None] = lambda: None
    _made: int = 0

    # what its people do

    @property
    def project(self) -> str:
        return str(self.simulated.project_id)

    def tasks(self) -> list[str]:
        if self.kind == "redbrick":
            return list(self.simulated.projects[self.project].tasks)
        return list(self.simulated.rows)

    def create(self) -> str:
        self._made += 1
        name = f"study{self._made:03d}"
        if self.kind == "redbrick":
            return str(self.simulated.create_task(name))
        return str(self.simulated.create_row(name, f"https://images.test/{name}.dcm"))

    def label(self, task: str) -> None:
        """New work on the labels; the task stays where it is."""
        self._made += 1
        if self.kind == "redbrick":
            self.simulated.save(task)
            return
        png = _PNG % hashlib.sha256(str(self._made).encode()).digest()
        self.simulated.label(task, [Drawing("Axial", 6, "liver", png=png)])

    def forward(self, task: str) -> None:
        """Submits or approves, as the stage wants it; what is finished stays."""
        if self.kind == "redbrick":
            stage = self.simulated.task(task).stage
            if stage == "Label":
                self.simulated.submit(task)
            elif stage != "END":
                self.simulated.approve(task)
            return
        stage = self.simulated.rows[task].stage
        if stage == "Initial labeling task":
            self.simulated.submit(task)
        elif stage.startswith("Rework"):
            self.simulated.rework(task)
        elif stage != DONE:
            self.simulated.approve(task)

    def back(self, task: str) -> None:
        """To the labeling by hand."""
        first = "Label" if self.kind == "redbrick" else "Initial labeling task"
        self.simulated.move(task, first)

    def delete(self, task: str) -> None:
        if self.kind == "redbrick":
            self.simulated.delete(task)
        else:
            self.simulated.delete_row(task)

    def finished(self) -> str:
        """A new task that was labelled and approved."""
        task = self.create()
        self.label(task)
        while self.stage(task) not in ("END", DONE):
            self.forward(task)
        return task

    def stage(self, task: str) -> str:
        held = self.simulated
        return str((held.task(task) if self.kind == "redbrick" else held.rows[task]).stage)

    # what we see of it

    def key(self, task: str) -> TaskKey:
        return TaskKey(source="peer", project=self.project, task=task)

    async def fetch(self, task: str) -> Any:
        key = self.key(task)
        return (await self.platform.fetch([key]))[key]

    async def snapshot(self, task: str) -> TaskSnapshot:
        got = await self.fetch(task)
        assert isinstance(got, TaskSnapshot), got
        return got

    async def listed(
        self, window: Window = EVERYTHING, *, between: Callable[[Page], None] = lambda page: None
    ) -> list[Sighting]:
        """Everything told; ``between`` is called after each page."""
        told: list[Sighting] = []
        async for page in self.platform.changed_since(self.project, window):
            told += page.sightings
            between(page)
        return told


@asynccontextmanager
async def peer(kind: str, *, api_key: Any = None, **settings: Any) -> AsyncIterator[Peer]:
    """``settings`` are the simulator's."""
    made = SimulatedRedBrick(**settings) if kind == "redbrick" else SimulatedLabelbox(**settings)
    async with AsyncExitStack() as closing:
        url = await closing.enter_async_context(made.serve())
        downloader = Downloader(networks=LOOPBACK, stall_s=LONGEST_S, timeout_s=LONGEST_S)
        closing.push_async_callback(downloader.close)
        found = Peer(kind, made, None)

        async def sleep(seconds: float) -> None:
            found.slept.append(seconds)
            found.while_waiting()

        found.platform = _adapter(kind, made, url, downloader, sleep, api_key or made.api_key)
        closing.push_async_callback(found.platform.close)
        yield found


def _adapter(
    kind: str,
    simulated: Any,
    url: str,
    downloader: Downloader,
    sleep: Callable[[float], Awaitable[None]],
    api_key: Any,
) -> RedBrick | Labelbox:
    if kind == "redbrick":
        return RedBrick(
            "peer", secrets=[b"s"], api_key=api_key, organization=simulated.org_id,
            downloader=downloader, api_url=url, timeout_s=LONGEST_S, sleep=sleep,
            clock=lambda: OUR_NOW,
        )  # fmt: skip
    return Labelbox(
        source="peer", secrets=[b"s"], api_key=api_key, downloader=downloader,
        clock=lambda: OUR_NOW, api_url=f"{url}/graphql", sleep=sleep,
        limits=Limits(answer_s=LONGEST_S),
    )  # fmt: skip


def something_happens(peer: Peer, rng: random.Random, tasks: Sequence[str]) -> None:
    """One verb, of one of the tasks, or a new one."""
    if not tasks or rng.random() < 0.25:
        peer.create()
        return
    rng.choice([peer.label, peer.forward, peer.back])(rng.choice(tasks))


def ids(told: Sequence[Sighting]) -> set[str]:
    return {one.task for one in told}


__all__ = ["KINDS", "OUR_NOW", "Missing", "Peer", "ids", "peer", "something_happens"]
