"""A snapshot of a running installation: made while it runs, rebuilt after everything went on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest

from consumer.demo.redbrick import Drawing, Instance, SeriesSpec
from consumer.model import digest
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house, until
from tests.handlers.pull.lakes import tree

AT_ONCE = {"GROUNDWIRE_EXPORT__DELETION_CONFIRMED_AFTER_S": "0"}


async def said(place: House, *words: str) -> subprocess.CompletedProcess[str]:
    done = await place.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def drawn(place: House, name: str, value: int) -> str:
    """A task that is labelled and approved in RedBrick."""
    redbrick = place.cast.redbrick
    task = redbrick.create_task(name, [SeriesSpec(name="ct", dimensions=(12, 10, 6))])
    redbrick.label(task, [Drawing(0, (Instance(value), Instance(value + 1, 1)))])
    for _ in range(2):  # there are two reviews
        redbrick.approve(task)
    return task


async def told(place: House, truth: dict[str, bool]) -> None:
    """The webhooks have arrived, and the lake and the log show who is in the ground truth."""
    await place.post_all(place.webhooks())

    async def shown() -> str | None:
        entries = [one for one in await place.log() if one["kind"] == "lake"]
        newest = {one["task"]: one for one in entries}
        for task, wanted in truth.items():
            found = newest.get(task, {})
            if bool(found.get("ground_truth") and found.get("revision")) is not wanted:
                return f"{task}: {found}"
        return None

    await until(shown, within_s=60)


def bytes_of(folder: Path) -> dict[str, str]:
    return {path: digest((folder / path).read_bytes()) for path in tree(folder)}


def rows(place: House) -> list[dict[str, Any]]:
    (file,) = (place.directory / "lake/snapshots").rglob("manifest.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.timeout(240)  # a dozen commands, each a process
async def test_a_training_set_is_rebuilt_after_all_of_its_tasks_went_on(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    async with house(tmp_path, store, environment=AT_ONCE) as place:
        place.start("run", "run")
        await place.listening()
        first, second = drawn(place, "study01", 1), drawn(place, "study02", 3)
        await told(place, {first: True, second: True})
        made = await said(place, "snapshot", "create", "lungs")
        await said(place, "snapshot", "pull", "lungs", "before")
        await until(lambda: logged(place), within_s=30)

        redbrick = place.cast.redbrick
        redbrick.delete(first)
        third = drawn(place, "study01", 5)
        await told(place, {first: False, third: True})
        again = await said(place, "snapshot", "pull", "lungs", "after")
        assert "2 added" in again.stdout
        (before,), (after,) = ((tmp_path / one).iterdir() for one in ("before", "after"))
        assert bytes_of(before) == bytes_of(after)
        assert len(bytes_of(before)) == 3

        assert first in {row["task"] for row in rows(place)}
        (parquet,) = (tmp_path / "lake/snapshots").rglob("manifest.parquet")
        drawings = duckdb.read_parquet(str(parquet)).project("task, unnest(voxels) as drawn")
        totals = drawings.aggregate("count(distinct task), sum(drawn.voxels)").fetchall()
        count, voxels = totals[0]
        assert (count, voxels) == (
            2,
            sum(one["voxels"] for row in rows(place) for one in row["voxels"]),
        )
        assert voxels > 0
        later = await said(place, "snapshot", "create", "lungs")
        assert later.stdout != made.stdout
        identity = made.stdout.split()[1].rstrip(":")
        told_apart = await said(place, "snapshot", "diff", f"lungs/{identity}", "lungs")
        assert "1 added, 0 changed, 1 removed, 1 unchanged" in told_apart.stdout
        listed = await said(place, "snapshot", "list")
        assert len(listed.stdout.splitlines()) == 2
        await until(lambda: logged(place, 2), within_s=30)
        await place.stop("run")
        verified = await said(place, "verify")
        assert "unreferenced: snapshots" not in verified.stdout


async def logged(place: House, count: int = 1) -> str | None:
    found = [one for one in await place.log() if one["kind"] == "snapshot"]
    return None if len(found) == count else f"{len(found)} snapshots in the log"
