"""Brings a job's files here, whole and checked, into the stage: nothing is placed yet.

A staged file's name says what it is made of and where it goes, so an interrupted pull goes on from
what is staged.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from consumer.model import FileRef, digest
from consumer.ports import Sleep, Store
from handlers.pull import content, state
from handlers.pull.convert import check_image, convert
from handlers.pull.folder import Folder, described, sha256_of, sync_file
from handlers.pull.plan import Conversion, Job
from handlers.pull.state import Held
from handlers.pull.together import retried

T = TypeVar("T")


class Progress(Protocol):
    """Told how far a pull is, in bytes of the lake's files."""

    def begin(self, size: int) -> None: ...

    def advance(self, size: int) -> None: ...


@dataclass(slots=True)
class Stage:
    """``here`` is where a file that is still right lies, by its origin; ``fetched`` counts bytes
    that came from the lake."""

    store: Store
    folder: Folder
    sleep: Sleep
    progress: Progress
    here: Mapping[str, str]
    threads: ThreadPoolExecutor
    fetched: int = 0

    async def bring(self, job: Job, task: str) -> dict[str, tuple[Path, Held]]:
        """Each output's staged file and what it is. Raises ``Transient`` and ``Permanent``."""
        origin = job.origin
        files = [self.folder.staging / _name(path, origin) for path in job.outputs]
        if job.conversion is None or job.conversion.kind == "image":
            if not await self._run(lambda: _is(files[0], job.sources[0].sha256)):
                await self._copy(job, files[0])
        elif not all(file.is_file() for file in files):
            await self._make(job, job.conversion, files)
        self.progress.advance(job.size)
        held = await self._run(
            lambda: [described(one, origin, sha256_of(one), task) for one in files]
        )
        return dict(zip(job.outputs, zip(files, held, strict=True), strict=True))

    async def _copy(self, job: Job, file: Path) -> None:
        source, part = job.sources[0], file.with_suffix(".part")
        if not await self._run(lambda: self._copy_here(job.origin, source, part)):
            await self._download(source, part)
        if job.conversion is not None:
            conversion = job.conversion
            await self._run(lambda: check_image(part, conversion))
        part.replace(file)

    def _copy_here(self, origin: str, source: FileRef, part: Path) -> bool:
        """From a file of ours elsewhere in the folder, such as under a task's former name."""
        place = self.here.get(origin)
        if place is None:
            return False
        try:
            shutil.copyfile(self.folder.at(place), part)
        except OSError:
            return False
        sync_file(part)
        return _is(part, source.sha256)

    async def _make(self, job: Job, conversion: Conversion, files: list[Path]) -> None:
        sources = [self.folder.staging / f"{files[0].name}.{n}" for n in range(len(job.sources))]
        try:
            for source, file in zip(job.sources, sources, strict=True):
                await self._download(source, file)

            def making() -> None:
                for file, data in zip(files, convert(conversion, sources), strict=True):
                    state.write(file, data)

            await self._run(making)
        finally:
            for file in sources:
                file.unlink(missing_ok=True)

    async def _download(self, source: FileRef, file: Path) -> None:
        sha256 = await retried(lambda: self.store.download(source.key, file), self.sleep)
        if sha256 is None:
            raise content.missing(source.key)
        self.fetched += source.size
        if sha256 != source.sha256:
            await self._run(lambda: file.unlink(missing_ok=True))
            raise content.damaged(source.key)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and sha256_of(file) == sha256


def _name(path: str, origin: str) -> str:
    return digest(f"{origin} {path}".encode())[:40]
