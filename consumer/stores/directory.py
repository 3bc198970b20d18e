"""The lake in a folder (``file:///path``), for one machine or a file system that several share.

Invariant: an object appears and changes in one step, and is on the disk when the verb returns. A
write goes to a temporary file, is synced, and then linked (create) or renamed (swap) into place,
and the folder synced. Writers of a key exclude each other by a lock that no key can name: it lies
in ``.groundwire/`` inside the lake's folder, so that every process finds the same one wherever
the folder is mounted. Temporary files lie there too, one name for each lock, so whatever a crash
leaves is removed by the next to hold that lock; and the copies of files that are uploaded, each
held by its writer, so that the next process removes those that nobody holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from consumer.errors import Conflict, GroundwireError, Transient
from consumer.ports import Listed, Stored
from consumer.stores import folders, local_files, pieces
from consumer.stores.limits import (
    MAX_OBJECT_BYTES,
    MAX_UPLOAD_BYTES,
    RESERVED,
    check_key,
    check_prefix,
    check_size,
)
from consumer.stores.locks import Locks
from consumer.stores.pieces import PIECE_BYTES, Piece
from consumer.stores.probe import probe
from consumer.stores.threads import Threads

COPIES_AT_ONCE = 2
_RACES = 20  # for a folder, lost in a row
_BLOCK = 64 << 20  # of a file that is copied, with a deadline of its own

T = TypeVar("T")


class DirectoryStore:
    """Implements ``Store``. The folder is made by the first write, never by a read.

    The tag of an object is the SHA-256 of its bytes.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 4,
        deadline_s: float = 120.0,  # of one call, waiting for a thread included
        lock_timeout_s: float = 10.0,
        page_size: int = 1000,
        max_object_bytes: int = MAX_OBJECT_BYTES,
        max_upload_bytes: int = MAX_UPLOAD_BYTES,
        piece_bytes: int = PIECE_BYTES,  # of what is downloaded
        pause: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._root = path.absolute()
        self._locks = Locks(
            self._root / RESERVED, timeout_s=lock_timeout_s, pause=pause, jitter=jitter
        )
        self._threads = Threads(threads, deadline_s=deadline_s)
        self._page_size = page_size
        self._max_object_bytes = max_object_bytes
        self._max_upload_bytes = max_upload_bytes
        self._piece_bytes = piece_bytes
        self._copying = asyncio.Semaphore(COPIES_AT_ONCE)

    async def read(self, key: str) -> Stored | None:
        return await self._run(partial(self._read, check_key(key)))

    async def create(self, key: str, data: bytes) -> None:
        create = partial(self._create, key, check_key(key), data)
        await self._run(partial(self._in_a_folder, create))

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        swap = partial(self._swap, key, check_key(key), data, if_match)
        return await self._run(partial(self._in_a_folder, swap))

    async def upload(self, key: str, file: Path) -> None:
        """The copy is whole and on the disk before it gets its name, and no lock is held while it
        is made: it may take minutes."""
        parts = check_key(key)
        size = await self._run(partial(local_files.size_of, file, self._max_upload_bytes))
        ask = partial(self._piece, parts)
        while True:
            same = await pieces.same(file, size, ask, self._run)
            if same is False:
                raise Conflict(key)
            if same or await self._copied(key, parts, file, size):
                return await self._run(partial(self._sync, parts))

    async def download(self, key: str, file: Path) -> str | None:
        return await pieces.fetched(file, partial(self._piece, check_key(key)), self._run)

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        """In byte order of the whole key, as S3."""
        found = self._walk(check_prefix(prefix))
        while page := await self._run(lambda: [*islice(found, self._page_size)]):
            for item in page:
                yield item

    async def copy(self, source: str, target: str) -> str | None:
        """A copy, never a second name for the same bytes: whoever edits the target by hand must not
        change the source. An empty folder in the target's place gives way."""
        parts, to = check_key(source), check_key(target)
        spare = await self._run(self._locks.spare)
        try:
            async with self._copying:
                offset, size, tag = 0, 1, None
                while offset < size:
                    block = partial(self._copy_block, parts, spare.path, offset, tag)
                    found = await self._run(block)
                    if found is None:
                        return None
                    tag, size = found
                    offset += _BLOCK
            rename = partial(self._rename_spare, target, to, spare.path)
            return await self._run(partial(self._in_a_folder, rename))
        finally:
            with suppress(GroundwireError):  # what went wrong before is what is told
                await asyncio.shield(self._run(spare.release))

    async def delete(self, key: str) -> None:
        await self._run(partial(self._delete, key, check_key(key)))

    async def check(self) -> None:
        """Tries everything the lake needs. Raises with what is wrong and what to do; of a folder
        that is not there (``store-folder-absent``), it makes none: a disk may not be mounted, and
        whoever runs would write where it should be."""
        await self._run(self._locks.still_there)
        if not self._root.exists():
            raise Transient(
                "store-folder-absent",
                f"{self._root} does not exist; the first start makes it. Was there a lake already? "
                "Then mount its disk before anything is started",
            )
        await probe(self)

    def close(self) -> None:
        """Takes no further calls."""
        self._threads.close()

    async def _copied(self, key: str, parts: Sequence[str], file: Path, size: int) -> bool:
        """Whether the file's copy has become the object; not so when another was first."""
        spare = await self._run(self._locks.spare)
        try:
            async with self._copying:
                for offset in range(0, size, _BLOCK):
                    length = min(_BLOCK, size - offset)
                    block = partial(folders.copy_block, file, spare.path, offset, length)
                    await self._run(block)
            link = partial(self._link_spare, key, parts, spare.path)
            return await self._run(partial(self._in_a_folder, link))
        finally:
            with suppress(GroundwireError):  # what went wrong before is what is told
                await asyncio.shield(self._run(spare.release))

    async def _piece(self, parts: Sequence[str], offset: int, tag: str | None) -> Piece | None:
        return await self._run(partial(self._read_piece, parts, offset, tag))

    async def _run(self, call: Callable[[], T]) -> T:
        with folders.explained(self._root):
            return await self._threads.run(call)

    # What follows runs in a thread of the store's own.

    def _in_a_folder(self, write: Callable[[], T]) -> T:
        """Whoever deletes the last object of a folder removes it, perhaps between the moment that
        ``write`` found or made it and its use: then it is made again."""
        for _ in range(_RACES):
            try:
                return write()
            except FileNotFoundError:
                self._locks.still_there()
        return write()

    def _read(self, parts: Sequence[str]) -> Stored | None:
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            folders.opened(self._root, parts[:-1]) as folder,
        ):
            return self._stored(folder, parts[-1])
        self._locks.still_there()
        return None

    def _read_piece(self, parts: Sequence[str], offset: int, tag: str | None) -> Piece | None:
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            folders.opened(self._root, parts[:-1]) as folder,
        ):
            found = folders.read_piece(folder, parts[-1], offset, self._piece_bytes, tag)
            return None if found is None else Piece(*found)
        self._locks.still_there()
        return None

    def _link_spare(self, key: str, parts: Sequence[str], spare: Path) -> bool:
        with (
            self._locks.hold(key),
            folders.opened(self._root, parts[:-1], make=True) as folder,
        ):
            try:
                os.link(spare, parts[-1], dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                if folders.read_piece(folder, parts[-1], 0, 0, None) is None:
                    raise  # no object: something else is in the way
                return False
            return True

    def _copy_block(
        self, parts: Sequence[str], spare: Path, offset: int, tag: str | None
    ) -> tuple[str, int] | None:
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            folders.opened(self._root, parts[:-1]) as folder,
        ):
            return folders.copy_object(folder, parts[-1], spare, offset, _BLOCK, tag)
        self._locks.still_there()
        return None

    def _rename_spare(self, key: str, parts: Sequence[str], spare: Path) -> str:
        with (
            self._locks.hold(key),
            folders.opened(self._root, parts[:-1], make=True) as folder,
        ):
            version = folders.replace(spare, folder, parts[-1])
            os.fsync(folder)
            return version

    def _sync(self, parts: Sequence[str]) -> None:
        with folders.opened(self._root, parts[:-1]) as folder:
            os.fsync(folder)

    def _walk(self, parts: Sequence[str]) -> Iterator[Listed]:
        yield from folders.walk(self._root, parts)
        self._locks.still_there()

    def _create(self, key: str, parts: Sequence[str], data: bytes) -> None:
        with (
            self._locks.hold(key) as temporary,
            folders.opened(self._root, parts[:-1], make=True) as folder,
        ):
            found = self._stored(folder, parts[-1])
            if found is None:
                self._link(temporary, folder, parts[-1], data)
            elif found.data != data:
                raise Conflict(key)
            os.fsync(folder)

    def _swap(self, key: str, parts: Sequence[str], data: bytes, if_match: str | None) -> str:
        with (
            self._locks.hold(key) as temporary,
            folders.opened(self._root, parts[:-1], make=True) as folder,
        ):
            found = self._stored(folder, parts[-1])
            if found is None or found.data != data:
                if (found.etag if found else None) != if_match:
                    raise Conflict(key)
                if found is None:
                    self._link(temporary, folder, parts[-1], data)
                else:
                    self._replace(temporary, folder, parts[-1], data)
            os.fsync(folder)
            return _etag(data)

    def _delete(self, key: str, parts: Sequence[str]) -> None:
        with (
            suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError),
            folders.opened(self._root, parts[:-1]) as folder,
            self._locks.hold(key),
        ):
            os.unlink(parts[-1], dir_fd=folder)
            os.fsync(folder)
            return folders.prune(self._root, parts[:-1])
        self._locks.still_there()
        return None

    def _stored(self, folder: int, name: str) -> Stored | None:
        data = folders.read_file(folder, name, self._max_object_bytes)
        return None if data is None else Stored(data=data, etag=_etag(data))

    def _link(self, temporary: Path, folder: int, name: str, data: bytes) -> None:
        """Never replaces anything, even where locks do not hold."""
        try:
            self._write(temporary, data)
            os.link(temporary, name, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            if self._stored(folder, name) is None:
                raise  # no object: something else is in the way
            text = "another writer ignores the lake's locks: is the folder on a network disk?"
            raise Transient("store-busy", text, shared=True) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _replace(self, temporary: Path, folder: int, name: str, data: bytes) -> None:
        try:
            self._write(temporary, data)
            folders.replace(temporary, folder, name)
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, temporary: Path, data: bytes) -> None:
        check_size(len(data), self._max_object_bytes)
        folders.write_file(temporary, data)


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
