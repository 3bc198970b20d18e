"""Lakes for pulls: pointers, manifests and files as an export writes them, without an export."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from consumer.model import (
    Change,
    FileRef,
    LabelCount,
    LakeMove,
    Manifest,
    Outcome,
    Pointer,
    Refusal,
    SeenLabel,
    canonical,
    digest,
    encode,
)
from consumer.ports import Store
from handlers import layout
from handlers.formats.label_map import LabelMap
from handlers.formats.nifti import write_label_map
from handlers.pull.options import Options
from handlers.pull.sync import Summary, Wish, pull
from tests.fakes_store import FakeStore

PROJECT = "project-1"
SOURCE = "clinic"
NOON = "2026-01-02T12:00:00.000000Z"
SHAPE = (4, 5, 3)
AFFINE = ((1.0, 0.0, 0.0, -5.0), (0.0, 1.0, 0.0, 2.0), (0.0, 0.0, 2.5, 0.0), (0.0, 0.0, 0.0, 1.0))


def label_map(*values: int, shape: tuple[int, int, int] = SHAPE) -> LabelMap:
    """A voxel of each value, side by side."""
    array = np.zeros(shape, np.uint16)
    for number, value in enumerate(values):
        array.flat[number + 1] = value
    return LabelMap(array, AFFINE)


@dataclass(frozen=True)
class Mask:
    """A label map of one series under one label; ``values`` is the label table."""

    series: str | None = "series1"
    values: dict[int, str | None] = field(default_factory=lambda: {1: "liver"})
    label: str = "label-1"
    position: int = 0
    geometry: str = "affine"
    data: bytes | None = None
    shape: tuple[int, ...] = SHAPE
    affine: Any = AFFINE


@dataclass(frozen=True)
class File:
    """Any other file of a manifest, as it stands there."""

    path: str
    data: bytes
    label: str | None = None
    series: str | None = None
    position: int = 0
    shape: tuple[int, ...] | None = None
    affine: Any = None


@dataclass
class Lake:
    """A project whose tasks are written as a test says."""

    store: Store = field(default_factory=FakeStore)
    project: str = PROJECT
    etags: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)

    async def task(
        self,
        task: str = "task-1",
        *masks: Mask | File,
        name: str | None = None,
        stage: str | None = "Label",
        truth: str | None = None,
        labels: dict[str, SeenLabel] | None = None,
        document: dict[str, Any] | None = None,
        active_at: str | None = NOON,
        refused: tuple[Refusal, ...] = (),
    ) -> None:
        """The task as it is from now on; without masks, it has one."""
        given = masks or (Mask(),)
        of = {mask.label for mask in given if mask.label}
        seen = labels or {one: SeenLabel(version="v1", created_at=NOON) for one in of}
        files = [await self._file(task, one, several=len(seen) > 1) for one in given]
        told = document if document is not None else redbrick_document(task, name, files)
        files.append(await self._put(task, "annotations.json", json.dumps(told).encode()))
        manifest = Manifest(
            source=SOURCE,
            project=self.project,
            task=task,
            taxonomy=None,
            taxonomy_key=None,
            files=tuple(sorted(files, key=lambda file: file.path)),
            name=name or f"study {task}",
            refused=refused,
        )
        data = canonical(manifest)
        key = layout.manifest_key(self.project, task, digest(data))
        await self.store.create(key, data)
        await self._point(
            task,
            name=name or f"study {task}",
            stage=stage,
            truth=truth,
            labels=seen,
            manifest=key,
            sha256=digest(data),
            active_at=active_at,
        )

    async def withdraw(self, task: str, *, change: Change = Change.DELETED) -> None:
        """The task's pointer says that it has no files."""
        await self._point(
            task, name=f"study {task}", stage=None, truth=None, labels={}, manifest=None,
            sha256=None, active_at=None, change=change,
        )  # fmt: skip

    async def _file(self, task: str, one: Mask | File, *, several: bool) -> FileRef:
        if isinstance(one, File):
            return await self._put(
                task, one.path, one.data, label=one.label, series=one.series,
                position=one.position, shape=one.shape, affine=one.affine,
            )  # fmt: skip
        (name,) = layout.series_names([one.series])
        label = f"{layout.safe_name(one.label)}/" if several else ""
        data = one.data or write_label_map(label_map(*one.values))
        return await self._put(
            task,
            f"segmentations/{label}{name}.nii.gz",
            data,
            label=one.label,
            series=one.series,
            position=one.position,
            shape=one.shape,
            affine=one.affine if one.geometry == "affine" else None,
            geometry=one.geometry,
            labels=tuple(
                LabelCount(value=value, voxels=1, category=category)
                for value, category in one.values.items()
            ),
        )

    async def _put(self, task: str, path: str, data: bytes, **told: Any) -> FileRef:
        sha256 = digest(data)
        key = layout.file_key(self.project, task, sha256, path.rsplit("/", 1)[-1])
        await self.store.create(key, data)
        return FileRef(path=path, key=key, sha256=sha256, size=len(data), **told)

    async def _point(
        self,
        task: str,
        *,
        name: str,
        stage: str | None,
        truth: str | None,
        labels: dict[str, SeenLabel],
        manifest: str | None,
        sha256: str | None,
        active_at: str | None,
        change: Change = Change.EXPORTED,
    ) -> None:
        sequence = self.sequences[task] = self.sequences.get(task, 0) + 1
        move = LakeMove(
            project_key=self.project, sequence=sequence, change=change, stage=stage,
            old_stage=None, revision=sha256, old_revision=None, ground_truth=truth is not None,
            was_ground_truth=False, ground_truth_label=truth, ground_truth_reason=None,
            label_version="v1", recipe="recipe", manifest_key=manifest, manifest_sha256=sha256,
        )  # fmt: skip
        outcome = Outcome(
            id=f"{task}/{sequence}", source=SOURCE, project=self.project, task=task, move=move
        )
        pointer = Pointer(
            source=SOURCE, project=self.project, task=task, name=name, sequence=sequence,
            change=change, stage=stage, ground_truth=truth is not None, was_ground_truth=False,
            ground_truth_label=truth, ground_truth_reason=None, revision=sha256,
            manifest=manifest, manifest_sha256=sha256, label_version="v1", labels=labels,
            recipe="recipe", latest=None, history=(), workflow=(), outcome=outcome,
            active_at=active_at,
        )  # fmt: skip
        key = layout.pointer_key(self.project, task)
        self.etags[key] = await self.store.swap(key, encode(pointer), if_match=self.etags.get(key))


def redbrick_document(task: str, name: str | None, files: list[FileRef]) -> dict[str, Any]:
    """As RedBrick tells of a task with one label."""
    masks = [file for file in files if file.path.startswith("segmentations/")]
    series = [{"name": file.series, "segmentations": file.key, "items": []} for file in masks]
    return {"taskId": task, "name": name or f"study {task}", "series": series}


class NoProgress:
    def begin(self, size: int) -> None:
        self.size = size

    def advance(self, size: int) -> None:
        self.size -= size


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


async def pulled(
    lake: Lake,
    directory: Path,
    options: Options | None = None,
    *,
    store: Store | None = None,
    clear_cache: bool = False,
) -> Summary:
    wish = Wish(
        project=lake.project,
        folder=directory / lake.project,
        options=options or Options(),
        clear_cache=clear_cache,
    )
    return await pull(store or lake.store, wish, progress=NoProgress(), sleep=no_sleep)


def tree(folder: Path) -> list[str]:
    """Every file of a pulled folder but the hidden ones."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in found if not path.startswith(".groundwire-pull/"))


def tasks_of(directory: Path, project: str = PROJECT) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = json.loads((directory / project / "tasks.json").read_bytes())
    return made
