"""The versions of labels that one task's answer holds, each read once: pure.

RedBrick calls a saved version task data, by its ``tdId``: unchanged id, unchanged labels. Its
labels stand in the answer (with their category's name) or in a file (with class ids alone).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consumer.platforms.redbrick_values import as_json

REDBRICK_STORAGE = "22222222-2222-2222-2222-222222222222"  # the vendor's own, when none is named

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """One saved version. ``paths`` are the masks' places in the storage, by series."""

    td_id: str | None = None
    saved_at: str | None = None  # as the platform writes it
    labels: tuple[dict[str, Any], ...] = ()
    labels_path: str | None = None  # where the labels are, until they are filled in
    storage: str = REDBRICK_STORAGE
    paths: Mapping[int, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One annotator's part in a consensus."""

    user: Json
    version: Version
    status: str | None = None
    scores: Sequence[Json] | None = None  # None before the consensus was computed


def version_of(data: Json | None, series_of_item: Mapping[int, int]) -> Version:
    """Reads a task data object; ``series_of_item`` maps an image's index to its series."""
    if not data:
        return Version()
    path = data.get("labelsDataPath") or None
    labels = [] if path else as_json(data.get("labelsData") or "[]")
    return Version(
        td_id=data.get("tdId"),
        saved_at=data.get("createdAt"),
        labels=tuple(_without_nulls(label) for label in labels),
        labels_path=path,
        storage=(data.get("labelsStorage") or {}).get("storageId") or REDBRICK_STORAGE,
        paths=_paths(data.get("labelsMap") or [], series_of_item),
    )


def parts_of(entry: Json, series_of_item: Mapping[int, int]) -> list[Part]:
    """The annotators of a consensus task; empty when one person's work is all there is."""
    sub_task = entry.get("currentStageSubTask") or {}
    if sub_task.get("subTasks"):
        return [
            Part(
                user=seat.get("assignedTo") or {},
                version=version_of(seat.get("taskData"), series_of_item),
                status=seat.get("state"),
            )
            for seat in (sub_task, *sub_task["subTasks"])
        ]
    agreed = sub_task.get("consensusInfo") or []
    if len(agreed) < 2:
        return []
    return [
        Part(
            user=info.get("user") or {},
            version=version_of(info.get("taskData"), series_of_item),
            scores=info.get("scores") or [],
        )
        for info in agreed
    ]


def named(labels: Sequence[Json], taxonomy: Json) -> tuple[dict[str, Any], ...]:
    """Labels from a file, with the names that the taxonomy gives their ids."""
    if not taxonomy.get("isNew"):
        return tuple(_without_nulls(label) for label in labels)
    kinds = {kind["classId"]: kind for kind in taxonomy.get("objectTypes") or []}
    return tuple(_named(_without_nulls(label), kinds, taxonomy) for label in labels)


def unknown_classes(labels: Sequence[Json], taxonomy: Json) -> bool:
    """Whether a label is of a class that the taxonomy, as we know it, does not have."""
    known = {kind["classId"] for kind in taxonomy.get("objectTypes") or []}
    return any(label.get("classid") not in known for label in labels if label.get("dicom"))


def _named(label: dict[str, Any], kinds: Mapping[int, Json], taxonomy: Json) -> dict[str, Any]:
    definitions: Sequence[Json] = []
    for flag, where in (
        ("studyclassify", "studyClassify"),
        ("seriesclassify", "seriesClassify"),
        ("instanceclassify", "instanceClassify"),
    ):
        if label.get(flag):
            definitions = taxonomy.get(where) or []
            break
    else:
        if kind := kinds.get(label.get("classid", -1)):
            label["category"] = kind["category"]
            definitions = kind.get("attributes") or []
    known = {definition["attrId"]: definition for definition in definitions}
    for attribute in label.get("attributes") or []:
        if definition := known.get(attribute.get("attrid", -1)):
            _name_attribute(attribute, definition)
    return label


def _name_attribute(attribute: dict[str, Any], definition: Json) -> None:
    options = {o["optionId"]: o["name"] for o in definition.get("options") or []}
    chosen = attribute.get("optionid")
    attribute["name"] = definition["name"]
    if definition["attrType"] == "SELECT":
        attribute["value"] = options.get(chosen) if isinstance(chosen, int) else None
    elif definition["attrType"] == "MULTISELECT":
        values = [options.get(one) for one in (chosen if isinstance(chosen, list) else [])]
        if None not in values:
            attribute["value"] = values


def _without_nulls(label: Json) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in label.items() if value is not None}


def _paths(
    labels_map: Sequence[Json | None], series_of_item: Mapping[int, int]
) -> dict[int, str | None]:
    paths: dict[int, str | None] = {}
    for place, entry in enumerate(labels_map):
        series = (entry or {}).get("seriesIndex")
        if series is None:
            series = series_of_item.get((entry or {}).get("imageIndex", -1), place)
        paths[series] = (entry or {}).get("labelName") or None
    return paths
