"""What followers are to show at the end, however they were killed: people who work on many tasks,
a target that is told to train, and each follower's work beside a replay of the whole log."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
from aiohttp import web
from standardwebhooks import Webhook

from consumer.changes import TaskChange, change_of
from consumer.client import changes
from consumer.demo.redbrick import Drawing, Instance, SeriesSpec, SimulatedRedBrick
from consumer.demo.script import Post
from consumer.log.tail import LogTail
from consumer.log.verify import verify
from consumer.model import digest
from consumer.ports import Batch, Cursor, FollowPorts, LogEntry, Store
from handlers.mirror_lake import TREES
from handlers.retrain_records import idempotency_key
from handlers.table import Table, TablePlace, Tuning
from tests.end_to_end.house import House
from tests.handlers.pull.lakes import tree
from tests.handlers.table_house import by_duckdb, by_polars
from tests.store_with_table import StoreWithTable

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
SERIES = SeriesSpec(name="ct", dimensions=(12, 10, 6))
DELIVERED_WITHIN_S = 90.0  # a webhook, while the receiver is killed again and again
INDEX_FILES = ("tasks.json", "export.ndjson")

FOLLOWING = {
    "GROUNDWIRE_EXPORT__DELETION_CONFIRMED_AFTER_S": "0",
    "GROUNDWIRE_FOLLOW__POLL_S": "0.1",
    "GROUNDWIRE_MIRROR__INTERVAL_S": "0.3",
    "GROUNDWIRE_MIRROR__CHECK_S": "2",
    "SIGNING": SECRET,
}

POLICIES = """
[retrain.any]
min_changes = 4
[retrain.any.target]
type = "webhook"
url = "{url}"
secret = "env:SIGNING"

[retrain.livers]
classes = ["liver"]
min_changes = 3
[retrain.livers.target]
type = "webhook"
url = "{url}"
secret = "env:SIGNING"

[retrain.soon]
max_wait = "1s"
[retrain.soon.target]
type = "webhook"
url = "{url}"
secret = "env:SIGNING"
"""
WATCHED = "soon"  # its decisions follow every change that counts


@dataclass
class Crowd:
    """The people of one project, who do something with their tasks in each `turn`. Whatever was
    told once may be told again, and nothing is told in order."""

    place: House
    chance: random.Random
    tasks: list[str] = field(default_factory=list)
    told: list[Post] = field(default_factory=list)
    named: int = 0

    @property
    def redbrick(self) -> SimulatedRedBrick:
        return self.place.cast.redbrick

    def turn(self, new: int, busy: int) -> list[str]:
        """So many tasks come, so many are worked on: all of these."""
        came = [self.come() for _ in range(new)]
        held = self.redbrick.projects[self.redbrick.project_id].tasks
        old = [task for task in self.tasks if task in held and task not in came]
        chosen = came + self.chance.sample(old, min(busy, len(old)))
        for task in chosen:
            self.work_on(task)
        return chosen

    def come(self) -> str:
        """Every sixth has the name of one that is there."""
        number = self.named - 1 if self.named % 6 == 5 else self.named
        self.named += 1
        task = self.redbrick.create_task(f"study-{number:02d}", [SERIES])
        self.tasks.append(task)
        return task

    def work_on(self, task: str) -> None:
        one = self.redbrick.task(task)
        if self.chance.random() < 0.1:
            one.name = f"{one.name}-{self.chance.choice('ab')}"
        if one.stage == "END":
            self.reopen(task)
        elif one.stage == "Label":
            self.redbrick.label(task, self.drawn())
            self.review(task)
        else:
            self.review(task)

    def review(self, task: str) -> None:
        """It mostly ends as ground truth."""
        while self.redbrick.task(task).stage not in ("END", "Label"):
            lot = self.chance.random()
            if lot < 0.1:
                return
            if lot < 0.2:
                self.redbrick.reject(task)
            else:
                self.redbrick.approve(task)

    def reopen(self, task: str) -> None:
        lot = self.chance.random()
        if lot < 0.15:
            self.redbrick.delete(task)
            return
        self.redbrick.move(task, "Label")
        if lot < 0.6:
            self.redbrick.label(task, self.drawn())
            self.review(task)

    def drawn(self) -> list[Drawing]:
        """One to three of the classes."""
        classes = self.chance.sample(range(3), self.chance.randint(1, 3))
        value = self.chance.randint(1, 60)
        return [Drawing(0, tuple(Instance(value + one, one) for one in classes))]

    async def tell(self) -> None:
        """The webhooks of what was done, each third twice, some old ones again, in any order."""
        news = self.place.webhooks()
        self.told += news
        again = self.chance.sample(self.told, len(self.told) // 10)
        posts = [*news, *news[::3], *again]
        self.chance.shuffle(posts)
        await delivered(self.place, posts)

    async def exported(self, tasks: Sequence[str]) -> str | None:
        """None when the lake shows where the tasks stand."""
        held = self.redbrick.projects[self.redbrick.project_id].tasks
        for task in tasks:
            pointer = await self.place.pointer(self.redbrick.project_id, task)
            if pointer is None:
                return f"{task} has no pointer"
            shown = (pointer.stage, pointer.name) if pointer.change != "deleted" else None
            if shown != ((held[task].stage, held[task].name) if task in held else None):
                return f"{task} is shown as {shown}"
        return None


async def delivered(place: House, posts: Sequence[Post]) -> None:
    """Like a platform that resends until it is answered, also while the receiver is away."""
    gate = asyncio.Semaphore(16)

    async def one(post: Post) -> None:
        deadline = time.monotonic() + DELIVERED_WITHIN_S
        while True:
            try:
                async with gate:
                    status = await place.post(post)
            except (aiohttp.ClientError, OSError):
                status = 0
            if status == 202:
                return
            assert status in (0, 503), status
            assert time.monotonic() < deadline, "the receiver never came back"
            await asyncio.sleep(0.1)

    await asyncio.gather(*(one(post) for post in posts))


@dataclass
class Trainer:
    """What is told to train: it checks each message as its maker's library does, and remembers the
    keys. Now and then it begins and hangs up, or is out of order."""

    chance: random.Random
    url: str = ""
    told: dict[str, bytes] = field(default_factory=dict)
    times: int = 0
    wrong: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        lot = self.chance.random()
        if lot < 0.1:
            return web.Response(status=503)
        Webhook(SECRET).verify(body, dict(request.headers))
        key = request.headers["webhook-id"]
        self.times += 1
        if self.told.setdefault(key, body) != body:
            self.wrong.append(f"{key} has two contents")
        if lot < 0.2 and request.transport is not None:
            request.transport.abort()
        return web.Response(status=202)


@asynccontextmanager
async def trainer(seed: int) -> AsyncIterator[Trainer]:
    made = Trainer(random.Random(seed))
    application = web.Application()
    application.router.add_post("/train", made.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/train"
    try:
        yield made
    finally:
        await runner.cleanup()


def configure(place: House, told: Trainer) -> None:
    text = place.configuration.read_text()
    place.configuration.write_text(text + POLICIES.format(url=told.url))


async def reading(url: str, came: list[TaskChange]) -> None:
    """A reader that is connected, as well as it can be, all the time."""
    async with aclosing(changes(url, base_s=0.05, cap_s=0.5)) as stream:
        async for change in stream:
            came.append(change)


@dataclass
class Truth:
    """The whole log, and what is to be had from it."""

    log: str
    entries: Sequence[LogEntry]

    @classmethod
    async def read(cls, store: Store) -> Truth:
        tail = LogTail(store)
        size = await tail.size()
        return cls(await tail.identity(), await tail.read(0, size))

    def changes(self) -> list[TaskChange]:
        """Of the ground truth."""
        found = (change_of(one.index, one.data, self.log) for one in self.entries)
        return [one for one in found if one and one.ground_truth]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [one.data for one in self.entries if one.data["kind"] in kinds]

    def keys(self) -> dict[str, dict[str, Any]]:
        """The decisions by their idempotency keys."""
        return {
            idempotency_key(self.log, one["policy"], one["decision"]): one
            for one in self.of("decided")
        }


async def everything_is_followed(place: House) -> str | None:
    """None when each follower has all moves, and every change that counts led to a decision whose
    target was told."""
    truth = await Truth.read(place.store)
    moves = [one.index for one in truth.entries if one.data["kind"] == "lake"]
    for name in place_followers(place):
        stored = await place.store.read(f"followers/{name}.json")
        at = json.loads(stored.data)["next"] if stored else 0
        if at <= moves[-1]:
            return f"{name} is at {at} of {moves[-1]}"
    ended = {(one["policy"], one["decision"]) for one in truth.of("triggered")}
    decided = truth.of("decided")
    if missing := {(one["policy"], one["decision"]) for one in decided} - ended:
        return f"not triggered: {missing}"
    counts = [one.index for one in truth.changes() if one.ground_truth != "removed"]
    sizes = [one["log_size"] for one in decided if one["policy"] == WATCHED]
    return None if sizes and max(sizes) > counts[-1] else "the last change led to no decision"


def place_followers(place: House) -> tuple[str, ...]:
    with_relay = place.environment.get("GROUNDWIRE_FOLLOW__RELAY") == "true"
    return ("mirror", "retrain", "table", *(("relay",) if with_relay else ()))


async def objects(store: Store, prefix: str) -> dict[str, bytes]:
    """By what follows the prefix."""
    found: dict[str, bytes] = {}
    async for item in store.list(prefix):
        stored = await store.read(item.key)
        assert stored is not None, item.key
        found[item.key.removeprefix(prefix)] = stored.data
    return found


async def the_mirror_is_a_plain_pull(place: House) -> int:
    """Of each project; the number of its files."""
    keys = [item.key async for item in place.store.list("")]
    projects = sorted({key.split("/")[0] for key in keys if key.endswith("/current.json")})
    assert place.cast.redbrick.project_id in projects
    files = 0
    for project in projects:
        done = await place.run("pull", project, "pulled")
        assert done.returncode == 0, done.stdout + done.stderr
        folder = place.directory / "pulled" / project
        pulled = {path: (folder / path).read_bytes() for path in tree(folder)}
        mirror = await shown(place.store, project)
        assert sorted(mirror) == sorted(pulled)
        assert [path for path in pulled if mirror[path] != pulled[path]] == []
        files += len(mirror)
    return files


async def shown(store: Store, project: str) -> dict[str, bytes]:
    """The mirror's files, by path below the project."""
    found: dict[str, bytes] = {}
    for tree_name in TREES:
        below = await objects(store, f"{project}/{tree_name}/")
        found |= {f"{tree_name}/{path}": data for path, data in below.items()}
    for name in INDEX_FILES:
        if (stored := await store.read(f"{project}/{name}")) is not None:
            found[name] = stored.data
    return found


async def the_table_is_one_built_anew(place: House, folder: Path) -> int:
    """Row by row and column by column, as two other engines read both; the number of rows."""
    live, anew = folder / "live", folder / "anew"
    for path, data in (await objects(place.store, "tables/revisions/")).items():
        (live / path).parent.mkdir(parents=True, exist_ok=True)
        (live / path).write_bytes(data)
    await build_table(place.store, anew)
    rows = by_duckdb(live)
    assert rows == by_duckdb(anew)
    assert by_polars(live) == by_polars(anew)
    truth = await Truth.read(place.store)
    moves = [one.index for one in truth.entries if one.data["kind"] == "lake"]
    assert [row["log_index"] for row in rows] == moves
    assert {row["manifest"] for row in rows} <= {"read", "none"}
    return len(rows)


async def build_table(store: Store, place: Path) -> None:
    """From the log's first entry, in batches of its own."""
    tail = LogTail(store)
    ports = FollowPorts(
        store=StoreWithTable(store, place),
        queue=cast(Any, None),
        log=tail,
        clock=lambda: datetime.now(UTC),
    )
    table = Table(ports, lambda: TablePlace(str(place)), Tuning(rows=64, commit_every_s=0.0))
    assert (await table.start(Cursor())).next == 0
    size = await tail.size()
    entries = [one for one in await tail.read(0, size) if one.data["kind"] in table.kinds]
    step = await table.follow(Batch(entries, 0, size, size))
    assert step.cursor.next == size


async def every_decision_was_told_once(place: House, told: Trainer) -> int:
    """Or again with the same content under the same key; the number of decisions."""
    truth = await Truth.read(place.store)
    keys = truth.keys()
    assert set(told.told) == set(keys)
    assert told.wrong == []
    assert {one["key"] for one in truth.of("triggered")} == set(keys)
    numbers: dict[str, list[int]] = {}
    for one in truth.of("decided"):
        numbers.setdefault(one["policy"], []).append(one["decision"])
    assert set(numbers) == {"any", "livers", "soon"}
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    snapshots = {one["key"]: one for one in truth.of("snapshot")}
    for key, body in told.told.items():
        event = json.loads(body)
        about, decision = event["data"], keys[key]
        assert event["id"] == about["key"] == key
        named = (about["policy"], about["decision"], about["log"]["size"])
        assert named == (decision["policy"], decision["decision"], decision["log_size"])
        stored = await place.store.read(about["snapshot"]["key"])
        assert stored is not None
        assert digest(stored.data) == about["snapshot"]["sha256"]
        assert snapshots[about["snapshot"]["key"]]["sha256"] == about["snapshot"]["sha256"]
    return len(keys)


async def no_follower_complained(place: House, *, slept: bool) -> None:
    """Nothing was taken for somebody's edit, and nothing could not be shown; only the target
    failed, as it was to. A mirror that ``slept`` in the middle of a copy, and wakes when another
    has taken its work over, is no longer known to be ours: its copy is put right and told."""
    truth = await Truth.read(place.store)
    told = truth.of("foreign", "buried", "dropped", *([] if slept else ["restored"]))
    told += [one for one in truth.of("failed") if "follower" in one]
    assert told == [], told
    ids = [one.data["id"] for one in truth.entries]
    assert len(ids) == len(set(ids))


async def nothing_is_left_over(place: House) -> None:
    """The log and the lake verify, each snapshot is one that the log tells of, and no file of a
    killed process stays."""
    verified = await place.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    # A killed exporter may leave objects that nothing names, and so may the log; followers none.
    strays = (await verify(place.store)).unreferenced
    assert [one for one in strays if "/tasks/" not in one and not one.startswith("log/")] == []
    told = {one["key"] for one in (await Truth.read(place.store)).of("snapshot")}
    kept = [item.key async for item in place.store.list("snapshots/")]
    assert {key.rsplit("/", 1)[0] for key in kept} == {key.rsplit("/", 1)[0] for key in told}
    dead = await place.run("dead", "list")
    assert "no dead letters" in dead.stdout, dead.stdout + dead.stderr
    left = left_behind(place)
    assert left == [], left


def left_behind(place: House) -> list[str]:
    """Files where the processes put what is temporary. An empty folder may stay of one that was
    killed just when it had made it."""
    temporary = Path(place.environment["TMPDIR"])
    return [str(path.relative_to(temporary)) for path in temporary.rglob("*") if path.is_file()]
