"""What the mirror reads of the lake: pointers, and immutable objects that have their hash."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from consumer.errors import Permanent
from consumer.model import Pointer, decode, digest
from consumer.ports import Store
from handlers import layout
from handlers.pull.content import damaged, missing
from handlers.pull.current import read_manifest
from handlers.pull.masks import plan_task
from handlers.pull.names import clashing, folded
from handlers.pull.options import Options
from handlers.pull.plan import TaskPlan
from handlers.pull.select import Facts

OPTIONS = Options()  # what a plain `groundwire pull PROJECT` gives
TREES = ("segmentations", "masks", "geometry")


@dataclass(frozen=True, slots=True)
class Seen:
    """A pointer as it was read: ``etag`` tells whether it has moved since. Neither pointer nor
    problem: there is none."""

    etag: str | None
    pointer: Pointer | None = None
    problem: Permanent | None = None


class Lake:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, key: str, sha256: str) -> bytes:
        """Raises ``Transient``; ``Permanent`` (``lake-file-missing``, ``lake-file-damaged``)."""
        stored = await self._store.read(key)
        if stored is None:
            raise missing(key)
        if digest(stored.data) != sha256:
            raise damaged(key)
        return stored.data

    async def pointer(self, project: str, task: str) -> Seen:
        stored = await self._store.read(layout.pointer_key(project, task))
        if stored is None:
            return Seen(None)
        try:
            return Seen(stored.etag, decode(stored.data, Pointer))
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = "current.json is no pointer of this version"
            return Seen(stored.etag, problem=Permanent("pointer-unreadable", said))

    async def plan(self, facts: Facts, folder: str) -> TaskPlan:
        """Raises ``Transient``, and ``Permanent`` for what cannot be shown."""
        plan = plan_task(facts, await read_manifest(facts, self), folder, OPTIONS)
        taken = {folded(path) for path in plan.outputs}
        if len(taken) < len(plan.outputs) or clashing(plan.outputs, taken.__contains__):
            raise Permanent("path-collides", "two files would be in each other's way")
        return plan
