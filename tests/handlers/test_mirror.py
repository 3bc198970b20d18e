"""The mirror shows what a plain pull holds: the same files with the same bytes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from consumer.model import Change, SeenLabel
from tests.handlers.mirror_house import MirrorHouse, row
from tests.handlers.pull.lakes import NOON, PROJECT, File, Mask


@pytest.fixture
def house() -> MirrorHouse:
    return MirrorHouse()


async def assert_equal(house: MirrorHouse, tmp_path: Path) -> dict[str, bytes]:
    shown = await house.shown()
    assert shown == await house.pull(tmp_path)
    house.fake.assert_sound()
    return shown


async def test_a_task_is_shown_as_its_platform_exports_it(
    house: MirrorHouse, tmp_path: Path
) -> None:
    await house.task("t1", Mask("series1"), Mask("series2", position=1), name="study01")
    await house.run()
    shown = await assert_equal(house, tmp_path)
    assert sorted(shown) == [
        "segmentations/study01/series1.nii.gz",
        "segmentations/study01/series2.nii.gz",
        "tasks.json",
    ]
    (told,) = json.loads(shown["tasks.json"])
    assert told["series"][0]["segmentations"] == "segmentations/study01/series1.nii.gz"


TWO = {name: SeenLabel(version="v1", created_at=NOON) for name in ("a", "b")}
SHAPES: dict[str, tuple[Mask | File, ...]] = {
    "two-labels": (Mask("s1", label="a"), Mask("s1", {2: "spleen"}, "b"), Mask("s2", label="b")),
    "pictures": (
        File("segmentations/s1/000000.png", b"p0", "a", "s1"),
        File("segmentations/s1/000001.png", b"p1", "a", "s1"),
        File("segmentations/s1.classes.json", b"{}", "a", "s1"),
    ),
    "instances": (
        File("segmentations/s1/1.nii.gz", b"i1", "a", "s1"),
        File("segmentations/s1/2.nii.gz", b"i2", "a", "s1"),
    ),
    "several-formats": (
        Mask("s1", label="a"),
        File("segmentations/s1.seg.dcm", b"seg", "a", "s1"),
        File("segmentations/s1.rtstruct.dcm", b"rt", "a", "s1"),
    ),
    "as-drawn": (
        File("masks/a/Axial/1.png", b"mask", "a", "s1"),
        File("geometry/s1.json", b"{}", None, "s1"),
        Mask("s1", label="a"),
    ),
    "images": (Mask("s1", label="a"), File("images/s1/1.dcm", b"image", None, "s1")),
    "case": (Mask("Series", label="a"), Mask("series", label="a", position=1)),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_every_shape_of_a_task_is_shown_as_it_is_pulled(
    house: MirrorHouse, tmp_path: Path, shape: str
) -> None:
    labels = TWO if shape == "two-labels" else None
    await house.task("t1", *SHAPES[shape], name="study01", labels=labels)
    await house.run()
    shown = await assert_equal(house, tmp_path)
    assert len(shown) >= 2
    assert not any(path.startswith("images/") for path in shown)


async def test_a_labelbox_project_is_shown_with_its_rows(
    house: MirrorHouse, tmp_path: Path
) -> None:
    for task in ("t2", "t1", "t3"):
        label = {"id": "label-1", "n": task}
        await house.task(task, Mask("s1"), document=row(task, label))
    await house.run()
    shown = await assert_equal(house, tmp_path)
    assert len(shown["export.ndjson"].splitlines()) == 3
    assert "tasks.json" not in shown


async def test_a_labelbox_project_without_tasks_is_shown_as_it_is_pulled(
    house: MirrorHouse, tmp_path: Path
) -> None:
    await house.task("t1", Mask("s1"), document=row("t1"))
    mirror = await house.run()
    await house.withdraw("t1")
    await house.feed(mirror, 1)
    await house.finish(mirror)
    assert await assert_equal(house, tmp_path) == {"tasks.json": b"[]\n"}
    await house.task("t1", Mask("s1"), document=row("t1"))
    await house.feed(mirror, 2)
    await house.finish(mirror)
    assert "tasks.json" not in await assert_equal(house, tmp_path)
    assert house.queue.records == {}


Move = Callable[[MirrorHouse], Awaitable[None]]

STORY: tuple[Move, ...] = (  # names that meet, change and part, and tasks that come and go
    lambda house: house.task("t1", name="study"),
    lambda house: house.task("t2", name="Study"),
    lambda house: house.task("t3", name="study"),
    lambda house: house.task("t4", Mask("a"), Mask("b", position=1), name="con"),
    lambda house: house.task("t5", name="../é"),
    lambda house: house.withdraw("t5"),
    lambda house: house.task("t2", Mask(values={2: "spleen"}), name="other"),
    lambda house: house.withdraw("t3", change=Change.RETRACTED),
    lambda house: house.task("t6", name="study"),
    lambda house: house.task("t4", Mask("a"), name="con"),
    lambda house: house.task("t1", name="third"),
    lambda house: house.task("t6", name="third"),
    lambda house: house.task("t5", name="back"),
)


async def story(house: MirrorHouse) -> None:
    for move in STORY:
        await move(house)


@pytest.mark.parametrize("batch", [1, 2, 5, 1000])
async def test_a_story_of_names_ends_as_a_pull_does(
    house: MirrorHouse, tmp_path: Path, batch: int
) -> None:
    await story(house)
    mirror = await house.run(batch=batch)
    await house.finish(mirror)
    assert len(await assert_equal(house, tmp_path)) == 6
    assert house.queue.records == {}


async def test_after_every_change_the_mirror_is_what_a_pull_holds(
    house: MirrorHouse, tmp_path: Path
) -> None:
    mirror = await house.run()
    for number, move in enumerate(STORY):
        await move(house)
        await house.feed(mirror, number)
        await house.finish(mirror)
        await assert_equal(house, tmp_path)


async def test_two_tasks_that_swap_their_names_swap_their_folders(
    house: MirrorHouse, tmp_path: Path
) -> None:
    await house.task("t1", Mask(values={1: "liver"}), name="a")
    await house.task("t2", Mask(values={2: "spleen"}), name="b")
    mirror = await house.run()
    await house.task("t1", Mask(values={1: "liver"}), name="b")
    await house.task("t2", Mask(values={2: "spleen"}), name="a")
    await house.feed(mirror, 2)
    await house.finish(mirror)
    await assert_equal(house, tmp_path)


async def test_a_withdrawn_task_disappears_at_once(house: MirrorHouse) -> None:
    await house.task("t1", name="a")
    mirror = await house.run()
    await house.withdraw("t1")
    await house.feed(mirror, 1)
    assert list(await house.shown()) == ["tasks.json"]


async def test_a_task_whose_name_is_kept_out_of_paths_goes_by_its_id(
    house: MirrorHouse, tmp_path: Path
) -> None:
    await house.task("t1", name="Jane Doe")
    key = f"{PROJECT}/tasks/t1/current.json"
    pointer = json.loads(house.fake.objects[key])
    house.fake._put(key, json.dumps({**pointer, "paths": "id"}).encode())
    await house.run()
    shown = await assert_equal(house, tmp_path)
    assert sorted(shown) == ["segmentations/t1/series1.nii.gz", "tasks.json"]
    assert not any(b"Jane" in key.encode() for key in house.fake.objects)


async def test_projects_are_shown_each_for_itself(house: MirrorHouse, tmp_path: Path) -> None:
    other = MirrorHouse(store=house.store, project="project-2", entries=house.entries)
    await house.task("t1", name="a")
    await other.task("t1", document=row("t1"), name="b")
    await house.run()
    await assert_equal(house, tmp_path / "one")
    await assert_equal(other, tmp_path / "two")
    assert set(await other.shown()) == {"segmentations/b/series1.nii.gz", "export.ndjson"}


async def test_a_replay_from_the_beginning_comes_out_as_the_live_mirror(
    house: MirrorHouse, tmp_path: Path
) -> None:
    await story(house)
    live = await house.run(batch=1)
    await house.finish(live)
    before = await house.shown()
    again = MirrorHouse(entries=house.entries)
    kept = {key: data for key, data in house.fake.objects.items() if "/tasks/" in key}
    for key, data in kept.items():
        again.fake._put(key, data)
    await again.finish(await again.run())
    assert await again.shown() == before == await again.pull(tmp_path)
