"""The mirror over real stores, and from a real log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.follow import Following
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from consumer.telemetry import Metrics
from handlers.mirror import Mirror
from tests.handlers.lake_house import lake_house
from tests.handlers.mirror_house import CHECK_S, MirrorHouse
from tests.handlers.pull.lakes import PROJECT, Lake, Mask, pulled, tree
from tests.servers_s3 import S3Server, use_credentials

A = "segmentations/a/series1.nii.gz"


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    use_credentials(monkeypatch)
    store = S3Store(s3_server.bucket, s3_server.new_prefix(), endpoint=s3_server.endpoint)
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore(tmp_path / "lake")
    yield store
    store.close()


async def told(house: MirrorHouse, tmp_path: Path) -> None:
    """Changes of every kind, followed live and after a restart."""
    await house.task("t1", name="a")
    await house.task("t2", name="b")
    await house.task("t3", Mask("x"), Mask("y", position=1), name="c")
    mirror = await house.run()
    assert await house.shown() == await house.pull(tmp_path)
    await house.task("t2", Mask(values={2: "spleen"}), name="A")
    await house.withdraw("t3")
    await house.feed(mirror, 3)
    await house.finish(mirror)
    assert await house.shown() == await house.pull(tmp_path)
    await house.task("t1", name="é")
    await house.finish(await house.run())
    assert await house.shown() == await house.pull(tmp_path)
    house.clock.advance(CHECK_S)
    await house.finish(await house.run())
    assert house.queue.records == {}, "what it wrote itself is no edit"


async def test_a_bucket_shows_what_a_pull_holds(bucket: S3Store, tmp_path: Path) -> None:
    await told(MirrorHouse(store=bucket), tmp_path)


async def test_a_folder_shows_what_a_pull_holds(folder: DirectoryStore, tmp_path: Path) -> None:
    await told(MirrorHouse(store=folder), tmp_path)


async def test_a_bucket_edited_by_hand_is_put_right(
    bucket: S3Store, s3_server: S3Server, tmp_path: Path
) -> None:
    house = MirrorHouse(store=bucket)
    await house.task("t1", name="a")
    await house.run()
    client, prefix = s3_server.client(), bucket._prefix
    place = f"{prefix}{PROJECT}/segmentations"
    edited = {f"{place}/a/series1.nii.gz": b"edited", f"{place}/mine": b"1"}
    for key, data in edited.items():
        await asyncio.to_thread(
            lambda key=key, data=data: client.put_object(
                Bucket=s3_server.bucket, Key=key, Body=data
            )
        )
    await house.finish(await house.run())
    assert await house.shown() == await house.pull(tmp_path)
    (record,) = house.queue.of("restored")
    assert (record.fields["changed"], record.fields["added"]) == (1, 1)


async def test_a_folder_edited_by_hand_is_put_right_and_the_lake_is_as_it_was(
    folder: DirectoryStore, tmp_path: Path
) -> None:
    house = MirrorHouse(store=folder)
    await house.task("t1", name="a")
    await house.task("t2", name="b")
    await house.run()
    root = tmp_path / "lake" / PROJECT
    (root / A).write_bytes(b"edited in place")
    (root / "segmentations/b/series1.nii.gz").unlink()
    (root / "segmentations/b/series1.nii.gz").symlink_to(tmp_path)
    (root / "segmentations/mine").mkdir()
    (root / "segmentations/mine/x").write_bytes(b"1")
    await house.finish(await house.run())
    assert await house.shown() == await house.pull(tmp_path)
    (record,) = house.queue.of("restored")
    fields = record.fields
    assert (fields["changed"], fields["removed"], fields["added"]) == (1, 1, 1)


async def test_a_folder_in_the_place_of_a_mask_gives_way(
    folder: DirectoryStore, tmp_path: Path
) -> None:
    house = MirrorHouse(store=folder)
    await house.task("t1", name="a")
    await house.run()
    place = tmp_path / "lake" / PROJECT / A
    place.unlink()
    place.mkdir()
    (place / "x").write_bytes(b"1")
    await house.finish(await house.run())
    assert await house.shown() == await house.pull(tmp_path)


async def test_the_mirror_follows_a_real_log_in_its_loop(tmp_path: Path) -> None:
    """Exports, a log and a cursor that are real."""
    async with lake_house() as house:
        await house.approve("task-1", name="one")
        await house.see("task-2", name="two")
        mirror = Mirror(house.follow_ports(), interval_s=0, check_s=3600)

        async def pause(stop: asyncio.Event, seconds: float) -> None:
            await asyncio.sleep(0)

        loop = Following(mirror, log=house.tail, store=house.store, metrics=Metrics(), pause=pause)
        stop = asyncio.Event()
        running = asyncio.create_task(loop.run(stop))
        await house.approve("task-2", name="One", version="v2", value=2)
        await house.send_back("task-1")
        await house.approve("task-3", name="three")
        await house.remove("task-3")
        size = await house.tail.size()
        async with asyncio.timeout(20):
            while (await house.cursor("mirror")).next < size:
                await asyncio.sleep(0.01)
        stop.set()
        await running
        await pulled(Lake(store=house.store), tmp_path)
        root = tmp_path / PROJECT
        shown = {
            key.removeprefix(f"{PROJECT}/"): data
            for key, data in house.store.objects.items()
            if key.startswith((f"{PROJECT}/segmentations/", f"{PROJECT}/tasks.json"))
        }
        assert shown == {path: (root / path).read_bytes() for path in tree(root)}
        assert len(shown) == 3
        house.store.assert_sound()
