"""A snapshot's rows: one for each label file of a task's ground-truth label; pure.

A task without any has one row all the same, whose file is null, so that no task is lost.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from consumer.model import FileRef, LabelCount, Manifest
from handlers import layout
from handlers.pull.lake_files import sorted_out
from handlers.pull.select import Facts
from handlers.snapshots.truth import Move

# The forms of a label file; of several forms of one series, the first that is there is counted.
FORMATS = ("nifti", "instance", "png", "mask", "seg", "rtstruct")

Affine = tuple[tuple[float, ...], ...]


class ImageRef(msgspec.Struct, frozen=True, kw_only=True):
    """An image of the row's series, in the lake."""

    path: str
    key: str
    sha256: str
    size: int


class Voxels(msgspec.Struct, frozen=True, kw_only=True):
    """As in the manifest's label table."""

    value: int
    category: str | None
    voxels: int
    feature: str | None
    overlaps: tuple[int, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One label file. ``labels`` are the ids of all labels of the task that have files;
    ``label_folder`` tells that paths of files name their label. ``format`` is nifti (a label map),
    instance (a mask of one object), png, mask (a picture as the platform gave it), seg or rtstruct.
    ``affine`` is RAS+ in millimetres, ``spacing_mm`` the lengths of its columns. ``images`` is null
    where the lake has none of the series; a row without a file has those of the whole task.
    ``log_index`` is of the move that made it so."""

    project: str
    project_key: str
    source: str
    platform: str
    task: str
    name: str
    nameless: bool
    sequence: int
    revision: str
    manifest_key: str
    manifest_sha256: str
    stage: str | None
    labels: tuple[str, ...]
    label_folder: bool
    ground_truth_label: str | None
    approved_by: str | None
    approved_at: str | None
    split: str
    log_index: int
    series: str | None = None
    position: int | None = None
    path: str | None = None
    label_key: str | None = None
    label_sha256: str | None = None
    label_size: int | None = None
    format: str | None = None
    shape: tuple[int, ...] | None = None
    affine: Affine | None = None
    spacing_mm: tuple[float, ...] | None = None
    geometry: str | None = None
    voxels: tuple[Voxels, ...] = ()
    images: tuple[ImageRef, ...] | None = None


def rows_of(move: Move, manifest: Manifest, split: str) -> list[Row]:
    """In the order of series and paths."""
    facts = facts_of(move, manifest)
    files = sorted_out(manifest, facts)
    images: defaultdict[int, list[ImageRef]] = defaultdict(list)
    for file in files:
        if file.kind in ("image", "volume"):
            images[file.ref.position].append(_image(file.ref))
    wanted = (None, move.ground_truth_label)
    chosen = [file for file in files if file.kind in FORMATS and file.ref.label in wanted]
    chosen.sort(key=lambda file: (file.ref.position, file.ref.path))
    task = _task(move, manifest, facts, split)
    if not chosen:
        every = tuple(one for _, several in sorted(images.items()) for one in several)
        return [msgspec.structs.replace(task, images=every or None)]
    return [_of_file(task, file.ref, file.kind, images) for file in chosen]


def facts_of(move: Move, manifest: Manifest) -> Facts:
    """What a pull of the very same revision needs."""
    return Facts(
        place=layout.task_prefix(move.project_key, move.task),
        version="",
        source=move.source,
        task=move.task,
        name=manifest.name or move.task,
        stage=move.stage,
        ground_truth=True,
        truth_label=move.ground_truth_label,
        labels=_told(*_labels(manifest)),
        manifest=move.manifest_key,
        manifest_sha256=move.manifest_sha256,
        nameless=move.nameless,
    )


def facts_of_row(row: Row) -> Facts:
    """The same, of any row of the task."""
    return Facts(
        place=layout.task_prefix(row.project_key, row.task),
        version="",
        source=row.source,
        task=row.task,
        name=row.name,
        stage=row.stage,
        ground_truth=True,
        truth_label=row.ground_truth_label,
        labels=_told(row.labels, row.label_folder),
        manifest=row.manifest_key,
        manifest_sha256=row.manifest_sha256,
        nameless=row.nameless,
    )


def spacing_of(affine: Affine | None) -> tuple[float, ...] | None:
    """Of each axis of the array, in millimetres."""
    if affine is None:
        return None
    return tuple(math.sqrt(sum(row[axis] ** 2 for row in affine[:3])) for axis in range(3))


def _labels(manifest: Manifest) -> tuple[tuple[str, ...], bool]:
    """The labels that have files, and whether the task has several: then each label's files lie in
    its folder, also where only one of the labels has any."""
    found = [file for file in manifest.files if file.label is not None]
    folders = all(layout.safe_name(one.label or "") == _folder(one) for one in found)
    return tuple(sorted({one.label or "" for one in found})), bool(found) and folders


def _folder(file: FileRef) -> str | None:
    parts = file.path.split("/")
    return parts[1] if len(parts) > 2 else None


def _told(labels: Sequence[str], folder: bool) -> tuple[str, ...]:
    """As a pull counts them: several, where the task has several."""
    return (*labels, *labels[:1]) if folder and len(labels) == 1 else tuple(labels)


def _task(move: Move, manifest: Manifest, facts: Facts, split: str) -> Row:
    """What is the same in all of its rows."""
    labels, folder = _labels(manifest)
    return Row(
        project=move.project,
        project_key=move.project_key,
        source=move.source,
        platform=move.platform or move.source,
        task=move.task,
        name=facts.name,
        nameless=move.nameless,
        sequence=move.sequence,
        revision=move.revision or "",
        manifest_key=move.manifest_key or "",
        manifest_sha256=move.manifest_sha256 or "",
        stage=move.stage,
        labels=labels,
        label_folder=folder,
        ground_truth_label=move.ground_truth_label,
        approved_by=move.approved_by,
        approved_at=move.approved_at,
        split=split,
        log_index=move.index,
    )


def _of_file(task: Row, ref: FileRef, kind: str, images: Mapping[int, Sequence[ImageRef]]) -> Row:
    return msgspec.structs.replace(
        task,
        series=ref.series,
        position=ref.position,
        path=ref.path,
        label_key=ref.key,
        label_sha256=ref.sha256,
        label_size=ref.size,
        format=kind,
        shape=ref.shape,
        affine=ref.affine,
        spacing_mm=spacing_of(ref.affine),
        geometry=ref.geometry,
        voxels=tuple(_voxels(ref.labels)),
        images=tuple(images.get(ref.position, ())) or None,
    )


def _voxels(table: Sequence[LabelCount]) -> Iterator[Voxels]:
    for one in table:
        yield Voxels(
            value=one.value,
            category=one.category,
            voxels=one.voxels,
            feature=one.feature,
            overlaps=one.overlaps,
        )


def _image(ref: FileRef) -> ImageRef:
    return ImageRef(path=ref.path, key=ref.key, sha256=ref.sha256, size=ref.size)
