"""``snapshot.json``: what a snapshot is of, what it is pinned to, and what it holds.

It is free of times and of who made it: the same log, size, selection and split give the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

import msgspec

from consumer.errors import Permanent
from consumer.model import FORMAT, canonical, digest
from handlers import layout

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
ROWS, PARQUET = "manifest.jsonl", "manifest.parquet"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Sorted and distinct; empty is all. ``projects`` are ids, or names in the lake; a task with
    any of the ``classes`` is in."""

    projects: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


class SplitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the tasks were parted; ``key_id`` tells one key from another and nothing of it."""

    shares: dict[str, float]
    patient: str
    key_id: str


class ClassCount(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn of one class; ``series`` counts those with it."""

    tasks: int = 0
    series: int = 0
    voxels: int = 0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """``classes`` is by class and split; ``files`` counts label files."""

    tasks: int = 0
    series: int = 0
    files: int = 0
    projects: dict[str, int] = {}  # tasks by the project's name in the lake
    splits: dict[str, int] = {}  # tasks
    classes: dict[str, dict[str, ClassCount]] = {}


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two forms of the manifest."""

    sha256: str
    size: int


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What ``snapshot.json`` holds. ``root`` (base64, as in a checkpoint) and ``size`` are the
    log's; the Parquet file holds the very rows of the JSON lines."""

    name: str
    id: str
    log: str
    root: str
    size: int
    selection: Selection
    split: SplitSettings
    counts: Counts = Counts()
    files: dict[str, StoredFile] = {}
    format: int = FORMAT


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that is in the lake. ``sha256`` is of its ``snapshot.json``; ``is_new`` tells
    whether it was there before."""

    name: str
    id: str
    folder: str  # the prefix of its keys
    log: str
    root: str
    size: int
    tasks: int
    sha256: str
    manifest_sha256: str  # of the JSON lines
    described: Described
    is_new: bool = False

    @property
    def key(self) -> str:
        return f"{self.folder}{layout.SNAPSHOT_FILE}"


def snapshot_from(described: Described, data: bytes, *, is_new: bool = False) -> Snapshot:
    """``data`` are the bytes of its ``snapshot.json``."""
    return Snapshot(
        name=described.name,
        id=described.id,
        folder=layout.snapshot_prefix(described.name, described.id),
        log=described.log,
        root=described.root,
        size=described.size,
        tasks=described.counts.tasks,
        sha256=digest(data),
        manifest_sha256=described.files[ROWS].sha256,
        described=described,
        is_new=is_new,
    )


def snapshot_id(
    *, log: str, root: str, size: int, selection: Selection, split: SplitSettings
) -> str:
    """Equal for equal content: ``{size}-{12 hex digits}``."""
    told: list[Any] = [FORMAT, log, root, size, selection, split]
    return f"{size}-{digest(canonical(told))[:12]}"


def key_id(key: bytes) -> str:
    """Tells one key of a split from another without telling anything of it."""
    return hmac.new(key, b"groundwire split key", hashlib.sha256).hexdigest()[:16]


def checked_name(name: str) -> str:
    """Raises ``Permanent`` (``snapshot-name``)."""
    if NAME.fullmatch(name) is None:
        said = "a snapshot's name is of a-z, 0-9, - and _, begins with a letter or a digit, and"
        raise Permanent("snapshot-name", f"{said} has at most 64 of them")
    return name
