"""Locks between the writers of a folder, in all its processes (``flock``), with a temporary file
that belongs to whoever holds the lock; and spare files, for what is written before a lock is held.

Whatever a crash leaves of either is removed: a file that nobody holds is nobody's.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from uuid import uuid4
from zlib import crc32

from consumer.errors import Transient

_SPARE = ".spare"
COUNT = 64  # every process must use the same: a key's lock is found by its hash


class Spare:
    """A temporary file of one writer's own, empty at first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o666)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    @property
    def is_there(self) -> bool:
        """Not so when it was taken for a crash's before it was held."""
        return os.fstat(self._descriptor).st_nlink > 0

    def release(self) -> None:
        """Removes the file's name here; it may have another by now."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


class Locks:
    """A fixed number of locks in one folder, shared by all keys."""

    def __init__(
        self,
        folder: Path,
        *,
        timeout_s: float,
        pause: Callable[[float], None],
        jitter: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        self._pause = pause
        self._jitter = jitter
        self._opening = Lock()
        self._is_open = False

    @contextmanager
    def hold(self, key: str) -> Iterator[Path]:
        """Excludes every other writer of the key; gives the path of the temporary file to use.

        Raises ``Transient`` (``store-busy``) when another holds it for the whole timeout.
        """
        self._open()
        number = crc32(key.encode()) % COUNT
        descriptor = self._opened(number)
        try:
            self._acquire(descriptor)
            yield self._temporary(number)
        finally:
            os.close(descriptor)  # which unlocks

    def spare(self) -> Spare:
        """A new file beside the locks, to be linked to where it is wanted, and released."""
        self._open()
        while True:
            made = Spare(self._folder / f"{uuid4().hex}{_SPARE}")
            if made.is_there:
                return made
            made.release()

    def still_there(self) -> None:
        """Raises ``FileNotFoundError`` when the folder has vanished since it was opened: an
        unmounted disk must not look like an empty lake."""
        if self._is_open:
            self._folder.stat()

    def _open(self) -> None:
        with self._opening:
            if self._is_open:
                return
            root = self._folder.parent
            self._folder.mkdir(parents=True, exist_ok=True)
            for made in (root, root.parent):
                _sync(made)
            for number in range(COUNT):
                self._clean(number)
            for path in self._folder.glob(f"*{_SPARE}"):
                with suppress(FileNotFoundError):
                    _remove_unless_held(path)
            self._is_open = True

    def _clean(self, number: int) -> None:
        """Removes what a crash left, unless somebody is writing it."""
        if not self._temporary(number).exists():
            return
        descriptor = self._opened(number)
        try:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._temporary(number).unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int) -> None:
        waited_s = 0.0
        while True:
            with suppress(BlockingIOError):
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if waited_s >= self._timeout_s:
                text = f"another writer held the lake's lock for {self._timeout_s:g} s"
                raise Transient("store-busy", text, shared=True)
            pause_s = 0.001 + 0.009 * self._jitter()
            self._pause(pause_s)
            waited_s += pause_s

    def _opened(self, number: int) -> int:
        path = self._folder / f"{number:02x}.lock"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def _temporary(self, number: int) -> Path:
        return self._folder / f"{number:02x}.tmp"


def _remove_unless_held(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
