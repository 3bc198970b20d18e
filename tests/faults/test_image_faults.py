"""Images and frames under faults: every store call and every fetch of images fails once, and the
lake ends as if nothing had failed; whatever happens, no folder of images is left behind."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from consumer.demo.phantom import Phantom, ct_series, grey_png
from consumer.errors import Permanent, Transient
from consumer.model import (
    ClassRule,
    ExportRules,
    Image,
    Label,
    Manifest,
    Mask,
    Outcome,
    Series,
    TaskSnapshot,
    decode,
)
from consumer.ports import Result, SavedImage
from tests.fakes_platform import FakePlatform, event
from tests.fakes_platform import snapshot as snapshot_of
from tests.fakes_store import FakeStore, Fault, FaultyStore, each_call_once
from tests.handlers.export_house import House

PHANTOM = Phantom(shape=(6, 5, 3))
FILES = [(f"{k}.dcm", data) for k, data in enumerate(ct_series(PHANTOM))]
WITH_A_HOLE = [*FILES[:2], ("4.dcm", ct_series(Phantom(shape=(6, 5, 5)))[4])]
RULES = ExportRules(
    with_files=True, dicom_to_nifti=True, classes=(ClassRule(name="liver", value=3),)
)


class Crash(BaseException):
    """Nothing catches it: the process died there."""


def framed(version: str, frames: range, images: str = "ct") -> Label:
    """An object drawn on these frames, on a series whose images are there."""
    masks = tuple(
        Mask(
            reference=f"{version}-{frame}",
            kind="png",
            slot=("masks", str(frame)),
            group="Axial",
            feature="one",
            frame=frame,
            category="liver",
        )
        for frame in frames
    )
    series = Series(name="ct", masks=masks, images=(Image(reference=images, name=f"{images}.zip"),))
    return Label(
        id="label-1",
        version=version,
        updated_at=f"2026-01-01T00:00:0{version[1]}Z",
        series=(series,),
    )


STORY: tuple[dict[str, Any], ...] = (
    {},
    {"labels": (framed("v1", range(1, 3)),)},
    {
        "labels": (framed("v1", range(1, 3)),),
        "stage": "END",
        "ground_truth": True,
        "ground_truth_label": "label-1",
    },
    {"labels": (framed("v2", range(2, 4)),), "stage": "Label"},
    {"labels": (framed("v2", range(2, 4), images="hole"),), "stage": "Label"},
)


def picture(reference: str) -> bytes:
    """Other pixels for any other reference."""
    pixels = np.zeros(PHANTOM.shape[1::-1], np.uint8)
    pixels[int(reference[1]), 1 : 1 + int(reference[-1])] = 255
    return grey_png(pixels)


How = Literal["fails", "fails-midway", "fails-late", "dies", "dies-midway"]


@dataclass
class Images(FakePlatform):
    """``plan`` says how the n-th fetch of images goes wrong (from 1)."""

    plan: dict[int, How] = field(default_factory=dict)
    fetches: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.images = {"ct": FILES, "hole": WITH_A_HOLE}
        self.masks = {
            f"{version}-{frame}": picture(f"{version}-{frame}")
            for version in ("v1", "v2")
            for frame in range(1, 4)
        }

    async def save_images(
        self, snapshot: TaskSnapshot, series: Series, folder: Path
    ) -> list[SavedImage]:
        self.fetches += 1
        how = self.plan.get(self.fetches)
        error = Crash() if how and how.startswith("dies") else Transient("download-truncated")
        if how is not None and not how.endswith(("midway", "late")):
            raise error
        saved = await super().save_images(snapshot, series, folder)
        if how is not None and how.endswith("midway"):
            _halve(saved[1].path)
            saved[2].path.unlink()
        if how is not None:
            raise error
        return saved


def _halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made; nothing is left in it by any test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert inside(folder) == []


def inside(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def until_done(house: House, name: str) -> Result:
    """One event, tried again as its lane would: the result of the try that worked."""
    for _ in range(3):
        try:
            (result,) = await house.handle(event(name=name))
        except Crash:
            continue
        if not isinstance(result, Transient | Permanent):
            return result
        assert result.reason != "export-crashed", result.__cause__
    raise AssertionError("still failing")


async def play(store: Any, platform: Images | None = None) -> dict[str, Outcome]:
    """The story told to an export over ``store``; gives, by id, the outcomes that reached
    ``audit`` or would have from its dispatcher."""
    house = House(rules=RULES)
    house.store, house.platform = store, platform or Images()
    results: list[Result] = []
    for number, changes in enumerate(STORY):
        document = {"taskId": "task-1", "masks": {str(frame): "" for frame in range(1, 4)}}
        house.platform.tasks["task-1"] = snapshot_of(**changes, document=document)
        results.append(await until_done(house, f"e{number}"))
    assert await until_done(house, "last") is None  # whoever reads next puts what it carries
    puts = [message for put in house.queue.puts for message in put]
    told = {one.id: one for one in (*results, *puts) if isinstance(one, Outcome)}
    return dict(sorted(told.items()))


async def undisturbed() -> tuple[dict[str, bytes], dict[str, Outcome], FaultyStore]:
    store = FakeStore()
    counting = FaultyStore(store, {})
    told = await play(counting)
    return dict(store.objects), told, counting


def manifests(objects: dict[str, bytes], told: dict[str, Outcome]) -> list[Manifest]:
    keys = [outcome.move.manifest_key for outcome in told.values()]
    return [decode(objects[key], Manifest) for key in keys if key is not None]


def geometries(manifest: Manifest) -> list[str]:
    return [file.geometry for file in manifest.files if file.geometry is not None]


async def test_the_undisturbed_story_is_what_it_should_be() -> None:
    objects, told, counting = await undisturbed()
    changes = [str(outcome.move.change) for outcome in told.values()]
    assert changes == ["moved", "exported", "moved", "retracted", "exported"]
    made = manifests(objects, told)
    paths = [sorted(file.path for file in one.files) for one in made]
    volume = [f"images/ct/{name}" for name, _ in FILES] + ["images/ct.nii.gz"]
    drawn = sorted(["annotations.json", "segmentations/ct.nii.gz", *volume])
    assert paths[:3] == [drawn] * 3
    assert [path for path in paths[3] if path not in drawn] == ["images/ct/4.dcm"]
    assert "images/ct.nii.gz" not in paths[3]
    assert {refusal.reason for refusal in made[3].refused} == {"missing-slices"}
    assert (geometries(made[0]), geometries(made[3])) == (["affine"] * 2, ["unknown"])
    assert counting.calls > 30


@pytest.mark.parametrize("crash", [False, True], ids=["answer-lost", "process-died"])
async def test_no_failed_store_call_changes_where_a_lake_with_images_ends(crash: bool) -> None:
    objects, told, counting = await undisturbed()
    failed: list[tuple[str, str, Fault]] = []
    for plan in each_call_once(counting.calls):
        store = FakeStore()
        faulty = FaultyStore(store, plan, Crash) if crash else FaultyStore(store, plan)
        assert await play(faulty) == told, plan
        assert dict(store.objects) == objects, plan
        store.assert_sound()
        failed += faulty.failed
    assert len(failed) >= 2 * counting.calls
    assert sum(verb == "upload" for verb, _, _ in failed) >= 2 * len(FILES)


@pytest.mark.parametrize("how", ["fails", "fails-midway", "fails-late", "dies", "dies-midway"])
async def test_no_failed_fetch_of_images_changes_where_the_lake_ends(how: How) -> None:
    objects, told, _ = await undisturbed()
    fetches = 0
    for number in range(1, 4):
        store, platform = FakeStore(), Images(plan={number: how})
        assert await play(store, platform) == told
        assert dict(store.objects) == objects
        store.assert_sound()
        fetches += platform.fetches
    assert fetches > 3


async def test_nothing_of_a_series_that_came_in_half_is_in_the_lake() -> None:
    platform = Images(plan=dict.fromkeys(range(1, 9), "fails-midway"))
    house = House(rules=RULES)
    house.platform = platform
    result = await house.see(**STORY[1])
    assert isinstance(result, Transient)
    assert await house.keys() == []


class Hanging(Images):
    """The images never come: some of them lie on the disk by then, and threads go on to write what
    they were asked for, as threads do that nobody can stop."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.stop = asyncio.Event(), threading.Event()
        self.errors: list[OSError] = []
        self.threads: list[threading.Thread] = []

    async def save_images(
        self, snapshot: TaskSnapshot, series: Series, folder: Path
    ) -> list[SavedImage]:
        for name in "abcd":
            thread = threading.Thread(target=self.write, args=(folder / name,))
            thread.start()
            self.threads.append(thread)
        while not inside(folder):
            await asyncio.sleep(0)
        self.begun.set()
        await asyncio.Event().wait()
        return []

    def write(self, file: Path) -> None:
        for number in range(1_000_000):
            if self.stop.is_set():
                return
            try:
                file.with_name(f"{file.name}{number:06d}").write_bytes(b"image")
            except OSError as error:
                self.errors.append(error)
                return


async def cancelled(house: House, begun: Callable[[], bool]) -> None:
    """An export that is given up once it has begun."""
    house.platform.tasks["task-1"] = snapshot_of(**STORY[1])
    export = asyncio.ensure_future(house.handle(event()))
    while not begun():
        assert not export.done(), "it did not hang"
        await asyncio.sleep(0)
    export.cancel()
    with suppress(asyncio.CancelledError):
        await export
    assert export.cancelled()


async def test_an_export_that_is_given_up_while_threads_write_leaves_no_folder(
    scratch: Path,
) -> None:
    house, platform = House(rules=RULES), Hanging()
    house.platform = platform
    try:
        await cancelled(house, platform.begun.is_set)
        assert inside(scratch) == []
        for thread in platform.threads:
            await asyncio.to_thread(thread.join, 10)
        assert len(platform.errors) == 4, "some could go on writing where nobody looks"
    finally:
        platform.stop.set()
    assert await house.keys() == []


async def test_an_export_that_is_given_up_in_an_upload_leaves_no_folder(scratch: Path) -> None:
    class Slow(FakeStore):
        uploading = False

        async def upload(self, key: str, file: Path) -> None:
            self.uploading = True
            await asyncio.Event().wait()

    house, store = House(rules=RULES), Slow()
    house.platform, house.store = Images(), store
    await cancelled(house, lambda: store.uploading)
    assert inside(scratch) == []
    assert not any(key.endswith(".json") for key in await house.keys())
