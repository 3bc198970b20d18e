"""A platform whose tasks change in every way there is, and which remembers what it answered.

A mask's reference never means two things: what it holds is drawn from its own name, so that a test
can tell which version of which label the voxels in the lake are of.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import nibabel
import numpy as np
from numpy.typing import NDArray

from consumer.errors import Permanent, Transient
from consumer.model import (
    EventType,
    HistoryItem,
    Label,
    Mask,
    Missing,
    Segment,
    Series,
    TaskKey,
    TaskSnapshot,
    identifier,
    timestamp,
)
from tests.fakes_platform import PROJECT, SOURCE, FakePlatform, snapshot

Voxels = NDArray[np.uint8]
SHAPE = (4, 5, 3)
VALUES = (1, 2, 3)


def voxels_of(reference: str) -> Voxels:
    """What is drawn under a reference: other voxels for any other reference."""
    seed = int.from_bytes(hashlib.sha256(reference.encode()).digest()[:8])
    drawn: Voxels = np.random.default_rng(seed).integers(0, 4, SHAPE).astype(np.uint8)
    return drawn


def mask_bytes(reference: str) -> bytes:
    plain = io.BytesIO()
    nibabel.Nifti1Image(voxels_of(reference), np.eye(4)).to_stream(plain)
    return plain.getvalue()


@dataclass(frozen=True)
class Drawn:
    """One label: ``version`` names its masks, ``series`` which of the two are drawn on."""

    version: int
    updated_at: str | None
    series: tuple[int, ...] = (0, 1)
    skipped: bool = False


@dataclass
class Task:
    """One task of the platform. ``copies`` are the answers that a lagging replica may give."""

    name: str
    stage: str = "Label"
    labels: dict[str, Drawn] = field(default_factory=dict)
    saved: dict[str, list[Drawn]] = field(default_factory=dict)  # every version there was
    chosen: str | None = None  # of several labels
    history: list[HistoryItem] = field(default_factory=list)
    series: tuple[str | None, ...] = ("ct", "pet")
    note: int = 0
    gone: bool = False
    copies: list[TaskSnapshot | Missing] = field(default_factory=list)


@dataclass
class World:
    """The platform's own state, which every account of it answers from."""

    tasks: dict[str, Task]
    categories: dict[int, str] = field(
        default_factory=lambda: {value: f"organ-{value}" for value in VALUES}
    )
    answered: dict[str, list[TaskSnapshot | Missing]] = field(default_factory=dict)
    lagging: dict[str, TaskSnapshot | Missing] = field(default_factory=dict)  # next answers
    ticks: int = 0

    def tick(self) -> str:
        self.ticks += 1
        return timestamp(datetime(2026, 1, 3, tzinfo=UTC) + timedelta(seconds=self.ticks))

    def now(self, name: str) -> TaskSnapshot | Missing:
        """The task as the platform holds it."""
        task = self.tasks[name]
        if task.gone:
            return Missing(source=SOURCE, project=PROJECT, task=name)
        truth = truth_of(task)
        several = len(task.labels) > 1
        return snapshot(
            name,
            stage=task.stage,
            ground_truth=truth is not None,
            ground_truth_label=truth,
            ground_truth_reason=None if truth else "not-final",
            labels=tuple(
                self._label(task, label, drawn, place, several=several)
                for place, (label, drawn) in enumerate(sorted(task.labels.items()))
            ),
            history=tuple(task.history),
            document={
                "taskId": name,
                "note": task.note,
                "labels": [{"series": [{}, {}]} for _ in task.labels],
            },
            taxonomy={"name": "organs", "categories": list(self.categories.values())},
        )

    def _label(self, task: Task, label: str, drawn: Drawn, place: int, *, several: bool) -> Label:
        segments = tuple(Segment(value=v, category=self.categories[v]) for v in VALUES)
        series = []
        for number, name in enumerate(task.series):
            slot = ("labels", place, "series", number, "segmentations")
            reference = f"{task.name}/{label}/{drawn.version}/{number}"
            masks = (Mask(reference=reference, kind="nifti", slot=slot),)
            series.append(
                Series(
                    name=name,
                    masks=masks if number in drawn.series else (),
                    segments=segments,
                    dimensions=SHAPE,
                    slot=slot,
                )
            )
        return Label(
            id=label,
            version=f"v{drawn.version}",
            updated_at=drawn.updated_at,
            skipped=drawn.skipped,
            series=tuple(series),
        )

    def remember(self) -> None:
        """What the platform holds now is what a replica may still answer later."""
        for name, task in self.tasks.items():
            if not task.copies or task.copies[-1] != self.now(name):
                task.copies.append(self.now(name))

    def forget(self) -> None:
        """No replica lags by more than a minute."""
        self.lagging.clear()
        for task in self.tasks.values():
            task.copies.clear()


def truth_of(task: Task) -> str | None:
    """The chosen label, else the only one that stands, once the task is at its end."""
    standing = [label for label, drawn in sorted(task.labels.items()) if not drawn.skipped]
    if task.stage != "END" or not standing:
        return None
    if task.chosen in standing:
        return task.chosen
    return standing[0] if len(standing) == 1 else None


class Account(FakePlatform):
    """One exporter's connection to the world."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        answers: dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent] = {}
        for key in tasks:
            answer = self.world.lagging.pop(key.task, None) or self.world.now(key.task)
            self.world.answered.setdefault(key.task, []).append(answer)
            answers[key] = answer
        if (interrupt := self.before_answer) is not None:
            self.before_answer = None
            await interrupt()
        return answers

    async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
        return mask_bytes(mask.reference)


# what may happen to a task; ``number`` is free to choose


def save(world: World, task: Task, number: int) -> None:
    series = ((0, 1), (0,), (1,), ())[number // 2 % 4]
    label = "ab"[number % 2]
    saved_at = world.tick()
    task.labels[label] = Drawn(world.ticks, saved_at, series)
    task.saved.setdefault(label, []).append(task.labels[label])


def withdraw(world: World, task: Task, number: int) -> None:
    task.labels.pop("ab"[number % 2], None)


def skip(world: World, task: Task, number: int) -> None:
    label = "ab"[number % 2]
    if label in task.labels:
        drawn = task.labels[label]
        task.labels[label] = replace(drawn, skipped=not drawn.skipped)


def take_back(world: World, task: Task, number: int) -> None:
    """A review chooses an older version: as with a merged label, no time is told."""
    label = "ab"[number % 2]
    older = task.saved.get(label)
    if label in task.labels and older:
        chosen = older[number % len(older)]
        skipped = task.labels[label].skipped
        task.labels[label] = replace(chosen, updated_at=None, skipped=skipped)


def move(world: World, task: Task, number: int) -> None:
    task.stage = ("Label", "Review_1", "END")[number % 3]
    if number < 24:  # a move by hand leaves no history
        _happened(world, task, EventType.MOVED)


def choose(world: World, task: Task, number: int) -> None:
    task.chosen = ("a", "b", None)[number % 3]


def comment(world: World, task: Task, number: int) -> None:
    _happened(world, task, EventType.COMMENT_ADDED, workflow=False)


def uncomment(world: World, task: Task, number: int) -> None:
    task.history = [item for item in task.history if item.workflow]


def annotate(world: World, task: Task, number: int) -> None:
    task.note = number


def rename_category(world: World, task: Task, number: int) -> None:
    world.categories[VALUES[number % 3]] = f"organ-{number}"


def rename_series(world: World, task: Task, number: int) -> None:
    names = (("ct", "pet"), ("pet", "ct"), ("ct", "ct"), (None, "ct"), (None, "A"), ("A", None))
    task.series = names[number % len(names)]


def delete(world: World, task: Task, number: int) -> None:
    task.gone = not task.gone if number % 2 else True


def _happened(world: World, task: Task, kind: EventType, *, workflow: bool = True) -> None:
    at = world.tick()
    made = HistoryItem(id=identifier(task.name, at), type=kind, at=at, workflow=workflow)
    task.history.append(made)


CHANGES: tuple[Callable[[World, Task, int], None], ...] = (
    save,
    save,
    save,
    withdraw,
    skip,
    take_back,
    move,
    move,
    move,
    choose,
    comment,
    uncomment,
    annotate,
    rename_category,
    rename_series,
    delete,
)
