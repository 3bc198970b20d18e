"""What one snapshot has that another has not, task by task."""

from __future__ import annotations

from pathlib import Path

import msgspec

from consumer.ports import Sleep, Store
from handlers.snapshots.described import Snapshot
from handlers.snapshots.rows import Row
from handlers.snapshots.stored import bring_rows, rows_in, scratch


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task that differs. ``revision`` is the one in the second snapshot, ``old_revision`` in the
    first."""

    project: str  # its name in the lake
    task: str
    name: str
    revision: str | None = None
    old_revision: str | None = None


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """From ``a`` to ``b``; a task is changed when its revision, or which of its labels is the
    ground truth, is another. ``parted`` counts tasks that are in both, in another part."""

    a: str
    b: str
    added: tuple[Task, ...]
    changed: tuple[Task, ...]
    removed: tuple[Task, ...]
    unchanged: int
    parted: int


class _Seen(msgspec.Struct, frozen=True, gc=False):
    name: str
    revision: str
    label: str | None
    split: str


_Tasks = dict[tuple[str, str], _Seen]


async def diff(store: Store, a: Snapshot, b: Snapshot, sleep: Sleep) -> Diff:
    """In the order of project and task. Raises ``Transient`` and ``Permanent``."""
    async with scratch() as folder:
        first, second = folder / "a", folder / "b"
        first.mkdir()
        second.mkdir()
        before = _tasks(await bring_rows(store, a, first, sleep))
        after = _tasks(await bring_rows(store, b, second, sleep))
    both = sorted(before.keys() & after.keys())
    changed = [one for one in both if _content(before[one]) != _content(after[one])]
    return Diff(
        a=f"{a.name}/{a.id}",
        b=f"{b.name}/{b.id}",
        added=tuple(_task(one, before, after) for one in sorted(after.keys() - before.keys())),
        changed=tuple(_task(one, before, after) for one in changed),
        removed=tuple(_task(one, before, after) for one in sorted(before.keys() - after.keys())),
        unchanged=len(both) - len(changed),
        parted=sum(before[one].split != after[one].split for one in both),
    )


def _tasks(file: Path) -> _Tasks:
    return {(row.project_key, row.task): _seen(row) for row in rows_in(file)}


def _seen(row: Row) -> _Seen:
    return _Seen(row.name, row.revision, row.ground_truth_label, row.split)


def _content(seen: _Seen) -> tuple[str, str | None]:
    return seen.revision, seen.label


def _task(key: tuple[str, str], before: _Tasks, after: _Tasks) -> Task:
    old, new = before.get(key), after.get(key)
    named = new or old
    return Task(
        project=key[0],
        task=key[1],
        name=named.name if named else "",
        revision=new.revision if new else None,
        old_revision=old.revision if old else None,
    )
