"""A data row of Labelbox's export becomes a task snapshot. Pure.

The document keeps the export's own shape, without the details that are switched off; its URLs lose
their query, so that an unchanged row fetched twice gives the same document.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from consumer.model import (
    HistoryItem,
    Image,
    Label,
    Series,
    TaskKey,
    TaskSnapshot,
    digest,
    identifier,
)
from consumer.platforms.labelbox_drawings import Path, drawn_in, images_of
from consumer.platforms.labelbox_history import (
    DONE,
    history_of,
    leads_nowhere,
    newest_stage,
    time_of,
)
from consumer.platforms.labelbox_json import Json, child, optional, unreadable, without_query
from consumer.platforms.texts import checked, short, sound

MAX_LABELS = 1_000  # of one data row
_DICOM = "DICOM"  # a label's kind
MAX_DEPTH = 100  # of its nesting


def snapshot_of(row: Json, key: TaskKey, details: Collection[str]) -> TaskSnapshot:
    """The task that a row of the current shape shows; ``details`` stay in its document.

    Raises ``Permanent`` (row-unreadable) for a row that is not of that shape.
    """
    row = with_sorted_labels(row, key.project)
    data_row, entry = child(row, "data_row"), entry_of(row, key.project)
    project_details = child(entry, "project_details")
    steps = steps_of(project_details)
    history = history_of(steps, key.project, key.task)
    at: Path = ("projects", key.project, "labels")
    images = images_of(data_row)
    drawn = [_label(one, (*at, number), images) for number, one in enumerate(entry["labels"])]
    choice = truth_of([facts for _, facts in drawn], project_details)
    created_at = _created_at(data_row) or (history[0].at if history else None)
    made = TaskSnapshot(
        source=key.source,
        project=key.project,
        task=key.task,
        name=_name(data_row, key.task),
        stage=stage_of(project_details),
        ground_truth=choice.label is not None,
        ground_truth_label=choice.label,
        ground_truth_reason=choice.reason,
        labels=tuple(label for label, _ in drawn),
        history=history,
        document=_document(row, key.project, details),
        taxonomy=_taxonomy(project_details),
        active_at=active_at(data_row, history, [label.updated_at for label, _ in drawn]),
        created_at=created_at,
    )
    try:
        return checked(made)
    except ValueError as error:
        raise unreadable("the data row holds a text that is none") from error


# which label is the ground truth


@dataclass(frozen=True, slots=True)
class LabelFacts:
    id: str
    skipped: bool
    benchmark: bool
    approved: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The label that is the ground truth, or why there is none, as a slug."""

    label: str | None
    reason: str | None = None


def choose(labels: Collection[LabelFacts], details: Json, *, done: bool) -> Choice:
    """Consensus: the label the platform names (selected, benchmark), else the only one, else the
    one approved label, else none. A skipped label never is."""
    live = [one for one in labels if not one.skipped]
    if not done:
        return Choice(None, "not-approved")
    if not live:
        return Choice(None, "skipped" if labels else "no-label")
    selected = details.get("selected_label_id")
    for named in (
        [one for one in live if one.id == selected],
        [one for one in live if one.benchmark],
        live,
        [one for one in live if one.approved],
    ):
        if len(named) == 1:
            return Choice(named[0].id)
    several = sum(one.approved for one in live) > 1
    return Choice(None, "several-approved" if several else "consensus-undecided")


def truth_of(labels: Collection[LabelFacts], details: Json) -> Choice:
    """Of a row's labels, by its ``project_details``."""
    return choose(labels, details, done=_is_done(steps_of(details), details))


def _is_done(steps: object, details: Json) -> bool:
    """Approved by the history, and by the status where newer exports give one; a row moved to
    Done by hand shows no next task and the status."""
    told = details.get("workflow_status") or details.get("task_name")
    if told is not None and not isinstance(told, str):
        raise unreadable("a row's status is no text")
    said = (told or "").casefold() == DONE.casefold()
    if newest_stage(steps) == DONE:
        return said or not told
    return said and leads_nowhere(steps)


def stage_of(details: Json) -> str | None:
    """The stage that a row's ``project_details`` tell."""
    steps = steps_of(details)
    if _is_done(steps, details):
        return DONE
    named = details.get("task_name")
    return newest_stage(steps) or (short(named) if isinstance(named, str) else None)


def steps_of(details: Json) -> object:
    """The workflow's history as it was told; empty where none was."""
    steps = details.get("workflow_history")
    return [] if steps is None else steps


def active_at(
    data_row: Json, history: Collection[HistoryItem], label_times: Collection[str | None]
) -> str | None:
    """The newest time that a row tells: of its making, its history, its labels' last changes."""
    times = [item.at for item in history] + [at for at in label_times if at]
    return max([*times, _created_at(data_row) or ""]) or None


def label_times(label: Json) -> tuple[str | None, str | None]:
    """When a label was made, and when it was changed last."""
    details = optional(label, "label_details")
    made = details.get("created_at")
    changed = details.get("content_last_updated_at") or details.get("updated_at")
    return time_of(made) if made else None, time_of(changed) if changed else None


# labels


def _label(label: Json, at: Path, images: tuple[Image, ...]) -> tuple[Label, LabelFacts]:
    facts = facts_of(label)
    annotations = optional(label, "annotations")
    if label.get("label_kind") == _DICOM and not facts.skipped:
        child(child(label, "annotations"), "groups")  # without them it would read as an empty label
    masks, polylines = drawn_in(annotations, (*at, "annotations"))
    created_at, updated_at = label_times(label)
    made = Label(
        id=facts.id,
        version=identifier(facts.id, updated_at or "", _content(annotations)),
        updated_at=updated_at,
        created_at=created_at,
        skipped=facts.skipped,
        approved=facts.approved,
        super_truth=facts.benchmark,
        series=(Series(name=None, masks=masks, polylines=polylines, images=images),),
    )
    return made, facts


def facts_of(label: Json) -> LabelFacts:
    """What decides whether a label is the ground truth."""
    details, performance = (
        optional(label, "label_details"),
        optional(label, "performance_details"),
    )
    return LabelFacts(
        id=label["id"],
        skipped=performance.get("skipped") is True,
        benchmark=any(
            one.get(name) is True
            for one in (label, details, performance)
            for name in ("is_benchmark_reference", "superTruth")
        ),
        approved=_approved(details.get("reviews")),
    )


def _approved(reviews: object) -> bool:
    """Whether the last review that judges says yes; the vendor's pages show several forms."""
    verdict = False
    for review in reviews if isinstance(reviews, list) else []:
        if not isinstance(review, dict):
            continue
        score = review.get("score")
        if isinstance(review.get("approved"), bool):
            verdict = review["approved"]
        elif isinstance(score, int | float):
            verdict = score > 0
        elif isinstance(review.get("type"), str):
            verdict = review["type"].casefold().startswith("approve")
    return verdict


def _content(annotations: Json) -> str:
    """The hash of what was drawn, as far as the export shows it."""
    return digest(json.dumps(_clean(annotations), sort_keys=True).encode())


# the document


def with_sorted_labels(row: Json, project: str) -> Json:
    """The row with its labels in the order of their ids, so that the same labels give the same
    document whatever order the platform lists them in."""
    entry = entry_of(row, project)
    labels = entry.get("labels")
    if not isinstance(labels, list) or len(labels) > MAX_LABELS:
        raise unreadable("labels is not a list, or too long")
    if not all(isinstance(one, dict) and _is_id(one.get("id")) for one in labels):
        raise unreadable("a label has no id")
    ordered = sorted(labels, key=lambda one: str(one["id"]))
    return {**row, "projects": {project: {**entry, "labels": ordered}}}


def _document(row: Json, project: str, details: Collection[str]) -> Json:
    document: Json = _clean(row)
    entry = document["projects"][project]
    for name in ("attachments", "metadata_fields"):
        if name not in details:
            document.pop(name, None)
    if "data_row_details" not in details:
        document["data_row"].pop("details", None)
    if "project_details" not in details:
        entry.pop("project_details", None)
    for name in ("label_details", "performance_details"):
        if name not in details:
            for label in entry["labels"]:
                label.pop(name, None)
    return document


def _clean(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A copy whose URLs have no query."""
    if depth == 0:
        raise unreadable("nested too deep")
    if isinstance(value, dict):
        return {name: _clean(inner, depth - 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner, depth - 1) for inner in value]
    return without_query(value) if isinstance(value, str) else value


# small things


def _name(data_row: Json, task: str) -> str:
    for name in ("global_key", "external_id"):
        value = data_row.get(name)
        if isinstance(value, str) and value:
            return sound(without_query(value))
    return task


def _created_at(data_row: Json) -> str | None:
    created = optional(data_row, "details").get("created_at")
    return time_of(created) if created else None


def _taxonomy(details: Json) -> Json:
    ontology = details.get("ontology_id")
    return {"ontology_id": ontology} if isinstance(ontology, str) else {}


def entry_of(row: Json, project: str) -> Json:
    return child(child(row, "projects"), project)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable()
