"""What every store promises: a folder, a bucket of a real server, and the fake that tests trust."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import Conflict, Permanent
from consumer.ports import Store
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from tests.consumer.stores.writer import TURNS, WRITERS
from tests.contracts.places import Place
from tests.proxy_http import HttpProxy, Verdict
from tests.servers_s3 import S3Server, use_credentials

PROCESSES = 4
HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../other/current.json",
    "tasks/../../other",
    "tasks/./a",
    "tasks//a",
    "tasks/a/",
    "tasks/\0a",
    "tasks/a\nb",
    "tasks\\..\\a",
    "tasks/\ud800",
    ".groundwire/00.lock",
    "a" * 256,
    "/".join(["a" * 200] * 6),
]


async def data_of(store: Store, key: str) -> bytes | None:
    found = await store.read(key)
    return found.data if found else None


async def keys_of(store: Store, prefix: str = "") -> list[str]:
    return [item.key async for item in store.list(prefix)]


# Reading and creating


async def test_what_was_never_written_is_not_there(store: Store) -> None:
    assert await store.read("tasks/t1/current.json") is None


async def test_what_was_created_is_read_back(store: Store) -> None:
    data = bytes(range(256)) * 40
    await store.create("tasks/t1/files/a.nii.gz", data)
    assert await data_of(store, "tasks/t1/files/a.nii.gz") == data


async def test_an_empty_object_is_an_object(store: Store) -> None:
    await store.create("tasks/empty", b"")
    assert await data_of(store, "tasks/empty") == b""


async def test_another_store_at_the_same_place_reads_it(place: Place) -> None:
    await place.open().create("tasks/a", b"1")
    assert await data_of(place.open(), "tasks/a") == b"1"


async def test_creating_equal_bytes_again_succeeds(store: Store) -> None:
    await store.create("tasks/a", b"same")
    await store.create("tasks/a", b"same")
    assert await data_of(store, "tasks/a") == b"same"


async def test_creating_other_bytes_is_a_conflict_and_changes_nothing(store: Store) -> None:
    await store.create("tasks/a", b"first")
    with pytest.raises(Conflict) as caught:
        await store.create("tasks/a", b"other")
    assert caught.value.key == "tasks/a"
    assert await data_of(store, "tasks/a") == b"first"


async def test_a_large_object_survives_create_and_swap(shared: Place) -> None:
    store = shared.open()
    first, second = b"\x01\x02\x03" * 4_000_000, b"\x03\x02\x01" * 4_000_000
    await store.create("large", first)
    await store.create("large", first)
    assert await data_of(store, "large") == first
    etag = await store.swap("larger", first, if_match=None)
    await store.swap("larger", second, if_match=etag)
    assert await data_of(store, "larger") == second


async def test_an_object_over_the_limit_is_refused_by_every_writing_verb(shared: Place) -> None:
    store = shared.open(max_object_bytes=10)
    await store.create("fits", b"x" * 10)
    for write in (
        store.create("too-large", b"x" * 11),
        store.swap("too-large", b"x" * 11, if_match=None),
    ):
        with pytest.raises(Permanent) as caught:
            await write
        assert caught.value.reason == "object-too-large"
    assert await keys_of(store) == ["fits"]


async def test_an_object_over_the_limit_is_not_read(shared: Place) -> None:
    await shared.open().create("large", b"x" * 11)
    with pytest.raises(Permanent) as caught:
        await shared.open(max_object_bytes=10).read("large")
    assert caught.value.reason == "object-too-large"


# Swapping


async def test_a_swap_replaces_the_object_whose_tag_it_names(store: Store) -> None:
    first = await store.swap("current.json", b"1", if_match=None)
    second = await store.swap("current.json", b"2", if_match=first)
    assert await data_of(store, "current.json") == b"2"
    assert second != first


async def test_the_tag_of_a_swap_is_the_tag_that_a_read_gives(store: Store) -> None:
    given = await store.swap("current.json", b"1", if_match=None)
    found = await store.read("current.json")
    assert found is not None
    assert found.etag == given


async def test_a_swap_with_an_old_tag_is_a_conflict_and_changes_nothing(store: Store) -> None:
    first = await store.swap("current.json", b"1", if_match=None)
    await store.swap("current.json", b"2", if_match=first)
    with pytest.raises(Conflict):
        await store.swap("current.json", b"3", if_match=first)
    assert await data_of(store, "current.json") == b"2"


async def test_a_first_swap_is_a_conflict_where_there_is_an_object(store: Store) -> None:
    await store.swap("current.json", b"1", if_match=None)
    with pytest.raises(Conflict):
        await store.swap("current.json", b"2", if_match=None)
    assert await data_of(store, "current.json") == b"1"


async def test_a_swap_of_what_is_gone_is_a_conflict_and_makes_nothing(store: Store) -> None:
    etag = await store.swap("current.json", b"1", if_match=None)
    await store.delete("current.json")
    with pytest.raises(Conflict):
        await store.swap("current.json", b"2", if_match=etag)
    assert await store.read("current.json") is None


async def test_a_swap_repeated_after_it_took_effect_succeeds(store: Store) -> None:
    first = await store.swap("current.json", b"1", if_match=None)
    second = await store.swap("current.json", b"2", if_match=first)
    assert await store.swap("current.json", b"2", if_match=first) == second


# Listing and deleting


async def test_a_listing_tells_key_size_and_time(store: Store) -> None:
    await store.create("tasks/a", b"12345")
    (item,) = [item async for item in store.list("tasks/")]
    assert (item.key, item.size) == ("tasks/a", 5)
    assert item.modified.utcoffset() == timedelta(0)
    assert item.modified <= datetime.now(UTC) + timedelta(minutes=1)


async def test_a_listing_tells_another_version_of_other_bytes(store: Store) -> None:
    """However fast they follow each other."""
    versions, etag = [], None
    for number in range(20):
        etag = await store.swap("a", b"%02d" % number, if_match=etag)
        versions += [item.version async for item in store.list("")]
    assert len(set(versions)) == 20
    assert [item.version async for item in store.list("")] == versions[-1:]


async def test_a_listing_is_in_byte_order_of_the_names_in_a_folder(store: Store) -> None:
    names = ["Z", "a", "a b", "a.b", "a0", "é", "日本", "\uff5e", "\U0001f600"]
    for name in reversed(names):
        await store.create(f"tasks/{name}", b"")
    assert await keys_of(store, "tasks/") == [f"tasks/{name}" for name in names]


async def test_a_listing_gives_what_lies_at_any_depth_once(store: Store) -> None:
    keys = {"t/a/b/c", "t/a-b", "t/a.json", "t/a/b.json", "t/b"}
    for key in keys:
        await store.create(key, b"")
    found = await keys_of(store, "t/")
    assert sorted(found) == sorted(keys)


async def test_a_listing_gives_only_what_lies_under_its_prefix(store: Store) -> None:
    for key in ("tasks/a", "tasks2/a", "task", "other/tasks/a"):
        await store.create(key, b"")
    assert await keys_of(store, "tasks/") == ["tasks/a"]
    assert await keys_of(store, "nothing/") == []


async def test_a_store_without_objects_lists_none(store: Store) -> None:
    assert await keys_of(store) == []


async def test_a_listing_of_many_pages_gives_each_object_once(place: Place) -> None:
    store = place.open(page_size=7)
    keys = [f"tasks/{number:03}/current.json" for number in range(50)]
    await asyncio.gather(*(store.create(key, b"") for key in keys))
    assert await keys_of(store) == keys


async def test_a_listing_goes_past_a_thousand_objects(place: Place) -> None:
    store = place.open()
    keys = [f"tasks/{number:04}" for number in range(1005)]
    await asyncio.gather(*(store.create(key, b"") for key in keys))
    assert await keys_of(store, "tasks/") == keys


async def test_a_prefix_that_is_no_folder_is_refused(store: Store) -> None:
    with pytest.raises(Permanent) as caught:
        await keys_of(store, "tas")
    assert caught.value.reason == "key-unsafe"


async def test_what_was_deleted_is_gone(store: Store) -> None:
    await store.create("tasks/a", b"1")
    await store.delete("tasks/a")
    assert await store.read("tasks/a") is None
    assert await keys_of(store) == []


async def test_deleting_what_is_not_there_is_fine(store: Store) -> None:
    await store.delete("tasks/a")
    await store.create("tasks/b", b"1")
    await store.delete("tasks/a")
    assert await keys_of(store) == ["tasks/b"]


# Copying


async def listed(store: Store, key: str) -> str:
    """The version that a listing tells."""
    (found,) = [item.version async for item in store.list("") if item.key == key]
    return found


async def test_a_copy_is_the_object_under_another_name(store: Store) -> None:
    await store.create("tasks/a", b"1")
    version = await store.copy("tasks/a", "copies/deep/b")
    assert await data_of(store, "copies/deep/b") == b"1"
    assert await data_of(store, "tasks/a") == b"1"
    assert version == await listed(store, "copies/deep/b")


async def test_a_copy_replaces_what_was_there_and_has_another_version(store: Store) -> None:
    await store.create("tasks/a", b"1")
    await store.create("tasks/b", b"2")
    first = await store.copy("tasks/a", "copies/a")
    second = await store.copy("tasks/b", "copies/a")
    assert await data_of(store, "copies/a") == b"2"
    assert first != second == await listed(store, "copies/a")


async def test_a_copy_may_be_made_again_and_goes_back(store: Store) -> None:
    await store.create("tasks/a", b"1")
    await store.create("tasks/b", b"2")
    for source, data in (("tasks/a", b"1"), ("tasks/b", b"2"), ("tasks/a", b"1")):
        for _ in range(2):
            version = await store.copy(source, "copies/a")
            assert await data_of(store, "copies/a") == data
            assert version == await listed(store, "copies/a")


async def test_a_copy_of_what_is_not_there_is_none_and_changes_nothing(store: Store) -> None:
    await store.create("tasks/a", b"1")
    await store.copy("tasks/a", "copies/a")
    assert await store.copy("tasks/b", "copies/a") is None
    assert await store.copy("tasks/a/b", "copies/new") is None
    assert await keys_of(store) == ["copies/a", "tasks/a"]
    assert await data_of(store, "copies/a") == b"1"


async def test_an_empty_and_a_large_object_are_copied_whole(store: Store) -> None:
    data = bytes(range(256)) * 40_000
    await store.create("tasks/a", b"")
    await store.create("tasks/b", data)
    await store.copy("tasks/a", "copies/a")
    await store.copy("tasks/b", "copies/b")
    assert await data_of(store, "copies/a") == b""
    assert await data_of(store, "copies/b") == data


@pytest.mark.parametrize("key", ["../a", "tasks//a", ".groundwire/a", "a" * 256, "é\n"])
async def test_a_hostile_key_is_no_source_and_no_target(store: Store, key: str) -> None:
    await store.create("tasks/a", b"1")
    for call in (store.copy(key, "copies/a"), store.copy("tasks/a", key)):
        with pytest.raises(Permanent) as caught:
            await call
        assert caught.value.reason in ("key-unsafe", "key-too-long")
    assert await keys_of(store) == ["tasks/a"]


async def test_an_unusual_key_is_copied_as_it_is(store: Store) -> None:
    source, target = "p/a b+c&d=%41~@(1)?x#.gz", "copies/projekt é/日本/a b+c&d=%41?x.gz"
    await store.create(source, b"1")
    await store.copy(source, target)
    assert await data_of(store, target) == b"1"
    assert await keys_of(store) == [target, source]


async def test_nobody_sees_half_a_copy(shared: Place) -> None:
    store = shared.open()
    size = 300_000
    for number in range(2):
        await store.create(f"tasks/{number}", bytes([number]) * size)
    await store.copy("tasks/0", "copies/a")

    async def copies() -> None:
        for turn in range(30):
            await store.copy(f"tasks/{turn % 2}", "copies/a")

    writing = asyncio.create_task(copies())
    while not writing.done():
        data = await data_of(store, "copies/a")
        assert data is not None
        assert (len(data), len(set(data))) == (size, 1)
    await writing


async def test_an_edited_copy_leaves_its_source_as_it_was(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await store.create("tasks/a", b"1")
    version = await store.copy("tasks/a", "copies/a")
    (tmp_path / "copies/a").write_bytes(b"edited")
    assert await data_of(store, "tasks/a") == b"1"
    assert await listed(store, "copies/a") != version


async def test_a_copy_takes_the_place_of_a_link_and_of_an_empty_folder(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    await store.create("tasks/a", b"1")
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    (tmp_path / "lake/copies/folder").mkdir(parents=True)
    (tmp_path / "lake/copies/link").symlink_to(outside)
    for name in ("folder", "link"):
        await store.copy("tasks/a", f"copies/{name}")
        assert await data_of(store, f"copies/{name}") == b"1"
    assert outside.read_bytes() == b"theirs"


async def test_a_copy_does_not_remove_a_folder_that_holds_something(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await store.create("tasks/a", b"1")
    await store.create("copies/a/b", b"2")
    with pytest.raises(Permanent) as caught:
        await store.copy("tasks/a", "copies/a")
    assert caught.value.reason == "key-collides"
    assert await keys_of(store) == ["copies/a/b", "tasks/a"]
    assert not list((tmp_path / ".groundwire").glob("*.spare"))


# Keys


@pytest.mark.parametrize("key", HOSTILE, ids=lambda key: ascii(key)[:30])
async def test_a_hostile_key_is_refused_by_every_verb(store: Store, key: str) -> None:
    for call in (
        store.read(key),
        store.create(key, b"1"),
        store.swap(key, b"1", if_match=None),
        store.delete(key),
        store.copy(key, "copies/a"),
        keys_of(store, f"{key}/"),
    ):
        with pytest.raises(Permanent) as caught:
            await call
        assert caught.value.reason in ("key-unsafe", "key-too-long")
    assert await keys_of(store) == []


@pytest.mark.parametrize(
    "key",
    [
        "projekt é/tasks/日本/current.json",
        "p/tasks/\U0001f600/a b+c&d=%41~@(1),x.nii.gz",
        "p/..a/a../...",
        "e\u0301/\u00e9",
        "p/" + "n" * 255,
    ],
)
async def test_an_unusual_key_is_kept_as_it_is(store: Store, key: str) -> None:
    await store.create(key, b"1")
    assert await data_of(store, key) == b"1"
    assert await keys_of(store) == [key]
    await store.delete(key)
    assert await keys_of(store) == []


# Many writers


async def test_sixteen_writers_in_one_process_make_an_object_once(place: Place) -> None:
    store = place.open()

    async def create(number: int) -> bool:
        try:
            await store.create("contested", b"%d" % number)
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*(create(number) for number in range(16)))
    assert won.count(True) == 1
    assert await data_of(store, "contested") == b"%d" % won.index(True)


@pytest.mark.parametrize("job", ["create", "swap"])
async def test_sixteen_writers_in_four_processes_have_one_winner(shared: Place, job: str) -> None:
    won = [name for names in await in_processes(shared, job) for name in names]
    assert len(won) == 1
    assert await data_of(shared.open(), "contested") == won[0].encode()


async def test_sixteen_writers_in_four_processes_count_without_losing_one(shared: Place) -> None:
    lost = sum(await in_processes(shared, "count"))
    found = await data_of(shared.open(), "counter")
    assert found is not None
    assert json.loads(found)["number"] == PROCESSES * WRITERS * TURNS
    assert lost > 0, "the writers never met: this run has shown nothing"


async def in_processes(place: Place, job: str) -> list[Any]:
    """The answers of writers that were all ready before the first was let loose."""
    module = "tests.consumer.stores.writer"
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, place.spec, job, f"p{number}", stdin=pipe, stdout=pipe
        )
        for number in range(PROCESSES)
    ]
    try:
        async with asyncio.timeout(90):
            for process in processes:
                assert process.stdout is not None
                assert await process.stdout.readline() == b"ready\n"
            answers = await asyncio.gather(*(each.communicate(b"go\n") for each in processes))
        return [json.loads(answer) for answer, _ in answers]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_a_reader_never_sees_half_an_object(shared: Place) -> None:
    writer, reader = shared.open(), shared.open()
    size = 300_000
    done = asyncio.Event()

    async def write() -> None:
        etag = None
        for number in range(30):
            etag = await writer.swap("current", bytes([number]) * size, if_match=etag)
        done.set()

    async def watch() -> set[int]:
        seen = set()
        while not done.is_set():
            data = await data_of(reader, "current")
            if data is not None:
                assert len(data) == size
                assert len(set(data)) == 1
                seen.add(data[0])
        return seen

    _, seen = await asyncio.gather(write(), watch())
    assert len(seen) > 1, "the reader never met the writer: this run has shown nothing"


# Answers that get lost


@pytest.fixture
async def lossy(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[S3Store, HttpProxy]]:
    """A bucket behind a proxy that loses answers; nobody waits between tries."""
    use_credentials(monkeypatch)

    async def at_once(_: float) -> None:
        return None

    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(HttpProxy(s3_server.port))
        store = S3Store(
            s3_server.bucket,
            s3_server.new_prefix(),
            endpoint=proxy.endpoint,
            read_timeout_s=3.0,
            sleep=at_once,
        )
        stack.callback(store.close)
        yield store, proxy


TAKES_EFFECT = [
    Verdict.LOSE_ANSWER,
    Verdict.FAIL_AFTER,
    Verdict.BUSY_AFTER,
    Verdict.STALL_AFTER,
]
TAKES_NO_EFFECT = [
    Verdict.LOSE_REQUEST,
    Verdict.FAIL_BEFORE,
    Verdict.RACE,
]


@pytest.mark.parametrize(
    "verdict",
    [*TAKES_EFFECT, Verdict.LOSE_REQUEST, Verdict.FAIL_BEFORE, Verdict.CUT_ANSWER],
)
async def test_a_copy_whose_answer_or_request_was_lost_is_made_again(
    lossy: tuple[S3Store, HttpProxy], verdict: Verdict
) -> None:
    store, proxy = lossy
    await store.create("a", b"ours")
    proxy.plan("PUT", verdict)
    version = await store.copy("a", "copies/a")
    assert await data_of(store, "copies/a") == b"ours"
    assert version == await listed(store, "copies/a")
    assert [method for method, _ in proxy.requests].count("PUT") == 3


async def test_what_is_too_large_for_one_copy_is_refused(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 tells it by a code that also means other things, so the size is looked at."""
    use_credentials(monkeypatch)
    async with HttpProxy(s3_server.port) as proxy:
        opened = partial(S3Store, s3_server.bucket, s3_server.new_prefix(), endpoint=proxy.endpoint)
        whole, store = opened(), opened(max_object_bytes=10)
        await whole.create("fits", b"x" * 10)
        await whole.create("too-large", b"x" * 11)
        proxy.plan("PUT", Verdict.INVALID)
        assert await store.copy("fits", "copies/a") == await listed(store, "copies/a")
        proxy.plan("PUT", Verdict.INVALID)
        with pytest.raises(Permanent) as caught:
            await store.copy("too-large", "copies/b")
        assert caught.value.reason == "object-too-large"
        whole.close()
        store.close()


@pytest.mark.parametrize("verdict", TAKES_EFFECT)
async def test_a_create_whose_answer_was_lost_has_succeeded(
    lossy: tuple[S3Store, HttpProxy], verdict: Verdict
) -> None:
    store, proxy = lossy
    proxy.plan("PUT", verdict)
    await store.create("a", b"ours")
    assert await data_of(store, "a") == b"ours"
    assert [method for method, _ in proxy.requests].count("PUT") == 1


@pytest.mark.parametrize("verdict", TAKES_EFFECT)
async def test_a_swap_whose_answer_was_lost_has_succeeded(
    lossy: tuple[S3Store, HttpProxy], verdict: Verdict
) -> None:
    store, proxy = lossy
    first = await store.swap("a", b"1", if_match=None)
    proxy.plan("PUT", verdict)
    second = await store.swap("a", b"2", if_match=first)
    assert await data_of(store, "a") == b"2"
    assert await store.swap("a", b"3", if_match=second) != second


@pytest.mark.parametrize("verdict", TAKES_NO_EFFECT)
async def test_a_write_that_did_not_arrive_is_tried_again(
    lossy: tuple[S3Store, HttpProxy], verdict: Verdict
) -> None:
    store, proxy = lossy
    proxy.plan("PUT", verdict, verdict)
    first = await store.swap("a", b"1", if_match=None)
    proxy.plan("PUT", verdict)
    await store.swap("a", b"2", if_match=first)
    assert await data_of(store, "a") == b"2"


@pytest.mark.parametrize("verdict", [*TAKES_EFFECT, *TAKES_NO_EFFECT])
async def test_a_swap_that_lost_the_race_is_a_conflict_whatever_else_got_lost(
    lossy: tuple[S3Store, HttpProxy], verdict: Verdict
) -> None:
    store, proxy = lossy
    first = await store.swap("a", b"1", if_match=None)
    await store.swap("a", b"theirs", if_match=first)
    proxy.plan("PUT", verdict)
    with pytest.raises(Conflict):
        await store.swap("a", b"ours", if_match=first)
    assert await data_of(store, "a") == b"theirs"


@pytest.mark.parametrize("verdict", [Verdict.LOSE_ANSWER, Verdict.FAIL_BEFORE, Verdict.CUT_ANSWER])
async def test_a_read_whose_answer_was_lost_is_asked_again(
    lossy: tuple[S3Store, HttpProxy], verdict: Verdict
) -> None:
    store, proxy = lossy
    await store.create("a", b"some bytes")
    proxy.plan("GET", verdict, verdict)
    assert await data_of(store, "a") == b"some bytes"


async def test_a_listing_whose_answers_were_lost_is_complete(
    lossy: tuple[S3Store, HttpProxy],
) -> None:
    store, proxy = lossy
    await store.create("a", b"1")
    proxy.plan("GET", Verdict.LOSE_ANSWER, Verdict.FAIL_BEFORE)
    assert await keys_of(store) == ["a"]


async def test_a_delete_whose_answer_was_lost_has_succeeded(
    lossy: tuple[S3Store, HttpProxy],
) -> None:
    store, proxy = lossy
    await store.create("a", b"1")
    proxy.plan("DELETE", Verdict.LOSE_ANSWER)
    await store.delete("a")
    assert await store.read("a") is None
