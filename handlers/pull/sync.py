"""A project folder becomes what the lake holds: plan, stage, place, and the index last.

Everything new is staged before anything is placed. Tasks whose files change leave the index before
they do, and are in it again when all their files are there; what is withdrawn goes after the index
no longer names it. So the index is right at every moment, a crash included.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from consumer.errors import Permanent, Transient
from consumer.ports import Sleep, Store
from handlers.pull import current, layouts, names, state
from handlers.pull.content import Contents
from handlers.pull.current import Problem
from handlers.pull.folder import Folder, described
from handlers.pull.options import Options
from handlers.pull.plan import Job, TaskPlan
from handlers.pull.select import Facts, select, stages
from handlers.pull.stage import Progress, Stage
from handlers.pull.state import Held, Placed, State
from handlers.pull.together import each

INDEX = "index"  # the origin of an index begins so


@dataclass(slots=True)
class Summary:
    """What a pull did, by the tasks' folders; ``size`` is what was fetched, in bytes."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    aside: list[str] = field(default_factory=list)
    undated: int = 0
    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    size: int = 0
    index: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be pulled, and where to; ``lake`` and ``endpoint`` are only remembered.
    ``facts`` are the tasks of a ``snapshot``, as they were then; without one, the lake's pointers
    tell them."""

    project: str
    folder: Path
    options: Options
    lake: str = ""
    endpoint: str = ""
    clear_cache: bool = False
    snapshot: str = ""
    facts: Sequence[Facts] = ()


async def pull(store: Store, wish: Wish, *, progress: Progress, sleep: Sleep) -> Summary:
    """Raises ``Transient`` when the lake fails, ``Permanent`` when nothing can be pulled so; what
    was there is then as it was."""
    _remembered(wish)  # before the lake is asked, or the folder made
    listed = [] if wish.snapshot else await current.pointers(store, wish.project)
    folder = Folder(wish.folder)
    if not listed and not wish.snapshot:
        raise Permanent("no-such-project", f"the lake holds no project {wish.project}")
    with folder.locked(), ThreadPoolExecutor(max_workers=4) as threads:
        remembered = _remembered(wish)
        if wish.clear_cache:
            remembered.seen = []
            folder.tidy(set())
        facts, problems = list(wish.facts), list[Problem]()
        if not wish.snapshot:
            known = {f"{task.place}current.json": task for task in remembered.seen}
            facts, problems = await current.read_facts(store, listed, known, sleep)
        one = _Pull(store, wish, folder, remembered, facts, problems, progress, sleep, threads)
        return await one.run()


def _remembered(wish: Wish) -> State:
    """What the folder holds, which must be of the same kind. Raises ``Permanent``:
    ``another-snapshot``, ``another-project``, ``pull-state-unreadable``."""
    remembered = state.load(wish.folder)
    if remembered is None:
        return State(project=wish.project, snapshot=wish.snapshot)
    if remembered.snapshot != wish.snapshot:
        if remembered.snapshot:
            said = f"{wish.folder} holds the snapshot {remembered.snapshot}, and stays so"
        else:
            said = f"{wish.folder} is kept equal to the lake by groundwire pull"
        raise Permanent("another-snapshot", f"{said}: name another DIR")
    if remembered.project != wish.project:
        said = f"{wish.folder} is a pulled folder of project {remembered.project}"
        raise Permanent("another-project", said)
    return remembered


class _Pull:
    def __init__(
        self,
        store: Store,
        wish: Wish,
        folder: Folder,
        remembered: State,
        facts: list[Facts],
        problems: list[Problem],
        progress: Progress,
        sleep: Sleep,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._wish, self._folder, self._state, self._facts = wish, folder, remembered, facts
        self._contents = Contents(store, folder.cache, sleep)
        self._summary = Summary(problems=list(problems))
        self._before = {**remembered.files, **remembered.pending}
        self._held: dict[str, Held] = {}  # what of ours is there, as it should be
        self._failed: set[str] = set()  # places of tasks of which something is missing
        here: dict[str, str] = {}
        self._stage = Stage(store, folder, sleep, progress, here, threads)
        self._here, self._progress = here, progress

    async def run(self) -> Summary:
        whole = await self._plan()
        self._look()
        self._remember({})
        staged = await self._bring(whole)
        self._remember({path: held for path, (_, held) in staged.items()})
        await self._place(whole, staged)
        await self._index(whole, self._there(whole))
        self._withdraw(whole)
        self._finish(whole)
        return self._summary

    async def _plan(self) -> layouts.Whole:
        options = self._wish.options
        known = stages(self._facts)
        asked_before = options.stage == self._state.options.stage  # tasks may have left it since
        known_folded = {one.casefold() for one in known}
        if options.stage and not asked_before and options.stage.casefold() not in known_folded:
            said = f"no task is at a stage {options.stage}; there are {', '.join(known) or 'none'}"
            raise Permanent("no-such-stage", said)
        selected = select(self._facts, options)
        self._summary.undated = len(selected.undated)
        folders = names.folders(self._facts, by=options.paths)
        whole = await layouts.planned(selected.chosen, folders, options, self._contents)
        self._summary.problems += whole.problems
        return whole

    def _look(self) -> None:
        """What of ours lies in the folder, whichever pull placed it."""
        for path in self._before:
            known = [one for one in (self._state.pending.get(path), self._state.files.get(path))
                     if one]  # fmt: skip
            if (held := self._folder.holding(path, known)) is not None:
                self._held[path] = held
                if not self._wish.clear_cache:
                    self._here[held.origin] = path

    def _remember(self, pending: dict[str, Held]) -> None:
        """Before anything is placed: what is ours, and what will be."""
        self._state.lake, self._state.endpoint = self._wish.lake, self._wish.endpoint
        self._state.options = self._wish.options
        self._state.seen = self._facts
        self._state.files = {**self._before, **self._held}
        self._state.pending = pending
        state.save(self._wish.folder, self._state)

    async def _bring(self, whole: layouts.Whole) -> dict[str, tuple[Path, Held]]:
        """Stages what is missing; a task of which something fails keeps what it has."""
        todo = [(plan, job) for plan in whole.plans for job in plan.jobs if not self._is_there(job)]
        staged: dict[str, tuple[Path, Held]] = {}
        self._progress.begin(sum(job.size for _, job in todo))

        async def one(work: tuple[TaskPlan, Job]) -> None:
            plan, job = work
            try:
                staged.update(await self._stage.bring(job, plan.task.place))
            except (Transient, Permanent) as error:
                if isinstance(error, Transient) and error.shared:
                    raise
                self._failed.add(plan.task.place)
                problem = Problem(plan.folder, error.reason, error.message, plan.task.place)
                self._summary.problems.append(problem)

        await each(todo, one)
        return {path: one for path, one in staged.items() if one[1].task not in self._failed}

    def _is_there(self, job: Job) -> bool:
        if self._wish.clear_cache:
            return False
        held = [self._held.get(path) for path in job.outputs]
        return all(one is not None and one.origin == job.origin for one in held)

    async def _place(self, whole: layouts.Whole, staged: Mapping[str, tuple[Path, Held]]) -> None:
        touched = {held.task for _, held in staged.values()}
        if any(path in self._held for path in staged):
            await self._index(whole, self._there(whole) - touched)
        for path in sorted(staged):
            file, held = staged[path]
            self._folder.place(file, path, ours=path in self._held or self._is_twin(path))
            self._held[path] = held
        self._summary.files = len(staged)
        self._count(whole, touched)

    def _is_twin(self, path: str) -> bool:
        """Whether a file of ours is there under a name that differs in case only."""
        if not os.path.lexists(self._folder.at(path)):
            return False
        folded = names.folded(path)
        twin = next((one for one in self._held if names.folded(one) == folded), None)
        return twin is not None and _is_same(self._folder.at(twin), self._folder.at(path))

    def _count(self, whole: layouts.Whole, touched: Collection[str]) -> None:
        there, before = self._there(whole), self._state.placed
        now = {
            plan.task.place: Placed(plan.folder, plan.task.manifest_sha256 or "")
            for plan in whole.plans
            if plan.task.place in there
        }
        for place, one in now.items():
            if place not in before:
                self._summary.added.append(one.folder)
            elif place in touched or before[place] != one:
                self._summary.changed.append(one.folder)
            else:
                self._summary.unchanged += 1
        gone = before.keys() - now.keys() - self._unsure
        self._summary.removed = sorted(before[place].folder for place in gone)
        self._state.placed = {**{p: before[p] for p in before.keys() & self._unsure}, **now}

    @property
    def _unsure(self) -> set[str]:
        """Tasks of which nobody knows now what they should be."""
        return {problem.place for problem in self._summary.problems if problem.place}

    def _there(self, whole: layouts.Whole) -> set[str]:
        return {plan.task.place for plan in whole.plans} - self._failed

    async def _index(self, whole: layouts.Whole, there: Collection[str]) -> None:
        """The index of those tasks, in one step; the same again is left alone."""
        origin = f"{INDEX} {whole.made_of(there)}"
        self._summary.index = whole.index
        held = self._held.get(whole.index)
        if held is not None and held.origin == origin:
            return
        file = self._folder.staging / INDEX
        sha256 = await _written(file, whole.chunks(there, self._contents))
        now = described(file, origin, sha256)
        if held is not None:
            self._state.files[whole.index] = held
        self._state.pending[whole.index] = now
        state.save(self._wish.folder, self._state)
        self._folder.place(file, whole.index, ours=held is not None)
        self._held[whole.index] = now

    def _withdraw(self, whole: layouts.Whole) -> None:
        """Removes what is no longer wanted, another layout's index first. Of a task of which
        nobody knows now what it should be, everything stays."""
        wanted = {path for plan in whole.plans for path in plan.outputs} | {whole.index}
        folded = {names.folded(path): path for path in wanted}
        gone = [path for path in self._before if path not in wanted]
        for path in sorted(gone, key=lambda path: (bool(self._before[path].task), path)):
            if self._before[path].task in self._unsure:
                continue
            twin = folded.get(names.folded(path))
            if twin is None or not _is_same(self._folder.at(path), self._folder.at(twin)):
                self._folder.remove(path, ours=path in self._held)
            self._held.pop(path, None)

    def _finish(self, whole: layouts.Whole) -> None:
        unsure = {p: one for p, one in self._before.items() if one.task in self._unsure}
        self._state.files, self._state.pending = {**unsure, **self._held}, {}
        state.save(self._wish.folder, self._state)
        self._folder.sync()
        self._folder.tidy(self._contents.used)
        self._summary.aside = self._folder.aside
        self._summary.size = self._stage.fetched + self._contents.fetched


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, as names that differ in case may be."""
    try:
        return os.path.samefile(one, other)
    except FileNotFoundError:
        return False


async def _written(file: Path, chunks: AsyncIterator[bytes]) -> str:
    sha256 = hashlib.sha256()
    with file.open("wb") as opened:
        async for chunk in chunks:
            sha256.update(chunk)
            opened.write(chunk)
        opened.flush()
        os.fsync(opened.fileno())
    return sha256.hexdigest()
