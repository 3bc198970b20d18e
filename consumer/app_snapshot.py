"""What the snapshot commands are composed of."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from consumer.app_adapters import make_queue, make_store
from consumer.changes import read_position
from consumer.errors import Permanent
from consumer.log.tail import LogTail
from consumer.ports import LogReader
from consumer.serve import opened
from consumer.settings import Settings
from handlers.formats.histogram import Bars, histogram
from handlers.pull.options import Options, mistakes, spoken
from handlers.pull.stage import Progress
from handlers.pull.sync import Summary
from handlers.snapshots import diff as differing
from handlers.snapshots import pull as pulling
from handlers.snapshots import stored
from handlers.snapshots.create import Snapshot, Wanted, create, record_of
from handlers.snapshots.diff import Diff

__all__ = [
    "Asked", "Diff", "Options", "Snapshot", "Summary", "Wish", "created", "differed", "listed",
    "mistakes", "picture", "pulled", "shown", "spoken",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A snapshot as it was asked for; ``at`` is a size of the log, or the id that a change came
    with: then as it was after that change."""

    name: str
    projects: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A snapshot that is to be pulled; ``options`` None are those of the last time."""

    snapshot: str
    directory: Path
    options: Options | None = None
    clear_cache: bool = False


async def created(settings: Settings, asked: Asked) -> Snapshot:
    """Makes it, or finds it made; then the log is told. Raises ``Transient`` and ``Permanent``."""
    store = make_store(settings)
    log = LogTail(store)
    section = settings.snapshots
    wanted = Wanted(
        name=asked.name,
        size=await _size(asked.at, log),
        projects=asked.projects,
        classes=asked.classes,
        split=section.split,
        key=section.key.reveal().encode() if section.key else b"",
        patient=section.patient,
    )
    snapshot = await create(wanted, store=store, log=log)
    queue = make_queue(settings)
    async with opened(queue):
        await queue.put([record_of(snapshot)])
    return snapshot


async def _size(at: str | None, log: LogReader) -> int | None:
    if at is None:
        return None
    try:
        index, of_log = read_position(at)
    except ValueError:
        said = "--at is a size of the log, or the id that a change came with"
        raise Permanent("bad-position", said) from None
    if of_log is None:
        return index
    if of_log != (identity := await log.identity()):
        said = f"--at is of another log: this lake's is {identity or 'empty'}"
        raise Permanent("position-of-another-log", said)
    return index + 1


async def listed(settings: Settings) -> tuple[list[tuple[Snapshot, str | None]], list[Permanent]]:
    """Every snapshot, the newest last, with when the log was told of it; and what is wrong with
    those that cannot be read."""
    store = make_store(settings)
    snapshots, wrong = await stored.read_all(store)
    times: dict[str, str] = {}
    if snapshots:
        times = await stored.logged_at(LogTail(store), min(one.size for one in snapshots))
    return [(one, times.get(one.key)) for one in snapshots], wrong


async def shown(settings: Settings, asked: str) -> Snapshot:
    """Raises ``Permanent``."""
    return await stored.find(make_store(settings), asked)


async def differed(settings: Settings, a: str, b: str) -> Diff:
    """Raises ``Transient`` and ``Permanent``."""
    store = make_store(settings)
    first, second = await stored.find(store, a), await stored.find(store, b)
    return await differing.diff(store, first, second, asyncio.sleep)


async def pulled(
    settings: Settings, wish: Wish, progress: Progress
) -> tuple[Snapshot, dict[Path, Summary]]:
    """Raises ``Transient`` and ``Permanent``."""
    store = make_store(settings)
    snapshot = await stored.find(store, wish.snapshot)
    place = settings.lake.path.as_uri() if settings.lake.scheme == "file" else str(settings.lake)
    to = pulling.Destination(
        directory=wish.directory.absolute(),
        options=wish.options,
        lake=place,
        endpoint=settings.lake_endpoint,
        clear_cache=wish.clear_cache,
    )
    done = await pulling.pull(store, snapshot, to, progress=progress, sleep=asyncio.sleep)
    return snapshot, done


def picture(snapshot: Snapshot) -> bytes:
    """A PNG: tasks and voxels of each class in each part."""
    counts = snapshot.described.counts
    shares = snapshot.described.split.shares
    parts = sorted(shares, key=lambda part: (-shares[part], part))
    tasks = {name: {p: one.tasks for p, one in of.items()} for name, of in counts.classes.items()}
    voxels = {name: {p: one.voxels for p, one in of.items()} for name, of in counts.classes.items()}
    title = f"{snapshot.name} {snapshot.id}: {snapshot.tasks} tasks"
    panels = [Bars("tasks with the class", tasks), Bars("its voxels", voxels, wide=True)]
    return histogram(title, parts, panels)
