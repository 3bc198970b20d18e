"""What every store promises of files: made once of any size, and read back whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from consumer.errors import Conflict, Permanent, Transient
from consumer.ports import Store
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from tests.contracts.files import (
    IN_PARTS,
    MIB,
    PART,
    PIECE,
    bytes_of,
    data_of,
    file_of,
    keys_of,
    names_in,
    pending,
    until,
)
from tests.contracts.places import Place
from tests.fakes_store import FakeStore
from tests.servers_s3 import S3Server, use_credentials

SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5]


@pytest.fixture
def store(place: Place) -> Store:
    """A store that reads in small pieces."""
    return place.open(piece_bytes=PIECE)


def in_parts(place: Place) -> Store:
    """A store that uploads small files in parts, where it knows parts at all."""
    store = place.open()
    if isinstance(store, S3Store):
        return place.open(single_bytes=PART - 1, part_bytes=PART)
    return store


# Up


@pytest.mark.parametrize("size", SIZES)
async def test_an_uploaded_file_is_an_object_with_its_bytes(
    store: Store, tmp_path: Path, size: int
) -> None:
    data = bytes_of(size)
    await store.upload("tasks/t/images/1.dcm", file_of(tmp_path, data))
    assert await data_of(store, "tasks/t/images/1.dcm") == data
    assert await keys_of(store) == ["tasks/t/images/1.dcm"]


@pytest.mark.parametrize("size", [0, PART - 1, PART, PART + 1, 3 * PART, IN_PARTS])
async def test_a_file_in_parts_is_one_object(place: Place, tmp_path: Path, size: int) -> None:
    data, store = bytes_of(size), in_parts(place)
    await store.upload("a", file_of(tmp_path, data))
    assert await data_of(store, "a") == data


@pytest.mark.parametrize("size", [10, PIECE + 1])
async def test_uploading_equal_bytes_again_succeeds(
    store: Store, tmp_path: Path, size: int
) -> None:
    data = bytes_of(size)
    await store.upload("a", file_of(tmp_path, data))
    await store.upload("a", file_of(tmp_path, data, "again"))
    assert await data_of(store, "a") == data


async def test_what_was_created_may_be_uploaded_and_the_other_way_round(
    store: Store, tmp_path: Path
) -> None:
    await store.create("a", b"same")
    await store.upload("a", file_of(tmp_path, b"same"))
    await store.upload("b", file_of(tmp_path, b"same"))
    await store.create("b", b"same")
    with pytest.raises(Conflict):
        await store.create("b", b"other")


@pytest.mark.parametrize(
    ("there", "given"),
    [
        (b"first", b"other"),
        (b"first", b"first, and more"),
        (b"first", b"fir"),
        (b"first", b""),
        (bytes_of(PIECE + 9), bytes_of(PIECE + 8) + b"?"),
    ],
    ids=["equal length", "longer", "shorter", "empty", "last byte"],
)
async def test_uploading_other_bytes_is_a_conflict_and_changes_nothing(
    store: Store, tmp_path: Path, there: bytes, given: bytes
) -> None:
    await store.upload("tasks/a", file_of(tmp_path, there))
    with pytest.raises(Conflict) as caught:
        await store.upload("tasks/a", file_of(tmp_path, given))
    assert caught.value.key == "tasks/a"
    assert await data_of(store, "tasks/a") == there


async def test_other_bytes_in_parts_are_a_conflict(place: Place, tmp_path: Path) -> None:
    store = in_parts(place)
    await store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS)))
    await store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS)))
    with pytest.raises(Conflict):
        await store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS, seed=1)))
    assert await data_of(store, "a") == bytes_of(IN_PARTS)


async def test_sixteen_uploads_of_other_bytes_have_one_winner(place: Place, tmp_path: Path) -> None:
    store = place.open()

    async def upload(number: int) -> bool:
        try:
            await store.upload("contested", file_of(tmp_path, b"%d" % number, str(number)))
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*(upload(number) for number in range(16)))
    assert won.count(True) == 1
    assert await data_of(store, "contested") == b"%d" % won.index(True)


async def test_sixteen_uploads_of_equal_bytes_all_succeed(place: Place, tmp_path: Path) -> None:
    store, file = place.open(), file_of(tmp_path, bytes_of(PART))
    await asyncio.gather(*(store.upload("shared", file) for _ in range(16)))
    assert await data_of(store, "shared") == bytes_of(PART)
    assert await keys_of(store) == ["shared"]


async def test_uploads_of_equal_parts_all_succeed(
    s3_server: S3Server, place: Place, tmp_path: Path
) -> None:
    store, file = in_parts(place), file_of(tmp_path, bytes_of(PART + 1))
    await asyncio.gather(*(store.upload("shared", file) for _ in range(4)))
    assert await data_of(store, "shared") == bytes_of(PART + 1)
    assert pending(s3_server) == []


async def test_a_file_over_the_limit_is_refused(shared: Place, tmp_path: Path) -> None:
    store = shared.open(max_upload_bytes=10)
    await store.upload("fits", file_of(tmp_path, b"x" * 10))
    with pytest.raises(Permanent) as caught:
        await store.upload("too-large", file_of(tmp_path, b"x" * 11))
    assert caught.value.reason == "object-too-large"
    assert await keys_of(store) == ["fits"]


async def test_a_file_that_is_not_there_makes_no_object(shared: Place, tmp_path: Path) -> None:
    store = shared.open()
    for path in (tmp_path / "not-there", tmp_path):
        with pytest.raises(Transient) as caught:
            await store.upload("a", path)
        assert caught.value.reason == "local-file-failed"
        assert "not-there" not in caught.value.message
    assert await keys_of(store) == []


@pytest.mark.parametrize("key", ["", "../a", "tasks//a", ".groundwire/a", "a" * 256])
async def test_a_hostile_key_is_refused_for_files_too(
    store: Store, tmp_path: Path, key: str
) -> None:
    file = file_of(tmp_path, b"1")
    for call in (store.upload(key, file), store.download(key, tmp_path / "to")):
        with pytest.raises(Permanent) as caught:
            await call
        assert caught.value.reason in ("key-unsafe", "key-too-long")
    assert not (tmp_path / "to").exists()


# Down


@pytest.mark.parametrize("size", SIZES)
async def test_a_download_is_the_object_and_tells_its_hash(
    store: Store, tmp_path: Path, size: int
) -> None:
    data = bytes_of(size)
    await store.create("a", data)
    to = tmp_path / "to"
    to.mkdir()
    assert await store.download("a", to / "a") == hashlib.sha256(data).hexdigest()
    assert (to / "a").read_bytes() == data
    assert names_in(to) == ["a"]


async def test_a_download_replaces_the_file_that_was_there(store: Store, tmp_path: Path) -> None:
    await store.create("a", b"new")
    to = file_of(tmp_path, b"an older and longer file")
    await store.download("a", to)
    assert to.read_bytes() == b"new"


async def test_a_download_of_what_is_not_there_is_none_and_leaves_the_file(
    store: Store, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    to.mkdir()
    assert await store.download("tasks/a", to / "new") is None
    assert await store.download("tasks/a", file_of(to, b"kept", "old")) is None
    assert names_in(to) == ["old"]
    assert (to / "old").read_bytes() == b"kept"


async def test_a_folder_that_is_not_there_is_this_machines_fault(
    shared: Place, tmp_path: Path
) -> None:
    store = shared.open()
    await store.create("a", b"1")
    with pytest.raises(Transient) as caught:
        await store.download("a", tmp_path / "no-folder" / "a")
    assert caught.value.reason == "local-file-failed"
    assert "no-folder" not in caught.value.message


async def test_a_download_that_meets_swaps_is_of_one_object(shared: Place, tmp_path: Path) -> None:
    """However it is raced, what is kept is one version and never a piece of each."""
    store, size = shared.open(piece_bytes=PIECE), 20 * PIECE
    etag = await store.swap("a", bytes([0]) * size, if_match=None)
    done = asyncio.Event()

    async def swaps() -> None:
        tag = etag
        for number in range(1, 6):
            tag = await store.swap("a", bytes([number]) * size, if_match=tag)
        done.set()

    writing = asyncio.create_task(swaps())
    while not done.is_set():
        with suppress(Transient):  # it changed again and again
            await store.download("a", tmp_path / "a")
        if (tmp_path / "a").exists():
            assert len(set((tmp_path / "a").read_bytes())) == 1
    await writing
    await store.download("a", tmp_path / "a")
    assert set((tmp_path / "a").read_bytes()) == {5}


# Memory


@pytest.mark.parametrize("kind", ["directory", "s3"])
async def test_a_large_file_goes_up_and_down_in_bounded_memory(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
) -> None:
    """200 MiB by another process, which tells how much its peak grew: S3 goes in 16 MiB parts."""
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        use_credentials(monkeypatch)
        where = {"bucket": server.bucket, "prefix": "large", "endpoint": server.endpoint}
    else:
        where = {"path": str(tmp_path / "lake")}
    size = 200 * MIB
    file = tmp_path / "large"
    with file.open("wb") as opened:
        for number in range(size // MIB):
            opened.write(bytes_of(MIB, number))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contracts.file_mover", json.dumps(where), str(file),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0
    equal, grown = said.decode().split()
    assert equal == "equal"
    assert int(grown) < 120 * MIB


# Crashes


async def test_a_copy_that_breaks_off_leaves_nothing_in_the_lake(tmp_path: Path) -> None:
    """The file shrinks while it is copied: what it was first said to be is never seen."""
    lake, file = DirectoryStore(tmp_path / "lake"), tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(300 * MIB)
    upload = asyncio.create_task(lake.upload("tasks/a", file))
    spares = tmp_path / "lake" / ".groundwire"
    await until(lambda: bool(list(spares.glob("*.spare"))))
    os.truncate(file, 10)
    with pytest.raises(Transient) as caught:
        await upload
    assert caught.value.reason == "local-file-changed"
    assert await keys_of(lake) == []
    assert list(spares.glob("*.spare")) == []


async def test_what_a_killed_upload_left_is_removed_by_the_next_process(tmp_path: Path) -> None:
    await DirectoryStore(tmp_path).create("a", b"1")
    left = file_of(tmp_path / ".groundwire", b"half", "0123.spare")
    await DirectoryStore(tmp_path).create("b", b"1")
    assert not left.exists()


async def test_a_copy_in_the_making_is_not_removed(tmp_path: Path) -> None:
    first = DirectoryStore(tmp_path / "lake")
    await first.create("warm", b"1")
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(300 * MIB)
    upload = asyncio.create_task(first.upload("a", file))
    await until(lambda: bool(list((tmp_path / "lake" / ".groundwire").glob("*.spare"))))
    await DirectoryStore(tmp_path / "lake").create("b", b"1")
    await upload
    assert sorted(await keys_of(first)) == ["a", "b", "warm"]


async def test_the_fake_catches_an_upload_of_what_is_swapped(tmp_path: Path) -> None:
    fake = FakeStore()
    await fake.swap("a", b"1", if_match=None)
    with pytest.raises(AssertionError):
        await fake.upload("a", file_of(tmp_path, b"1"))


async def test_an_object_that_went_up_in_parts_is_copied(place: Place, tmp_path: Path) -> None:
    """Its tag is another kind of tag in S3; what is told of the copy is what a listing shows."""
    store = in_parts(place)
    data = bytes_of(IN_PARTS)
    await store.upload("a", file_of(tmp_path, data))
    version = await store.copy("a", "copies/a")
    assert await data_of(store, "copies/a") == data
    assert [item.version async for item in store.list("copies/")] == [version]


async def test_the_fake_catches_a_copy_over_what_was_made_or_swapped() -> None:
    fake = FakeStore(may_recur=lambda key: key.startswith("copies/"))
    await fake.create("a", b"1")
    await fake.create("copies/a", b"1")
    await fake.swap("copies/b", b"1", if_match=None)
    for target in ("b", "copies/a", "copies/b"):
        with pytest.raises(AssertionError):
            await fake.copy("a", target)
