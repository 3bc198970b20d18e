"""Makes a snapshot: reads the log up to a size, then every manifest, then writes it down.

Nothing is written before everything was read; ``snapshot.json`` is stored last. So there is either
no snapshot or the whole, and whoever begins again finishes it with the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import msgspec

from consumer.errors import Permanent
from consumer.model import Manifest, Record, canonical, decode, digest
from consumer.ports import LogReader, Sleep, Store
from handlers import layout
from handlers.pull.content import damaged, missing
from handlers.pull.together import each, retried
from handlers.snapshots import stored
from handlers.snapshots.counting import Counting, classes_of
from handlers.snapshots.described import (
    Described,
    Selection,
    Snapshot,
    checked_name,
    snapshot_from,
    snapshot_id,
)
from handlers.snapshots.rows import Row, rows_of
from handlers.snapshots.split import Split
from handlers.snapshots.truth import Move, size_of_truth, truth_at
from handlers.snapshots.writing import Manifests

KIND = "snapshot"  # of the log's entry
TASKS_AT_ONCE = 256  # whose manifests are in memory
MAX_NAMED = 20  # projects or classes that a sentence names

__all__ = ["Snapshot", "Wanted", "create", "record_of"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written down. ``size`` None is the log as it is now, without what came after
    the last change of a task, so that the same ground truth has the same id. ``projects`` are ids,
    or names in the lake; empty (or ``*``) is all. ``key`` parts the tasks; empty, the log's origin
    does. ``absent_ok``: some of the projects and classes may not be there yet, though not all."""

    name: str
    size: int | None = None
    projects: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    split: dict[str, float]
    key: bytes = b""
    patient: str = ""
    absent_ok: bool = False


async def create(
    wanted: Wanted, *, store: Store, log: LogReader, sleep: Sleep = asyncio.sleep
) -> Snapshot:
    """The snapshot, in the lake on return; one that was there already is left as it is.

    Raises ``Transient``; ``Permanent``, and then nothing was written, for an empty ground truth, a
    class or project that it does not hold, a size that the log has not, and a manifest that is
    missing or damaged.
    """
    name = checked_name(wanted.name)
    size = await _size(wanted.size, log, sleep)
    identity = await retried(log.identity, sleep)
    if size == 0 or not identity:
        raise _empty(size)
    root = await retried(lambda: log.root(size), sleep)
    split = Split(wanted.split, wanted.key or _origin(identity).encode(), wanted.patient)
    selection = _selection(wanted)
    made = snapshot_id(
        log=identity, root=root, size=size, selection=selection, split=split.settings
    )
    if (there := await retried(lambda: stored.read(store, name, made), sleep)) is not None:
        return there
    moves = await truth_at(log, size, sleep)
    moves = _of_projects(moves, selection.projects, size, absent_ok=wanted.absent_ok)
    described = Described(
        name=name,
        id=made,
        log=identity,
        root=root,
        size=size,
        selection=selection,
        split=split.settings,
    )
    return await _written(described, moves, split, store, sleep, absent_ok=wanted.absent_ok)


def record_of(snapshot: Snapshot) -> Record:
    """What the log is told; the same again for the same snapshot."""
    return Record(
        id=f"{snapshot.name}:{snapshot.id}",
        kind=KIND,
        fields={
            "name": snapshot.name,
            "snapshot": snapshot.id,
            "key": snapshot.key,
            "sha256": snapshot.sha256,
            "manifest_sha256": snapshot.manifest_sha256,
            "log_size": snapshot.size,
            "log_root": snapshot.root,
            "tasks": snapshot.tasks,
        },
    )


async def _size(asked: int | None, log: LogReader, sleep: Sleep) -> int:
    size = await retried(log.size, sleep)
    if asked is None:
        return await size_of_truth(log, size, sleep)
    if asked > size:
        said = f"the log has {size} entries, and a snapshot of {asked} was asked for"
        raise Permanent("log-index-ahead", said)
    return max(0, asked)


def _selection(wanted: Wanted) -> Selection:
    projects = () if "*" in wanted.projects else tuple(sorted(set(wanted.projects)))
    return Selection(projects=projects, classes=tuple(sorted(set(wanted.classes))))


def _of_projects(
    moves: Sequence[Move], projects: Collection[str], size: int, *, absent_ok: bool
) -> list[Move]:
    if not moves:
        raise _empty(size)
    known = {move.project_key for move in moves}
    there = known | {move.project for move in moves}
    for project in projects:
        if project not in there and not (absent_ok and not there.isdisjoint(projects)):
            held = f"the ground truth is of {_named(known)}"
            said = f"no task of project {_short(project)} is in the ground truth: {held}"
            raise Permanent("no-such-project", said)
    if not projects:
        return list(moves)
    return [move for move in moves if move.project in projects or move.project_key in projects]


async def _written(
    begun: Described,
    moves: Sequence[Move],
    split: Split,
    store: Store,
    sleep: Sleep,
    *,
    absent_ok: bool,
) -> Snapshot:
    """Everything is read before anything is stored."""
    prefix = layout.snapshot_prefix(begun.name, begun.id)
    async with stored.scratch() as folder:
        manifests, counting = Manifests(folder), Counting()
        try:
            classes = begun.selection.classes
            seen = await _fill(moves, classes, split, manifests, counting, store, sleep)
            _check(classes, seen, absent_ok=absent_ok)
        finally:
            await asyncio.to_thread(manifests.close)
        files = await manifests.store(store, prefix, sleep)
    described = msgspec.structs.replace(begun, counts=counting.counts(), files=files)
    data = canonical(described)
    await retried(lambda: store.create(f"{prefix}{layout.SNAPSHOT_FILE}", data), sleep)
    return snapshot_from(described, data, is_new=True)


async def _fill(
    moves: Sequence[Move],
    classes: Collection[str],
    split: Split,
    manifests: Manifests,
    counting: Counting,
    store: Store,
    sleep: Sleep,
) -> set[str]:
    """Reads every manifest; keeps a few at a time in memory. The classes that are drawn."""
    seen: set[str] = set()
    for start in range(0, len(moves), TASKS_AT_ONCE):
        rows = await _rows(moves[start : start + TASKS_AT_ONCE], split, store, sleep)
        wanted = []
        for of_task in rows:
            drawn = classes_of(of_task)
            seen |= drawn
            if not classes or not drawn.isdisjoint(classes):
                wanted.append(of_task)
        for of_task in wanted:
            counting.add(of_task)
        await asyncio.to_thread(manifests.add, [row for of_task in wanted for row in of_task])
    return seen


def _check(classes: Collection[str], seen: Collection[str], *, absent_ok: bool) -> None:
    any_there = not set(seen).isdisjoint(classes)
    for name in classes:
        if name not in seen and not (absent_ok and any_there):
            held = f"it holds {_named(seen)}" if seen else "it holds none"
            said = f"nothing in the ground truth is of class {_short(name)}: {held}"
            raise Permanent("no-such-class", said)


async def _rows(moves: Sequence[Move], split: Split, store: Store, sleep: Sleep) -> list[list[Row]]:
    """Each task's rows, in the order of the moves."""
    made: dict[int, list[Row]] = {}

    async def one(item: tuple[int, Move]) -> None:
        place, move = item
        manifest = await _manifest(move, store, sleep)
        part = split.part_of(move.project_key, move.task, manifest.name or move.task)
        made[place] = rows_of(move, manifest, part)

    await each(enumerate(moves), one)
    return [made[place] for place in range(len(moves))]


async def _manifest(move: Move, store: Store, sleep: Sleep) -> Manifest:
    """Raises ``Permanent`` naming the key: ``lake-file-missing``, ``lake-file-damaged``,
    ``manifest-unreadable``."""
    key = move.manifest_key
    if key is None:
        said = f"entry {move.index} of the log names no manifest of its revision"
        raise Permanent("lake-entry-unreadable", said)
    found = await retried(lambda: store.read(key), sleep)
    if found is None:
        raise missing(key)
    if digest(found.data) != move.manifest_sha256:
        raise damaged(key)
    try:
        return decode(found.data, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = f"{key} is no manifest of this version"
        raise Permanent("manifest-unreadable", said) from error


def _origin(identity: str) -> str:
    return identity.rpartition("~")[0]


def _empty(size: int) -> Permanent:
    said = f"no task is in the ground truth at size {size} of the log: there is nothing to keep"
    return Permanent("empty-ground-truth", said)


def _named(names: Collection[str]) -> str:
    shown = ", ".join(map(_short, sorted(names)[:MAX_NAMED]))
    more = len(names) - MAX_NAMED
    return shown + (f" and {more} more" if more > 0 else "")


def _short(name: str) -> str:
    return name[:100] if name.isprintable() else "?"
