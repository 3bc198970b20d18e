"""When the mirror writes, and what a change costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.ports import Batch, Cursor
from handlers.mirror import Mirror
from tests.handlers.mirror_house import CHECK_S, INTERVAL_S, MirrorHouse
from tests.handlers.pull.lakes import PROJECT, Mask

INDEX_FILE = f"{PROJECT}/tasks.json"


@pytest.fixture
def house() -> MirrorHouse:
    return MirrorHouse()


async def wake(house: MirrorHouse, mirror: Mirror) -> float | None:
    size = len(house.entries)
    step = await mirror.follow(Batch((), size, size, size))
    house.cursor = step.cursor
    return step.wake_s


async def test_the_first_change_after_a_quiet_time_is_in_the_index_file_at_once(
    house: MirrorHouse,
) -> None:
    await house.task("t1", name="a")
    mirror = await house.run()
    assert b'"a"' in (await house.shown())["tasks.json"]
    house.clock.advance(INTERVAL_S)
    await house.task("t2", name="b")
    await house.feed(mirror, 1)
    assert b'"b"' in (await house.shown())["tasks.json"]


async def test_the_index_file_is_written_once_in_an_interval_however_much_changes(
    house: MirrorHouse,
) -> None:
    await house.task("t0", name="t0")
    mirror = await house.run()
    house.calls()
    for number in range(1, 60):
        house.clock.advance(1)
        await house.task(f"t{number}", name=f"t{number}")
        step = await house.feed(mirror, number)
        assert step.wake_s == INTERVAL_S - number
        assert step.cursor.next == 1
    assert (
        house.calls("swap", of=lambda key: "current.json" not in key and "intent" not in key) == []
    )
    house.clock.advance(1)
    assert await wake(house, mirror) == CHECK_S - INTERVAL_S
    assert house.calls("swap", of=lambda key: key == INDEX_FILE) == [INDEX_FILE]
    assert (await house.shown())["tasks.json"].count(b"taskId") == 60
    assert house.cursor.next == 60


async def test_an_interval_outlives_its_process(house: MirrorHouse) -> None:
    await house.task("t1", name="a")
    await house.run()
    await house.task("t2", name="b")
    house.clock.advance(INTERVAL_S - 1)
    house.calls()
    mirror = await house.run()
    assert house.calls("swap", of=lambda key: key == INDEX_FILE) == []
    assert "segmentations/b/series1.nii.gz" in await house.shown()
    house.clock.advance(1)
    await wake(house, mirror)
    assert b'"b"' in (await house.shown())["tasks.json"]


async def test_what_changes_no_document_writes_no_index_file(house: MirrorHouse) -> None:
    await house.task("t1", name="a")
    mirror = await house.run()
    house.clock.advance(INTERVAL_S)
    await house.task("t1", name="a")  # the same revision again
    await house.withdraw("t2")  # never had any
    house.calls()
    await house.feed(mirror, 1)
    assert house.calls("swap", "copy", "delete") == [f"followers/mirror/{PROJECT}/index.json"]
    assert house.cursor.next == 3


async def test_without_news_nothing_is_read_or_written(house: MirrorHouse) -> None:
    await house.task("t1", name="a")
    mirror = await house.run()
    house.calls()
    house.clock.advance(INTERVAL_S)
    await wake(house, mirror)
    assert house.fake.calls == []


async def test_entries_that_the_index_knows_are_skipped_without_a_look(house: MirrorHouse) -> None:
    for number in range(5):
        await house.task(f"t{number}")
    await house.run()
    house.cursor = Cursor(0, house.cursor.state)
    house.calls()
    mirror = await house.run(batch=2)
    assert house.calls("read", of=lambda key: "/tasks/" in key) == []
    await house.feed(mirror, 0)
    assert house.fake.calls == []


async def cost(tasks: int) -> list[tuple[str, str]]:
    """The calls that one change makes among so many tasks."""
    house = MirrorHouse()
    for number in range(tasks):
        await house.task(f"t{number:03}", name=f"t{number:03}")
    mirror = await house.run()
    house.clock.advance(INTERVAL_S)
    await house.task("t005", Mask(values={2: "spleen"}), name="renamed")
    house.fake.calls.clear()
    await house.feed(mirror, tasks)
    return house.fake.verbs()


async def test_a_change_costs_the_same_in_a_project_of_ten_tasks_and_of_a_hundred() -> None:
    few, many = await cost(10), await cost(100)
    assert few == many
    assert len(few) == 10, few


async def test_a_change_in_the_middle_of_the_index_file_reads_one_document(
    house: MirrorHouse, tmp_path: Path
) -> None:
    for number in range(9):
        await house.task(f"t{number}", name=f"t{number}")
    mirror = await house.run()
    house.clock.advance(INTERVAL_S)
    await house.task("t4", document={"taskId": "t4", "series": [], "longer": "x" * 99}, name="t4")
    house.calls()
    await house.feed(mirror, 9)
    assert len(house.calls("read", of=lambda key: key.endswith("annotations.json"))) == 1
    assert await house.shown() == await house.pull(tmp_path)


async def test_a_mirror_that_lags_stores_what_it_did_and_writes_the_index_file_at_last(
    house: MirrorHouse, tmp_path: Path
) -> None:
    for number in range(6):
        await house.task(f"t{number}", name=f"t{number}")
    mirror = house.mirror()
    await house.begin(mirror)
    for number in range(5):
        house.clock.advance(INTERVAL_S)
        given = house.entries[number : number + 1]
        step = await mirror.follow(Batch(given, number, number + 1, 6))
        assert step.cursor.next == number + 1
    assert house.calls("swap", of=lambda key: key == INDEX_FILE) == []
    house.cursor = step.cursor
    await house.finish(await house.run())
    assert await house.shown() == await house.pull(tmp_path)


async def test_a_mirror_that_never_catches_up_writes_the_index_file_all_the_same(
    house: MirrorHouse,
) -> None:
    await house.task("t0")
    mirror = await house.run()
    await house.task("t1")
    await house.task("t2")
    house.clock.advance(10 * INTERVAL_S + 1)
    await mirror.follow(Batch(house.entries[1:2], 1, 2, 3))
    assert b'"t1"' in (await house.shown())["tasks.json"]


async def test_switched_on_late_it_begins_at_the_beginning(
    house: MirrorHouse, tmp_path: Path
) -> None:
    for number in range(7):
        await house.task(f"t{number}")
    await house.finish(await house.run(batch=3))
    assert await house.shown() == await house.pull(tmp_path)


@pytest.mark.parametrize("damage", [None, b"no json"])
async def test_an_index_that_was_lost_is_made_again_from_the_log(
    house: MirrorHouse, tmp_path: Path, damage: bytes | None
) -> None:
    """And what is there is not taken for somebody's work."""
    for number in range(4):
        await house.task(f"t{number}", name=f"t{number}")
    await house.finish(await house.run())
    house.edit("index.json", damage, f"followers/mirror/{PROJECT}")
    house.clock.advance(1)
    mirror = house.mirror()
    assert await house.begin(mirror) == 0
    await house.finish(await house.run())
    assert await house.shown() == await house.pull(tmp_path)
    assert house.queue.records == {}
