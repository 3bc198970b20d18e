"""One project of the mirror: when its entries are taken in, its index file written, its files
checked.

The index is stored before the index file is: a file that has the SHA-256 that the index names, or
named before, is ours whatever crashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from consumer.model import Record, identifier
from consumer.ports import FollowPorts
from handlers.mirror_check import Check
from handlers.mirror_file import FILES, IndexFile, Written, written
from handlers.mirror_index import Memory
from handlers.mirror_tasks import Tasks

OVERDUE = 10  # intervals after which the index file is written though more entries wait


@dataclass(frozen=True, slots=True)
class Limits:
    """``interval_s`` is the least time between two index files of a project, ``check_s`` between
    two looks at all of its files; ``max_file_bytes`` the largest index file."""

    interval_s: float
    check_s: float
    max_file_bytes: int


class Project:
    """One project. ``since`` is the first entry that the stored index does not cover."""

    def __init__(self, ports: FollowPorts, memory: Memory, limits: Limits) -> None:
        self.memory = memory
        self.since: int | None = None
        self._ports = ports
        self._limits = limits
        self._file = IndexFile(ports.store, memory.project)
        self._tasks = Tasks(ports.store, ports.queue, memory)
        self._check = Check(ports.store, ports.queue, memory, self._tasks, self._file)
        self._is_settled = False
        self._checked_at: datetime | None = None
        self._saved_at: datetime | None = None
        self._began_at = ports.clock()
        flushed_at = memory.index.flushed_at
        self._flushed_at = datetime.fromisoformat(flushed_at) if flushed_at else None
        self._too_large = False  # until the next check

    async def take(self, tasks: Iterable[tuple[int, str, int]]) -> None:
        """Entries about tasks: index, task and sequence."""
        news: dict[str, int] = {}
        first: int | None = None
        for index, task, sequence in tasks:
            if not self._tasks.is_known(task, sequence):
                first = index if first is None else first
                news[task] = max(sequence, news.get(task, 0))
        if first is None:
            return
        self.since = first if self.since is None else self.since
        await self._tasks.make_equal(news)

    async def look(self, checked_at: datetime | None) -> None:
        """When all entries are taken in: what a crash left, and what somebody edited."""
        now = self._ports.clock()
        self._checked_at = self._checked_at or checked_at
        if self.check_in_s() <= 0:
            await self._check.check()
            self.memory.all_awake(now, self._limits.check_s)
            self._checked_at, self._too_large = now, False
        elif not self._is_settled:
            await self._check.settle()
        self._is_settled = True

    async def flush(self, *, caught_up: bool) -> float | None:
        """Writes what is due; how long until something may be, None when nothing waits."""
        memory, now, interval_s = self.memory, self._ports.clock(), self._limits.interval_s
        if not self._is_waiting:
            self.since = None
            return None
        wait_s = _left(self._flushed_at, now, interval_s)
        if wait_s > 0:
            return wait_s
        waited_s = (now - (self._flushed_at or self._began_at)).total_seconds()
        overdue = waited_s > OVERDUE * interval_s
        if self._is_stale and (caught_up or overdue):
            await self._publish(now)
            self._flushed_at = now
        elif not memory.is_saved:
            wait_s = _left(self._saved_at, now, interval_s)
            if wait_s > 0:
                return wait_s
            await memory.save(now)
            self._saved_at = now
        if memory.is_saved:
            self.since = None
        return interval_s if self._is_waiting else None

    @property
    def _is_stale(self) -> bool:
        return self.memory.index.is_stale and not self._too_large

    @property
    def _is_waiting(self) -> bool:
        return self._is_stale or not self.memory.is_saved

    @property
    def checked_at(self) -> datetime | None:
        return self._checked_at

    def check_in_s(self) -> float:
        return _left(self._checked_at, self._ports.clock(), self._limits.check_s)

    async def _publish(self, now: datetime) -> None:
        """Index, then index file, each by compare-and-swap; the file only where it is another."""
        memory, index = self.memory, self.memory.index
        file = index.file or FILES[0]
        present, sha256 = await self._file.read(file)
        spliced = present is not None and sha256 == index.sha256
        new, problems = await self._file.documents(index, self._tasks.plans, spliced=spliced)
        if problems:
            await self._tasks.fail(problems)
        made = await written(index, present.data if present and spliced else b"", new)
        if len(made.data) > self._limits.max_file_bytes:
            await self._say_too_large(now)
            return
        if made.file != file:
            present, sha256 = await self._file.read(made.file)
        ours = (index.sha256, index.before) if made.file == index.file else ("",)
        if sha256 not in (made.sha256, *ours):
            await self._check.tell_file(made.file, sha256)
        self._enter(made, sha256, former=index.file if made.file != index.file else "")
        await memory.save(now)
        self._tasks.plans.clear()
        if sha256 != made.sha256:
            etag = present.etag if present else None
            await self._ports.store.swap(self._file.key(made.file), made.data, if_match=etag)
        index.before = made.sha256
        if not sha256:  # from now on it is an edit if there is none
            await memory.save(now)
        if index.former:
            await self._ports.store.delete(self._file.key(index.former))

    def _enter(self, made: Written, present: str, *, former: str) -> None:
        index = self.memory.index
        index.tasks |= made.tasks
        index.file, index.former = made.file, former
        index.sha256, index.before = made.sha256, present
        index.is_stale = False

    async def _say_too_large(self, now: datetime) -> None:
        """The project's files are shown all the same; the index file stays as it is."""
        project, reason = self.memory.project, "index-file-too-large"
        self._too_large = True
        fields = {"follower": "mirror", "project_key": project, "reason": reason}
        name = identifier(project, reason, self.memory.index.sha256)
        await self._ports.queue.put([Record(id=f"mirror:{name}", kind="failed", fields=fields)])
        if not self.memory.is_saved:
            await self.memory.save(now)


def _left(since: datetime | None, now: datetime, period_s: float) -> float:
    """Seconds until so much time has gone by; a clock that was set back makes nothing wait."""
    if since is None or now < since:
        return 0.0
    return period_s - (now - since).total_seconds()


def by_project(
    entries: Iterable[tuple[str, int, str, int]],
) -> Mapping[str, list[tuple[int, str, int]]]:
    """(project, index, task, sequence) as lists by project, in the log's order."""
    found: dict[str, list[tuple[int, str, int]]] = {}
    for project, index, task, sequence in entries:
        found.setdefault(project, []).append((index, task, sequence))
    return found
