"""A worker is killed in the middle of uploading images: the lake verifies, the next one finishes,
and what only the crash left is removed as garbage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from consumer.demo.phantom import Phantom, ct_series, truth
from consumer.demo.redbrick import SeriesSpec, phantom_drawing, phantom_series
from consumer.log.verify import verify
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house
from tests.end_to_end.volume_rows import Task, until_exported

PHANTOM = Phantom(seed=2, shape=(64, 64, 60))
LATE = ct_series(Phantom(shape=(8, 8, 1)))[0]
LONG_AGO_S = 3 * 24 * 3600


@contextlib.asynccontextmanager
async def late_image() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The URL of an image that is not answered before the event."""
    released = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response(body=LATE)

    app = web.Application()
    app.add_routes([web.get("/late.dcm", answer)])
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/late.dcm", released
    finally:
        await runner.cleanup()


def images_of(place: House, task: str) -> list[Path]:
    """The copies that are in the lake so far."""
    project = place.cast.redbrick.project_id
    return list((place.directory / "lake" / project / "tasks" / task).glob("files/*/*.dcm"))


async def killed_in_the_middle(place: House, *tasks: str) -> None:
    """When each task has some of its images in the lake; one of them has not come yet."""
    deadline = time.monotonic() + 60
    while not all(images_of(place, task) for task in tasks):
        assert time.monotonic() < deadline, "nothing is uploaded"
        await asyncio.sleep(0.001)
    place.kill("run")
    for task in tasks:
        pointer = await place.pointer(place.cast.redbrick.project_id, task)
        assert 0 < len(images_of(place, task)) <= PHANTOM.shape[2]
        assert pointer is None or pointer.revision is None


async def started(place: House) -> None:
    place.start("run", "run")
    await place.listening()


async def unreferenced(place: House) -> set[str]:
    """What nothing names; the lake verifies."""
    found = await verify(place.store)
    assert found.ok, found.findings
    return {key for key in found.unreferenced if not key.startswith("log/")}


def grow_old(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - LONG_AGO_S,) * 2)


def left_in(folder: Path) -> list[Path]:
    """Files that are not empty."""
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.timeout(180)
async def test_a_lake_whose_worker_was_killed_verifies_converges_and_can_be_swept(
    tmp_path: Path,
) -> None:
    scratch, store = tmp_path / "scratch", DirectoryStore(tmp_path / "lake")
    await asyncio.to_thread(scratch.mkdir)
    environment = {
        "TMPDIR": str(scratch),
        "GROUNDWIRE_EXPORT__WITH_FILES": "true",
        "GROUNDWIRE_EXPORT__DICOM_TO_NIFTI": "false",
        "GROUNDWIRE_SOURCES__REDBRICK__PRIVATE_NETWORKS": "127.0.0.1",
    }
    async with (
        late_image() as (url, released),
        house(tmp_path, store, environment=environment) as place,
    ):
        redbrick, late = place.cast.redbrick, SeriesSpec(name="late", items=(url,))
        kept, gone = (
            redbrick.create_task(name, [phantom_series(PHANTOM, folder=name), late])
            for name in ("kept", "gone")
        )
        for task in (kept, gone):
            redbrick.label(task, [phantom_drawing(PHANTOM)])
        await started(place)
        await place.post_all(place.webhooks())
        await killed_in_the_middle(place, kept, gone)
        assert left_in(scratch), "the images lay on the disk"
        uploaded = {path.name for task in (kept, gone) for path in images_of(place, task)}
        assert len(await unreferenced(place)) >= len(uploaded) > 0

        released.set()
        redbrick.delete(gone)
        await started(place)
        await place.post_all(place.webhooks())
        await until_exported(place, {"kept": (redbrick.project_id, kept)})
        await until_deleted(place, gone)
        assert await place.stop("run") == 0
        assert left_in(scratch) == []
        assert left_in(tmp_path / "lake" / ".groundwire") == []
        task = await Task.read(store, redbrick.project_id, kept)
        copies = [task.data(path) for path in sorted(task.refs) if path.startswith("images/ct/")]
        assert copies == ct_series(PHANTOM)
        assert task.data("images/late/late.dcm") == LATE
        assert np.array_equal(task.voxels("segmentations/ct.nii.gz"), truth(PHANTOM))

        garbage = await unreferenced(place)
        assert {key.split("/")[2] for key in garbage} == {gone}
        grow_old(tmp_path / "lake" / redbrick.project_id)
        removed = await place.run("gc", "--older-than", "1d")
        assert f"removed {len(garbage)} object(s)" in removed.stdout, removed.stdout
        assert await unreferenced(place) == set()
        assert images_of(place, gone) == []
        assert (await Task.read(store, redbrick.project_id, kept)).refs == task.refs


async def until_deleted(place: House, task: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        pointer = await place.pointer(place.cast.redbrick.project_id, task)
        if pointer is not None and pointer.change == "deleted":
            return
        assert time.monotonic() < deadline, f"still at {pointer}"
        await asyncio.sleep(0.1)
