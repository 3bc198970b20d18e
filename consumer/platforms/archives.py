"""Zip archives that somebody else packed, unpacked into numbered files beside them.

Nothing in an archive is believed: its names never become paths; sizes, number and ratio are
bounded before a byte is unpacked, and its directory is never read whole when it is too large.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from consumer.errors import Refused, Transient
from consumer.platforms.texts import short, sound
from consumer.ports import SavedImage

MAX_RATIO = 200  # of unpacked bytes to the archive's
MAX_DIRECTORY_BYTES = 8 << 20  # of its list of names: 20,000 names of 350 bytes
_FREE_BYTES = 64 << 20  # that any archive may hold, whatever the ratio
_BLOCK = 1 << 20
_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # with files, and without
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError,
    RuntimeError, UnicodeError, OSError, struct.error,
)  # fmt: skip


class Budget(Protocol):
    """What may still be kept. Raises ``Permanent`` beyond."""

    def spend(self, size_bytes: int) -> None: ...

    def add(self, files: int) -> None: ...


def is_archive(start: bytes) -> bool:
    """By a file's first bytes."""
    return start.startswith(_STARTS)


def unpack(archive: Path, budget: Budget) -> list[SavedImage]:
    """The archive's files in the order of their names, in files whose names begin with its own; it
    is removed. Raises ``Refused``, and what ``budget`` raises."""
    try:
        with _Guarded(archive) as file, zipfile.ZipFile(file) as opened:
            entries = _entries(opened, archive.stat().st_size)
            budget.add(len(entries))
            budget.spend(sum(entry.file_size for entry in entries))
            saved = [
                _unpacked(opened, entry, archive.with_name(f"{archive.name}-{number:06d}"))
                for number, entry in enumerate(entries)
            ]
    except _BROKEN:
        raise Refused("archive-unreadable", "a zip archive of images is damaged") from None
    archive.unlink()
    return saved


def _entries(opened: zipfile.ZipFile, packed_bytes: int) -> list[zipfile.ZipInfo]:
    """The archive's files, in order of their names."""
    entries = sorted(filter(_is_file, opened.infolist()), key=lambda entry: entry.filename)
    if not entries:
        raise Refused("archive-empty", "a zip archive of images holds no file")
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise Refused("archive-encrypted", "a zip archive of images is encrypted")
    if any(entry.compress_type not in _METHODS for entry in entries):
        text = "a zip archive of images is packed by another method than deflate"
        raise Refused("archive-unreadable", text)
    total = sum(entry.file_size for entry in entries)
    if total > max(_FREE_BYTES, MAX_RATIO * packed_bytes):
        text = f"a zip archive of {packed_bytes} bytes says to hold {total}"
        raise Refused("archive-ratio", f"{text}: over {MAX_RATIO} times as many")
    return entries


def _is_file(entry: zipfile.ZipInfo) -> bool:
    return not entry.is_dir() and entry.filename.partition("/")[0] != "__MACOSX"


def _unpacked(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> SavedImage:
    """``zipfile`` gives no more bytes than the entry says, and checks their CRC at the end."""
    sha256, size = hashlib.sha256(), 0
    with opened.open(entry) as packed, closing(_Output(path)) as file:
        while block := packed.read(_BLOCK):
            if size == 0 and is_archive(block):
                raise Refused("images-nested", "a zip archive of images holds a zip archive")
            file.write(block)
            sha256.update(block)
            size += len(block)
    if size != entry.file_size:
        raise EOFError
    name = entry.filename.replace("\\", "/").rpartition("/")[2]
    return SavedImage(
        name=short(sound(name)) or "image", path=path, sha256=sha256.hexdigest(), size=size
    )


class _Output:
    """A new file, whose failures are this machine's and not the archive's."""

    def __init__(self, path: Path) -> None:
        with _on_disk():
            self._file = path.open("xb", buffering=0)

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        with _on_disk():
            while view:
                view = view[self._file.write(view) :]

    def close(self) -> None:
        self._file.close()


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"a file on this machine cannot be written: {os.strerror(error.errno or 0)}"
        raise Transient("download-disk", text) from None


class _Guarded(io.FileIO):
    """Refuses to be read at once for more than an archive's directory may be."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(self._size - self.tell(), 0)
        if size > MAX_DIRECTORY_BYTES:
            text = f"the directory of a zip archive is over {MAX_DIRECTORY_BYTES} bytes"
            raise Refused("archive-directory", text)
        return super().read(size) or b""
