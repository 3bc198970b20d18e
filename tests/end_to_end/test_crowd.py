"""Many tasks, disorder, duplicates, two workers, one of them killed: lake and platform agree."""

from __future__ import annotations

import asyncio
import io
import random
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from consumer.demo.redbrick import Drawing, SeriesSpec
from consumer.demo.script import Post
from consumer.log.verify import verify
from consumer.model import Manifest, Pointer, decode
from consumer.ports import Store
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from tests.end_to_end.house import House, house, until
from tests.seeds import THOROUGH
from tests.servers_rabbitmq import RabbitServer
from tests.servers_s3 import ACCESS_KEY, SECRET_KEY, S3Server, use_credentials

TASKS = 200 if THOROUGH else 24


def shuffled(posts: list[Post], seed: int) -> list[Post]:
    """Each once, every third once more, in any order."""
    order = [*posts, *posts[::3]]
    random.Random(seed).shuffle(order)
    return order


class Agreement:
    """Looks again only at the tasks whose pointers did not agree with the platform yet."""

    def __init__(self, place: House) -> None:
        self._place = place
        self._left = dict(place.cast.tasks)

    async def __call__(self) -> str | None:
        """What does not agree between platform and lake; None when all does."""
        while self._left:
            name, task_id = next(iter(self._left.items()))
            complaint = await self._complaint(name, task_id)
            if complaint is not None:
                return complaint
            del self._left[name]
        return None

    async def _complaint(self, name: str, task_id: str) -> str | None:
        redbrick = self._place.cast.redbrick
        pointer = await self._place.pointer(redbrick.project_id, task_id)
        if pointer is None:
            return f"{name} has no pointer"
        held = redbrick.projects[redbrick.project_id].tasks.get(task_id)
        if held is None:
            return None if pointer.change == "deleted" else f"{name} is not deleted in the lake"
        if (pointer.stage, pointer.ground_truth) == (held.stage, held.stage == "END"):
            return None
        return f"{name} is at {held.stage} on the platform, at {pointer.stage} in the lake"


async def everything_is_logged(place: House) -> str | None:
    moved = Counter(entry["task"] for entry in await place.log() if entry["kind"] == "lake")
    for name, task_id in place.cast.tasks.items():
        pointer = await place.pointer(place.cast.redbrick.project_id, task_id)
        if pointer is None or moved[task_id] != pointer.sequence:
            return f"{name}: {moved[task_id]} moves in the log, pointer at {pointer}"
    return None


async def voxels(store: Store, pointer: Pointer) -> Any:
    assert pointer.manifest is not None
    stored = await store.read(pointer.manifest)
    assert stored is not None
    (mask,) = [f for f in decode(stored.data, Manifest).files if f.path.endswith(".nii.gz")]
    data = await store.read(mask.key)
    assert data is not None
    return _voxels(data.data)


def _voxels(data: bytes) -> Any:
    import gzip

    holder = nibabel.FileHolder(fileobj=io.BytesIO(gzip.decompress(data)))
    image = nibabel.Nifti1Image.from_file_map({"header": holder, "image": holder})
    return np.asanyarray(image.dataobj)


async def tell_the_story(place: House) -> None:
    """Many tasks, five events each: created, to label, to each of two reviews, to the end; every
    fifth is then reopened and every twelfth deleted."""
    redbrick, tasks = place.cast.redbrick, place.cast.tasks
    for n in range(TASKS):
        series = SeriesSpec(name="ct", dimensions=(12, 10, 6))
        tasks[f"task-{n:03d}"] = redbrick.create_task(f"task-{n:03d}", [series])
    for task_id in tasks.values():
        redbrick.label(task_id, [Drawing(0)])
    early = place.webhooks()
    posting = asyncio.ensure_future(place.post_all(shuffled(early, 1)))
    await until(lambda: _some_exported(place))
    place.kill("export-1")  # SIGKILL, in the middle of its work
    place.start("export-3", "work", "export")
    await posting
    await until(Agreement(place), within_s=120)
    downloads = place.downloads()
    for n, task_id in enumerate(tasks.values()):
        redbrick.approve(task_id)
        redbrick.approve(task_id, by="dora")
        if n % 5 == 0:
            redbrick.move(task_id, "Label")
        if n % 12 == 0:
            redbrick.delete(task_id)
    await place.post_all(shuffled([*place.webhooks(), *early[::7]], 2))
    await until(Agreement(place), within_s=120)
    await until(lambda: everything_is_logged(place), within_s=60)
    assert place.downloads() == downloads, "a stage move downloaded a mask"


async def _some_exported(place: House) -> str | None:
    done = place.downloads()
    return None if done >= TASKS // 8 else f"only {done} masks were downloaded"


async def check_the_end(place: House) -> None:
    log = await place.log()
    ids = Counter(entry["id"] for entry in log)
    assert max(ids.values()) == 1
    history = [entry for entry in log if entry["kind"] == "history"]
    held = Counter(entry["task"] for entry in history if entry["type"] == "TASK_CREATED")
    assert held == dict.fromkeys(place.cast.tasks.values(), 1)
    for name, task_id in place.cast.tasks.items():
        seen = {e["id"].removeprefix("history:") for e in history if e["task"] == task_id}
        pointer = await place.pointer(place.cast.redbrick.project_id, task_id)
        assert pointer is not None, name
        assert seen == set(pointer.history), name
        moves = [e for e in log if e["kind"] == "lake" and e["task"] == task_id]
        assert [move["sequence"] for move in moves] == list(range(1, len(moves) + 1)), name
    redbrick = place.cast.redbrick
    for task_id, task in redbrick.projects[redbrick.project_id].tasks.items():
        pointer = await place.pointer(redbrick.project_id, task_id)
        assert pointer is not None
        assert task.latest is not None
        source = _voxels(redbrick.files[task.latest.masks[0][1]])
        assert np.array_equal(await voxels(place.store, pointer), source)
    vkey = await place.store.read("log/vkey")
    assert vkey is not None
    result = await verify(place.store, vkey=vkey.data.decode().strip())
    assert result.findings == ()
    dead = await place.run("dead", "list")
    assert dead.returncode == 0, dead.stderr
    assert "no dead letters" in dead.stdout
    verified = await place.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.timeout(400)
async def test_on_rabbitmq_and_s3_with_a_worker_killed_in_the_middle(
    tmp_path: Path,
    rabbitmq_server: RabbitServer,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_credentials(monkeypatch)
    prefix = s3_server.new_prefix()
    store = S3Store(s3_server.bucket, prefix, endpoint=s3_server.endpoint)
    environment = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "GROUNDWIRE_LAKE_ENDPOINT": s3_server.endpoint,
    }
    async with house(
        tmp_path,
        store,
        queue=rabbitmq_server.url,
        lake=f"s3://{s3_server.bucket}/{prefix}",
        environment=environment,
    ) as place:
        place.start("receive", "receive")
        place.start("export-1", "work", "export")
        place.start("export-2", "work", "export")
        place.start("audit", "work", "audit")
        await place.listening()
        await tell_the_story(place)
        await check_the_end(place)
        for name in ("receive", "export-2", "export-3", "audit"):
            assert await place.stop(name) == 0, name


@pytest.mark.timeout(300)
async def test_embedded_with_the_whole_process_killed_in_the_middle(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    async with house(tmp_path, store) as place:
        place.start("run", "run")
        await place.listening()
        redbrick, tasks = place.cast.redbrick, place.cast.tasks
        for n in range(TASKS):
            series = SeriesSpec(name="ct", dimensions=(12, 10, 6))
            tasks[f"task-{n}"] = redbrick.create_task(f"task-{n}", [series])
            redbrick.label(tasks[f"task-{n}"], [Drawing(0)])
        await place.post_all(shuffled(place.webhooks(), 3))
        place.kill("run")
        place.start("run", "run")
        await until(Agreement(place), within_s=60)
        await until(lambda: everything_is_logged(place), within_s=60)
        await check_the_end(place)
        assert await place.stop("run") == 0
