"""A project's index file, ``tasks.json`` or ``export.ndjson``: the bytes that a pull would write.

The documents of tasks that did not change are taken from the present file, so what is read of the
lake is what changed. Where the present file is not the one that was written, all are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from consumer.errors import Permanent
from consumer.model import digest
from consumer.ports import Store, Stored
from handlers.mirror_index import Index, Shown, facts_of
from handlers.mirror_lake import OPTIONS, Lake
from handlers.pull import documents
from handlers.pull.plan import TaskPlan
from handlers.pull.together import each

FILES = (documents.TASKS, documents.ROWS)

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Written:
    """An index file that is to be, and where each task's document stands in it."""

    file: str
    data: bytes
    sha256: str
    tasks: dict[str, Shown]


@dataclass(frozen=True, slots=True)
class Document:
    data: bytes
    is_row: bool


class IndexFile:
    """The index file of one project."""

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project
        self._lake = Lake(store)

    def key(self, file: str) -> str:
        return f"{self._project}/{file}"

    async def read(self, file: str) -> tuple[Stored | None, str]:
        """What is there, and its SHA-256; empty without a file."""
        stored = await self._store.read(self.key(file))
        return stored, await _digest(stored.data) if stored else ""

    async def documents(
        self, index: Index, plans: Mapping[str, TaskPlan], *, spliced: bool
    ) -> tuple[dict[str, Document], dict[str, Permanent]]:
        """The documents that the present file does not give, and why some cannot be had;
        ``spliced``: the present file is the index's own."""
        found: dict[str, Document] = {}
        problems: dict[str, Permanent] = {}

        async def one(task: str) -> None:
            try:
                found[task] = await self._document(task, index.tasks[task], plans.get(task))
            except Permanent as problem:
                problems[task] = problem

        wanted = [
            task
            for task, shown in index.tasks.items()
            if shown.has_document and not (spliced and shown.span)
        ]
        await each(wanted, one)
        return found, problems

    async def _document(self, task: str, shown: Shown, plan: TaskPlan | None) -> Document:
        if plan is None:
            plan = await self._lake.plan(facts_of(self._project, task, shown), shown.folder)
        if plan.document is None:
            raise Permanent("document-missing", "the manifest names no annotations.json")
        read = await self._lake.read(plan.document.key, plan.document.sha256)
        document = documents.parsed(read)
        is_row = documents.is_row(document)
        return Document(documents.localized(document, plan, OPTIONS), is_row)


async def written(index: Index, present: bytes, new: Mapping[str, Document]) -> Written:
    """The file of those tasks that have a document, each from ``new`` or else ``present``."""
    return await asyncio.to_thread(_written, index, memoryview(present), new)


def _written(index: Index, present: memoryview, new: Mapping[str, Document]) -> Written:
    ordered = sorted(
        ((task, shown) for task, shown in index.tasks.items() if shown.has_document),
        key=lambda pair: pair[1].folder,
    )
    file = documents.TASKS
    if ordered:
        task, shown = ordered[0]
        is_row = new[task].is_row if task in new else shown.is_row
        file = documents.ROWS if is_row else documents.TASKS
    data = bytearray()
    tasks: dict[str, Shown] = {}
    for number, (task, shown) in enumerate(ordered):
        data += documents.joined(file, number)
        start = len(data)
        if task in new:
            data += new[task].data
            shown = msgspec.structs.replace(shown, is_row=new[task].is_row)
        else:
            offset, length = shown.span or (0, 0)
            data += present[offset : offset + length]
        tasks[task] = msgspec.structs.replace(shown, span=(start, len(data) - start))
        if file == documents.ROWS:
            data += b"\n"
    data += documents.ending(file, len(ordered))
    made = bytes(data)
    return Written(file, made, digest(made), tasks)


async def _digest(data: bytes) -> str:
    return await asyncio.to_thread(digest, data)
