"""A RedBrick task's answer as a `TaskSnapshot`: its labels, its history, and which is the truth.

Pure. A task is ground truth when it is at one of the configured last stages; with several
annotators it is the merged version (superTruth), else the one label that is not skipped, else none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consumer.model import (
    EventType,
    HistoryItem,
    JsonPath,
    Label,
    TaskKey,
    TaskSnapshot,
)
from consumer.platforms.redbrick_document import (
    CONSENSUS,
    INSTANCES,
    SUPER_TRUTH,
    Images,
    document_of,
)
from consumer.platforms.redbrick_history import history_of, uploaded_versions
from consumer.platforms.redbrick_series import SeriesMaker
from consumer.platforms.redbrick_values import moment, without_query
from consumer.platforms.redbrick_variants import Variant
from consumer.platforms.redbrick_versions import Part, Version
from consumer.platforms.texts import checked, short, sound

Json = Mapping[str, Any]

LATEST_LABEL, SUPER_TRUTH_LABEL = "latest", "super-truth"
WORKED_ON = {EventType.SUBMITTED, EventType.ACCEPTED, EventType.CORRECTED, EventType.SAVED}


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """What is the same for every task of a project."""

    taxonomy: dict[str, Any]
    consensus: bool
    reviews: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """A task's answer, read: its images and every version of labels in it."""

    entry: Json
    images: Images
    version: Version
    parts: tuple[Part, ...]


def snapshot_of(
    key: TaskKey,
    content: Content,
    project: ProjectFacts,
    final: Collection[str],
    variant: Variant = INSTANCES,
) -> TaskSnapshot:
    """Raises ``KeyError``, ``TypeError`` or ``ValueError`` for an answer that is malformed."""
    entry, datapoint = content.entry, content.entry["datapoint"]
    events = entry.get("genericEvents") or []
    history = history_of(key.project, key.task, events, final)
    document = document_of(
        entry,
        content.images,
        content.version,
        content.parts,
        consensus=project.consensus,
        reviews=project.reviews,
        variant=variant,
    )
    worked_on = any(item.type in WORKED_ON for item in history)
    maker = SeriesMaker(content.images, datapoint, variant)
    labels = _labels(content, maker, document, uploaded_versions(events), worked_on=worked_on)
    if (stage := short(entry["currentStageName"])) is None:
        raise ValueError("a task stands at no stage")
    truth, reason = _truth(labels, is_final=stage.casefold() in final)
    made = TaskSnapshot(
        source=key.source,
        project=key.project,
        task=key.task,
        name=sound(without_query(datapoint.get("name")) or key.task),
        stage=stage,
        ground_truth=truth is not None,
        ground_truth_label=truth,
        ground_truth_reason=reason,
        labels=labels,
        history=history,
        document=document,
        taxonomy=without_query(project.taxonomy),
        active_at=active_at(history, [label.created_at for label in labels], events),
        created_at=moment(datapoint["createdAt"]) if datapoint.get("createdAt") else None,
    )
    return checked(made)


def _truth(labels: Sequence[Label], *, is_final: bool) -> tuple[str | None, str | None]:
    """(the label that is ground truth, or why there is none)."""
    if not is_final:
        return None, "not-final"
    if not labels:
        return None, "not-annotated"
    merged = next((label for label in labels if label.super_truth), None)
    if merged is not None:
        return merged.id, None
    standing = [label for label in labels if not label.skipped]
    if not standing:
        return None, "skipped"
    if len(standing) > 1:
        return None, "consensus-undecided"
    return standing[0].id, None


def _labels(
    content: Content,
    maker: SeriesMaker,
    document: Json,
    uploaded: Collection[str],
    *,
    worked_on: bool,
) -> tuple[Label, ...]:
    """The labels that somebody's work made; the upload's own empty version is none."""

    def is_work(version: Version) -> bool:
        drawn = bool(version.labels) or any((version.paths or {}).values())
        return version.td_id is not None and (drawn or worked_on or version.td_id not in uploaded)

    labels = []
    if not content.parts and SUPER_TRUTH not in document:
        if is_work(content.version):
            state = (content.entry.get("currentStageSubTask") or {}).get("state")
            at: JsonPath = () if document.get("consensus") else ("series",)
            labels.append(_label(LATEST_LABEL, content.version, maker, at, status=state))
        return tuple(labels)
    if SUPER_TRUTH in document and is_work(content.version):
        at = (SUPER_TRUTH, "series")
        labels.append(_label(SUPER_TRUTH_LABEL, content.version, maker, at))
    for number, (part, name) in enumerate(zip(content.parts, _names(content.parts), strict=True)):
        if is_work(part.version):
            at = (CONSENSUS, number, "series")
            labels.append(_label(name, part.version, maker, at, status=part.status))
    return tuple(labels)


def _label(
    name: str, version: Version, maker: SeriesMaker, at: JsonPath, *, status: str | None = None
) -> Label:
    """``at`` is where the document has the label's series; empty when it has none.

    The merged version carries no time: a review may choose an older one, which is not stale.
    """
    merged = name == SUPER_TRUTH_LABEL
    return Label(
        id=name,
        version=str(version.td_id),
        updated_at=moment(version.saved_at) if version.saved_at and not merged else None,
        created_at=moment(version.saved_at) if version.saved_at else None,
        skipped=status == "SKIPPED",
        super_truth=merged,
        series=maker.series(version, at),
    )


def _names(parts: Sequence[Part]) -> list[str]:
    """A stable label id for each annotator: the platform's id of the person."""
    names: list[str] = []
    for number, part in enumerate(parts):
        name = short(part.user.get("userId")) or f"annotator-{number + 1}"
        names.append(name if name not in names else f"{name}-{number + 1}")
    return names


def active_at(
    history: Sequence[HistoryItem], label_times: Sequence[str | None], events: Sequence[Json] = ()
) -> str | None:
    """The newest time that the platform tells of a task. ``events`` beyond those that are history
    count for a snapshot; not for a listing, since they leave a pointer where it is."""
    times = [item.at for item in history] + [at for at in label_times if at]
    times += [moment(event["createdAt"]) for event in events if event.get("createdAt")]
    return max(times, default=None)
