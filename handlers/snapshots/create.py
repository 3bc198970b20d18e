"""Makes a snapshot: reads the log up to a size, then every manifest, then writes it down.

Nothing is written before everything was read; ``snapshot.json`` is stored last. So there is either
no snapshot or the whole, and whoever begins again finishes it with the same bytes.
"""

from __future__ import annotations

import msgspec

from consumer.model import Record
from consumer.ports import LogReader, Store
from handlers.snapshots.described import Snapshot

KIND = "snapshot"  # of the log's entry


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written down. ``size`` None is the log as it is now, without what came after
    the last change of a task, so that the same ground truth has the same id. ``projects`` are ids,
    or names in the lake; empty (or ``*``) is all. ``key`` parts the tasks; empty, the log's origin
    does."""

    name: str
    size: int | None = None
    projects: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    split: dict[str, float]
    key: bytes = b""
    patient: str = ""


async def create(wanted: Wanted, *, store: Store, log: LogReader) -> Snapshot:
    """The snapshot, in the lake on return; one that was there already is left as it is.

    Raises ``Transient``; ``Permanent``, and then nothing was written, for an empty ground truth, a
    class or project that it does not hold, a size that the log has not, and a manifest that is
    missing or damaged.
    """
    raise NotImplementedError


def record_of(snapshot: Snapshot) -> Record:
    """What the log is told; the same again for the same snapshot."""
    return Record(
        id=f"{snapshot.name}:{snapshot.id}",
        kind=KIND,
        fields={
            "name": snapshot.name,
            "snapshot": snapshot.id,
            "key": snapshot.key,
            "sha256": snapshot.sha256,
            "manifest_sha256": snapshot.manifest_sha256,
            "log_size": snapshot.size,
            "log_root": snapshot.root,
            "tasks": snapshot.tasks,
        },
    )
