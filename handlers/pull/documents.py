"""A task's document as it stands in a pulled folder: lake keys become paths of files there; pure.

RedBrick's documents make ``tasks.json``, Labelbox' rows ``export.ndjson``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from consumer.errors import Permanent
from handlers.pull.options import Options
from handlers.pull.plan import TaskPlan

TASKS, ROWS = "tasks.json", "export.ndjson"

_GONE = object()


def parsed(data: bytes) -> dict[str, Any]:
    """Raises ``Permanent`` (``document-unreadable``)."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Permanent("document-unreadable", "annotations.json is not JSON") from error
    if not isinstance(document, dict):
        raise Permanent("document-unreadable", "annotations.json is no object")
    return document


def is_row(document: Mapping[str, Any]) -> bool:
    """Whether it is a data row of Labelbox' export."""
    return "data_row" in document and "projects" in document


def localized(document: dict[str, Any], plan: TaskPlan, options: Options) -> bytes:
    """The document's JSON. A place that names a file which is not pulled goes."""
    if is_row(document):
        if options.only_truth:
            _keep_label(document, plan.task.truth_label)
    elif plan.images:
        _name_images(document, plan.images)
    local = _local(document, plan.names, f"{plan.task.place}files/")
    if options.format == "png":
        _say_png(local)
    indent = None if is_row(document) else 2
    try:
        data = json.dumps(local, ensure_ascii=False, separators=(",", ":")).encode()
        return msgspec.json.format(data, indent=indent) if indent else data
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(local, indent=indent).encode()


def joined(index: str, number: int) -> bytes:
    """What stands before the document of that number in the index."""
    if index == ROWS:
        return b""
    return b"[\n" if number == 0 else b",\n"


def ending(index: str, count: int) -> bytes:
    """What stands after the last document."""
    if index == ROWS:
        return b""
    return b"\n]\n" if count else b"[]\n"


def _local(value: Any, names: Mapping[str, Sequence[str]], prefix: str) -> Any:
    """A copy with paths for keys; what has neither is ``_GONE``, and its place with it."""
    if isinstance(value, str):
        if value not in names and not value.startswith(prefix):
            return value
        paths = names.get(value, ())
        return (paths[0] if len(paths) == 1 else list(paths)) if paths else _GONE
    if isinstance(value, dict):
        inner = {name: _local(one, names, prefix) for name, one in value.items()}
        return {name: one for name, one in inner.items() if one is not _GONE}
    if isinstance(value, list):
        return list(_local_items(value, names, prefix))
    return value


def _local_items(
    items: list[Any], names: Mapping[str, Sequence[str]], prefix: str
) -> Iterator[Any]:
    for item in items:
        local = _local(item, names, prefix)
        if isinstance(item, str) and isinstance(local, list):
            yield from local
        elif local is not _GONE:
            yield local


def _keep_label(row: dict[str, Any], label: str | None) -> None:
    for project in row["projects"].values():
        labels = project.get("labels") if isinstance(project, dict) else None
        if isinstance(labels, list):
            project["labels"] = [one for one in labels if one.get("id") == label]


def _all_series(document: dict[str, Any]) -> list[list[Any]]:
    """The lists of series: the task's own, and those of each label."""
    parts = [document, document.get("superTruth"), *(document.get("consensusTasks") or [])]
    found = [part.get("series") for part in parts if isinstance(part, dict)]
    return [series for series in found if isinstance(series, list)]


def _name_images(document: dict[str, Any], images: Mapping[int, Sequence[str]]) -> None:
    for series in _all_series(document):
        for position, paths in images.items():
            if position < len(series) and isinstance(series[position], dict):
                series[position]["items"] = list(paths)


def _say_png(document: dict[str, Any]) -> None:
    for series in _all_series(document):
        for one in series:
            if isinstance(one, dict) and one.get("segmentations"):
                one["pngMask"] = True
