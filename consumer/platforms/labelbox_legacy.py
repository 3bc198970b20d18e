"""Labelbox's legacy export: entries per label, with frames behind URLs, read as a current row.

What the current shape has a place for goes there under its name; the rest is kept beside it in
snake case, so nothing that the platform told is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from consumer.errors import Permanent

MAX_FRAMES = 10_000  # of one group
_STEPS = {
    "action": "action",
    "actorId": "created_by",
    "createdAt": "created_at",
    "previousTaskId": "previous_task_id",
    "previousTaskName": "previous_task_name",
    "nextTaskId": "next_task_id",
    "nextTaskName": "next_task_name",
}
_NAMES = {"featureId": "feature_id", "schemaId": "schema_id", "title": "name"}
_PLACED = frozenset(
    {
        "ID", "DataRow ID", "Global Key", "External ID", "Labeled Data", "Dataset Name",
        "Project Name", "DataRow Workflow Info", "Label", "Created By", "Created At",
        "Updated At", "Seconds to Label", "Reviews", "Skipped",
    }
)  # fmt: skip

Json = dict[str, Any]


def is_legacy(entry: Json) -> bool:
    return "DataRow ID" in entry


def row_id(entry: Json) -> str | None:
    """The data row that an entry of either shape is about."""
    data_row = entry.get("data_row")
    given = entry.get("DataRow ID") or (data_row.get("id") if isinstance(data_row, dict) else None)
    return given if isinstance(given, str) else None


def frame_urls(entries: Sequence[Json]) -> list[str]:
    """The URLs behind which the frames of these entries lie."""
    return [
        group["frames"]
        for entry in entries
        for group in _groups(entry)
        if isinstance(group.get("frames"), str)
    ]


def read_frames(data: bytes) -> list[Json]:
    """The frames behind a URL: JSON objects one after another, on a line each or not.

    Raises ``Permanent`` (row-unreadable).
    """
    frames: list[Json] = []
    decoder, position = json.JSONDecoder(), 0
    try:
        text = data.decode().strip()
        while position < len(text) and len(frames) <= MAX_FRAMES:
            found, position = decoder.raw_decode(text, position)
            frames += found if isinstance(found, list) else [found]
            while position < len(text) and text[position] in " \t\r\n,":
                position += 1
    except (ValueError, RecursionError):
        raise _unreadable("the frames of a group are not JSON") from None
    if len(frames) > MAX_FRAMES or not all(isinstance(frame, dict) for frame in frames):
        raise _unreadable("the frames of a group are not objects, or too many")
    return frames


def current_row(
    entries: Sequence[Json], project: str, frames: Mapping[str, Sequence[Json]]
) -> Json:
    """One row of the current shape from the entries of one data row; ``frames`` by their URL."""
    first = entries[0]
    labels = [_label(entry, frames) for entry in entries if _is_label(entry)]
    data_row = {
        "id": first["DataRow ID"],
        "row_data": first.get("Labeled Data"),
        "global_key": first.get("Global Key"),
        "external_id": first.get("External ID"),
        "details": {"dataset_name": first.get("Dataset Name")},
    }
    entry = {
        "project_name": first.get("Project Name"),
        "labels": labels,
        "project_details": _project_details(first),
    }
    return {
        "data_row": data_row,
        "media_attributes": {"mime_type": "application/dicom"},
        "projects": {project: entry},
    }


def _is_label(entry: Json) -> bool:
    """Whether it is about a label, rather than a row without one."""
    given = entry.get("ID")
    if given is None and ("ID" in entry or not entry.get("Label")):
        return False
    if not isinstance(given, str) or not given:
        raise _unreadable("an entry does not say which label it is about")
    return True


def _project_details(entry: Json) -> Json:
    info = entry.get("DataRow Workflow Info")
    info = {} if info is None else info
    if not isinstance(info, dict):
        raise _unreadable("DataRow Workflow Info is not an object")
    steps = _objects(info.get("Workflow History"))
    history = [{_STEPS.get(name, name): value for name, value in step.items()} for step in steps]
    return {"task_name": info.get("taskName"), "workflow_history": history}


def _label(entry: Json, frames: Mapping[str, Sequence[Json]]) -> Json:
    drawn = entry.get("Label")
    if not isinstance(drawn, dict):
        if entry.get("Skipped") is not True:
            raise _unreadable("an entry has no Label")
        drawn = {}
    details = {
        "created_at": entry.get("Created At"),
        "updated_at": entry.get("Updated At"),
        "created_by": entry.get("Created By"),
        "reviews": entry.get("Reviews") or [],
    }
    if entry.get("Benchmark ID") is not None and entry.get("Benchmark ID") == entry["ID"]:
        details["is_benchmark_reference"] = True
    rest = {_snake(name): value for name, value in entry.items() if name not in _PLACED}
    return {
        "label_kind": "DICOM",
        "id": entry["ID"],
        "label_details": details,
        "performance_details": {
            "seconds_to_create": entry.get("Seconds to Label"),
            "skipped": entry.get("Skipped") is True,
            **rest,
        },
        "annotations": {
            "groups": _by_name((_group(group, frames) for group in _groups(entry)), "a group"),
            "classifications": drawn.get("classifications") or [],
        },
    }


def _groups(entry: Json) -> Iterator[Json]:
    label = entry.get("Label")
    if isinstance(label, dict) and label and "groups" not in label:
        raise _unreadable("a Label has no groups")
    for group in _objects(label.get("groups") if isinstance(label, dict) else None):
        if not isinstance(group.get("name"), str):
            raise _unreadable("a group has no name")
        yield group


def _group(group: Json, frames: Mapping[str, Sequence[Json]]) -> tuple[str, Json]:
    name = group["name"].capitalize()
    if (given := group.get("frames")) is None:
        raise _unreadable("a group has no frames")
    listed = frames[given] if isinstance(given, str) else _objects(given)
    return name, {
        "name": name,
        "classifications": group.get("classifications") or [],
        "frames": _by_name(
            ((str(frame.get("frameNumber")), _frame(frame)) for frame in listed), "a frame"
        ),
    }


def _frame(frame: Json) -> Json:
    objects = [_object(one) for one in _objects(frame.get("objects"))]
    return {
        "objects": _by_name(((one["feature_id"], one) for one in objects), "an object"),
        "classifications": frame.get("classifications") or [],
    }


def _by_name(named: Iterable[tuple[str, Json]], what: str) -> Json:
    """What the legacy shape lists: a second one of a name would hide the first."""
    found: Json = {}
    for name, value in named:
        if name in found:
            raise _unreadable(f"{what} is listed twice")
        found[name] = value
    return found


def _object(drawn: Json) -> Json:
    if not isinstance(drawn.get("featureId"), str):
        raise _unreadable("an object has no featureId")
    made: Json = {_NAMES.get(name, name): value for name, value in drawn.items()}
    url = made.pop("instanceURI", None)
    if url is not None:
        made |= {"annotation_kind": "DICOMSegmentationMask", "mask": {"url": url}}
    elif "line" in made:
        made["annotation_kind"] = "DICOMPolyline"
    return made


def _objects(value: object) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _unreadable("what should be a list of objects is not")
    return value


def _snake(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()


def _unreadable(message: str) -> Permanent:
    return Permanent("row-unreadable", message)
