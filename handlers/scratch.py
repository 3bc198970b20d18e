"""Folders on this machine's disk, for what is too large for memory.

A folder ends with its use, though threads that nobody can stop may still write to it: it is renamed
first, so whatever they do next fails. While it is used its process holds a lock on it; what a
killed process left is locked by nobody, and whoever makes the next folder removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from consumer.errors import Transient

PREFIX = "groundwire-scratch-"
_LOCK, _FILES, _REMOVED = "lock", "files", "removed"


class Scratch:
    """A folder of its own; ``path`` is free to be filled."""

    def __init__(self) -> None:
        """Raises ``Transient`` when the disk is full or refuses."""
        with on_disk():
            self._top = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = os.open(self._top / "new", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(self._top / "new", self._top / _LOCK)  # nobody sees it without its lock held
            self.path = self._top / _FILES
            self.path.mkdir()

    def remove(self) -> None:
        """Never fails: what cannot be removed now is an orphan."""
        with suppress(OSError):
            os.rename(self.path, self._top / _REMOVED)
        _empty(self._top)
        os.close(self._lock)


def remove_orphans() -> int:
    """Removes the folders of processes that are gone; how many there were."""
    removed = 0
    with suppress(OSError):
        for top in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            removed += _remove_orphan(top)
    return removed


def _remove_orphan(top: Path) -> bool:
    """Only a folder of our own user, with a lock that nobody holds."""
    try:
        if top.is_symlink() or top.stat().st_uid != os.getuid():
            return False
        lock = os.open(top / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _empty(top)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _empty(top: Path) -> None:
    """The lock goes last: whoever is killed before that leaves a folder that is still known."""
    for name in (_FILES, _REMOVED):
        shutil.rmtree(top / name, ignore_errors=True)
    shutil.rmtree(top, ignore_errors=True)


@contextmanager
def on_disk() -> Iterator[None]:
    """What this machine's disk refuses may work later; no name of a file is told."""
    try:
        yield
    except OSError as error:
        text = f"a file on this machine failed: {os.strerror(error.errno or 0)}"
        raise Transient("local-file-failed", text) from None
