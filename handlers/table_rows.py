"""A row of the table from an entry of the log and the manifest that it names; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import pyarrow as pa

from consumer.changes import TaskChange, change_of
from consumer.errors import Permanent
from consumer.model import FileRef, LakeMove, Manifest, digest
from consumer.ports import LogEntry
from handlers.table_schema import SCHEMA

Row = Mapping[str, Any]

MAX_FOLDER = 200  # bytes of a partition's value in the folder's name, which escapes it

_FROM_CHANGE = (
    "platform", "source", "project", "task", "sequence", "stage", "old_stage", "revision",
    "old_revision", "label_version", "approved_by", "manifest_key",
)  # fmt: skip
_FROM_MOVE = (
    "ground_truth", "was_ground_truth", "ground_truth_label", "old_ground_truth_label",
    "ground_truth_reason", "recipe", "pointer_sha256",
)  # fmt: skip
_OF_LABEL = ("value", "category", "voxels", "feature")
_OF_FILE = (
    "path", "key", "size", "sha256", "series", "position", "label", "geometry", "group",
    "feature", "frame", "instance",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Move:
    """A ``lake`` entry, understood; ``caused_by`` are the ids of the events that led to it."""

    change: TaskChange
    move: LakeMove
    caused_by: tuple[str, ...]


def move_of(entry: LogEntry, log: str) -> Move:
    """Raises ``Permanent`` (``log-entry-malformed``) for what is no ``lake`` entry."""
    try:
        change = change_of(entry.index, entry.data, log)
        move = msgspec.convert(entry.data, LakeMove)
        caused_by = msgspec.convert(entry.data.get("caused_by", ()), tuple[str, ...])
        if change is None:
            raise ValueError("of another kind")
        datetime.fromisoformat(change.at)
    except (msgspec.ValidationError, ValueError) as error:
        said = f"entry {entry.index} of the log is no `lake` entry of this version"
        raise Permanent("log-entry-malformed", said) from error
    return Move(change, move, caused_by)


def row_of(move: Move, manifest: Manifest | None) -> Row:
    """The row as plain values; ``manifest`` is None where there is none, or none any more."""
    change = move.change
    return {
        **{name: getattr(change, name) for name in _FROM_CHANGE},
        **{name: getattr(move.move, name) for name in _FROM_MOVE},
        "log_index": change.index,
        "logged_at": _moment(change.at),
        "project_key": partition(change.project_key),
        "name": manifest.name if manifest else None,
        "change": change.change.value,
        "truth_change": change.ground_truth,
        "approved_at": _moment(change.approved_at),
        "manifest": _standing(change, manifest),
        "taxonomy_key": manifest.taxonomy_key if manifest else None,
        "labels": _labels(manifest.files) if manifest else None,
        "files": [_file(file) for file in manifest.files] if manifest else None,
        "refused": list(move.move.refused),
        "caused_by": list(move.caused_by),
    }


def table_of(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def partition(project_key: str) -> str:
    """The key itself; by its hash where a folder could not be named after it, because escaping made
    the name too long for a file system."""
    if len(quote(project_key, safe="")) <= MAX_FOLDER:
        return project_key
    return f"~{digest(project_key.encode())[:32]}"


def _standing(change: TaskChange, manifest: Manifest | None) -> Literal["read", "none", "gone"]:
    if manifest is not None:
        return "read"
    return "none" if change.manifest_key is None else "gone"


def _labels(files: Sequence[FileRef]) -> list[Row]:
    return [
        {
            **{name: getattr(label, name) for name in _OF_LABEL},
            "path": file.path,
            "series": file.series,
            "position": file.position,
            "label": file.label,
            "overlaps": list(label.overlaps),
        }
        for file in files
        for label in file.labels
    ]


def _file(file: FileRef) -> Row:
    return {
        **{name: getattr(file, name) for name in _OF_FILE},
        "shape": list(file.shape) if file.shape is not None else None,
        "affine": [x for line in file.affine for x in line] if file.affine is not None else None,
    }


def _moment(text: str | None) -> datetime | None:
    """A platform's time that is none is no reason to stop: it stays in the log as it came."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except (ValueError, OverflowError):
        return None
