"""A pulled folder's files: placed whole, removed only when they are ours, never through a link.

What somebody else made or changed is never lost: it is moved to ``kept-aside/`` when it is in the
way, and left alone when it is not.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from consumer.errors import Permanent
from handlers.pull.state import HIDDEN, Held

ASIDE = "kept-aside"
_BLOCK = 1 << 20


class Folder:
    """The project folder; paths below it are ``/``-separated."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staging = root / HIDDEN / "staged"
        self.cache = root / HIDDEN / "cache"
        self.aside: list[str] = []  # what was moved aside, by the place it was moved to

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises ``Permanent`` (``pull-under-way``) while another pull is at work in it."""
        self.staging.mkdir(parents=True, exist_ok=True)
        self.cache.mkdir(exist_ok=True)
        with (self.root / HIDDEN / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                said = f"another pull is at work in {self.root}"
                raise Permanent("pull-under-way", said) from None
            yield

    def at(self, path: str) -> Path:
        return self.root.joinpath(*path.split("/"))

    def holding(self, path: str, known: Iterable[Held]) -> Held | None:
        """Which of these the file is, by size and time or else by its bytes, with the time it has
        now; None when it is absent or somebody else's."""
        if self._way(path) is not None:
            return None
        try:
            found = self.at(path).lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        alike = [one for one in known if one.size == found.st_size]
        for one in alike:
            if one.mtime_ns == found.st_mtime_ns:
                return one
        sha256 = sha256_of(self.at(path)) if alike else ""
        for one in alike:
            if one.sha256 == sha256:
                return Held(one.origin, one.sha256, one.size, found.st_mtime_ns, one.task)
        return None

    def place(self, staged: Path, path: str, *, ours: bool) -> None:
        """The staged file becomes ``path``. What is there goes aside unless it is ours."""
        while (way := self._way(path)) is not None:
            self._set_aside(way)
        target = self.at(path)
        if not ours and os.path.lexists(target):
            self._set_aside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)

    def remove(self, path: str, *, ours: bool) -> None:
        """A file that is withdrawn, and the folders it leaves empty."""
        if self._way(path) is not None:
            return
        if ours:
            self.at(path).unlink(missing_ok=True)
        elif os.path.lexists(self.at(path)):
            self._set_aside(path)
        parent = self.at(path).parent
        with suppress(OSError):
            while parent != self.root:
                parent.rmdir()
                parent = parent.parent

    def sync(self) -> None:
        """What was placed is on the disk, as far as the folder itself goes."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def tidy(self, keep: set[str]) -> None:
        """Empties the stage, and the cache but for what is kept."""
        shutil.rmtree(self.staging)
        self.staging.mkdir()
        for file in self.cache.iterdir():
            if file.name not in keep:
                file.unlink()

    def _way(self, path: str) -> str | None:
        """What on the way to the file is no folder: a file, or a link wherever it leads."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            step = "/".join(parts[:depth])
            try:
                if not stat.S_ISDIR(self.at(step).lstat().st_mode):
                    return step
            except FileNotFoundError:
                return None
        return None

    def _set_aside(self, path: str) -> None:
        number = 0
        place = f"{ASIDE}/{path}"
        while os.path.lexists(self.at(place)) or self._way(place) is not None:
            number += 1
            place = f"{ASIDE}-{number}/{path}"
        self.at(place).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).rename(self.at(place))
        self.aside.append(place)


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def described(file: Path, origin: str, sha256: str, task: str = "") -> Held:
    found = file.stat()
    return Held(origin, sha256, found.st_size, found.st_mtime_ns, task)


def sync_file(file: Path) -> None:
    """Its bytes are on the disk on return."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
