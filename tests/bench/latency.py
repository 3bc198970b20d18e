"""How long after a webhook its effect is visible: in the lake, in the mirror, on the stream.

Tasks enter and leave the ground truth with masks that were made before, so nothing is converted.
What is measured begins when the request is sent, and the platform's own time to answer (the mean
of what Groundwire itself measured) is subtracted. Lake and mirror are looked at all the time, for
the tasks that are awaited; platform, reader and looking share the machine with what is
measured. The peer is the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from consumer.client import changes
from consumer.demo.redbrick import Drawing, SeriesSpec
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from tests.bench.table import Candidate, Result, quantile
from tests.end_to_end.house import House, free_port, house, until
from tests.servers_rabbitmq import rabbitmq
from tests.servers_s3 import ACCESS_KEY, SECRET_KEY, s3

PAUSE_S = 0.02  # between looks
RATE = 50.0  # events a second
IN, OUT = "END", "Label"


@dataclass(slots=True)
class Watched:
    """When each event of a task became visible, by place."""

    sent: dict[str, float] = field(default_factory=dict)  # task -> when its last event was sent
    wanted: dict[str, bool] = field(default_factory=dict)  # task -> whether it is to be in
    seen: dict[str, dict[str, float]] = field(default_factory=dict)  # place -> task -> seconds
    samples: dict[str, list[float]] = field(default_factory=dict)

    def send(self, task: str, *, into: bool) -> None:
        self.sent[task], self.wanted[task] = time.perf_counter(), into
        for place in ("lake", "mirror", "stream"):
            self.seen.setdefault(place, {}).pop(task, None)

    def see(self, place: str, task: str, *, inside: bool) -> None:
        seen = self.seen.setdefault(place, {})
        if task in self.sent and task not in seen and self.wanted[task] == inside:
            seen[task] = time.perf_counter() - self.sent[task]
            self.samples.setdefault(place, []).append(seen[task])

    def waits_for(self, task: str) -> list[str]:
        places = ("lake", "mirror", "stream")
        return [place for place in places if task not in self.seen.get(place, {})]


@dataclass(slots=True)
class Stage:
    """A running Groundwire with its tasks, and whoever watches it."""

    place: House
    url: str
    metrics_url: str
    tasks: dict[str, str] = field(default_factory=dict)  # name -> id
    watched: Watched = field(default_factory=Watched)

    @property
    def project(self) -> str:
        return self.place.cast.redbrick.project_id

    async def toggle(self, task: str) -> None:
        into = not self.watched.wanted.get(task, False)
        self.place.cast.redbrick.move(task, IN if into else OUT)
        posts = self.place.webhooks()
        self.watched.send(task, into=into)
        await self.place.post_all(posts)

    async def watch_stream(self) -> None:
        async for one in changes(self.url, ground_truth=True):
            self.watched.see("stream", one.task, inside=one.ground_truth != "removed")

    async def watch(self) -> None:
        """Looks for what is awaited, one task after the other."""
        names = {task: name for name, task in self.tasks.items()}
        while True:
            for task in [one for one in self.watched.sent if self.watched.waits_for(one)]:
                into = self.watched.wanted[task]
                left = self.watched.waits_for(task)
                if "lake" in left and (await self._in_ground_truth(task)) is into:
                    self.watched.see("lake", task, inside=into)
                if "mirror" in left and (await self._is_shown(names[task])) is into:
                    self.watched.see("mirror", task, inside=into)
            await asyncio.sleep(PAUSE_S)

    async def _in_ground_truth(self, task: str) -> bool:
        pointer = await self.place.pointer(self.project, task)
        return pointer is not None and pointer.ground_truth

    async def _is_shown(self, name: str) -> bool:
        key = f"{self.project}/segmentations/{name}/ct.nii.gz"
        return await self.place.store.read(key) is not None

    async def fetched(self) -> tuple[float, float]:
        """Seconds and number of Groundwire's questions to the platform so far."""
        async with self.place.session.get(self.metrics_url) as answer:
            text = await answer.text()
        values = [
            sum(
                float(n)
                for n in re.findall(rf"^groundwire_fetch_seconds_{what}.* (\S+)$", text, re.M)
            )
            for what in ("sum", "count")
        ]
        return values[0], values[1]


def run(*, quick: bool) -> Iterator[Result]:
    yield from asyncio.run(_measured(_embedded, quick=quick))
    yield from asyncio.run(_measured(_distributed, quick=quick))


async def _measured(
    started: Callable[[Path], contextlib.AbstractAsyncContextManager[tuple[str, Stage]]],
    *,
    quick: bool,
) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="groundwire-bench-") as folder:
        async with started(Path(folder)) as (name, stage):
            await _prepare(stage, 20 if quick else 100)
            results = []
            for load, play in (
                ("at rest", _at_rest),
                (f"at {RATE:g} events/s", _under_load),
            ):
                results.append(await _round(f"{name}, {load}", stage, play, quick=quick))
            return results


async def _round(
    title: str, stage: Stage, play: Callable[[Stage, bool], Awaitable[None]], *, quick: bool
) -> Result:
    stage.watched.samples.clear()
    before = await stage.fetched()
    watching = [asyncio.create_task(one()) for one in (stage.watch_stream, stage.watch)]
    try:
        await asyncio.sleep(1.0)  # until both have seen what is there
        stage.watched.samples.clear()
        await play(stage, quick)
    finally:
        for one in watching:
            one.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    after = await stage.fetched()
    answer_s = (after[0] - before[0]) / max(1.0, after[1] - before[1])
    candidates = [
        _candidate(place, stage.watched.samples[place], answer_s)
        for place in ("stream", "lake", "mirror")
    ]
    said = f"The platform answered in {answer_s * 1e3:.0f} ms (mean), which is subtracted."
    return Result(
        f"Webhook sent to visible: {title}",
        "ms",
        candidates,
        columns=("99th percentile", "events"),
        remark=said,
    )


def _candidate(name: str, seconds: list[float], answer_s: float) -> Candidate:
    times = [max(0.0, one - answer_s) * 1e3 for one in seconds]
    return Candidate(name, times, (f"{quantile(times, 0.99):.0f}", str(len(times))))


async def _at_rest(stage: Stage, quick: bool) -> None:
    tasks = list(stage.tasks.values())
    for number in range(20 if quick else 100):
        task = tasks[number % len(tasks)]
        await stage.toggle(task)
        await _visible(stage, [task])


async def _under_load(stage: Stage, quick: bool) -> None:
    """Each task's next event is not sent before its last one is visible everywhere."""
    tasks = list(stage.tasks.values())
    sending: list[asyncio.Task[None]] = []
    began = time.perf_counter()
    for number in range(100 if quick else 1000):
        await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
        task = tasks[number % len(tasks)]
        if number >= len(tasks):
            await _visible(stage, [task])
        sending.append(asyncio.create_task(stage.toggle(task)))
    await asyncio.gather(*sending)
    await _visible(stage, tasks)


async def _visible(stage: Stage, tasks: list[str]) -> None:
    async def complaint() -> str | None:
        late = {task: left for task in tasks if (left := stage.watched.waits_for(task))}
        return f"not visible: {late}" if late else None

    while (await complaint()) is not None and any(
        time.perf_counter() - stage.watched.sent[task] < 60 for task in tasks
    ):
        await asyncio.sleep(0.002)
    if (said := await complaint()) is not None:
        raise RuntimeError(said)


async def _prepare(stage: Stage, number: int) -> None:
    """Every task was in the ground truth once, so that its masks are made, and left it."""
    redbrick = stage.place.cast.redbrick
    for n in range(number):
        name = f"task-{n:03d}"
        stage.tasks[name] = redbrick.create_task(
            name, [SeriesSpec(name="ct", dimensions=(12, 10, 6))]
        )
        redbrick.label(stage.tasks[name], [Drawing(0)])
        redbrick.move(stage.tasks[name], IN)
    await stage.place.post_all(stage.place.webhooks())
    await until(lambda: _all(stage, ground_truth=True))
    for task in stage.tasks.values():
        redbrick.move(task, OUT)
    await stage.place.post_all(stage.place.webhooks())
    await until(lambda: _all(stage, ground_truth=False))
    await until(lambda: _nothing_shown(stage))


async def _all(stage: Stage, *, ground_truth: bool) -> str | None:
    for name, task in stage.tasks.items():
        pointer = await stage.place.pointer(stage.project, task)
        if pointer is None or pointer.ground_truth is not ground_truth:
            return f"{name} is not there yet"
    return None


async def _nothing_shown(stage: Stage) -> str | None:
    async for one in stage.place.store.list(f"{stage.project}/segmentations/"):
        return f"{one.key} is still shown"
    return None


@contextlib.asynccontextmanager
async def _embedded(folder: Path) -> AsyncIterator[tuple[str, Stage]]:
    admin = free_port()
    environment = {**_SETTINGS, "GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{admin}"}
    store = DirectoryStore(folder / "lake")
    async with house(folder, store, environment=environment, seed="latency") as place:
        place.start("run", "run")
        await place.listening(within_s=120)
        url = f"http://127.0.0.1:{admin}"
        yield "SQLite and a directory, one process", Stage(place, url, f"{url}/metrics")


@contextlib.asynccontextmanager
async def _distributed(folder: Path) -> AsyncIterator[tuple[str, Stage]]:
    with rabbitmq() as broker, s3() as server:
        prefix = server.new_prefix()
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        os.environ.update(keys | {"AWS_DEFAULT_REGION": "us-east-1"})
        store = S3Store(server.bucket, prefix, endpoint=server.endpoint)
        environment = {**_SETTINGS, **keys, "GROUNDWIRE_LAKE_ENDPOINT": server.endpoint}
        lake = f"s3://{server.bucket}/{prefix}"
        async with house(
            folder, store, queue=broker.url, lake=lake, environment=environment, seed="latency"
        ) as place:
            urls = {name: _start(place, name, *command) for name, command in _PARTS.items()}
            await place.listening(within_s=120)
            stage = Stage(place, urls["follow"], f"{urls['export']}/metrics")
            yield "RabbitMQ and S3, four processes", stage
        store.close()


_SETTINGS = {
    "GROUNDWIRE_EXPORT__WHEN": "ground-truth",
    "GROUNDWIRE_EXPORT__DICOM_TO_NIFTI": "false",
}
_PARTS: Mapping[str, tuple[str, ...]] = {
    "receive": ("receive",),
    "export": ("work", "export"),
    "audit": ("work", "audit"),
    "follow": ("follow",),
}


def _start(place: House, name: str, *command: str) -> str:
    """The URL of its admin listener."""
    port = free_port()
    place.environment = {**place.environment, "GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{port}"}
    place.start(name, *command)
    return f"http://127.0.0.1:{port}"
