"""One SQLite file, written by one thread in group commits.

Concurrent writers of this process share one transaction and so one fsync: while the thread commits,
whatever is asked for gathers, and the next transaction takes all of it. The file is in WAL mode
with ``synchronous=FULL``, which syncs the log at every commit: what is committed survives power
loss (WAL with NORMAL would not). Several processes may have the file open; they wait for each
other's transactions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from consumer.errors import Permanent, Transient

MODE = 0o600  # events name tasks and projects
BATCH = 1000  # operations per transaction

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], object]


class SqliteFile:
    """Runs operations on the file; safe to use from several tasks of one event loop."""

    def __init__(self, path: Path, schema: str, *, busy_s: float) -> None:
        self._path = path
        self._schema = schema
        self._busy_s = busy_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-queue")
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._pending: list[tuple[Operation, asyncio.Future[object]]] = []
        self._committer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises ``Transient`` when the file is busy, ``Permanent`` when it cannot be used."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._connect)
        except sqlite3.OperationalError as error:
            raise _explain(error) from None
        except (OSError, sqlite3.Error) as error:
            text = f"the queue's file cannot be used: {type(error).__name__}"
            raise Permanent("queue-unusable", text) from None

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Runs it outside any transaction. Raises ``Transient``."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: operation(self._usable())
            )
        except sqlite3.Error as error:
            raise _explain(error) from None

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Runs it in the next transaction; durable on return. Raises ``Transient``.

        When the caller is cancelled the operation may still be done.
        """
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._pending.append((operation, future))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all())
        return await future  # type: ignore[return-value]  # of this very operation

    async def close(self) -> None:
        """Finishes what is pending."""
        if self._committer is not None:
            await self._committer
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            operations = [operation for operation, _ in batch]
            try:
                results = await loop.run_in_executor(self._thread, self._commit, operations)
            except Exception as error:  # whatever it was, nobody may wait for ever
                for _, future in batch:
                    if not future.done():
                        future.set_exception(_explain(error))
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)

    def _commit(self, operations: list[Operation]) -> list[object]:
        db = self._usable()
        db.execute("BEGIN IMMEDIATE")
        try:
            results = [operation(db) for operation in operations]
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        self._usable()  # a commit into a file that was removed meanwhile is not durable
        return results

    def _usable(self) -> sqlite3.Connection:
        """The connection, if the file it writes is still the one that others will read."""
        if self._db is None:
            raise Transient("queue-unavailable", "the queue is closed", shared=True)
        try:
            found = os.stat(self._path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise Transient(
                "queue-unavailable", "the queue's file was removed: restart", shared=True
            )
        return self._db

    def _connect(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, MODE))
        _sync_folder(self._path.parent)
        found = os.stat(self._path)
        self._identity = (found.st_dev, found.st_ino)
        self._db = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(self._schema)

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _explain(error: Exception) -> Exception:
    """An exception of its own for each who waits."""
    if isinstance(error, Transient):
        return Transient(error.reason, error.message, shared=True)
    if not isinstance(error, sqlite3.Error):
        return error
    return Transient("queue-unavailable", f"the queue's file: {error}", shared=True)


def _sync_folder(folder: Path) -> None:
    """A new file's name is durable only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
