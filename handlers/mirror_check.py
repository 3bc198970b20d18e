"""A project's files compared with what the mirror wrote, and put right.

Who edits, removes or adds a file by hand is told so in the log, once, before it is put right: by
counts, and a hash over the keys, because names may be patients'. What a crash of ours left is put
right without a word; in which folders that may be, the intent says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from consumer.errors import Permanent
from consumer.model import Record, canonical, digest, identifier
from consumer.ports import Listed, Queue, Store
from handlers.mirror_file import FILES, IndexFile
from handlers.mirror_index import Memory, Placed, Shown
from handlers.mirror_lake import TREES
from handlers.mirror_tasks import Tasks
from handlers.pull.content import missing
from handlers.pull.together import each

FEW = 100  # folders that are listed one by one rather than with all others


@dataclass(slots=True)
class Differences:
    """Paths of files that are not as they were written, that are not there, and that are nobody's,
    each with what was seen of it; ``renewed`` have their bytes, but another version."""

    changed: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    renewed: dict[str, str] = field(default_factory=dict)

    def all(self) -> dict[str, str]:
        return {**self.changed, **self.gone, **self.added}

    def edits(self, quiet: set[str]) -> Differences:
        """Those that are nobody's but an editor's."""
        kept = (
            {path: seen for path, seen in one.items() if folder_of(path) not in quiet}
            for one in (self.changed, self.gone, self.added)
        )
        return Differences(*kept)


class Check:
    """Compares and mends one project."""

    def __init__(
        self, store: Store, queue: Queue, memory: Memory, tasks: Tasks, file: IndexFile
    ) -> None:
        self._store = store
        self._queue = queue
        self._memory = memory
        self._tasks = tasks
        self._file = file
        self._stuck: set[str] = set()

    async def settle(self) -> None:
        """After a start: what a crash may have left is put right. Raises as a store does, and
        ``Conflict``."""
        memory = self._memory
        if len(memory.quiet) > FEW:
            await self.check()
            return
        places = [f"{tree}/{folder}/" for folder in sorted(memory.quiet) for tree in TREES]
        found = await self._found(places)
        wanted = {p: one for p, one in self._wanted().items() if folder_of(p) in memory.quiet}
        await self._mend(await self._compared(wanted, found))
        _, sha256 = await self._file.read(memory.index.file or FILES[0])
        if memory.index.sequence and sha256 != memory.index.sha256:
            memory.index.is_stale = True
        memory.settled()

    async def check(self) -> None:
        """Everything: also what somebody edited, which is told, and what could not be shown."""
        memory = self._memory
        found = await self._found([f"{tree}/" for tree in TREES])
        differences = await self._compared(self._wanted(), found)
        await self._tell(differences.edits(memory.quiet | memory.late))
        await self._mend(differences)
        await self._check_file()
        memory.settled()
        if memory.index.failed:
            failed = memory.index.failed
            await self._tasks.make_equal({task: one.sequence for task, one in failed.items()})

    async def tell_file(self, file: str, seen: str) -> None:
        """Somebody edited or removed an index file, which had the SHA-256 ``seen``."""
        edits = Differences()
        (edits.changed if seen else edits.gone)[file] = seen
        await self._tell(edits)

    def _wanted(self) -> dict[str, tuple[str, Placed]]:
        shown = self._memory.index.tasks
        return {file.path: (task, file) for task, one in shown.items() for file in one.files}

    async def _found(self, places: Iterable[str]) -> dict[str, Listed]:
        project = f"{self._memory.project}/"
        found: dict[str, Listed] = {}
        for place in places:
            async for item in self._store.list(project + place):
                found[item.key.removeprefix(project)] = item
        return {path: item for path, item in found.items() if path not in self._stuck}

    async def _compared(
        self, wanted: Mapping[str, tuple[str, Placed]], found: Mapping[str, Listed]
    ) -> Differences:
        made = Differences()
        made.added = {path: _seen(found[path]) for path in found.keys() - wanted.keys()}
        made.gone = dict.fromkeys(wanted.keys() - found.keys(), "")

        async def one(path: str) -> None:
            item, file = found[path], wanted[path][1]
            if item.size != file.size:
                made.changed[path] = _seen(item)
            elif item.version and item.version != file.version:
                same = await self._is_same(path, file)
                (made.renewed if same else made.changed)[path] = item.version

        await each(sorted(wanted.keys() & found.keys()), one)
        return made

    async def _is_same(self, path: str, file: Placed) -> bool:
        """A lake restored from a copy has other versions of the same bytes."""
        stored = await self._store.read(f"{self._memory.project}/{path}")
        return stored is not None and digest(stored.data) == file.sha256

    async def _check_file(self) -> None:
        """The index file is written anew, if need be, by whoever writes it."""
        index = self._memory.index
        if not index.file:
            return
        (other,) = set(FILES) - {index.file}
        stray, sha256 = await self._file.read(other)
        if stray is not None:
            if other != index.former:
                await self._tell(Differences(added={other: sha256}))
            await self._store.delete(self._file.key(other))
        _, present = await self._file.read(index.file)
        if present == index.sha256:
            return
        if present != index.before:
            await self.tell_file(index.file, present)
        index.before, index.is_stale = present, True
        self._memory.is_saved = False

    async def _tell(self, edits: Differences) -> None:
        """Told again after a crash, it is the same record. Raises ``Conflict`` where another mirror
        may have done it."""
        if not edits.all():
            return
        memory = self._memory
        await memory.check_alone()
        seen = sorted([path, version] for path, version in edits.all().items())
        fields = {
            "follower": "mirror",
            "project_key": memory.project,
            "changed": len(edits.changed),
            "removed": len(edits.gone),
            "added": len(edits.added),
            "keys_sha256": digest(canonical([f"{memory.project}/{path}" for path, _ in seen])),
        }
        name = identifier(
            memory.project, str(memory.index.sequence), *(part for one in seen for part in one)
        )
        await self._queue.put([Record(id=f"mirror:{name}", kind="restored", fields=fields)])

    async def _mend(self, differences: Differences) -> None:
        """Copies what is not as it was written, and removes what is nobody's."""
        self._renew(differences.renewed)
        broken = {**differences.changed, **differences.gone}
        if not (broken or differences.added):
            return
        await self._memory.intend({folder_of(path) for path in differences.all()})
        wanted = self._wanted()
        await each(sorted(differences.added), self._remove)
        copied: dict[str, str] = {}
        problems: dict[str, Permanent] = {}

        async def one(path: str) -> None:
            task, file = wanted[path]
            try:
                version = await self._store.copy(file.key, f"{self._memory.project}/{path}")
                if version is None:
                    raise missing(file.key)
                copied[path] = version
            except Permanent as problem:
                problems[task] = problem

        await each(sorted(broken), one)
        self._renew(copied)
        await self._tasks.fail(problems)

    async def _remove(self, path: str) -> None:
        """What no key can name (a control character, a backslash) stays, and is told once."""
        try:
            await self._store.delete(f"{self._memory.project}/{path}")
        except Permanent:
            self._stuck.add(path)

    def _renew(self, versions: Mapping[str, str]) -> None:
        wanted, shown = self._wanted(), self._memory.index.tasks
        by_task: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for path, version in versions.items():
            by_task[wanted[path][0]][path] = version
        for task, its in by_task.items():
            shown[task] = _renewed(shown[task], its)
            self._memory.is_saved = False


def _renewed(shown: Shown, versions: Mapping[str, str]) -> Shown:
    files = tuple(
        msgspec.structs.replace(file, version=versions.get(file.path, file.version))
        for file in shown.files
    )
    return msgspec.structs.replace(shown, files=files)


def _seen(item: Listed) -> str:
    return item.version or f"{item.size} bytes"


def folder_of(path: str) -> str:
    """The task's folder: ``{tree}/{folder}/...``."""
    return path.split("/")[1]
