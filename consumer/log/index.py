"""The exact index of ids that the log holds: a local SQLite file, derived from the entries.

It records the tree (size and root) that it covers and is dropped when the log has no such tree, so
losing or ageing it costs reading, never an id. What is kept of an id is 128 bits of its SHA-256.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from consumer.errors import Transient

DIGEST_BYTES = 16
_SCHEMA = """
CREATE TABLE IF NOT EXISTS ids (place INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS covered
    (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL);
"""
_ROWS_AT_ONCE = 500  # of one IN (...)


def id_digest(entry_id: str) -> bytes:
    return hashlib.sha256(entry_id.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


class IdIndex:
    """Which ids stand in the first ``size`` entries.

    ``path`` None keeps it in a file that vanishes with it. Every verb raises ``Transient`` when
    the file cannot be used; a damaged one is made anew.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Opens or makes the file; one that is no database is replaced."""
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _failed(error) from None
            self.clear()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def clear(self) -> None:
        """Forgets everything: the file is made anew."""
        self.close()
        try:
            if self._path is not None:
                for suffix in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._connect()
        except (OSError, sqlite3.Error) as error:
            raise _failed(error) from None

    def covered(self) -> tuple[int, bytes | None]:
        """The size and root of the tree that it covers; (0, None) at first."""
        rows = self._run("SELECT size, root FROM covered")
        return (int(rows[0][0]), bytes(rows[0][1])) if rows else (0, None)

    def known(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that the covered entries hold."""
        by_digest = {id_digest(one): one for one in ids}
        digests = list(by_digest)
        found: set[str] = set()
        for start in range(0, len(digests), _ROWS_AT_ONCE):
            part = digests[start : start + _ROWS_AT_ONCE]
            marks = ",".join("?" * len(part))
            rows = self._run(f"SELECT digest FROM ids WHERE digest IN ({marks})", part)  # noqa: S608 - only marks
            found.update(by_digest[bytes(row[0])] for row in rows)
        return found

    def extend(self, start: int, digests: Sequence[bytes], root: bytes) -> None:
        """Adds the ids of the entries from ``start`` on; ``root`` is the tree's after them.

        Does nothing when it does not cover exactly ``start`` entries (another process was first).
        """
        connection = self._open()
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                if self.covered()[0] != start:
                    return
                rows = [(start + i, digest) for i, digest in enumerate(digests)]
                connection.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", rows)
                covered = (start + len(digests), root)
                connection.execute("INSERT OR REPLACE INTO covered VALUES (1, ?, ?)", covered)
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def digests(self, start: int, end: int) -> list[bytes]:
        """The digests of the entries ``start <= place < end``, in order; a repeated id's place is
        missing."""
        query = "SELECT digest FROM ids WHERE place >= ? AND place < ? ORDER BY place"
        return [bytes(row[0]) for row in self._run(query, (start, end))]

    def _connect(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path or "", timeout=5, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # derived: a lost tail is read again
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.open()
        assert self._connection is not None  # noqa: S101 - open() made it or raised
        return self._connection

    def _run(self, query: str, values: Sequence[object] = ()) -> list[tuple[bytes, ...]]:
        try:
            return self._open().execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _broken(self, error: sqlite3.Error) -> Transient:
        """A damaged file (not merely a locked or full one) starts again from nothing."""
        if not isinstance(error, sqlite3.OperationalError):
            self.clear()
        return _failed(error)


def _failed(error: Exception) -> Transient:
    return Transient("log-index-failed", f"The log's index cannot be used ({type(error).__name__})")
