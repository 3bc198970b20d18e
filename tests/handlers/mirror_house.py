"""A lake whose pointers' moves are log entries, the mirror that follows them, and what a pull of it
would hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from consumer.errors import Conflict, Transient
from consumer.model import Message, Pointer, Record, canonical, decode
from consumer.ports import Batch, Cursor, FollowPorts, LogEntry, Step, Store
from handlers import audit, layout
from handlers.mirror import Mirror
from tests.fakes_clock import FakeClock
from tests.fakes_store import FakeStore
from tests.handlers.lake_house import is_mirrored
from tests.handlers.pull.lakes import PROJECT, Lake, pulled, tree

TREES = ("segmentations/", "masks/", "geometry/", "tasks.json", "export.ndjson")
INTERVAL_S = 60.0
CHECK_S = 3600.0


class Crash(BaseException):
    """Nothing catches it: the process died there."""


@dataclass
class Heard:
    """A queue that keeps what is put; equal ids are one, as in the log."""

    records: dict[str, Record] = field(default_factory=dict)
    times: int = 0

    async def put(self, messages: list[Message]) -> None:
        for message in messages:
            assert isinstance(message, Record)
            self.times += 1
            self.records.setdefault(message.id, message)

    def of(self, kind: str) -> list[Record]:
        return [one for one in self.records.values() if one.kind == kind]


@dataclass
class MirrorHouse(Lake):
    """`Lake`, each of whose moves is an entry. ``cursor`` is the stored one."""

    store: Store = field(default_factory=lambda: FakeStore(may_recur=is_mirrored))
    entries: list[LogEntry] = field(default_factory=list)
    cursor: Cursor = field(default_factory=Cursor)
    clock: FakeClock = field(default_factory=FakeClock)
    queue: Heard = field(default_factory=Heard)

    @property
    def fake(self) -> FakeStore:
        assert isinstance(self.store, FakeStore)
        return self.store

    async def _point(self, task: str, **told: Any) -> None:
        await super()._point(task, **told)
        await self.log(task)

    async def log(self, task: str) -> None:
        """The newest move of the task's pointer is logged."""
        stored = await self.store.read(layout.pointer_key(self.project, task))
        assert stored is not None
        for entry in audit.entries_of(decode(stored.data, Pointer).outcome):
            data = {**msgspec.json.decode(canonical(entry)), "logged_at": "2026-01-02T00:00:00Z"}
            self.entries.append(LogEntry(len(self.entries), data))

    def mirror(self, store: Store | None = None, **options: Any) -> Mirror:
        ports = FollowPorts(
            store=store or self.store,
            queue=cast(Any, self.queue),
            log=cast(Any, None),
            clock=self.clock,
        )
        given = {"interval_s": INTERVAL_S, "check_s": CHECK_S, **options}
        return Mirror(ports, **given)

    async def begin(self, mirror: Mirror) -> int:
        return (await mirror.start(self.cursor)).next

    async def feed(self, mirror: Mirror, position: int, *, batch: int = 1000) -> Step:
        """Entries from there to the end of the log, and the cursor is kept."""
        while True:
            size = len(self.entries)
            end = min(size, position + batch)
            given = Batch(self.entries[position:end], position, end, size)
            step = await mirror.follow(given)
            self.cursor = step.cursor
            position = end
            if position >= size:
                return step

    async def run(self, mirror: Mirror | None = None, *, batch: int = 1000) -> Mirror:
        """A process that begins where the cursor is stored, and takes in all there is; what may
        pass is tried again."""
        mirror = mirror or self.mirror()
        for _ in range(20):
            try:
                await self.feed(mirror, await self.begin(mirror), batch=batch)
            except (Transient, Conflict):
                continue
            return mirror
        raise AssertionError("it fails again and again")

    async def finish(self, mirror: Mirror) -> None:
        """Time passes, and it is woken for what waits."""
        for _ in range(3):
            self.clock.advance(INTERVAL_S)
            size = len(self.entries)
            self.cursor = (await mirror.follow(Batch((), size, size, size))).cursor

    async def shown(self, project: str | None = None) -> dict[str, bytes]:
        """What the mirror shows, by path."""
        prefix = f"{project or self.project}/"
        found: dict[str, bytes] = {}
        async for item in self.store.list(prefix):
            path = item.key.removeprefix(prefix)
            if path.startswith(TREES):
                stored = await self.store.read(item.key)
                assert stored is not None
                found[path] = stored.data
        return found

    async def pull(self, folder: Path) -> dict[str, bytes]:
        """What a plain pull into a new folder holds, by path."""
        number = 0
        while (folder / str(number)).exists():
            number += 1
        await pulled(self, folder / str(number))
        root = folder / str(number) / self.project
        return {path: (root / path).read_bytes() for path in tree(root)}

    def edit(self, path: str, data: bytes | None, project: str = PROJECT) -> None:
        """By hand: not through any store."""
        if data is None:
            del self.fake.objects[f"{project}/{path}"]
        else:
            self.fake._put(f"{project}/{path}", data)

    def calls(self, *verbs: str, of: Callable[[str], bool] = lambda key: True) -> list[str]:
        """The keys asked for since the last time."""
        found = [key for verb, key in self.fake.verbs() if verb in verbs and of(key)]
        self.fake.calls.clear()
        return found


def row(task: str, *labels: dict[str, Any]) -> dict[str, Any]:
    """A data row of Labelbox' export."""
    return {"data_row": {"id": task}, "projects": {"p": {"labels": list(labels)}}}
