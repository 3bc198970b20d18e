"""Which processes are alive, told by locks that the kernel drops when a process dies.

Each holder of leases keeps one locked file in a folder beside the database. A file whose lock is
free is a dead process's, known at once. No file says nothing: there the lease's time decides, as it
does for a stopped process, which keeps its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import structlog

MODE = 0o600
FOLDER_MODE = 0o700
TRIES = 5  # at a file that another process, which looks for the dead, holds or removes just then
_NAME = re.compile(r"[0-9a-f]{16}")
_WORKING = fcntl.LOCK_EX | fcntl.LOCK_NB

_log = structlog.get_logger(__name__)

Flock = Callable[[int, int], None]


class Holders:
    """The folder, as the holder ``name`` (16 hexadecimal digits) sees it; for one thread."""

    def __init__(self, folder: Path, name: str, *, flock: Flock = fcntl.flock) -> None:
        self._folder = folder
        self._own = folder / name
        self._flock = flock
        self._lock: int | None = None

    def enter(self) -> None:
        """Shows that this process lives, from now until it dies or leaves. Where locks do not
        work it shows nothing, so that nobody takes it for dead."""
        try:
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            for _ in range(TRIES):
                if self._locked():
                    break
            if self._lock is not None and self._is_free(self._own):
                self.leave()
        except OSError as error:
            _log.debug("no-file-locks", error=type(error).__name__)
            self.leave()
        if self._lock is None:
            _log.info("deaths-noticed-by-time", folder=self._folder.name)

    def gone(self) -> list[str]:
        """The holders that are dead. One that is just entering may be among them, so whoever acts
        on this must hold what that one needs for its first lease: the write transaction."""
        try:
            found = sorted(os.listdir(self._folder))
        except OSError:
            return []
        others = (self._folder / name for name in found if _NAME.fullmatch(name))
        return [path.name for path in others if path != self._own and self._is_free(path)]

    def forget(self, names: Iterable[str]) -> None:
        """Removes the files of the dead, once nothing of theirs is left."""
        for name in names:
            with self._if_free(self._folder / name) as free:
                if free:
                    (self._folder / name).unlink(missing_ok=True)

    def leave(self, *, keep_file: bool = False) -> None:
        """``keep_file`` when leases could not be given back: the next to look finds them."""
        lock, self._lock = self._lock, None
        if not keep_file:
            with contextlib.suppress(OSError):
                self._own.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)  # which unlocks

    def _locked(self) -> bool:
        """False when somebody who looked for the dead held the file, or removed it."""
        descriptor = os.open(self._own, os.O_CREAT | os.O_RDWR, MODE)
        try:
            self._flock(descriptor, _WORKING)
            if os.path.samestat(os.fstat(descriptor), os.stat(self._own)):
                self._lock = descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            if self._lock is None:
                os.close(descriptor)
        return self._lock is not None

    def _is_free(self, path: Path) -> bool:
        with self._if_free(path) as free:
            return free

    @contextlib.contextmanager
    def _if_free(self, path: Path) -> Iterator[bool]:
        """Whether nobody holds the file's lock; if so it is held here meanwhile. False when that
        cannot be known."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            yield False
            return
        try:
            yield self._got(descriptor)
        finally:
            os.close(descriptor)

    def _got(self, descriptor: int) -> bool:
        try:
            self._flock(descriptor, _WORKING)
        except OSError:  # held by a living process, or no locks here
            return False
        return True
