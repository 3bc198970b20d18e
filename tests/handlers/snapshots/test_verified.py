"""verify and gc know snapshots: what the log names is there as it was, leftovers go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from consumer.gc import find
from consumer.log.verify import Verification, verify
from handlers.snapshots.create import Snapshot, record_of
from tests.fakes_store import EPOCH
from tests.handlers.lake_house import LakeHouse, lake_house
from tests.handlers.snapshots.making import made, snapshot_objects

FILES = ("snapshot.json", "manifest.jsonl", "manifest.parquet")


@pytest.fixture
async def house() -> AsyncIterator[LakeHouse]:
    async with lake_house() as opened:
        await opened.approve("t1")
        yield opened


async def logged(house: LakeHouse, name: str = "lungs") -> Snapshot:
    snapshot = await made(house, name)
    await house.queue.put([record_of(snapshot)])
    await house.write_log()
    return snapshot


async def verified(house: LakeHouse) -> Verification:
    return await verify(house.store)


@pytest.mark.parametrize("name", ["lungs", "tasks", "taxonomies", "log", "notes"])
async def test_a_snapshot_verifies_and_nothing_of_it_is_unreferenced(
    house: LakeHouse, name: str
) -> None:
    await logged(house, name)
    found = await verified(house)
    assert (found.findings, found.unreferenced) == ((), ())
    a_year = EPOCH + timedelta(days=365)
    assert await find(house.store, older_than=timedelta(days=7), now=a_year) == ()


@pytest.mark.parametrize("name", FILES)
async def test_a_flipped_bit_is_found(house: LakeHouse, name: str) -> None:
    snapshot = await logged(house)
    key = f"{snapshot.folder}{name}"
    data = house.store.objects[key]
    house.store.objects[key] = data[:-1] + bytes([data[-1] ^ 1])
    found = await verified(house)
    assert [finding.place for finding in found.findings] == [key]


@pytest.mark.parametrize("name", FILES)
async def test_a_missing_file_is_found(house: LakeHouse, name: str) -> None:
    snapshot = await logged(house)
    del house.store.objects[f"{snapshot.folder}{name}"]
    found = await verified(house)
    assert [finding.place for finding in found.findings] == [f"{snapshot.folder}{name}"]


async def test_a_snapshot_that_was_erased_is_only_noted(house: LakeHouse) -> None:
    snapshot = await logged(house)
    keys = [f"{snapshot.folder}{name}" for name in FILES]
    await house.say("erased", "on-request", keys=keys)
    for key in keys:
        await house.store.delete(key)
    found = await verified(house)
    assert found.findings == ()
    assert any("was erased" in note for note in found.notes)


async def test_one_that_the_log_does_not_name_yet_is_noted_and_checked(house: LakeHouse) -> None:
    snapshot = await made(house)
    found = await verified(house)
    assert (found.findings, found.unreferenced) == ((), ())
    assert any("not in the log yet" in note for note in found.notes)
    house.store.objects[f"{snapshot.folder}manifest.parquet"] = b""
    assert len((await verified(house)).findings) == 1


async def test_leftovers_of_a_crash_are_unreferenced_and_collected(house: LakeHouse) -> None:
    snapshot = await made(house)
    del house.store.objects[snapshot.key]
    found = await verified(house)
    assert found.findings == ()
    assert sorted(found.unreferenced) == sorted(snapshot_objects(house))
    assert len(found.unreferenced) == 2


async def test_what_is_no_snapshot_is_found(house: LakeHouse) -> None:
    await house.store.create("snapshots/lungs/1-000000000000/snapshot.json", b"[]")
    (finding,) = (await verified(house)).findings
    assert "no snapshot" in str(finding)


async def test_one_that_is_of_another_log_is_found(house: LakeHouse) -> None:
    snapshot = await made(house)
    data = house.store.objects[snapshot.key]
    house.store.objects[snapshot.key] = data.replace(snapshot.root.encode(), b"A" * 43 + b"=")
    (finding,) = (await verified(house)).findings
    assert "root is not the log's" in str(finding)
    house.store.objects[snapshot.key] = data.replace(b'"size":2,"split"', b'"size":99,"split"')
    (finding,) = (await verified(house)).findings
    assert "a size that the log has not" in str(finding)


async def test_an_entry_that_names_no_snapshot_is_found(house: LakeHouse) -> None:
    await house.say("snapshot", "lungs:1", key="elsewhere/snapshot.json", sha256="0" * 64)
    (finding,) = (await verified(house)).findings
    assert "names none" in str(finding)


async def test_a_log_that_is_damaged_has_its_own_findings_only(house: LakeHouse) -> None:
    await logged(house)
    for key in [key for key in house.store.objects if key.startswith("log/tile/0/")]:
        del house.store.objects[key]
    found = await verified(house)
    assert found.findings
    assert all(one.place.startswith("log/") for one in found.findings)


async def test_a_description_that_says_something_else_is_found(house: LakeHouse) -> None:
    snapshot = await logged(house)
    data = house.store.objects[snapshot.key]
    house.store.objects[snapshot.key] = data.replace(b'"tasks":1', b'"tasks":2')
    found = await verified(house)
    assert ["hash in the log" in one.problem for one in found.findings] == [True]
