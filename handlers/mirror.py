"""The follower ``mirror``: each project of the lake as its platform's own export shows it.

``{project}/segmentations/{task}/{series}.nii.gz`` and ``{project}/tasks.json`` (or
``export.ndjson``) are what a plain ``groundwire pull`` of the project places, file by file and byte
by byte. A task's files follow its pointer at once, by copies within the lake; the index file is
written at most once per interval. What somebody edits is put right, and told in the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from consumer.changes import change_of
from consumer.errors import Permanent
from consumer.ports import Batch, Cursor, FollowPorts, LogEntry, Step
from handlers.mirror_index import Memory, known_projects
from handlers.mirror_project import Limits, Project, by_project

MAX_FILE_BYTES = 1 << 30  # of an index file, which is in memory when it is written


class Mirror:
    """Implements ``Follower``. The cursor goes on to what the stored indices cover."""

    name = "mirror"
    kinds = frozenset({"lake"})

    def __init__(
        self,
        ports: FollowPorts,
        *,
        interval_s: float,
        check_s: float,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self._ports = ports
        self._limits = Limits(interval_s, check_s, max_file_bytes)
        self._projects: dict[str, Project] = {}
        self._touched: dict[str, set[str]] = {}  # before a failure, by project
        self._checked_at: dict[str, datetime] = {}

    async def start(self, cursor: Cursor) -> Cursor:
        """Where a project's index was lost, the log is read from its beginning: what other
        projects know of it they skip."""
        self._remember()
        self._projects = {}
        for project in await known_projects(self._ports.store):
            await self._load(project)
        stored = {name for name, one in self._projects.items() if one.memory.is_stored}
        is_lost = not stored.issuperset(cursor.state.get("projects", ()))
        return Cursor(0, cursor.state) if is_lost else cursor

    async def follow(self, batch: Batch) -> Step:
        for name, moves in by_project(_moves(batch.entries)).items():
            project = self._projects.get(name) or await self._load(name)
            await project.take(moves)
        waits: list[float] = []
        for name, project in self._projects.items():
            if batch.caught_up:
                await project.look(self._checked_at.get(name))
            wait_s = await project.flush(caught_up=batch.caught_up)
            waits += [project.check_in_s()] if wait_s is None else [wait_s, project.check_in_s()]
        waiting = [one.since for one in self._projects.values() if one.since is not None]
        stored = sorted(name for name, one in self._projects.items() if one.memory.is_stored)
        cursor = Cursor(min(waiting, default=batch.end), {"projects": stored})
        return Step(cursor, min(waits, default=None))

    async def _load(self, name: str) -> Project:
        memory = Memory(self._ports.store, name)
        await memory.load(self._touched.get(name, ()), self._ports.clock())
        self._projects[name] = Project(self._ports, memory, self._limits)
        return self._projects[name]

    def _remember(self) -> None:
        """What this process touched is its own doing, whichever mirror's index is read next."""
        for name, one in self._projects.items():
            self._touched[name] = one.memory.touched | one.memory.quiet
            if one.checked_at is not None:
                self._checked_at[name] = one.checked_at


def _moves(entries: Sequence[LogEntry]) -> Iterator[tuple[str, int, str, int]]:
    for entry in entries:
        try:
            change = change_of(entry.index, entry.data, "")
        except msgspec.ValidationError as error:
            said = f"entry {entry.index} tells of no change that this version knows"
            raise Permanent("log-damaged", said) from error
        if change is not None:
            yield change.project_key, entry.index, change.task, change.sequence
