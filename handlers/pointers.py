"""What a task's pointer becomes: pure decisions about values, no I/O.

A pointer never goes backwards: an answer that lacks workflow history which the pointer has seen, or
holds older label times, is stale and never replaces it. Every move carries its outcome.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from consumer.model import (
    Change,
    ExportRules,
    FileRef,
    HistoryItem,
    Label,
    LakeMove,
    Missing,
    Outcome,
    Pointer,
    SeenLabel,
    TaskEvent,
    TaskSnapshot,
    canonical,
    digest,
    identifier,
    pointer_sha256,
)

CONVERTER_VERSION = 1  # raised when the same masks would become other files

DOCUMENT = "annotations.json"


def recipe_of(rules: ExportRules) -> str:
    """The hash of everything on our side that shapes files; which tasks have files is no part of
    it, because that is decided anew each time a task is seen."""
    return digest(canonical({"converter": CONVERTER_VERSION, "formats": list(rules.formats)}))[:32]


def is_annotated(snapshot: TaskSnapshot) -> bool:
    """Whether anybody's work on it was saved; a skipped label is none."""
    return any(not label.skipped for label in snapshot.labels)


def label_version(snapshot: TaskSnapshot) -> str | None:
    """One version for all labels of the task; None when it has none."""
    if not snapshot.labels:
        return None
    return identifier(*sorted(f"{label.id} {label.version}" for label in snapshot.labels))


def is_stale(pointer: Pointer, snapshot: TaskSnapshot) -> bool:
    """Whether the platform's answer is older than what the pointer has seen already."""
    shown = {item.id for item in snapshot.history}
    if any(seen not in shown for seen in pointer.workflow):
        return True
    return any(_is_older(label, pointer.labels.get(label.id)) for label in snapshot.labels)


def _is_older(label: Label, seen: SeenLabel | None) -> bool:
    if seen is None or seen.updated_at is None or label.updated_at is None:
        return False
    return label.updated_at < seen.updated_at


def shows(snapshot: TaskSnapshot | Missing, event: TaskEvent) -> bool:
    """Whether the platform's answer already shows what the event announced."""
    if isinstance(snapshot, Missing):
        return True
    if event.action == "DELETE":
        return False
    if event.history_id is not None:
        return any(item.id == event.history_id for item in snapshot.history)
    if event.stage is not None and event.occurred_at is not None:
        same = (snapshot.stage or "").casefold() == event.stage.casefold()
        return same or (snapshot.active_at or "") >= event.occurred_at
    return True


def next_pointer(
    old: Pointer | None,
    snapshot: TaskSnapshot,
    *,
    project_key: str,
    recipe: str,
    revision: str | None,
    manifest_key: str | None,
    new_files: bool,
    caused_by: Sequence[str],
) -> Pointer | None:
    """The pointer that shows ``snapshot``; None when the old one does already.

    ``new_files``: the revision's masks are not the old revision's.
    """
    seen = frozenset(old.history) if old else frozenset()
    fresh = tuple(item for item in snapshot.history if item.id not in seen)
    version = label_version(snapshot)
    if old is not None and not fresh and _same(old, snapshot, version, recipe, revision):
        return None
    change = _change(old, snapshot, revision, new_files=new_files)
    return _moved(
        old,
        snapshot,
        project_key=project_key,
        change=change,
        stage=snapshot.stage,
        name=snapshot.name,
        ground_truth=snapshot.ground_truth,
        ground_truth_label=snapshot.ground_truth_label,
        ground_truth_reason=snapshot.ground_truth_reason,
        revision=revision,
        manifest_key=manifest_key,
        version=version,
        labels={
            label.id: SeenLabel(version=label.version, updated_at=label.updated_at)
            for label in snapshot.labels
        },
        recipe=recipe,
        fresh=fresh,
        caused_by=caused_by,
    )


def deleted_pointer(
    old: Pointer | None,
    missing: Missing,
    *,
    project_key: str,
    recipe: str,
    caused_by: Sequence[str],
) -> Pointer | None:
    """The pointer of a task that is gone; None when it says so already."""
    if old is not None and old.change is Change.DELETED:
        return None
    return _moved(
        old,
        missing,
        project_key=project_key,
        change=Change.DELETED,
        stage=None,
        name=old.name if old else missing.task,
        ground_truth=False,
        ground_truth_label=None,
        ground_truth_reason="deleted",
        revision=None,
        manifest_key=None,
        version=None,
        labels={},
        recipe=recipe,
        fresh=(),
        caused_by=caused_by,
    )


def masks_of(files: Sequence[FileRef]) -> frozenset[tuple[str, str]]:
    """What identifies the masks among a revision's files."""
    return frozenset((file.path, file.sha256) for file in files if file.path != DOCUMENT)


def _same(
    old: Pointer,
    snapshot: TaskSnapshot,
    version: str | None,
    recipe: str,
    revision: str | None,
) -> bool:
    return (
        old.change is not Change.DELETED
        and (old.name, old.stage) == (snapshot.name, snapshot.stage)
        and (old.ground_truth, old.ground_truth_label, old.ground_truth_reason)
        == (snapshot.ground_truth, snapshot.ground_truth_label, snapshot.ground_truth_reason)
        and (old.label_version, old.recipe, old.revision) == (version, recipe, revision)
    )


def _change(
    old: Pointer | None, snapshot: TaskSnapshot, revision: str | None, *, new_files: bool
) -> Change:
    had_files = old is not None and old.revision is not None
    was_ground_truth = old is not None and old.ground_truth
    if (was_ground_truth and not snapshot.ground_truth) or (had_files and revision is None):
        return Change.RETRACTED
    if revision is not None and (new_files or not had_files):
        return Change.EXPORTED
    return Change.MOVED


def _moved(
    old: Pointer | None,
    task: TaskSnapshot | Missing,
    *,
    project_key: str,
    change: Change,
    stage: str | None,
    name: str,
    ground_truth: bool,
    ground_truth_label: str | None,
    ground_truth_reason: str | None,
    revision: str | None,
    manifest_key: str | None,
    version: str | None,
    labels: dict[str, SeenLabel],
    recipe: str,
    fresh: tuple[HistoryItem, ...],
    caused_by: Sequence[str],
) -> Pointer:
    sequence = old.sequence + 1 if old else 1
    was_ground_truth = old.ground_truth if old else False
    move = LakeMove(
        project_key=project_key,
        sequence=sequence,
        change=change,
        stage=stage,
        old_stage=old.stage if old else None,
        revision=revision,
        old_revision=old.revision if old else None,
        ground_truth=ground_truth,
        was_ground_truth=was_ground_truth,
        ground_truth_reason=ground_truth_reason,
        label_version=version,
        recipe=recipe,
        manifest_key=manifest_key,
        manifest_sha256=revision,
    )
    outcome = Outcome(
        id=f"{project_key}/{task.task}/{sequence}",
        source=task.source,
        project=task.project,
        task=task.task,
        move=move,
        history=fresh,
        caused_by=tuple(sorted(set(caused_by))),
    )
    pointer = Pointer(
        source=task.source,
        project=task.project,
        task=task.task,
        name=name,
        sequence=sequence,
        change=change,
        stage=stage,
        ground_truth=ground_truth,
        was_ground_truth=was_ground_truth,
        ground_truth_label=ground_truth_label,
        ground_truth_reason=ground_truth_reason,
        revision=revision,
        manifest=manifest_key,
        manifest_sha256=revision,
        label_version=version,
        labels=labels,
        recipe=recipe,
        latest_manifest=manifest_key or (old.latest_manifest if old else None),
        history=(*(old.history if old else ()), *(item.id for item in fresh)),
        workflow=(
            *(old.workflow if old else ()),
            *(item.id for item in fresh if item.workflow),
        ),
        outcome=outcome,
    )
    plain = msgspec.to_builtins(pointer)
    sealed = msgspec.structs.replace(move, pointer_sha256=pointer_sha256(plain))
    return msgspec.structs.replace(pointer, outcome=msgspec.structs.replace(outcome, move=sealed))
