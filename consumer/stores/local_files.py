"""Files of this machine, beside the store's own: read in blocks, and written whole or not at all.

What fails here is never said to be the store's fault.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from consumer.errors import Transient
from consumer.stores.limits import check_size

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def size_of(file: Path, limit_bytes: int) -> int:
    """In bytes. Raises ``Permanent`` (``object-too-large``)."""
    with explained():
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        check_size(found.st_size, limit_bytes)
        return found.st_size


def block_at(file: Path, offset: int, length: int) -> bytes:
    """Exactly so many bytes of the file."""
    with explained(), file.open("rb", buffering=0) as opened:
        opened.seek(offset)
        data = opened.read(length)
        while len(data) < length and (more := opened.read(length - len(data))):
            data += more
        if len(data) < length:
            raise changed()
        return data


class Partial:
    """A file in the making, beside ``file``, which it replaces when it is finished.

    A process that is killed leaves it behind as ``.groundwire-*.part``.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._path = file.with_name(f".groundwire-{uuid4().hex}.part")
        self._hash = hashlib.sha256()
        self.size = 0
        with explained():
            self._opened = self._path.open("xb")

    def keep(self, data: bytes) -> None:
        """Adds to the file's end."""
        with explained():
            self._opened.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self) -> str:
        """Puts the file in its place, once it is on the disk; the SHA-256 of its bytes."""
        with explained():
            self._opened.flush()
            os.fsync(self._opened.fileno())
            self._opened.close()
            self._path.replace(self._file)
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Removes what is not finished; of what is, nothing."""
        with explained():
            try:
                self._opened.close()
            finally:
                self._path.unlink(missing_ok=True)


def changed() -> Transient:
    return Transient("local-file-changed", "a file on this machine changed while it was read")


@contextmanager
def explained() -> Iterator[None]:
    """Turns the system's errors into ours; no name of a file is told."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number in _FULL:
            text = "no space is left on this machine's disk: make room"
            raise Transient("local-disk-full", text) from None
        text = f"a file on this machine failed: {os.strerror(number)}"
        raise Transient("local-file-failed", text) from None
