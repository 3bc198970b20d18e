"""What a task's pointer becomes: pure decisions about values, no I/O.

A pointer never goes backwards: an answer that lacks workflow history which the pointer has seen, or
holds older label times, is stale and never replaces it. Every move carries its outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from consumer.model import (
    Action,
    Change,
    Exported,
    ExportRules,
    FileRef,
    HistoryItem,
    Image,
    Label,
    LakeMove,
    Missing,
    Outcome,
    Pointer,
    SeenLabel,
    Series,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
    canonical,
    digest,
    identifier,
    pointer_sha256,
)

CONVERTER_VERSION = 2  # raised when the same masks would become other files

DOCUMENT = "annotations.json"

_NOT_SHAPING = ("when", "stages", "deletion_confirmed_after_s")


def recipe_of(rules: ExportRules) -> str:
    """The hash of everything on our side that shapes files; which tasks have files is no part of
    it, because that is decided anew each time a task is seen."""
    shaping = {
        name: value
        for name, value in msgspec.to_builtins(rules).items()
        if name not in _NOT_SHAPING
    }
    return digest(canonical({"converter": CONVERTER_VERSION, **shaping}))[:32]


def images_version(snapshot: TaskSnapshot, rules: ExportRules) -> str:
    """One version for where the task's images are, when files are made with them; else empty."""
    places = sorted(
        {
            source_of(image)
            for label in snapshot.labels
            for series in label.series
            if needs_images(series, rules)
            for image in series.images
        }
    )
    named = [snapshot.name for one in rules.images if "{name}" in one]  # it leads there, too
    return identifier(*places, *named) if places else ""


def drawn_version(label: Label, rules: ExportRules) -> str:
    """The label's version and, where files hold the names of categories or follow from them, these
    as well: a category may be renamed while nothing is drawn anew."""
    if rules.formats == ("nifti",) and rules.masks != "semantic":
        return label.version
    named = [
        [str(segment.value), segment.category or "", str(segment.category_value)]
        for series in label.series
        for segment in series.segments
    ]
    return identifier(label.version, *(part for one in named for part in one))


def needs_images(series: Series, rules: ExportRules) -> bool:
    """Whether files of the series are made with its images."""
    return bool(series.images) and (rules.with_files or needs_place(series, rules))


def needs_place(series: Series, rules: ExportRules) -> bool:
    """Whether files are made with where the images' voxels lie: the images as NIfTI, DICOM objects
    that reference them, pictures of frames laid into a volume, an empty label map whose grid the
    platform does not tell."""
    if rules.dicom_to_nifti or not {"seg", "rtstruct"}.isdisjoint(rules.formats):
        return True
    return is_framed(series) or not (series.masks or series.dimensions)


def is_framed(series: Series) -> bool:
    """Whether the series was annotated frame by frame."""
    return bool(series.polylines) or any(mask.kind == "png" for mask in series.masks)


def source_of(image: Image) -> str:
    """An image's place without what changes whenever it is asked for."""
    return identifier(image.reference.partition("?")[0])


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
    if event.action == "SWEEP":  # a listing showed it like that already
        return (snapshot.active_at or "") >= (event.occurred_at or "")
    if event.history_id is not None:
        return any(item.id == event.history_id for item in snapshot.history)
    if event.stage is not None and event.occurred_at is not None:
        same = (snapshot.stage or "").casefold() == event.stage.casefold()
        return same or (snapshot.active_at or "") >= event.occurred_at
    return True


class _Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a task stands: what a pointer says of now, without how it came to be."""

    name: str
    stage: str | None = None
    ground_truth: bool = False
    ground_truth_label: str | None = None
    ground_truth_reason: str | None = None
    revision: str | None = None
    manifest: str | None = None  # key
    label_version: str | None = None
    labels: dict[str, SeenLabel] = {}
    recipe: str
    images: str = ""
    paths: Literal["id", "name"] = "name"


def next_pointer(
    old: Pointer | None,
    snapshot: TaskSnapshot,
    *,
    project_key: str,
    recipe: str,
    images: str = "",
    paths: Literal["id", "name"] = "name",
    drawn: Mapping[str, str] | None = None,
    refused: tuple[str, ...] = (),
    revision: str | None,
    manifest_key: str | None,
    new_files: bool,
    caused_by: Sequence[str],
    platform: str = "",
) -> Pointer | None:
    """The pointer that shows ``snapshot``; None when the old one does already.

    ``new_files``: the revision's labels are not the old revision's, or were made otherwise;
    ``drawn`` is `drawn_version` of each label, where that is not its version; ``refused`` the
    reasons of what the revision lacks.
    """
    standing = _Standing(
        name=snapshot.name,
        stage=snapshot.stage,
        ground_truth=snapshot.ground_truth,
        ground_truth_label=snapshot.ground_truth_label,
        ground_truth_reason=snapshot.ground_truth_reason,
        revision=revision,
        manifest=manifest_key,
        label_version=label_version(snapshot),
        labels={
            label.id: SeenLabel(
                version=label.version, updated_at=label.updated_at, created_at=label.created_at
            )
            for label in snapshot.labels
        },
        recipe=recipe,
        images=images,
        paths=paths,
    )
    seen = frozenset(old.history) if old else frozenset()
    fresh = tuple(item for item in snapshot.history if item.id not in seen)
    # A later time alone is shown, too: the sweep would else find the task again for ever.
    as_before = old and not fresh and (snapshot.active_at or "") <= (old.active_at or "")
    if old and as_before and old.change is not Change.DELETED and _standing_of(old) == standing:
        return None
    change = _change(old, standing, new_files=new_files)
    return _moved(
        old,
        snapshot.key,
        standing,
        change,
        fresh,
        project_key,
        caused_by,
        snapshot.active_at,
        drawn=drawn,
        refused=refused,
        platform=platform,
        approval=_approval(snapshot),
    )


def deleted_pointer(
    old: Pointer | None,
    key: TaskKey,
    *,
    project_key: str,
    recipe: str,
    caused_by: Sequence[str],
    platform: str = "",
) -> Pointer | None:
    """The pointer of a task that is gone; None when it says so already."""
    if old is not None and old.change is Change.DELETED:
        return None
    name = old.name if old else key.task
    paths = old.paths if old else "name"
    standing = _Standing(name=name, ground_truth_reason="deleted", recipe=recipe, paths=paths)
    active_at = old.active_at if old else None
    return _moved(
        old,
        key,
        standing,
        Change.DELETED,
        (),
        project_key,
        caused_by,
        active_at,
        platform=platform,
    )


def masks_of(files: Sequence[FileRef]) -> frozenset[tuple[str, str]]:
    """What identifies the masks among a revision's files."""
    return frozenset((file.path, file.sha256) for file in files if file.path != DOCUMENT)


def _standing_of(pointer: Pointer) -> _Standing:
    return _Standing(**{name: getattr(pointer, name) for name in _Standing.__struct_fields__})


def _exported(now: _Standing, drawn: Mapping[str, str] | None) -> Exported | None:
    if now.manifest is None:
        return None
    versions = {label: seen.version for label, seen in now.labels.items()}
    versions |= drawn or {}
    return Exported(manifest=now.manifest, recipe=now.recipe, labels=versions, images=now.images)


def _change(old: Pointer | None, now: _Standing, *, new_files: bool) -> Change:
    had_files = old is not None and old.revision is not None
    was_ground_truth = old is not None and old.ground_truth
    if (was_ground_truth and not now.ground_truth) or (had_files and now.revision is None):
        return Change.RETRACTED
    if now.revision is not None and (new_files or not had_files):
        return Change.EXPORTED
    return Change.MOVED


def _approval(snapshot: TaskSnapshot) -> HistoryItem | None:
    """What made the task ground truth: its newest approval, one that nothing follows if it is
    told."""
    if not snapshot.ground_truth:
        return None
    approvals = [item for item in snapshot.history if item.action is Action.APPROVE]
    final = [item for item in approvals if item.final]
    return next(iter(reversed(final or approvals)), None)


def _moved(
    old: Pointer | None,
    key: TaskKey,
    now: _Standing,
    change: Change,
    fresh: tuple[HistoryItem, ...],
    project_key: str,
    caused_by: Sequence[str],
    active_at: str | None,
    *,
    drawn: Mapping[str, str] | None = None,
    refused: tuple[str, ...] = (),
    platform: str = "",
    approval: HistoryItem | None = None,
) -> Pointer:
    sequence = old.sequence + 1 if old else 1
    was_ground_truth = old.ground_truth if old else False
    move = LakeMove(
        project_key=project_key,
        sequence=sequence,
        change=change,
        stage=now.stage,
        old_stage=old.stage if old else None,
        revision=now.revision,
        old_revision=old.revision if old else None,
        ground_truth=now.ground_truth,
        was_ground_truth=was_ground_truth,
        ground_truth_label=now.ground_truth_label,
        ground_truth_reason=now.ground_truth_reason,
        label_version=now.label_version,
        recipe=now.recipe,
        manifest_key=now.manifest,
        manifest_sha256=now.revision,
        refused=refused,
        platform=platform,
        old_ground_truth_label=old.ground_truth_label if old else None,
        approved_by=approval.actor if approval else None,
        approved_at=approval.at if approval else None,
        nameless=now.paths == "id",
    )
    outcome = Outcome(
        id=f"{project_key}/{key.task}/{sequence}",
        source=key.source,
        project=key.project,
        task=key.task,
        move=move,
        history=fresh,
        caused_by=tuple(sorted(set(caused_by))),
    )
    workflow = (item.id for item in fresh if item.workflow)
    return _sealed(
        Pointer(
            source=key.source,
            project=key.project,
            task=key.task,
            sequence=sequence,
            change=change,
            was_ground_truth=was_ground_truth,
            manifest_sha256=now.revision,
            latest=_exported(now, drawn) or (old.latest if old else None),
            history=(*(old.history if old else ()), *(item.id for item in fresh)),
            workflow=(*(old.workflow if old else ()), *workflow),
            outcome=outcome,
            active_at=active_at,
            **msgspec.structs.asdict(now),
        )
    )


def _sealed(pointer: Pointer) -> Pointer:
    """With its own hash in the move that it carries, which the log will hold."""
    sha256 = pointer_sha256(msgspec.to_builtins(pointer))
    move = msgspec.structs.replace(pointer.outcome.move, pointer_sha256=sha256)
    outcome = msgspec.structs.replace(pointer.outcome, move=move)
    return msgspec.structs.replace(pointer, outcome=outcome)
