"""One project's tasks are made equal to their pointers: their files are copied within the lake, and
what is no longer wanted goes.

Pointers are read, files placed, and the pointers read again: what moved meanwhile is done again, so
whatever happens side by side, the last to touch a task has seen its newest pointer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from consumer.errors import Permanent, Transient
from consumer.model import Record, identifier
from consumer.ports import Queue, Store
from handlers import layout
from handlers.mirror_index import Failed, Memory, Placed, Shown, facts_of
from handlers.mirror_lake import Lake, Seen
from handlers.mirror_names import Folders
from handlers.pull.content import missing
from handlers.pull.plan import TaskPlan
from handlers.pull.select import Facts
from handlers.pull.select import facts_of as facts_of_pointer
from handlers.pull.together import each

MAX_PLANS = 5000  # that are kept; of others the manifest is read again
ROUNDS = 5  # in which a pointer may move again while its task is placed


@dataclass(slots=True)
class Target:
    """What a task is to become, and what it was. ``facts`` None: nothing is known of it."""

    task: str
    facts: Facts | None
    sequence: int
    folder: str
    before: Shown | None
    plan: TaskPlan | None = None
    problem: Permanent | None = None
    is_same: bool = False

    @property
    def paths(self) -> set[str]:
        return set(self.plan.outputs) if self.plan else set()


class Tasks:
    """The tasks of one project. ``plans`` are kept for whoever writes the index file."""

    def __init__(self, store: Store, queue: Queue, memory: Memory) -> None:
        self.plans: dict[str, TaskPlan] = {}
        self._store = store
        self._queue = queue
        self._memory = memory
        self._lake = Lake(store)
        index = memory.index
        self._folders = Folders(facts_of(memory.project, *one) for one in index.tasks.items())

    def is_known(self, task: str, sequence: int) -> bool:
        """Whether that move of the task's pointer, or a later one, has been looked at."""
        shown, failed = self._memory.index.tasks.get(task), self._memory.index.failed.get(task)
        seen = max(shown.sequence if shown else 0, failed.sequence if failed else 0)
        return seen >= sequence

    async def make_equal(self, tasks: Mapping[str, int]) -> None:
        """Each task, known to have made the move of that sequence, becomes what its pointer says.
        Raises ``Transient`` and ``Conflict``; a task of which something is missing or damaged is
        shown no longer, which is told."""
        read = await self._read(tasks)
        for _ in range(ROUNDS):
            await self._show(tasks, read)
            again = await self._read(read)
            read = {task: seen for task, seen in again.items() if seen.etag != read[task].etag}
            if not read:
                return
        raise Transient("pointer-restless", "a task's pointer moved each time it had been placed")

    async def fail(self, problems: Mapping[str, Permanent]) -> None:
        """These tasks cannot be shown: their files go, and it is told."""
        shown = {task: self._memory.index.tasks[task] for task in problems}
        await self._memory.intend({one.folder for one in shown.values()})
        await self._delete(file.path for one in shown.values() for file in one.files)
        for task, problem in problems.items():
            self._keep(task, _bare(shown[task]))
            await self._say(task, shown[task].sequence, problem)

    async def _read(self, tasks: Iterable[str]) -> dict[str, Seen]:
        read: dict[str, Seen] = {}

        async def one(task: str) -> None:
            read[task] = await self._lake.pointer(self._memory.project, task)

        await each(tasks, one)
        return read

    async def _show(self, known: Mapping[str, int], read: Mapping[str, Seen]) -> None:
        targets = self._targets(known, read)
        await each(targets, self._plan)
        changed = [one for one in targets if not one.is_same]
        await self._memory.intend(_folders(changed))
        wanted = {path for one in changed for path in one.paths}
        before = {file.path for one in changed if one.before for file in one.before.files}
        await self._delete(before - wanted)
        await each(targets, self._place)

    def _targets(self, known: Mapping[str, int], read: Mapping[str, Seen]) -> list[Target]:
        """Those that were read, and those that go by another folder because of them."""
        facts = {task: self._facts(task, seen) for task, seen in read.items()}
        folders = self._folders.change(facts)
        shown = self._memory.index.tasks
        made = []
        for task, seen in read.items():
            sequence = seen.pointer.sequence if seen.pointer else known.get(task, 0)
            folder = folders.get(task, "")
            target = Target(task, facts[task], sequence, folder, shown.get(task))
            target.problem = seen.problem
            made.append(target)
        for task in folders.keys() - read.keys():
            before = shown[task]
            if before.folder != folders[task]:
                its = facts_of(self._memory.project, task, before)
                made.append(Target(task, its, before.sequence, folders[task], before))
        return sorted(made, key=lambda one: one.task)

    def _facts(self, task: str, seen: Seen) -> Facts | None:
        if seen.pointer is None:
            return None
        return facts_of_pointer(
            seen.pointer, layout.task_prefix(self._memory.project, task), version=""
        )

    async def _plan(self, one: Target) -> None:
        before, facts = one.before, one.facts
        has_failed = one.task in self._memory.index.failed
        if facts is not None and before is not None and not has_failed:
            now = (one.folder, facts.manifest, facts.manifest_sha256, facts.labels)
            one.is_same = now == (
                before.folder, before.manifest, before.manifest_sha256, before.labels,
            )  # fmt: skip
        if one.is_same or facts is None or facts.manifest is None:
            return
        try:
            plan = await self._lake.plan(facts, one.folder)
            if has_failed and plan.document is not None:  # perhaps for want of it
                await self._lake.read(plan.document.key, plan.document.sha256)
            one.plan = plan
        except Permanent as problem:
            one.problem = problem

    async def _place(self, one: Target) -> None:
        """Copies what is not there yet; all of a task's files, or none."""
        if one.is_same and one.before is not None and one.facts is not None:
            self._keep(one.task, _moved_on(one.before, one.facts, one.sequence))
            return
        placed: list[Placed] = []
        try:
            for job in one.plan.jobs if one.plan else ():
                (path,), (source,) = job.outputs, job.sources
                placed.append(await self._copied(one, path, source.key, source.sha256, source.size))
        except Permanent as problem:
            one.problem = problem
            await self._delete(one.paths)
        if one.problem is not None:
            self._keep(one.task, _bare(_now(one, one.facts)) if one.facts else None)
            await self._say(one.task, one.sequence, one.problem)
            return
        self._keep(one.task, _now(one, one.facts, placed) if one.facts else None, one.plan)
        self._memory.index.failed.pop(one.task, None)

    async def _copied(self, one: Target, path: str, key: str, sha256: str, size: int) -> Placed:
        for file in one.before.files if one.before else ():
            if (file.path, file.key, file.sha256) == (path, key, sha256):
                return file
        version = await self._store.copy(key, f"{self._memory.project}/{path}")
        if version is None:
            raise missing(key)
        return Placed(path, key, sha256, size, version)

    async def _delete(self, paths: Iterable[str]) -> None:
        async def one(path: str) -> None:
            await self._store.delete(f"{self._memory.project}/{path}")

        await each(sorted(paths), one)

    def _keep(self, task: str, now: Shown | None, plan: TaskPlan | None = None) -> None:
        index = self._memory.index
        before = index.tasks.get(task)
        if now == before:
            return
        self._memory.is_saved = False
        if _told(now) != _told(before):
            index.is_stale = True
            self.plans.pop(task, None)
        if now is None:
            del index.tasks[task]
            return
        if now.has_document and plan is not None and len(self.plans) < MAX_PLANS:
            self.plans[task] = plan
        index.tasks[task] = now

    async def _say(self, task: str, sequence: int, problem: Permanent) -> None:
        """Once for each move of the task's pointer."""
        index = self._memory.index
        failed = Failed(sequence, problem.reason)
        if index.failed.get(task) == failed:
            return
        fields = {
            "follower": "mirror",
            "project_key": self._memory.project,
            "task": task,
            "sequence": sequence,
            "reason": problem.reason,
        }
        name = identifier(self._memory.project, task, str(sequence), problem.reason)
        await self._queue.put([Record(id=f"mirror:{name}", kind="failed", fields=fields)])
        index.failed[task] = failed
        self._memory.is_saved = False


def _moved_on(before: Shown, facts: Facts, sequence: int) -> Shown:
    """With the same files, and what else the pointer says of it now."""
    return msgspec.structs.replace(
        before, name=facts.name, nameless=facts.nameless, sequence=sequence
    )


def _now(one: Target, facts: Facts, files: Iterable[Placed] = ()) -> Shown:
    return Shown(
        source=facts.source,
        name=facts.name,
        nameless=facts.nameless,
        sequence=one.sequence,
        folder=one.folder,
        manifest=facts.manifest,
        manifest_sha256=facts.manifest_sha256,
        labels=facts.labels,
        files=tuple(files),
        has_document=one.plan is not None and one.plan.document is not None,
    )


def _bare(shown: Shown) -> Shown:
    """Of which nothing is shown but that it has its name."""
    return Shown(shown.source, shown.name, shown.nameless, shown.sequence, shown.folder)


def _told(shown: Shown | None) -> tuple[object, ...]:
    """What the index file says of it hangs on this; a task without a document is not in it."""
    if shown is None or not shown.has_document:
        return ()
    return shown.folder, shown.manifest_sha256, shown.labels, shown.span


def _folders(changed: Iterable[Target]) -> set[str]:
    """The folders in which files come or go."""
    old = {one.before.folder for one in changed if one.before and one.before.files}
    return old | {one.folder for one in changed if one.plan and one.plan.jobs}
