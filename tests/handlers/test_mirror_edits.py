"""What somebody edits by hand is put right, and told once; what cannot be shown is told, too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import Permanent, Transient
from consumer.model import Record, canonical, digest
from consumer.ports import Batch, Listed
from handlers.mirror import Mirror
from tests.fakes_store import FaultyStore, each_call_once
from tests.handlers.mirror_house import CHECK_S, INTERVAL_S, Crash, MirrorHouse, row
from tests.handlers.pull.lakes import PROJECT, File, Mask

A = "segmentations/a/series1.nii.gz"
B = "segmentations/b/series1.nii.gz"

Edit = Callable[[MirrorHouse], None]

EDITS: dict[str, tuple[Edit, dict[str, int]]] = {
    "changed": (lambda house: house.edit(A, b"edited"), {"changed": 1}),
    "removed": (lambda house: house.edit(A, None), {"removed": 1}),
    "added": (lambda house: house.edit("segmentations/a/mine.txt", b"1"), {"added": 1}),
    "a-folder": (lambda house: house.edit("segmentations/mine/x.nii.gz", b"1"), {"added": 1}),
    "a-loose-file": (lambda house: house.edit("segmentations/mine", b"1"), {"added": 1}),
    "another-tree": (lambda house: house.edit("masks/a/x.png", b"1"), {"added": 1}),
    "index": (lambda house: house.edit("tasks.json", b"[]"), {"changed": 1}),
    "no-index": (lambda house: house.edit("tasks.json", None), {"removed": 1}),
    "another-index": (lambda house: house.edit("export.ndjson", b""), {"added": 1}),
}
KEYS = {"changed": A, "removed": A, "added": "segmentations/a/mine.txt"}


@pytest.fixture
async def house() -> MirrorHouse:
    house = MirrorHouse()
    await house.task("t1", name="a")
    await house.task("t2", name="b")
    return house


async def check(house: MirrorHouse, mirror: Mirror) -> None:
    house.clock.advance(CHECK_S)
    size = len(house.entries)
    await mirror.follow(Batch((), size, size, size))
    await house.finish(mirror)


def counts(record: Record) -> dict[str, int]:
    return {name: record.fields[name] for name in KEYS if record.fields[name]}


@pytest.mark.parametrize("at_start", [True, False], ids=["at-start", "while-it-runs"])
@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_is_put_right_and_told_once(
    house: MirrorHouse, edit: str, at_start: bool
) -> None:
    mirror = await house.run()
    await house.finish(mirror)
    before = await house.shown()
    do, expected = EDITS[edit]
    do(house)
    mirror = await house.run() if at_start else mirror
    await check(house, mirror)
    assert await house.shown() == before
    await check(house, mirror)
    (record,) = house.queue.of("restored")
    assert counts(record) == expected
    assert record.fields["project_key"] == PROJECT
    house.fake.assert_sound()


async def test_what_is_told_of_edits_names_no_file(house: MirrorHouse) -> None:
    mirror = await house.run()
    house.edit(A, b"edited")
    await check(house, mirror)
    (record,) = house.queue.of("restored")
    keys = [f"{PROJECT}/{A}"]
    assert record.fields["keys_sha256"] == digest(canonical(keys))
    assert "segmentations" not in str(record)


async def test_the_same_edit_again_is_told_again(house: MirrorHouse) -> None:
    mirror = await house.run()
    for _ in range(2):
        house.edit(A, b"edited")
        await check(house, mirror)
    assert len(house.queue.of("restored")) == 2


async def test_many_edits_are_one_record(house: MirrorHouse) -> None:
    mirror = await house.run()
    house.edit(A, b"edited")
    house.edit(B, None)
    house.edit("segmentations/mine", b"1")
    await check(house, mirror)
    (record,) = house.queue.of("restored")
    assert counts(record) == {"changed": 1, "removed": 1, "added": 1}


async def test_an_edited_index_file_is_noticed_by_the_next_change(
    house: MirrorHouse, tmp_path: Path
) -> None:
    """Its bytes are not spliced into the new one."""
    mirror = await house.run()
    house.edit("tasks.json", b"[\n" + b"x" * 1000)
    house.clock.advance(INTERVAL_S)
    await house.task("t3", name="c")
    await house.feed(mirror, 2)
    assert await house.shown() == await house.pull(tmp_path)
    assert [counts(one) for one in house.queue.of("restored")] == [{"changed": 1}]


@pytest.mark.parametrize("crash", [False, True], ids=["answer-lost", "process-died"])
async def test_edits_are_told_once_whatever_fails_meanwhile(crash: bool) -> None:
    async def edited(plan: Any) -> tuple[MirrorHouse, FaultyStore]:
        house = MirrorHouse()
        await house.task("t1", name="a")
        await house.task("t2", name="b")
        await house.finish(await house.run())
        house.edit(A, b"edited")
        house.edit(B, None)
        house.edit("tasks.json", b"edited")
        house.edit("segmentations/mine", b"1")
        faulty = FaultyStore(house.store, plan, Crash) if crash else FaultyStore(house.store, plan)
        mirror = house.mirror(faulty)
        for _ in range(3):
            try:
                await house.finish(await house.run(mirror))
                break
            except Transient:
                continue
            except Crash:
                mirror = house.mirror(faulty)
        return house, faulty

    house, counting = await edited({})
    expected = await house.shown()
    told = list(house.queue.records)
    assert len(told) == 2  # of files, and of the index file
    for plan in each_call_once(counting.calls):
        house, _ = await edited(plan)
        assert await house.shown() == expected, plan
        assert list(house.queue.records) == told, plan


async def test_other_versions_of_the_same_bytes_are_no_edits(house: MirrorHouse) -> None:
    """A lake that was restored from a copy."""

    class Restored(FaultyStore):
        generation = ""

        async def list(self, prefix: str) -> AsyncIterator[Listed]:
            async for item in super().list(prefix):
                version = item.version + self.generation
                yield Listed(item.key, item.size, item.modified, version)

    store = Restored(house.store, {})
    mirror = await house.run(house.mirror(store))
    store.generation = "-2"
    house.calls()
    await check(house, mirror)
    assert house.calls("copy") == []
    await check(house, mirror)
    assert house.calls("read", of=lambda key: key.endswith(".nii.gz")) == []
    assert house.queue.records == {}


async def test_a_file_that_no_key_can_name_is_told_once_and_stays(house: MirrorHouse) -> None:
    mirror = await house.run()
    house.edit("segmentations/a\\b/x", b"1")
    await check(house, mirror)
    await check(house, mirror)
    assert [counts(one) for one in house.queue.of("restored")] == [{"added": 1}]


# What cannot be shown


async def broken(house: MirrorHouse, what: str) -> tuple[str, bytes]:
    """Something of task t3 is not in the lake."""
    name = {"a mask": "series2.nii.gz", "the document": "annotations.json"}.get(what, "/revisions/")
    await house.task("t3", Mask(), Mask("series2", position=1), name="c")
    (key,) = (key for key in house.fake.objects if "/tasks/t3/" in key and name in key)
    return key, house.fake.objects.pop(key)


@pytest.mark.parametrize("what", ["a mask", "the document", "the manifest"])
async def test_a_task_of_which_something_is_missing_is_told_and_stops_nothing(
    house: MirrorHouse, tmp_path: Path, what: str
) -> None:
    await broken(house, what)
    await house.task("t4", name="d")
    mirror = await house.run()
    await house.finish(mirror)
    shown = await house.shown()
    assert shown == await house.pull(tmp_path)
    assert "segmentations/d/series1.nii.gz" in shown
    (record,) = house.queue.of("failed")
    assert record.fields == {
        "follower": "mirror",
        "project_key": PROJECT,
        "task": "t3",
        "sequence": 1,
        "reason": "lake-file-missing",
    }
    assert house.cursor.next == 4
    await check(house, mirror)
    await house.finish(await house.run())
    assert house.queue.times == 1


@pytest.mark.parametrize("what", ["a mask", "the document", "the manifest"])
async def test_a_task_that_is_whole_again_is_shown_by_the_next_check(
    house: MirrorHouse, tmp_path: Path, what: str
) -> None:
    key, data = await broken(house, what)
    mirror = await house.run()
    assert len(house.queue.of("failed")) == 1
    house.fake.objects[key] = data
    await check(house, mirror)
    assert "segmentations/c/series1.nii.gz" in await house.shown()
    assert await house.shown() == await house.pull(tmp_path)


async def test_a_task_that_was_shown_and_is_damaged_now_leaves(
    house: MirrorHouse, tmp_path: Path
) -> None:
    mirror = await house.run()
    await house.task("t1", Mask(values={2: "spleen"}), name="a")
    keys = [key for key in house.fake.objects if "/tasks/t1/revisions/" in key]
    house.edit(keys[-1].removeprefix(f"{PROJECT}/"), b"damaged")
    house.edit(keys[0].removeprefix(f"{PROJECT}/"), b"damaged")
    await house.feed(mirror, 2)
    await house.finish(mirror)
    assert sorted(await house.shown()) == [B, "tasks.json"]
    assert [one.fields["reason"] for one in house.queue.of("failed")] == ["lake-file-damaged"]


async def test_a_pointer_that_cannot_be_read_stops_nothing(
    house: MirrorHouse, tmp_path: Path
) -> None:
    mirror = await house.run()
    await house.task("t1", name="x")
    pointer = f"{PROJECT}/tasks/t1/current.json"
    kept = house.fake.objects[pointer]
    house.fake._put(pointer, b"{}")
    await house.feed(mirror, 2)
    await house.finish(mirror)
    assert await house.shown() == await house.pull(tmp_path)
    assert [one.fields["reason"] for one in house.queue.of("failed")] == ["pointer-unreadable"]
    house.fake._put(pointer, kept)
    await check(house, mirror)
    assert "segmentations/x/series1.nii.gz" in await house.shown()


async def test_a_mask_that_is_edited_and_whose_source_is_lost_leaves_with_its_task(
    house: MirrorHouse, tmp_path: Path
) -> None:
    mirror = await house.run()
    house.edit(A, None)
    (key,) = (key for key in house.fake.objects if "/tasks/t1/files/" in key and "nii" in key)
    del house.fake.objects[key]
    await check(house, mirror)
    assert await house.shown() == await house.pull(tmp_path)
    assert [one.fields["task"] for one in house.queue.of("failed")] == ["t1"]


async def test_two_files_in_each_others_way_are_told_of_their_task(house: MirrorHouse) -> None:
    file = File("masks/a/x", b"1", None)
    inside = File("masks/a/x/y", b"2", None)
    await house.task("t3", file, inside, name="c")
    await house.run()
    assert [one.fields["reason"] for one in house.queue.of("failed")] == ["path-collides"]
    assert sorted(await house.shown()) == [A, B, "tasks.json"]


# Limits


async def test_an_index_file_over_the_limit_is_told_and_stops_nothing_else(
    house: MirrorHouse,
) -> None:
    other = MirrorHouse(store=house.store, project="project-2", entries=house.entries)
    await other.task("t1", document=row("t1", *[{"id": "x" * 500}] * 3), name="z")
    await house.task("t3", name="c")
    mirror = house.mirror(max_file_bytes=1000)
    await house.finish(await house.run(mirror))
    assert sorted(await other.shown()) == ["segmentations/z/series1.nii.gz"]
    assert "tasks.json" in await house.shown()
    (record,) = house.queue.of("failed")
    assert (record.fields["project_key"], record.fields["reason"]) == (
        "project-2",
        "index-file-too-large",
    )
    assert house.cursor.next == 4
    size = len(house.entries)
    await other.task("t1", document=row("t1"), name="z")
    house.clock.advance(CHECK_S)
    await house.feed(mirror, size)
    await house.finish(mirror)
    assert "export.ndjson" in await other.shown()


async def test_an_entry_that_nobody_understands_is_a_damaged_log(house: MirrorHouse) -> None:
    house.entries[0].data["sequence"] = "one"
    mirror = house.mirror()
    with pytest.raises(Permanent) as caught:
        await house.feed(mirror, await house.begin(mirror))
    assert caught.value.reason == "log-damaged"
