"""How the lake's pointers stand to what was sighted at the platform: where the lake lags.

What is compared is hints on both sides. A gap says that a task is to be looked at, and nothing
more: the export fetches it, and decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from consumer.model import Change, ExportRules, Pointer, TaskKey, decode
from consumer.ports import Sleep, Store
from consumer.sightings import Gap, Sighting, Window
from handlers import layout
from handlers.pointers import recipe_of
from handlers.pull.together import each, retried


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In a pointer's place lies something else; the export tells of it."""


Held = Pointer | Unreadable | None


def gap_of(seen: Sighting, held: Held) -> str | None:
    """Why the task is to be looked at; None when the lake shows what was seen."""
    if held is None:
        return "unknown"
    if isinstance(held, Unreadable):
        return "unreadable"
    if held.change is Change.DELETED:
        return "reappeared"
    if seen.stage is not None and seen.stage.casefold() != (held.stage or "").casefold():
        return "stage"
    if seen.active_at is not None and seen.active_at > (held.active_at or ""):
        return "newer"
    if seen.labels is not None and seen.labels != held.labels.keys():
        return "labels"
    if seen.judged and seen.ground_truth_label != held.ground_truth_label:
        return "ground-truth"
    return None


def is_stale(held: Pointer, rules: ExportRules, recipe: str) -> bool:
    """Whether the export would make it otherwise today, as far as the pointer tells. A task that
    nobody has worked on has no files under any rules."""
    if held.change is Change.DELETED:
        return False
    if held.recipe != recipe:
        return True
    wanted = rules.wants(held.stage, ground_truth=held.ground_truth)
    return wanted != (held.revision is not None) and (not wanted or bool(held.labels))


@dataclass(frozen=True, slots=True)
class LakeStanding:
    """One source's side of the lake. A task's *place* is its folder's name there."""

    source: str
    store: Store
    project_key: Callable[[TaskKey], str]
    rules: ExportRules
    sleep: Sleep

    def place(self, task: str) -> str:
        return layout.safe_name(task)

    async def places(self, project: str) -> set[str]:
        """Of all tasks of the project that have a pointer."""
        found = set()
        async for listed in self.store.list(f"{self._folder(project)}/tasks/"):
            if (pointer := layout.task_of_pointer(listed.key)) is not None:
                found.add(pointer[1])
        return found

    async def gaps(self, project: str, sightings: Sequence[Sighting]) -> list[Gap]:
        """Of what was sighted: what the lake does not show so."""
        seen = {sighting.task: sighting for sighting in sightings}
        held = await self._read(project, [self.place(task) for task in seen])
        found = [(one, gap_of(one, held[self.place(task)])) for task, one in seen.items()]
        return [Gap(one.task, why, one.stage, one.active_at) for one, why in found if why]

    async def missing(self, project: str, places: Sequence[str]) -> list[Gap]:
        """Of places where nothing was sighted: what the lake does not know to be deleted."""
        return [
            Gap(task, "unreadable" if isinstance(held, Unreadable) else "missing")
            for task, held in await self._tasks(project, places)
            if isinstance(held, Unreadable) or held.change is not Change.DELETED
        ]

    async def stale(self, project: str, places: Sequence[str], window: Window) -> list[Gap]:
        """What today's rules would make otherwise, of tasks that may be within ``window``."""
        recipe = recipe_of(self.rules)
        return [
            Gap(task, "unreadable" if isinstance(held, Unreadable) else "stale")
            for task, held in await self._tasks(project, places)
            if isinstance(held, Unreadable)
            or (is_stale(held, self.rules, recipe) and window.holds(_sighting(held)))
        ]

    async def _tasks(
        self, project: str, places: Sequence[str]
    ) -> list[tuple[str, Pointer | Unreadable]]:
        """By the tasks' ids. An unreadable pointer whose place does not tell its task is left to
        ``groundwire verify``."""
        held = await self._read(project, places)
        found: list[tuple[str, Pointer | Unreadable]] = []
        for place in places:
            one = held[place]
            if isinstance(one, Pointer):
                found.append((one.task, one))
            elif one is not None and self.place(place) == place:
                found.append((place, one))
        return found

    async def _read(self, project: str, places: Sequence[str]) -> dict[str, Held]:
        held: dict[str, Held] = {}
        folder = f"{self._folder(project)}/tasks"

        async def one(place: str) -> None:
            key = f"{folder}/{place}/current.json"
            stored = await retried(lambda: self.store.read(key), self.sleep)
            held[place] = _pointer(stored.data) if stored else None

        await each(places, one)
        return held

    def _folder(self, project: str) -> str:
        return self.project_key(TaskKey(source=self.source, project=project, task=""))


def _pointer(data: bytes) -> Pointer | Unreadable:
    try:
        return decode(data, Pointer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Unreadable()


def _sighting(held: Pointer) -> Sighting:
    """The pointer as a listing would show its task; a label whose time nobody knows counts."""
    created = [seen.created_at for seen in held.labels.values()]
    known = tuple(at for at in created if at is not None)
    return Sighting(
        task=held.task,
        stage=held.stage,
        active_at=held.active_at,
        label_created_at=known if len(known) == len(created) else None,
    )
