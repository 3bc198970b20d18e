"""A pull that dies at any call of the store, or at any operation on a file, leaves a folder whose
index is right, and the next pull ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumer.errors import Transient
from consumer.model import digest
from handlers import layout
from handlers.formats.nifti import write_label_map
from handlers.pull.sync import Summary
from tests.fakes_store import Fault, FaultyStore
from tests.handlers.pull.lakes import PROJECT, Lake, Mask, label_map, pulled, tasks_of, tree

DIED = 9
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


class Crash(BaseException):
    """What nothing catches."""


async def version(lake: Lake, task: str, number: int, *series: str, name: str = "") -> None:
    """The task with the masks of that version; its document tells which."""
    masks = [
        Mask(one, {number: "liver"}, position=position, data=mask_of(number))
        for position, one in enumerate(series)
    ]
    document = {"taskId": task, "version": number, "series": [
        {"name": one, "segmentations": key_of(lake, task, one, number)} for one in series
    ]}  # fmt: skip
    await lake.task(task, *masks, name=name or task, document=document)


def mask_of(number: int) -> bytes:
    return write_label_map(label_map(number))


def key_of(lake: Lake, task: str, series: str, number: int) -> str:
    sha256 = digest(mask_of(number))
    return layout.file_key(lake.project, task, sha256, f"{series}.nii.gz")


async def before() -> Lake:
    lake = Lake()
    await version(lake, "changed", 1, "a", "b")
    await version(lake, "gone", 1, "a")
    await version(lake, "renamed", 1, "a", name="old")
    await version(lake, "same", 1, "a")
    return lake


async def after(lake: Lake) -> None:
    await version(lake, "changed", 2, "a", "c")
    await lake.withdraw("gone")
    await version(lake, "renamed", 1, "a", name="new")
    await version(lake, "added", 3, "a")


def assert_right(directory: Path) -> None:
    """Every task that the index names is there, whole, of the version that it says."""
    if not (directory / PROJECT / "tasks.json").exists():
        return
    for task in tasks_of(directory):
        for series in task["series"]:
            file = directory / PROJECT / series["segmentations"]
            assert file.read_bytes() == mask_of(task["version"]), (task, series)


def assert_done(directory: Path, fresh: Path, summary: Summary) -> None:
    """As a pull into an empty folder would be; and nothing of ours was taken for a stranger's."""
    assert_right(directory)
    assert summary.aside == []
    assert contents(directory) == contents(fresh)


def contents(directory: Path) -> dict[str, bytes]:
    root = directory / PROJECT
    return {path: (root / path).read_bytes() for path in tree(root)}


@dataclass(frozen=True)
class Scene:
    """A lake in which much has changed since a folder was pulled, and what that is to become."""

    lake: Lake
    old: Path
    fresh: Path

    def copy(self, directory: Path) -> Path:
        """The old folder, as if pulled there."""
        return Path(shutil.copytree(self.old, directory))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    async def made() -> Scene:
        lake = await before()
        found = Scene(lake, tmp_path / "old", tmp_path / "fresh")
        await pulled(lake, found.old)
        await after(lake)
        await pulled(lake, found.fresh)
        return found

    return asyncio.run(made())


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_crash_at_any_call_of_the_store(fault: Fault, scene: Scene, tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        directory = scene.copy(tmp_path / str(number))
        store = FaultyStore(scene.lake.store, {number: fault}, Crash)
        try:
            await pulled(scene.lake, directory, store=store)
        except Crash:
            assert_right(directory)
            assert_done(directory, scene.fresh, await pulled(scene.lake, directory))
        else:
            break
    assert number > 8  # a listing, the pointers, manifests, documents and masks that are new


async def test_a_failure_of_any_one_call_is_tried_again(scene: Scene, tmp_path: Path) -> None:
    calls = 2
    number = 1  # the listing comes first, and is not tried again
    while number < calls:
        number += 1
        directory = scene.copy(tmp_path / str(number))
        store = FaultyStore(scene.lake.store, {number: Fault.BEFORE})
        assert_done(directory, scene.fresh, await pulled(scene.lake, directory, store=store))
        calls = store.calls


async def test_a_lake_that_stays_away_leaves_the_folder_as_it_was(scene: Scene) -> None:
    was = contents(scene.old)
    store = FaultyStore(scene.lake.store, dict.fromkeys(range(6, 100), Fault.BEFORE))
    with pytest.raises(Transient):
        await pulled(scene.lake, scene.old, store=store)
    assert contents(scene.old) == was


def dies_at(number: int, below: Path) -> Callable[[str, tuple[object, ...]], None]:
    """An audit hook that ends the process at the n-th operation on a file below a folder."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in OPERATIONS or not str(arguments[0]).startswith(str(below)):
            return
        if event == "open" and not _writes(arguments[1]):
            return
        seen += 1
        if seen == number:
            os._exit(DIED)

    return hook


def _writes(mode: object) -> bool:
    return isinstance(mode, str) and bool({"w", "a", "x", "+"} & set(mode))


def dying(number: int, directory: Path, run: Callable[[], object]) -> bool:
    """Runs it in a process of its own that dies at that operation; whether it did."""
    child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(dies_at(number, directory))
            run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, DIED)
    return os.waitstatus_to_exitcode(status) == DIED


def test_a_crash_at_any_operation_on_a_file_of_a_first_pull(tmp_path: Path) -> None:
    lake = asyncio.run(before())
    fresh = tmp_path / "fresh"
    asyncio.run(pulled(lake, fresh))
    number = 0
    while True:
        number += 1
        directory = tmp_path / str(number)
        directory.mkdir()
        if not dying(number, directory, lambda at=directory: asyncio.run(pulled(lake, at))):
            break
        assert_right(directory)
        assert_done(directory, fresh, asyncio.run(pulled(lake, directory)))
    assert number > 30


def test_a_crash_at_any_operation_on_a_file_of_a_later_pull(scene: Scene, tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        directory = scene.copy(tmp_path / str(number))
        if not dying(number, directory, lambda at=directory: asyncio.run(pulled(scene.lake, at))):
            break
        assert_right(directory)
        assert_done(directory, scene.fresh, asyncio.run(pulled(scene.lake, directory)))
    assert number > 30
