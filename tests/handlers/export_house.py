"""The export with a platform, a store and a queue in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from consumer.model import (
    ExportRules,
    Failure,
    LaneSpec,
    Manifest,
    Message,
    Pointer,
    TaskEvent,
    decode,
    digest,
)
from consumer.ports import Ports, Result
from handlers import export, layout
from tests.fakes_platform import PROJECT, SOURCE, FakePlatform, event, snapshot
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore

AUDIT = LaneSpec(name="audit", wants=("outcome", "record"))


@dataclass(frozen=True)
class OneWork:
    message: Message
    attempt: int = 1
    failure: Failure | None = None


class NoLog:
    async def append(self, entries: Sequence[Any]) -> int:
        raise AssertionError("the export never writes the log itself")


@dataclass
class House:
    """The export with a platform, a store and a queue in memory."""

    rules: ExportRules = field(default_factory=ExportRules)

    def __post_init__(self) -> None:
        self.platform = FakePlatform()
        self.store = FakeStore()
        self.queue = FakeQueue((AUDIT,), opened=True)

    @property
    def ports(self) -> Ports:
        return Ports(
            platforms={SOURCE: self.platform},
            queue=cast(Any, self.queue),
            store=self.store,
            log=NoLog(),
            rules={SOURCE: self.rules},
            project_key=lambda key: layout.project_key(key.source, key.project, unique=True),
            clock=lambda: datetime(2026, 1, 2, tzinfo=UTC),
        )

    async def handle(self, *works: OneWork | TaskEvent) -> list[Result]:
        batch = [work if isinstance(work, OneWork) else OneWork(work) for work in works]
        results = {id(work): result async for work, result in export.handle(batch, self.ports)}
        return [results[id(work)] for work in batch]

    async def see(self, task: str = "task-1", **changes: Any) -> Result:
        """The platform changes a task, and one event tells of it."""
        self.platform.tasks[task] = snapshot(task, **changes)
        (result,) = await self.handle(event(task))
        return result

    async def pointer(self, task: str = "task-1") -> Pointer:
        stored = await self.store.read(layout.pointer_key(PROJECT, task))
        assert stored is not None, "the task has no pointer"
        return decode(stored.data, Pointer)

    async def manifest(self, task: str = "task-1") -> Manifest:
        pointer = await self.pointer(task)
        assert pointer.manifest is not None
        data = await self.bytes(pointer.manifest)
        assert digest(data) == pointer.manifest_sha256 == pointer.revision
        return decode(data, Manifest)

    async def bytes(self, key: str) -> bytes:
        stored = await self.store.read(key)
        assert stored is not None, f"{key} is not in the lake"
        return stored.data

    async def document(self, task: str = "task-1") -> dict[str, Any]:
        files = {file.path: file for file in (await self.manifest(task)).files}
        document: dict[str, Any] = json.loads(await self.bytes(files["annotations.json"].key))
        return document

    async def keys(self) -> list[str]:
        return [item.key async for item in self.store.list("")]
