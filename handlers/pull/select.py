"""Which tasks a pull is of: decided from what their pointers say, with no manifest read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from consumer.model import Change, Pointer
from handlers.pull.options import Options


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a pull needs of a task's pointer. ``version`` is the listing's: while it is the same,
    the pointer is."""

    place: str  # the task's folder in the lake
    version: str
    source: str
    task: str
    name: str
    stage: str | None = None
    ground_truth: bool = False
    truth_label: str | None = None
    labels: tuple[str, ...] = ()  # their ids
    created: tuple[str | None, ...] = ()  # when each of them was made
    active_at: str | None = None
    manifest: str | None = None  # key
    manifest_sha256: str | None = None
    deleted: bool = False
    nameless: bool = False  # its name is to stand in no path


def facts_of(pointer: Pointer, place: str, version: str) -> Facts:
    labels = sorted(pointer.labels.items())
    return Facts(
        place=place,
        version=version,
        source=pointer.source,
        task=pointer.task,
        name=pointer.name,
        stage=pointer.stage,
        ground_truth=pointer.ground_truth,
        truth_label=pointer.ground_truth_label,
        labels=tuple(name for name, _ in labels),
        created=tuple(seen.created_at for _, seen in labels),
        active_at=pointer.active_at,
        manifest=pointer.manifest,
        manifest_sha256=pointer.manifest_sha256,
        deleted=pointer.change is Change.DELETED,
        nameless=pointer.paths == "id",
    )


class Selected(NamedTuple):
    """``undated``: tasks left out only because the lake does not know the time that was asked
    for."""

    chosen: list[Facts]
    undated: list[Facts]


def select(tasks: Sequence[Facts], options: Options) -> Selected:
    """Those that every option wants; a task without a revision holds nothing."""
    made = Selected([], [])
    for task in tasks:
        if task.manifest is None or not _stands(task, options):
            continue
        times = [_active(task, options), _created(task, options)]
        if None in times and False not in times:
            made.undated.append(task)
        elif all(times):
            made.chosen.append(task)
    return made


def stages(tasks: Sequence[Facts]) -> list[str]:
    return sorted({task.stage for task in tasks if task.stage and not task.deleted})


def _stands(task: Facts, options: Options) -> bool:
    if options.only_truth and not task.ground_truth:
        return False
    return options.stage is None or (task.stage or "").casefold() == options.stage.casefold()


def _active(task: Facts, options: Options) -> bool | None:
    return _within(task.active_at, options.since, options.until)


def _created(task: Facts, options: Options) -> bool | None:
    """Whether one of the labels was made in that time."""
    if options.label_since is None and options.label_until is None:
        return True
    found = [_within(at, options.label_since, options.label_until) for at in task.created]
    if True in found:
        return True
    return None if None in found else False


def _within(at: str | None, start: str | None, end: str | None) -> bool | None:
    """None when nobody knows. Times in `timestamp` form sort as text."""
    if start is None and end is None:
        return True
    if at is None:
        return None
    return (start is None or start <= at) and (end is None or at <= end)
