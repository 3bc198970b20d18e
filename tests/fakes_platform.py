"""A platform in memory: what it holds is what `fetch` answers; it counts what it is asked."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np

from consumer.errors import Permanent, Rejected, Transient
from consumer.model import (
    Action,
    Delivery,
    EventType,
    HistoryItem,
    Label,
    Mask,
    Missing,
    Segment,
    Series,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
    digest,
    identifier,
)
from consumer.ports import SavedImage

SOURCE = "clinic"
PROJECT = "project-1"
NOON = "2026-01-02T12:00:00.000000Z"


def label_map_bytes(value: int = 1, shape: tuple[int, int, int] = (4, 5, 3)) -> bytes:
    """A NIfTI label map as some other program writes it: with a time in its gzip header."""
    array = np.zeros(shape, np.uint8)
    array[1:3, 1:3, 1] = value
    image = nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0]))
    plain = io.BytesIO()
    image.to_stream(plain)
    return gzip.compress(plain.getvalue(), mtime=1_700_000_000)


def history_item(
    kind: EventType, at: str, *, action: Action | None = None, workflow: bool = True
) -> HistoryItem:
    return HistoryItem(
        id=identifier(kind, at), type=kind, at=at, actor="user-1", action=action, workflow=workflow
    )


def nifti_label(
    label_id: str = "label-1",
    *,
    version: str = "v1",
    updated_at: str = NOON,
    reference: str = "mask-1",
    skipped: bool = False,
    drawn: bool = True,
    slot: tuple[str | int, ...] = ("series", 0, "segmentations"),
) -> Label:
    masks = (Mask(reference=reference, kind="nifti", slot=slot),) if drawn else ()
    series = Series(
        name="series1",
        masks=masks,
        segments=(Segment(value=1, category="liver"), Segment(value=2, category="spleen")),
        dimensions=(4, 5, 3),
        slot=slot,
    )
    return Label(
        id=label_id, version=version, updated_at=updated_at, skipped=skipped, series=(series,)
    )


def snapshot(task: str = "task-1", **changes: object) -> TaskSnapshot:
    fields: dict[str, object] = {
        "source": SOURCE,
        "project": PROJECT,
        "task": task,
        "name": f"study {task}",
        "stage": "Label",
        "ground_truth": False,
        "document": {"taskId": task, "series": [{"name": "series1"}]},
        "taxonomy": {"name": "organs", "objectTypes": [{"category": "liver", "classId": 0}]},
        "active_at": NOON,
    }
    return TaskSnapshot(**{**fields, **changes})  # type: ignore[arg-type]


def event(task: str = "task-1", *, name: str = "e1", **changes: object) -> TaskEvent:
    fields: dict[str, object] = {
        "id": f"{task}-{name}",
        "source": SOURCE,
        "project": PROJECT,
        "task": task,
        "action": Action.MOVE,
        "received_at": NOON,
        "body_sha256": "0" * 64,
    }
    return TaskEvent(**{**fields, **changes})  # type: ignore[arg-type]


class FakePlatform:
    """Answers with ``tasks``; a value that is an exception is that task's own failure, and
    ``failing`` is raised for any group that holds such a task. ``images`` are by reference."""

    def __init__(self) -> None:
        self.source = SOURCE
        self.tasks: dict[str, TaskSnapshot | Transient | Permanent] = {}
        self.masks: dict[str, bytes | Transient | Permanent] = {"mask-1": label_map_bytes()}
        self.images: dict[str, list[tuple[str, bytes]] | Transient | Permanent] = {}
        self.fetched_images: Counter[str] = Counter()
        self.failing: dict[str, Transient | Permanent] = {}
        self.groups: list[list[str]] = []
        self.asked: Counter[str] = Counter()
        self.downloads: Counter[str] = Counter()
        self.before_answer: Callable[[], Awaitable[None]] | None = None  # called once

    def verify(self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Delivery:
        if query.get("token") != "right":
            raise Rejected(401, "wrong-token")
        return Delivery(source=SOURCE, body=body, headers=dict(headers), received_at=NOON)

    def parse(self, delivery: Delivery) -> list[TaskEvent]:
        return [event(name.decode()) for name in delivery.body.split()]

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        self.groups.append([key.task for key in tasks])
        self.asked.update(key.task for key in tasks)
        for key in tasks:
            if key.task in self.failing:
                raise self.failing[key.task]
        answers = {key: self.tasks.get(key.task) or _missing(key) for key in tasks}
        if (interrupt := self.before_answer) is not None:
            self.before_answer = None
            await interrupt()
        return answers

    async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
        self.downloads[mask.reference] += 1
        data = self.masks[mask.reference]
        if isinstance(data, Transient | Permanent):
            raise data
        return data

    async def save_images(
        self, snapshot: TaskSnapshot, series: Series, folder: Path
    ) -> list[SavedImage]:
        saved = []
        for image in series.images:
            self.fetched_images[image.reference] += 1
            held = self.images[image.reference]
            if isinstance(held, Transient | Permanent):
                raise held
            for name, data in held:
                path = folder / f"{len(saved):06d}"
                path.write_bytes(data)
                saved.append(SavedImage(name, path, digest(data), len(data)))
        return saved


def _missing(key: TaskKey) -> Missing:
    return Missing(source=key.source, project=key.project, task=key.task)
