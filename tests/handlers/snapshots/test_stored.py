"""Snapshots are found by name and id, listed, compared; what is damaged is told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from consumer.errors import Permanent
from handlers.snapshots import stored
from handlers.snapshots.create import Snapshot, record_of
from handlers.snapshots.diff import diff
from tests.handlers.lake_house import LakeHouse, lake_house
from tests.handlers.pull.lakes import no_sleep
from tests.handlers.snapshots.making import made


@pytest.fixture
async def house() -> AsyncIterator[LakeHouse]:
    async with lake_house() as opened:
        yield opened


async def three(house: LakeHouse) -> tuple[Snapshot, Snapshot, Snapshot]:
    """Two of one name, the newer first; and one of another."""
    await house.approve("t1")
    early = await house.tail.size()
    await house.approve("t2")
    newer = await made(house)
    older = await made(house, size=early)
    return older, newer, await made(house, "spleens", size=early, classes=("liver",))


async def test_a_name_is_its_newest_whichever_was_made_last(house: LakeHouse) -> None:
    _, newer, _ = await three(house)
    assert (await stored.find(house.store, "lungs")).id == newer.id


async def test_an_id_or_its_beginning_is_enough(house: LakeHouse) -> None:
    older, newer, _ = await three(house)
    for asked in (older.id, older.id[:8], f"lungs/{older.id}", f"lungs/{older.id[:3]}"):
        assert (await stored.find(house.store, asked)).id == older.id, asked
    assert (await stored.find(house.store, newer.id)).sha256 == newer.sha256


async def test_what_is_ambiguous_is_refused_with_what_could_be_meant(house: LakeHouse) -> None:
    older, _, other = await three(house)
    with pytest.raises(Permanent) as raised:
        await stored.find(house.store, f"{older.size}-")
    assert raised.value.reason == "which-snapshot"
    assert older.id in raised.value.message
    assert other.id in raised.value.message


async def test_an_id_that_several_names_have_is_not_ambiguous(house: LakeHouse) -> None:
    await house.approve("t1")
    one, same = await made(house), await made(house, "spleens")
    assert (one.id, one.manifest_sha256) == (same.id, same.manifest_sha256)
    assert (await stored.find(house.store, one.id)).manifest_sha256 == one.manifest_sha256


@pytest.mark.parametrize("asked", ["nothing", "", "/", "lungs/", "../lungs", "lungs/x", "\x1b[31m"])
async def test_what_is_not_there_is_told_with_what_is(house: LakeHouse, asked: str) -> None:
    older, _, _ = await three(house)
    with pytest.raises(Permanent) as raised:
        await stored.find(house.store, asked)
    assert raised.value.reason == "no-such-snapshot"
    assert older.id in raised.value.message
    assert "\x1b" not in raised.value.message


async def test_an_empty_lake_says_that_there_is_none(house: LakeHouse) -> None:
    with pytest.raises(Permanent, match="there is none"):
        await stored.find(house.store, "lungs")
    assert await stored.read_all(house.store) == ([], [])


async def test_they_are_listed_the_newest_last(house: LakeHouse) -> None:
    older, newer, other = await three(house)
    listed, wrong = await stored.read_all(house.store)
    assert {one.id for one in listed[:2]} == {older.id, other.id}
    assert (listed[2].id, wrong) == (newer.id, [])


async def test_files_without_a_description_are_no_snapshot(house: LakeHouse) -> None:
    older, newer, _ = await three(house)
    del house.store.objects[newer.key]
    await house.store.create("snapshots/lungs/not-an-id/snapshot.json", b"{}")
    assert (await stored.find(house.store, "lungs")).id == older.id


@pytest.mark.parametrize(
    "change", [(b'"size":', b'"siz":'), (b'"tasks":2', b'"tasks":"2"'), (b'"lungs"', b'"other"')]
)
async def test_a_changed_description_is_told(house: LakeHouse, change: tuple[bytes, bytes]) -> None:
    _, newer, _ = await three(house)
    data = house.store.objects[newer.key]
    assert change[0] in data
    house.store.objects[newer.key] = data.replace(*change)
    with pytest.raises(Permanent) as raised:
        await stored.find(house.store, "lungs")
    assert raised.value.reason == "snapshot-unreadable"
    listed, wrong = await stored.read_all(house.store)
    assert (len(listed), [error.reason for error in wrong]) == (2, ["snapshot-unreadable"])


async def test_a_description_of_another_root_is_none_of_this_id(house: LakeHouse) -> None:
    _, newer, _ = await three(house)
    data = house.store.objects[newer.key]
    forged = data.replace(newer.root.encode(), b"A" * 43 + b"=")
    house.store.objects[newer.key] = forged
    with pytest.raises(Permanent, match="was changed"):
        await stored.find(house.store, "lungs")


async def test_when_it_was_made_is_what_the_log_says(house: LakeHouse) -> None:
    older, newer, _ = await three(house)
    house.pass_time(60)
    await house.queue.put([record_of(newer)])
    (entry,) = await house.write_log()
    times = await stored.logged_at(house.tail, older.size)
    assert times == {newer.key: entry.data["logged_at"]}


async def test_a_difference_is_what_came_changed_and_went(house: LakeHouse) -> None:
    for task in ("same", "drawn", "gone"):
        await house.approve(task)
    first = await made(house)
    await house.approve("drawn", version="v2", value=2)
    await house.send_back("gone")
    await house.approve("new")
    second = await made(house)
    found = await diff(house.store, first, second, no_sleep)
    assert [one.task for one in found.added] == ["new"]
    assert [one.task for one in found.changed] == ["drawn"]
    assert [one.task for one in found.removed] == ["gone"]
    assert (found.unchanged, found.parted) == (1, 0)
    (drawn,) = found.changed
    assert drawn.revision == (await house.pointer("drawn")).revision != drawn.old_revision
    back = await diff(house.store, second, first, no_sleep)
    assert (back.added[0].task, back.removed[0].task) == ("gone", "new")


async def test_a_snapshot_does_not_differ_from_itself(house: LakeHouse) -> None:
    await house.approve("t1")
    one = await made(house)
    found = await diff(house.store, one, one, no_sleep)
    assert (found.added, found.changed, found.removed, found.unchanged) == ((), (), (), 1)


async def test_another_split_of_the_same_tasks_is_counted(house: LakeHouse) -> None:
    await house.approve("t1")
    one = await made(house, split={"train": 1.0})
    other = await made(house, split={"test": 1.0})
    assert (await diff(house.store, one, other, no_sleep)).parted == 1
