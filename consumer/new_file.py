"""A file that is written and hashed while it comes, and is gone when it does not come whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from consumer.errors import Transient

_BLOCK = 1 << 20  # that goes to the disk at once


class NewFile:
    """A file that is written and hashed in a thread, block by block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self._waiting = bytearray()
        self._size = 0

    @classmethod
    @asynccontextmanager
    async def at(cls, path: Path) -> AsyncIterator[NewFile]:
        """Removed after a failure."""
        with _on_disk():
            file = await asyncio.to_thread(cls, path)
        try:
            yield file
        except BaseException:
            with suppress(OSError):
                await asyncio.shield(asyncio.to_thread(file._remove))
            raise

    async def keep(self, chunk: bytes) -> None:
        self._waiting += chunk
        if len(self._waiting) >= _BLOCK:
            await self._flush()

    async def finish(self) -> tuple[str, int]:
        """The SHA-256 of the bytes, and their number."""
        await self._flush()
        with _on_disk():
            await asyncio.to_thread(self._file.close)
        return self._hash.hexdigest(), self._size

    async def _flush(self) -> None:
        block, self._waiting = self._waiting, bytearray()
        with _on_disk():
            await asyncio.to_thread(self._write, block)

    def _write(self, block: bytearray) -> None:
        self._file.write(block)
        self._hash.update(block)
        self._size += len(block)

    def _remove(self) -> None:
        try:
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)


@contextmanager
def _on_disk() -> Iterator[None]:
    """What this machine's disk refuses is not the other side's fault."""
    try:
        yield
    except OSError as error:
        text = f"a file on this machine cannot be written: {os.strerror(error.errno or 0)}"
        raise Transient("download-disk", text) from None
