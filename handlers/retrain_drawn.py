"""Whether one of a policy's classes is drawn in a task's ground truth: read from its manifest."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from consumer.errors import Permanent
from consumer.model import Manifest, decode, digest
from consumer.ports import Store
from handlers.retrain_tasks import Task


async def is_drawn(store: Store, task: Task, classes: Collection[str]) -> bool:
    """Whether the ground-truth label of the task has voxels of one of the classes.

    Raises ``Transient`` as the store does; ``Permanent`` (``manifest-missing``,
    ``manifest-damaged``) where the lake cannot tell.
    """
    return not _drawn(await _manifest(store, task), task).isdisjoint(classes)


async def drawn_classes(store: Store, task: Task) -> frozenset[str]:
    """All classes of which the ground-truth label has voxels; none where the lake cannot tell."""
    try:
        return _drawn(await _manifest(store, task), task)
    except Permanent:
        return frozenset()


def _drawn(manifest: Manifest, task: Task) -> frozenset[str]:
    return frozenset(
        count.category
        for file in manifest.files
        if file.label in (None, task.label)
        for count in file.labels
        if count.category is not None and count.voxels > 0
    )


async def _manifest(store: Store, task: Task) -> Manifest:
    stored = await store.read(task.manifest_key) if task.manifest_key else None
    if stored is None:
        raise Permanent("manifest-missing", f"{task.manifest_key or task.task} is not in the lake")
    said = f"{task.manifest_key} is not what the log says; groundwire verify tells more"
    if digest(stored.data) != task.revision:
        raise Permanent("manifest-damaged", said)
    try:
        return decode(stored.data, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Permanent("manifest-damaged", said) from error
