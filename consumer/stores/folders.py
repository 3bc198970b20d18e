"""Files below one folder, which no symbolic link leads out of, in the order S3 lists keys in.

Every step of a path is taken from the folder before it (``dir_fd``) and refuses links, so nothing
can be exchanged on the way. What is neither a plain file nor a folder counts as not there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from consumer.errors import Permanent, Transient
from consumer.ports import Listed
from consumer.stores.limits import RESERVED, check_size
from consumer.stores.local_files import changed
from consumer.stores.local_files import explained as explained_here

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not block
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_BLOCK = 1 << 20
_COLLIDES = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST})


@contextmanager
def opened(root: Path, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """The descriptor of a folder below ``root``; ``make`` creates what is missing, durably."""
    folder = os.open(root, _FOLDER)
    try:
        for part in parts:
            inner = _entered(folder, part, make=make)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _entered(folder: int, name: str, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
            os.fsync(folder)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)


def read_file(folder: int, name: str, limit_bytes: int) -> bytes | None:
    """The bytes of a plain file; None when there is none by this name."""
    descriptor = _plain(folder, name)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        check_size(os.fstat(descriptor).st_size, limit_bytes)
        return file.read()


def _plain(folder: int, name: str) -> int | None:
    """The descriptor of a plain file, to be read; None when there is none by this name."""
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def read_piece(
    folder: int, name: str, offset: int, length: int, tag: str | None
) -> tuple[bytes, str, int] | None:
    """Up to ``length`` bytes of a plain file, what tells it from every other, and its size; None
    when there is none by this name, or, where a tag is given, when it is another file."""
    descriptor = _plain(folder, name)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        now = _version(found)
        if tag not in (None, now):
            return None
        file.seek(offset)
        data = file.read(length)
        while len(data) < length and (more := file.read(length - len(data))):
            data += more
        return data, now, found.st_size


def copy_block(source: Path, target: Path, offset: int, length: int) -> None:
    """Copies so many bytes to the same place of another file, and has them on the disk; blocks
    are shared where the file system can (``copy_file_range``)."""
    with explained_here():
        read = source.open("rb", buffering=0)
    with read, target.open("r+b", buffering=0) as written:
        read.seek(offset)
        written.seek(offset)
        left = length
        while left and (copied := _copied(read, written, left)):
            left -= copied
        if left:
            raise changed()
        os.fdatasync(written.fileno())


def copy_object(
    folder: int, name: str, target: Path, offset: int, length: int, tag: str | None
) -> tuple[str, int] | None:
    """Copies up to so many bytes of a plain file to the same place of another, and has them on the
    disk; the file's version and size, or None when there is none by this name. Raises
    ``Transient`` when a tag is given and it is another file by now."""
    descriptor = _plain(folder, name)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb", buffering=0) as read:
        found = os.fstat(descriptor)
        if tag not in (None, _version(found)):
            raise Transient("store-busy", "an object changed while it was copied")
        with target.open("r+b", buffering=0) as written:
            read.seek(offset)
            written.seek(offset)
            left = min(length, max(0, found.st_size - offset))
            while left and (copied := _copied(read, written, left)):
                left -= copied
            if left:
                raise Transient("store-busy", "an object changed while it was copied")
            os.fdatasync(written.fileno())
        return _version(found), found.st_size


def replace(file: Path, folder: int, name: str) -> str:
    """Gives a file that is on the disk another's place, or an empty folder's; its version. Never
    within one tick of the file system's clock: a version must not come back."""
    with suppress(FileNotFoundError):
        before = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(before.st_mode):
            with suppress(OSError):  # it holds something: the rename says that it is in the way
                os.rmdir(name, dir_fd=folder)
        if file.stat().st_mtime_ns <= before.st_mtime_ns:
            os.utime(file, ns=(before.st_mtime_ns + 1, before.st_mtime_ns + 1))
    os.rename(file, name, dst_dir_fd=folder)
    return _version(os.stat(name, dir_fd=folder, follow_symlinks=False))


def _copied(read: FileIO, written: FileIO, length: int) -> int:
    """How many bytes were copied from where both stand; 0 at the end."""
    with suppress(OSError):  # not between these file systems, or not in this kernel
        if copied := os.copy_file_range(read.fileno(), written.fileno(), length):
            return copied
    data = read.read(min(length, _BLOCK))
    view = memoryview(data)
    while view:
        view = view[written.write(view) :]
    return len(data)


def write_file(path: Path, data: bytes) -> None:
    """A new file that is on the disk when this returns. One that a crash left under this name is
    removed, never reused: it may be linked to an object already."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def prune(root: Path, parts: Sequence[str]) -> None:
    """Removes the folder, and those above it, as long as they hold nothing; never ``root``."""
    for depth in range(len(parts), 0, -1):
        try:
            with opened(root, parts[: depth - 1]) as folder:
                os.rmdir(parts[depth - 1], dir_fd=folder)
        except OSError:
            return


def walk(root: Path, parts: Sequence[str]) -> Iterator[Listed]:
    """Every plain file below a folder, in byte order of the whole key; what vanishes meanwhile
    is left out, and so are names that are not UTF-8, which no key can name."""
    try:
        with opened(root, parts):
            pass
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from _below(root.joinpath(*parts), "".join(f"{part}/" for part in parts))


def _below(folder: Path, prefix: str) -> Iterator[Listed]:
    for encoded in _names(folder):
        name = encoded.decode("utf-8")
        if name.endswith("/"):
            if prefix or name != f"{RESERVED}/":
                yield from _below(folder / name, prefix + name)
            continue
        with suppress(FileNotFoundError):
            found = (folder / name).lstat()
            if stat.S_ISREG(found.st_mode):
                modified = datetime.fromtimestamp(found.st_mtime, UTC)
                yield Listed(
                    key=prefix + name,
                    size=found.st_size,
                    modified=modified,
                    version=_version(found),
                )


def _version(found: os.stat_result) -> str:
    """Another for each file that ever lay under a name: what is swapped is another file."""
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def _names(folder: Path) -> list[bytes]:
    """Names in UTF-8, those of folders ending in ``/``, which is where they sort in a key."""
    names = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(UnicodeEncodeError):
                name = entry.name.encode("utf-8")
                names.append(name + b"/" if entry.is_dir(follow_symlinks=False) else name)
    return sorted(names)


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turns the system's errors into ours, in plain words and with what to do."""
    try:
        yield
    except OSError as error:
        raise _explain(error.errno or 0, root) from None


def _explain(number: int, root: Path) -> Transient | Permanent:
    if number == errno.ENAMETOOLONG:
        return Permanent("key-too-long", "an object key is longer than the file system allows")
    if number in _COLLIDES and not root.is_dir():
        return Transient("store-folder-missing", f"the lake {root} is no folder", shared=True)
    if number in _COLLIDES:
        text = "a file, folder or link lies where an object, or a folder for it, is needed"
        return Permanent("key-collides", text)
    reason, text = "store-failed", f"the lake's folder {root} failed: {os.strerror(number)}"
    if number in _FULL:
        reason, text = "store-full", f"no space is left for the lake in {root}: make room"
    elif number in _DENIED:
        reason, text = "store-denied", f"the lake's folder {root} may not be written or read"
        text += ": give it to the user that Groundwire runs as, and mount it writable"
    elif number == errno.ENOENT:
        reason, text = "store-folder-missing", f"the lake's folder {root} is gone: mount it again"
    return Transient(reason, text, shared=True)
