"""The demo: two simulated platforms, the real Groundwire between them and a lake, scene by scene.

Groundwire runs here exactly as `groundwire run` runs it; the story only posts webhooks and reads
the lake, the log and the metrics, as anybody could.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from rich.console import Console

from consumer import app
from consumer.demo.configuration import write_configuration
from consumer.demo.labelbox import SimulatedLabelbox
from consumer.demo.redbrick import SimulatedRedBrick, TickingClock
from consumer.demo.screen import Screen
from consumer.demo.script import SCENES, Cast, Post, Scene
from consumer.log.read import entries, published
from consumer.log.verify import verify
from consumer.model import Pointer, decode
from consumer.ports import Store
from consumer.serve import Failed
from consumer.settings import Settings, load
from consumer.settings_values import Address

SETTLED_WITHIN_S = 60.0
POLL_S = 0.05
QUIET_LOOKS = 3

_LEFT = ("groundwire_queue_messages", "groundwire_follower_behind_entries")


@dataclass(slots=True)
class Running:
    """Where the software under the story listens."""

    serving: asyncio.Future[None] = field(init=False)
    addresses: dict[str, Address] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def announce(self, what: str, where: Address) -> None:
        self.addresses[what] = where
        if {"hooks", "admin"} <= self.addresses.keys():
            self.ready.set()

    def url(self, what: str) -> str:
        where = self.addresses[what]
        return f"http://{where.host}:{where.port}"


@dataclass(frozen=True, slots=True)
class View:
    """The lake and the log at one moment."""

    pointers: dict[str, Pointer]
    objects: dict[str, int]
    log_size: int


async def play(
    directory: Path,
    *,
    once: bool = True,
    queue: str | None = None,
    lake: str | None = None,
    console: Console,
) -> bool:
    """Tells the story in ``directory`` (absolute); True when the log verifies at its end.
    ``once``: does not go on serving. Raises `ConfigurationError` and `Failed`."""
    screen = Screen(console)
    cast = _cast()
    async with AsyncExitStack() as stack:
        redbrick_url = await stack.enter_async_context(cast.redbrick.serve())
        labelbox_url = await stack.enter_async_context(cast.labelbox.serve())
        configuration = write_configuration(
            directory, cast, redbrick_url, labelbox_url, queue=queue, lake=lake, training=True
        )
        settings = load(configuration)
        store = app.make_store(settings)
        running = await stack.enter_async_context(_groundwire(settings))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        _introduce(screen, directory, running, str(settings.lake))
        director = Director(screen, cast, store, running, session)
        telling = asyncio.ensure_future(director.tell())
        await asyncio.wait({telling, running.serving}, return_when=asyncio.FIRST_COMPLETED)
        if not telling.done():  # interrupted, or Groundwire failed
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await running.serving
            raise Failed("the story was interrupted")
        await telling
        sound = await _ending(screen, store, str(settings.lake), configuration)
        if not once:
            screen.say("\nGroundwire and both platforms keep serving; Ctrl-C ends them.", "bold")
            await running.serving
    return sound


def _cast() -> Cast:
    """New projects each time, so that the demo can be played again into the same lake."""
    seed = secrets.token_hex(4)
    now = datetime.now(UTC)
    return Cast(
        redbrick=SimulatedRedBrick(reviews=2, seed=seed, clock=TickingClock(now)),
        labelbox=SimulatedLabelbox(seed=seed, clock=TickingClock(now)),
        token=secrets.token_urlsafe(24),
    )


@asynccontextmanager
async def _groundwire(settings: Settings) -> AsyncIterator[Running]:
    """`groundwire run` in this process, until the block ends."""
    stop = asyncio.Event()
    running = Running()
    running.serving = asyncio.ensure_future(
        app.serve(
            settings,
            command="demo",
            hooks=True,
            lanes=[lane.name for lane in app.LANES],
            followers=app.chosen(settings, None),
            announce=running.announce,
            stop=stop,
        )
    )
    ready = asyncio.ensure_future(running.ready.wait())
    await asyncio.wait({running.serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if running.serving.done():
        ready.cancel()
        await running.serving  # raises why it ended
    try:
        yield running
    finally:
        stop.set()
        await asyncio.wait({running.serving})


class Director:
    """Plays scenes: acts, posts, waits until all is done, shows what changed."""

    def __init__(
        self,
        screen: Screen,
        cast: Cast,
        store: Store,
        running: Running,
        session: aiohttp.ClientSession,
    ) -> None:
        self._screen = screen
        self._cast = cast
        self._store = store
        self._running = running
        self._session = session
        self._view = View({}, {}, 0)

    async def tell(self) -> None:
        for number, scene in enumerate(SCENES, 1):
            await self._play(number, scene)

    async def _play(self, number: int, scene: Scene) -> None:
        self._screen.scene(number, scene)
        if not self._view.log_size:
            self._view = await _look(self._store)
        downloaded = self._downloaded()
        posts = scene.act(self._cast)
        if posts is None:
            posts = self._told()
            self._cast.sent += posts
        self._screen.answers([(post, *await self._post(post)) for post in posts])
        await self._settled()
        if scene.awaits is not None:
            await self._logged(scene.awaits)
            await self._settled()
        before, self._view = self._view, await _look(self._store)
        self._screen.pointers(before.pointers, self._view.pointers)
        self._screen.files(
            sorted(item for item in self._view.objects.items() if item[0] not in before.objects)
        )
        self._screen.downloads(self._downloaded() - downloaded)
        new = [(e.index, e.data) async for e in entries(self._store, before.log_size)]
        self._screen.entries(new)

    def _told(self) -> list[Post]:
        """What the platforms have to tell, as they would POST it."""
        redbrick = [
            Post("redbrick", {}, json.dumps(body).encode(), token=self._cast.token)
            for body in self._cast.redbrick.take_webhooks()
        ]
        labelbox = [
            Post("labelbox", dict(headers), body) for headers, body in self._cast.labelbox.outbox
        ]
        self._cast.labelbox.outbox.clear()
        return redbrick + labelbox

    async def _post(self, post: Post) -> tuple[int, str]:
        url = f"{self._running.url('hooks')}/hooks/{post.source}"
        query = {"token": post.token} if post.token else {}
        async with self._session.post(
            url, data=post.body, headers=post.headers, params=query
        ) as response:
            return response.status, (await response.text()).strip()

    async def _logged(self, kind: str) -> None:
        """Until the log has an entry of this kind among its new ones."""
        try:
            async with asyncio.timeout(SETTLED_WITHIN_S):
                kinds: set[str] = set()
                while kind not in kinds:
                    await asyncio.sleep(POLL_S)
                    new = entries(self._store, self._view.log_size)
                    kinds = {one.data["kind"] async for one in new}
        except TimeoutError as error:
            said = f"the log has no entry {kind} after {SETTLED_WITHIN_S:g} s"
            raise Failed(said) from error

    async def _settled(self) -> None:
        """Until the metrics say, several times in a row, that no lane holds anything and that all
        followers have caught up."""
        try:
            async with asyncio.timeout(SETTLED_WITHIN_S):
                quiet = 0
                while quiet < QUIET_LOOKS:
                    quiet = quiet + 1 if await self._is_quiet() else 0
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            said = f"the lanes are not empty after {SETTLED_WITHIN_S:g} s; is the queue shared?"
            raise Failed(said) from error

    async def _is_quiet(self) -> bool:
        async with self._session.get(f"{self._running.url('admin')}/metrics") as response:
            text = await response.text()
        left = [line for line in text.splitlines() if line.startswith(_LEFT)]
        return bool(left) and all(float(line.rpartition(" ")[2]) == 0 for line in left)

    def _downloaded(self) -> int:
        return sum(
            count
            for counters in (self._cast.redbrick.counters, self._cast.labelbox.counters)
            for name, count in counters.items()
            if name == "mask GET"
        )


async def _look(store: Store) -> View:
    objects = {item.key: item.size async for item in store.list("")}
    pointers = {}
    for key in objects:
        if key.endswith("/current.json") and (stored := await store.read(key)) is not None:
            pointers[key] = decode(stored.data, Pointer)
    checkpoint = await published(store)
    return View(pointers, objects, checkpoint.size if checkpoint else 0)


def _introduce(screen: Screen, directory: Path, running: Running, lake: str) -> None:
    screen.say("Groundwire, between two simulated platforms and a data lake.", "bold")
    screen.say(f"  webhooks arrive at  {running.url('hooks')}/hooks/redbrick and /hooks/labelbox")
    screen.say(f"  metrics             {running.url('admin')}/metrics")
    screen.say(f"  changes, as they come  {running.url('admin')}/changes")
    screen.say(f"  the lake            {lake}")
    screen.say(f"  everything is in    {directory}")


async def _ending(screen: Screen, store: Store, lake: str, configuration: Path) -> bool:
    screen.say("\nThe lake now:", "bold")
    view = await _look(store)
    screen.tree(lake, sorted(view.objects.items()))
    stored = await store.read("log/vkey")
    if stored is None:
        screen.say("There is no log: something is wrong.", "bold red")
        return False
    result = await verify(store, vkey=stored.data.decode().strip())
    screen.say("\nThe log, recomputed from its files:", "bold")
    screen.say(result.summary, "green" if result.ok else "bold red")
    project = next(one.project for one in view.pointers.values() if one.source == "redbrick")
    screen.say("\nWhere to look:", "bold")
    program = "groundwire" if shutil.which("groundwire") else sys.argv[0]
    command = f"{program} --config {configuration}"
    screen.say(f"  {command} verify     every entry, every hash")
    screen.say(f"  {command} report     who did what, in RedBrick's own shape")
    screen.say(f"  {command} pull {project} folder  masks and tasks.json, as RedBrick exports")
    screen.say(f"  {command} changes --ground-truth  what entered and left it, as JSON lines")
    screen.say(f"  {command} snapshot list   what training began with; pull rebuilds it")
    screen.say(f"  {command} show CT-0100    the masks over the images, as a PNG")
    screen.say(f"  {command} dead list  what could not be done (nothing)")
    return result.ok
