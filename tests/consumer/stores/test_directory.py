"""What is special about a folder: links, leftovers, locks, full and vanished disks."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import pytest

from consumer.errors import Permanent, Transient
from consumer.stores import folders
from consumer.stores.directory import DirectoryStore
from consumer.stores.limits import RESERVED
from consumer.stores.locks import COUNT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def store(root: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore(root)
    yield store
    store.close()


async def _listed(store: DirectoryStore, prefix: str = "") -> list[str]:
    return [item.key async for item in store.list(prefix)]


def _exists(path: Path) -> bool:
    return path.exists()


def _temporary(root: Path) -> list[Path]:
    return [root / RESERVED / f"{number:02x}.tmp" for number in range(COUNT)]


# The tree is what the keys say


async def test_a_key_is_the_path_of_a_file(store: DirectoryStore, root: Path) -> None:
    await store.create("project/tasks/t1/current.json", b"{}")
    assert (root / "project/tasks/t1/current.json").read_bytes() == b"{}"


async def test_a_listing_is_in_byte_order_of_the_whole_key(store: DirectoryStore) -> None:
    keys = ["t/a b", "t/a-b", "t/a.json", "t/a/b/c", "t/a/b.json", "t/a0", "t/a~"]
    for key in keys:
        await store.create(key, b"")
    assert await _listed(store) == sorted(keys, key=str.encode)


async def test_a_new_file_has_the_mode_that_the_umask_leaves(
    store: DirectoryStore, root: Path
) -> None:
    before = os.umask(0o027)
    try:
        await store.create("a", b"1")
        etag = await store.swap("b", b"1", if_match=None)
        await store.swap("b", b"2", if_match=etag)
    finally:
        os.umask(before)
    assert [(root / name).stat().st_mode & 0o777 for name in ("a", "b")] == [0o640, 0o640]


async def test_a_folder_goes_with_its_last_object(store: DirectoryStore, root: Path) -> None:
    await store.create("p/segmentations/Jane Doe/A.nii.gz", b"mask")
    await store.create("p/tasks.json", b"[]")
    await store.delete("p/segmentations/Jane Doe/A.nii.gz")
    assert [one.name for one in (root / "p").iterdir()] == ["tasks.json"]


async def test_a_folder_that_comes_and_goes_loses_no_object(store: DirectoryStore) -> None:
    async def write_and_delete(name: str) -> None:
        for number in range(100):
            await store.create(f"a/b/{name}{number}", b"1")
            assert await store.read(f"a/b/{name}{number}") is not None
            await store.swap(f"a/b/{name}", b"%d" % number, if_match=None)
            assert await store.copy(f"a/b/{name}", f"a/c/{name}") is not None
            for key in (f"a/b/{name}{number}", f"a/b/{name}", f"a/c/{name}"):
                await store.delete(key)

    await asyncio.gather(*map(write_and_delete, "wxyz"))
    assert [one async for one in store.list("")] == []


async def test_a_version_never_comes_back_however_coarse_the_clock(
    store: DirectoryStore, root: Path
) -> None:
    """A file's number may: so each swap is later than the one before, by the file's own time."""
    etag = await store.swap("a", b"1", if_match=None)
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(root / "a", ns=(ahead, ahead))
    await store.swap("a", b"2", if_match=etag)
    assert (root / "a").stat().st_mtime_ns > ahead


async def test_a_name_that_is_not_utf8_is_not_listed(store: DirectoryStore, root: Path) -> None:
    await store.create("a", b"1")
    os.mknod(os.fsencode(root) + b"/\xff\xfe")
    assert await _listed(store) == ["a"]


async def test_an_object_where_a_folder_is_needed_is_refused(store: DirectoryStore) -> None:
    await store.create("a", b"1")
    await store.create("b/c", b"1")
    for key in ("a/b", "b"):
        with pytest.raises(Permanent) as caught:
            await store.create(key, b"1")
        assert caught.value.reason == "key-collides"
        assert await store.read(key) is None
        await store.delete(key)
    assert await _listed(store) == ["a", "b/c"]


# Links and other things that are no objects


async def test_a_link_to_a_folder_outside_is_not_followed(
    store: DirectoryStore, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    await store.create("a", b"1")
    (root / "link").symlink_to(outside)
    assert await store.read("link/secret") is None
    assert await _listed(store) == ["a"]
    assert await _listed(store, "link/") == []
    await store.delete("link/secret")
    with pytest.raises(Permanent):
        await store.create("link/new", b"1")
    with pytest.raises(Permanent):
        await store.swap("link/secret", b"1", if_match=None)
    assert [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("secret", b"secret")]


async def test_a_link_to_a_file_outside_is_not_followed(
    store: DirectoryStore, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    await store.create("a", b"1")
    (root / "link").symlink_to(outside)
    assert await store.read("link") is None
    assert await _listed(store) == ["a"]
    for write in (store.create("link", b"1"), store.swap("link", b"1", if_match=None)):
        with pytest.raises(Permanent):
            await write
    await store.delete("link")
    assert outside.read_bytes() == b"secret"


async def test_the_lake_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "lake").symlink_to(tmp_path / "disk")
    store = DirectoryStore(tmp_path / "lake")
    await store.create("a", b"1")
    assert (tmp_path / "disk" / "a").read_bytes() == b"1"
    assert await _listed(store) == ["a"]


async def test_a_pipe_is_no_object_and_blocks_nobody(store: DirectoryStore, root: Path) -> None:
    await store.create("a", b"1")
    os.mkfifo(root / "pipe")
    assert await store.read("pipe") is None
    assert await _listed(store) == ["a"]


# Crashes


async def test_what_a_crash_left_is_removed_at_the_first_write(root: Path) -> None:
    await DirectoryStore(root).create("a", b"1")
    for path in _temporary(root):
        path.write_bytes(b"half")
    store = DirectoryStore(root)
    await store.create("b", b"1")
    assert not any(path.exists() for path in _temporary(root))
    assert await _listed(store) == ["a", "b"]


async def test_a_crash_between_link_and_unlink_endangers_no_object(root: Path) -> None:
    """The leftover *is* the object then: writing into it would change what never changes."""
    store = DirectoryStore(root)
    await store.create("immutable", b"for ever")
    for path in _temporary(root):
        path.hardlink_to(root / "immutable")
    await store.create("a", b"other bytes")  # an open store: nothing was cleaned before
    etag = await store.swap("b", b"1", if_match=None)
    await store.swap("b", b"2", if_match=etag)
    await DirectoryStore(root).create("c", b"other bytes")
    assert (root / "immutable").read_bytes() == b"for ever"
    assert not any(path.exists() for path in _temporary(root))


async def test_a_temporary_file_that_is_being_written_is_not_removed(root: Path) -> None:
    await DirectoryStore(root).create("a", b"1")
    (root / RESERVED / "00.tmp").write_bytes(b"half")
    with _held(root, 0):
        await DirectoryStore(root).create(_key_of_lock(1), b"1")
        assert (root / RESERVED / "00.tmp").exists()


async def test_a_writer_killed_at_any_moment_leaves_whole_objects(root: Path) -> None:
    store = DirectoryStore(root)
    last = 0
    for turn in range(3):
        last = await _killed_while_counting(root, store, name=f"w{turn}", beyond=last + 20)
        found = await store.read("counter")
        assert found is not None
        data = json.dumps({"number": last + 1, "by": f"after-{turn}"}).encode()
        await store.swap("counter", data, if_match=found.etag)
    assert await _listed(store) == ["counter"]


async def _killed_while_counting(
    root: Path, store: DirectoryStore, *, name: str, beyond: int
) -> int:
    """The number that a process had reached when it was killed."""
    module = "tests.consumer.stores.writer"
    spec = json.dumps({"path": str(root)})
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, spec, "count-on", name, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    try:
        async with asyncio.timeout(60):
            while await _number(store) <= beyond:
                pass
    finally:
        process.kill()
        await process.wait()
    return await _number(store)


async def _number(store: DirectoryStore) -> int:
    found = await store.read("counter")
    return int(json.loads(found.data)["number"]) if found else 0


# Locks


@contextmanager
def _held(root: Path, number: int) -> Iterator[None]:
    """As another writer holds it."""
    with (root / RESERVED / f"{number:02x}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key_of_lock(number: int) -> str:
    return next(key for key in map(str, range(9999)) if crc32(key.encode()) % COUNT == number)


async def test_a_lock_that_is_never_given_back_is_waited_for_so_long_and_no_longer(
    root: Path,
) -> None:
    pauses: list[float] = []
    store = DirectoryStore(root, lock_timeout_s=1.0, pause=pauses.append, jitter=lambda: 0.5)
    await store.create("warm", b"1")
    with _held(root, 3):
        with pytest.raises(Transient) as caught:
            await store.create(_key_of_lock(3), b"1")
        await store.create(_key_of_lock(4), b"1")
    assert caught.value.reason == "store-busy"
    assert 1.0 <= sum(pauses) < 1.1
    await store.create(_key_of_lock(3), b"1")


async def test_a_reader_waits_for_no_lock(root: Path) -> None:
    store = DirectoryStore(root, lock_timeout_s=0)
    key = _key_of_lock(3)
    await store.create(key, b"1")
    with _held(root, 3):
        assert await store.read(key) is not None
        assert await _listed(store) == [key]


# Disks


async def test_a_read_makes_no_folder(store: DirectoryStore, root: Path) -> None:
    assert await store.read("a/b") is None
    assert await _listed(store) == []
    assert not _exists(root)


async def test_a_copy_that_cannot_be_written_can_be_read(
    store: DirectoryStore, root: Path, tmp_path: Path
) -> None:
    await store.create("tasks/a", b"1")
    shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / RESERVED)
    copy = DirectoryStore(tmp_path / "copy")
    assert await _listed(copy) == ["tasks/a"]
    assert await copy.read("tasks/a") is not None
    assert not (tmp_path / "copy" / RESERVED).exists()


async def test_a_disk_that_vanished_is_not_an_empty_lake(store: DirectoryStore, root: Path) -> None:
    await store.create("a", b"1")
    shutil.rmtree(root)
    for call in (
        store.read("a"),
        store.create("b", b"1"),
        store.swap("b", b"1", if_match=None),
        store.delete("a"),
        _listed(store),
        store.check(),
    ):
        with pytest.raises(Transient) as caught:
            await call
        assert caught.value.reason == "store-folder-missing"
    assert not _exists(root)


async def test_a_write_that_fails_in_the_middle_leaves_what_was_there(
    store: DirectoryStore, root: Path
) -> None:
    etag = await store.swap("current", b"old", if_match=None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        for write in (
            store.create("new", b"x" * 200_000),
            store.swap("current", b"x" * 200_000, if_match=etag),
        ):
            with pytest.raises(Transient) as caught:
                await write
            assert caught.value.reason == "store-failed"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (root / "current").read_bytes() == b"old"
    assert await _listed(store) == ["current"]
    assert not any(path.exists() for path in _temporary(root))


async def test_a_lake_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "lake").touch()
    with pytest.raises((Transient, Permanent)) as caught:
        await DirectoryStore(tmp_path / "lake").create("a", b"1")
    assert caught.value.reason == "store-folder-missing"


async def test_check_passes_where_all_is_well_and_leaves_nothing(
    store: DirectoryStore, root: Path
) -> None:
    await store.create("a", b"1")
    await store.check()
    assert await _listed(store) == ["a"]


async def test_check_makes_no_lake_because_its_disk_may_not_be_mounted(
    store: DirectoryStore, root: Path
) -> None:
    with pytest.raises(Transient) as caught:
        await store.check()
    assert caught.value.reason == "store-folder-absent"
    assert not _exists(root)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "store-full"),
        (errno.EDQUOT, "store-full"),
        (errno.EACCES, "store-denied"),
        (errno.EROFS, "store-denied"),
        (errno.EIO, "store-failed"),
        (errno.ESTALE, "store-failed"),
        (errno.ENOENT, "store-folder-missing"),
    ],
)
def test_an_error_of_the_system_is_named_and_tried_again(
    number: int, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(Transient) as caught, folders.explained(tmp_path):
        raise OSError(number, "what the system says", "/a/name")
    assert caught.value.reason == reason
    assert caught.value.shared
    assert "/a/name" not in str(caught.value)
