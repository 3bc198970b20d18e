"""A small lake with its log, made as the export and audit handlers make them."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from consumer.log.log import TileLog
from consumer.model import (
    Change,
    FileRef,
    LakeMove,
    Manifest,
    Outcome,
    Pointer,
    canonical,
    digest,
    pointer_sha256,
)
from handlers.audit import entries_of
from tests.consumer.log.logs import writer
from tests.fakes_store import FakeStore


@dataclass
class Lake:
    """Tasks of one project; each export writes one mask, a manifest and the pointer."""

    store: FakeStore = field(default_factory=FakeStore)
    log: TileLog = field(init=False)
    pointers: dict[str, Pointer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = writer(self.store)

    async def export(self, task: str, mask: bytes, *, logged: bool = True) -> Pointer:
        """A new revision of the task, in the ground truth."""
        taxonomy = canonical({"classes": ["liver"]})
        taxonomy_key = f"p/taxonomies/{digest(taxonomy)}.json"
        await self.store.create(taxonomy_key, taxonomy)
        key = f"p/tasks/{task}/files/{digest(mask)}/A.nii.gz"
        await self.store.create(key, mask)
        file = FileRef(path="A.nii.gz", key=key, sha256=digest(mask), size=len(mask))
        manifest = Manifest(
            source="s",
            project="p",
            task=task,
            taxonomy=digest(taxonomy),
            taxonomy_key=taxonomy_key,
            files=(file,),
        )
        data = canonical(manifest)
        revision = digest(data)
        manifest_key = f"p/tasks/{task}/revisions/{revision}.json"
        await self.store.create(manifest_key, data)
        return await self._move(task, revision, manifest_key, logged=logged)

    async def _move(
        self, task: str, revision: str | None, manifest_key: str | None, *, logged: bool
    ) -> Pointer:
        old = self.pointers.get(task)
        move = LakeMove(
            project_key="p",
            sequence=old.sequence + 1 if old else 1,
            change=Change.EXPORTED,
            stage="END",
            old_stage=old.stage if old else None,
            revision=revision,
            old_revision=old.revision if old else None,
            ground_truth=True,
            was_ground_truth=bool(old and old.ground_truth),
            ground_truth_label=None,
            ground_truth_reason=None,
            label_version=f"v-{revision}",
            recipe="r",
            manifest_key=manifest_key,
            manifest_sha256=revision,
        )
        outcome = Outcome(
            id=f"p/{task}/{move.sequence}", source="s", project="p", task=task, move=move
        )
        pointer = sealed(pointer_of(outcome))
        await self.put_pointer(pointer)
        if logged:
            await self.log.append(entries_of(pointer.outcome))
        return pointer

    async def put_pointer(self, pointer: Pointer) -> None:
        key = f"p/tasks/{pointer.task}/current.json"
        before = await self.store.read(key)
        await self.store.swap(key, canonical(pointer), if_match=before.etag if before else None)
        self.pointers[pointer.task] = pointer


def sealed(pointer: Pointer) -> Pointer:
    """With its own hash in the move that it carries."""
    sha256 = pointer_sha256(msgspec.to_builtins(pointer))
    move = msgspec.structs.replace(pointer.outcome.move, pointer_sha256=sha256)
    outcome = msgspec.structs.replace(pointer.outcome, move=move)
    return msgspec.structs.replace(pointer, outcome=outcome)


def pointer_of(outcome: Outcome) -> Pointer:
    move = msgspec.to_builtins(outcome.move)
    shared = {name: move[name] for name in move if name in Pointer.__struct_fields__}
    return msgspec.convert(
        {
            **shared,
            "source": outcome.source,
            "project": outcome.project,
            "task": outcome.task,
            "name": "study",
            "manifest": outcome.move.manifest_key,
            "labels": {},
            "latest": None,
            "history": [],
            "workflow": [],
            "outcome": msgspec.to_builtins(outcome),
        },
        Pointer,
    )
