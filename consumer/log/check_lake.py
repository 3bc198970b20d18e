"""Verifies that the lake is what the log says: manifests, files, each task's pointer, snapshots."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from consumer.log.check_snapshots import PREFIX as SNAPSHOTS
from consumer.log.check_snapshots import SnapshotCheck
from consumer.log.finding import Counts, Findings
from consumer.log.keys import CHECKPOINT, HEAD, IDS, LOG, STAGE, TILES, VKEY
from consumer.model import Manifest, Pointer, canonical, decode, digest, encode, pointer_sha256
from consumer.ports import LogEntry, Store

_Task = tuple[str, str, str]  # source, project, task
_NOTES = "notes/"

IN_MEMORY_BYTES = 16 << 20  # larger objects are hashed on this machine's disk


class LakeCheck:
    """Takes the log's entries in order, then looks at the lake that they speak of.

    What it keeps: the newest move of each task, and the keys of manifests and files.
    """

    def __init__(self, store: Store, findings: Findings) -> None:
        self._store = store
        self._findings = findings
        self._newest: dict[_Task, tuple[int, Mapping[str, Any]]] = {}
        self._manifests: dict[str, tuple[str, int]] = {}  # sha256, index of the first entry
        self._erased: set[str] = set()
        self._referenced: set[str] = set()
        self._entries = 0
        self._files = 0
        self._size_bytes = 0
        self._sizes: dict[str, int] = {}  # of what the store lists
        self._snapshots = SnapshotCheck(store, findings, self._hashed, self._missing)

    def add(self, entry: LogEntry) -> None:
        data = entry.data
        self._entries = entry.index + 1
        if data["kind"] == "erased":
            keys = [data.get("key"), *_texts(data.get("keys"))]
            self._erased.update(key for key in keys if isinstance(key, str))
        if data["kind"] == "snapshot":
            self._snapshots.add(entry)
        if data["kind"] != "lake":
            return
        task = (str(data.get("source")), str(data.get("project")), str(data.get("task")))
        self._newest[task] = (entry.index, data)
        key, sha256 = data.get("manifest_key"), data.get("manifest_sha256")
        if isinstance(key, str):
            self._name_manifest(key, str(sha256), entry.index)

    def _name_manifest(self, key: str, sha256: str, index: int) -> None:
        before, first = self._manifests.setdefault(key, (sha256, index))
        if before != sha256:
            self._findings.add(key, f"entry {first} names it with another hash", entry=index)

    async def finish(self) -> tuple[list[str], Counts]:
        """Checks the lake; returns what nothing refers to, and what was looked at."""
        self._sizes = {listed.key: listed.size async for listed in self._store.list("")}
        keys = self._sizes.keys()
        await self._pointers(keys)
        for key, (sha256, index) in self._manifests.items():
            with self._findings.told_of(key, entry=index if index >= 0 else None):
                await self._manifest(key, sha256, index)
        await self._notes(keys)
        await self._snapshots.finish(keys, self._entries)
        counts = Counts(
            tasks=len(self._newest),
            revisions=len(self._manifests),
            files=self._files,
            size_bytes=self._size_bytes,
        )
        return [key for key in keys if self._unreferenced(key)], counts

    async def _pointers(self, keys: Iterable[str]) -> None:
        seen: set[_Task] = set()
        for key in keys:
            if _is_pointer(key):
                task = None
                with self._findings.told_of(key):
                    task = await self._pointer(key)
                if task in seen:
                    self._findings.add(key, "another pointer is of the same task")
                if task:
                    seen.add(task)
        for task, (index, data) in self._newest.items():
            if task not in seen:
                place = f"{data.get('project_key')}/tasks/"
                problem = f"task {task[2]} of {task[0]} has no readable pointer"
                self._findings.add(place, problem, entry=index)

    async def _pointer(self, key: str) -> _Task | None:
        stored = await self._store.read(key)
        if stored is None:
            return None
        try:
            pointer = decode(stored.data, Pointer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._findings.add(key, "it is no pointer")
            return None
        task = (pointer.source, pointer.project, pointer.task)
        problem = (
            _disagreement(key, pointer)
            or _unsealed(stored.data, pointer)
            or self._against_log(task, pointer)
        )
        if problem:
            self._findings.add(key, problem)
        return task

    def _against_log(self, task: _Task, pointer: Pointer) -> str | None:
        move = pointer.outcome.move
        index, entry = self._newest.get(task, (-1, {}))
        logged = int(entry.get("sequence", 0))
        if move.sequence > logged:
            self._findings.ahead += 1
            self._findings.note(
                f"task {task[2]} of {task[0]}: move {move.sequence} is not in the log yet; "
                "its message is on the way, or the next event of the task brings it"
            )
            if move.manifest_key and move.manifest_sha256:
                self._manifests.setdefault(move.manifest_key, (move.manifest_sha256, -1))
            return None
        if move.sequence < logged:
            return f"it is at move {move.sequence}, entry {index} of the log at {logged}"
        fields = msgspec.json.decode(encode(move))  # as entries come out of their JSON
        # An entry of before there was a field lacks it; then the field must say nothing.
        wrong = [n for n in fields if (entry[n] != fields[n] if n in entry else fields[n])]
        if entry.get("id") != f"lake:{pointer.outcome.id}":
            wrong.append("id")
        return f"entry {index} of the log differs in {', '.join(wrong)}" if wrong else None

    async def _manifest(self, key: str, sha256: str, index: int) -> None:
        self._referenced.add(key)
        entry = index if index >= 0 else None
        stored = await self._store.read(key)
        if stored is None:
            self._missing(key, "the log names this manifest, and it is missing", entry)
            return
        self._size_bytes += len(stored.data)
        if digest(stored.data) != sha256:
            self._findings.add(key, "it does not have the hash in the log", entry=entry)
            return
        try:
            manifest = decode(stored.data, Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._findings.add(key, "it is no manifest", entry=entry)
            return
        if manifest.taxonomy and manifest.taxonomy_key:
            with self._findings.told_of(manifest.taxonomy_key):
                await self._taxonomy(manifest.taxonomy_key, manifest.taxonomy, key)
        for file in manifest.files:
            with self._findings.told_of(file.key):
                await self._file(file.key, file.sha256, file.size, key)

    async def _taxonomy(self, key: str, sha256: str, manifest: str) -> None:
        """Shared by revisions; each is read once."""
        if key in self._referenced:
            return
        self._referenced.add(key)
        stored = await self._store.read(key)
        if stored is None:
            self._missing(key, f"{manifest} names this taxonomy, and it is missing", None)
        elif digest(stored.data) != sha256:
            self._findings.add(key, f"it does not have the hash in {manifest}")

    async def _file(self, key: str, sha256: str, size: int, manifest: str) -> None:
        """Files of equal bytes are shared by revisions; each is read once."""
        if key in self._referenced:
            return
        self._referenced.add(key)
        found = await self._hashed(key)
        if found is None:
            self._missing(key, f"{manifest} names it, and it is missing", None)
            return
        self._files += 1
        self._size_bytes += found[1]
        if found != (sha256, size):
            self._findings.add(key, f"it does not have the hash and size in {manifest}")

    async def _hashed(self, key: str) -> tuple[str, int] | None:
        """SHA-256 and size in bytes; an image may be larger than the memory."""
        if self._sizes.get(key, 0) <= IN_MEMORY_BYTES:
            stored = await self._store.read(key)
            return (digest(stored.data), len(stored.data)) if stored else None
        with tempfile.TemporaryDirectory(prefix="groundwire-verify-") as folder:
            file = Path(folder) / "object"
            sha256 = await self._store.download(key, file)
            if sha256 is None:
                return None
            return sha256, (await asyncio.to_thread(file.stat)).st_size

    def _missing(self, key: str, problem: str, entry: int | None) -> None:
        if key in self._erased:
            self._findings.note(f"{key} was erased, as the log says")
        else:
            self._findings.add(key, problem, entry=entry)

    async def _notes(self, keys: Iterable[str]) -> None:
        """Notes are named by their bytes' hash. One that is gone may have been erased."""
        for key in keys:
            if not key.startswith(_NOTES):
                continue
            with self._findings.told_of(key):
                stored = await self._store.read(key)
                if stored is not None and digest(stored.data) != _stem(key):
                    self._findings.add(key, "its bytes do not have the hash in its name")

    def _unreferenced(self, key: str) -> bool:
        if key.startswith(STAGE):
            return True
        if key.startswith(SNAPSHOTS):
            return key not in self._snapshots.referenced
        parts = key.split("/")
        folder = parts[1] if len(parts) > 2 else ""
        if folder in ("tasks", "taxonomies") and not key.startswith(LOG):
            return key not in self._referenced and not _is_pointer(key)
        known = key in (HEAD, CHECKPOINT, VKEY) or key.startswith((TILES, IDS))
        return key.startswith(LOG) and not known


def _disagreement(key: str, pointer: Pointer) -> str | None:
    """What a pointer says twice must be the same; and it lies with its own task's files."""
    move = pointer.outcome.move
    pairs = {
        "sequence": (pointer.sequence, move.sequence),
        "change": (pointer.change, move.change),
        "stage": (pointer.stage, move.stage),
        "ground_truth": (pointer.ground_truth, move.ground_truth),
        "was_ground_truth": (pointer.was_ground_truth, move.was_ground_truth),
        "ground_truth_label": (pointer.ground_truth_label, move.ground_truth_label),
        "ground_truth_reason": (pointer.ground_truth_reason, move.ground_truth_reason),
        "revision": (pointer.revision, move.revision),
        "manifest": (pointer.manifest, move.manifest_key),
        "manifest_sha256": (pointer.manifest_sha256, move.manifest_sha256),
        "label_version": (pointer.label_version, move.label_version),
        "recipe": (pointer.recipe, move.recipe),
        "source": (pointer.source, pointer.outcome.source),
        "project": (pointer.project, pointer.outcome.project),
        "task": (pointer.task, pointer.outcome.task),
        "project_key": (key.split("/")[0], move.project_key),
    }
    wrong = [name for name, (said, carried) in pairs.items() if said != carried]
    return f"it contradicts its own outcome in {', '.join(wrong)}" if wrong else None


def _unsealed(data: bytes, pointer: Pointer) -> str | None:
    """Every byte follows from the hash that the log holds: the JSON is canonical, and hashed."""
    plain = json.loads(data)
    if canonical(plain) != data:
        return "it is not canonical JSON: somebody else wrote it"
    if pointer_sha256(plain) != pointer.outcome.move.pointer_sha256:
        return "its bytes do not have the hash that the log holds of them"
    return None


def _is_pointer(key: str) -> bool:
    parts = key.split("/")
    return len(parts) == 4 and parts[1] == "tasks" and parts[3] == "current.json"


def _stem(key: str) -> str:
    return key.rsplit("/", 1)[-1].removesuffix(".json")


def _texts(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []
