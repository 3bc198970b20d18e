"""The snapshots that the lake holds: found by name or id, and read with their hashes checked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from consumer.errors import Permanent
from consumer.model import FORMAT, decode
from consumer.ports import Listed, LogReader, Sleep, Store
from handlers import layout
from handlers.pull.content import damaged, missing
from handlers.pull.together import each, retried
from handlers.scratch import Scratch, remove_orphans
from handlers.snapshots.described import (
    NAME,
    ROWS,
    Described,
    Snapshot,
    snapshot_from,
    snapshot_id,
)
from handlers.snapshots.rows import Row

MAX_ROW_BYTES = 64 << 20
SHOWN = 10  # snapshots that a sentence names

_ID = re.compile(r"(0|[1-9][0-9]{0,17})-[0-9a-f]{12}", re.ASCII)


class Found(NamedTuple):
    """A snapshot as a listing shows it."""

    name: str
    id: str
    listed: Listed

    @property
    def spoken(self) -> str:
        return f"{self.name}/{self.id}"

    @property
    def age(self) -> tuple[int, str, str]:
        """The newest has the greatest: by the log's size, then by when it was stored."""
        return int(self.id.split("-")[0]), self.listed.modified.isoformat(), self.id


async def found(store: Store) -> list[Found]:
    """Every snapshot there is, the newest last."""
    snapshots = []
    async for listed in store.list(f"{layout.SNAPSHOTS}/"):
        named = layout.snapshot_of(listed.key)
        if named and NAME.fullmatch(named[0]) and _ID.fullmatch(named[1]):
            snapshots.append(Found(*named, listed))
    return sorted(snapshots, key=lambda one: (one.age, one.name))


async def read(store: Store, name: str, identity: str) -> Snapshot | None:
    """None when there is none. Raises ``Permanent`` (``snapshot-unreadable``)."""
    key = f"{layout.snapshot_prefix(name, identity)}{layout.SNAPSHOT_FILE}"
    stored = await store.read(key)
    if stored is None:
        return None
    try:
        described = decode(stored.data, Described)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(key) from error
    own = snapshot_id(
        log=described.log,
        root=described.root,
        size=described.size,
        selection=described.selection,
        split=described.split,
    )
    if (described.name, described.id, own) != (name, identity, identity):
        raise _unreadable(key)
    if described.format != FORMAT or ROWS not in described.files:
        raise _unreadable(key)
    return snapshot_from(described, stored.data)


async def read_all(store: Store) -> tuple[list[Snapshot], list[Permanent]]:
    """Every snapshot, the newest last, and what is wrong with those that cannot be read."""
    there = await found(store)
    snapshots: dict[Found, Snapshot] = {}
    wrong: list[Permanent] = []

    async def one(item: Found) -> None:
        try:
            snapshot = await read(store, item.name, item.id)
        except Permanent as error:
            wrong.append(error)
            return
        if snapshot is not None:
            snapshots[item] = snapshot

    await each(there, one)
    return [snapshots[item] for item in there if item in snapshots], wrong


async def find(store: Store, asked: str) -> Snapshot:
    """By name (its newest), by ``name/id``, or by id; an id may be cut short. Of several names with
    one id any is meant, since they hold the same. Raises ``Permanent``: ``no-such-snapshot``,
    ``which-snapshot``, ``snapshot-unreadable``."""
    there = await found(store)
    named = [one for one in there if one.name == asked]
    if named:
        matches = named[-1:]
    else:
        name, slash, start = asked.rpartition("/")
        matches = [
            one
            for one in there
            if start and one.id.startswith(start) and (not slash or one.name == name)
        ]
    if len({one.id for one in matches}) > 1:
        said = f"several snapshots are meant: name one of {_spoken(matches)}"
        raise Permanent("which-snapshot", said)
    snapshot = await read(store, matches[0].name, matches[0].id) if matches else None
    if snapshot is None:
        held = f"there are {_spoken(there)}" if there else "there is none"
        shown = asked if len(asked) <= 100 and asked.isprintable() else "of that name"
        raise Permanent("no-such-snapshot", f"the lake holds no snapshot {shown}: {held}")
    return snapshot


@asynccontextmanager
async def scratch() -> AsyncIterator[Path]:
    """A folder for what is too large for the memory. What killed processes left goes first. Raises
    ``Transient`` when the disk is full or refuses."""
    await asyncio.to_thread(remove_orphans)
    folder = Scratch()
    try:
        yield folder.path
    finally:
        folder.remove()


async def bring_rows(store: Store, snapshot: Snapshot, folder: Path, sleep: Sleep) -> Path:
    """The snapshot's rows in a file of ``folder``, which `rows_in` reads. Raises ``Permanent``
    (``lake-file-missing``, ``lake-file-damaged``)."""
    key, file = f"{snapshot.folder}{ROWS}", folder / f"{snapshot.name}-{snapshot.id}.jsonl"
    sha256 = await retried(lambda: store.download(key, file), sleep)
    if sha256 is None:
        raise missing(key)
    if sha256 != snapshot.manifest_sha256:
        raise damaged(key)
    return file


def rows_in(file: Path) -> Iterator[Row]:
    """Raises ``Permanent`` (``snapshot-unreadable``)."""
    decoder = msgspec.json.Decoder(Row)
    with file.open("rb") as opened:
        while line := opened.readline(MAX_ROW_BYTES):
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                said = f"{file.name} holds a row that is none of this version"
                raise Permanent("snapshot-unreadable", said) from error


async def logged_at(log: LogReader, since: int) -> dict[str, str]:
    """When the log was told of each snapshot, by the key of its ``snapshot.json``; an entry lies
    behind what its snapshot is of."""
    times: dict[str, str] = {}
    size = await log.size()
    for start in range(since, size, 1024):
        for entry in await log.read(start, min(size, start + 1024)):
            if entry.data.get("kind") == "snapshot":
                times.setdefault(str(entry.data.get("key")), str(entry.data.get("logged_at")))
    return times


def _spoken(several: list[Found]) -> str:
    shown = [one.spoken for one in several[-SHOWN:]]
    more = len(several) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _unreadable(key: str) -> Permanent:
    said = f"{key} is no snapshot of this version, or was changed; groundwire verify tells more"
    return Permanent("snapshot-unreadable", said)
