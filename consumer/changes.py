"""What a pointer's move means to whoever reads along: a pure reading of the log's ``lake`` entries.

The ground truth is what is in the lake and counts: a task with ``ground_truth`` and a revision. One
reading serves the stream, the relay, the client and retraining, so that they never disagree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from consumer.model import Change

TruthChange = Literal["added", "changed", "removed"]

MAX_POSITION = 300  # characters of a position

_POSITION = re.compile(r"(0|[1-9][0-9]{0,17})(?:@([^\s\x00-\x1f\x7f]{1,250}))?")


class TaskChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One move of one task's pointer. ``index`` is the entry's place in the log for ever; times are
    in ``timestamp`` form; people are ids, as the platform gives them.

    ``change`` is what the move did to the lake (exported, moved, retracted, deleted);
    ``ground_truth`` what it did to the ground truth, None when nothing.
    """

    id: str  # `position` of its index
    index: int
    at: str  # when it was logged
    platform: str
    source: str
    project: str
    project_key: str  # the project's name in the lake
    task: str
    sequence: int
    change: Change
    ground_truth: TruthChange | None = None
    stage: str | None = None
    old_stage: str | None = None
    revision: str | None = None
    old_revision: str | None = None
    manifest_key: str | None = None
    label: str | None = None  # of several labels, the one that is the ground truth
    label_version: str | None = None
    approved_by: str | None = None
    approved_at: str | None = None


def change_of(index: int, entry: Mapping[str, Any], log: str) -> TaskChange | None:
    """The change that an entry of the log ``log`` tells of; None for every other kind of entry.

    Raises ``msgspec.ValidationError`` for a ``lake`` entry that is none.
    """
    if entry.get("kind") != "lake":
        return None
    return msgspec.convert(
        {
            "id": position(index, log),
            "index": index,
            "at": entry.get("logged_at"),
            "platform": entry.get("platform") or entry.get("source"),
            "ground_truth": _truth_change(entry),
            "label": entry.get("ground_truth_label"),
            **{name: entry.get(name) for name in _SAME},
        },
        TaskChange,
    )


_SAME = (
    "source", "project", "project_key", "task", "sequence", "change", "stage", "old_stage",
    "revision", "old_revision", "manifest_key", "label_version", "approved_by", "approved_at",
)  # fmt: skip


def _truth_change(entry: Mapping[str, Any]) -> TruthChange | None:
    now = bool(entry.get("ground_truth")) and entry.get("revision") is not None
    before = bool(entry.get("was_ground_truth")) and entry.get("old_revision") is not None
    if now and not before:
        return "added"
    if before and not now:
        return "removed"
    if not now:
        return None
    labels = entry.get("ground_truth_label"), entry.get("old_ground_truth_label")
    relabelled = "old_ground_truth_label" in entry and labels[0] != labels[1]
    return "changed" if relabelled or entry["revision"] != entry["old_revision"] else None


def position(index: int, log: str) -> str:
    """A place in a log that names the log: ``1234@example.org/ground-truth~0a1b2c3d4e5f``."""
    return f"{index}@{log}"


def read_position(text: str) -> tuple[int, str | None]:
    """(index, log or None where only an index was given). Raises ``ValueError``."""
    found = _POSITION.fullmatch(text) if len(text) <= MAX_POSITION else None
    if found is None:
        raise ValueError("must be an index of the log, or an id that a change came with")
    return int(found[1]), found[2]
