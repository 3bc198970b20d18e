"""Webhooks get lost, and a sweep makes lake and platform agree: real processes, queue and lake."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from consumer.demo.redbrick import Drawing, SeriesSpec
from consumer.log.verify import verify
from consumer.model import Pointer, decode
from consumer.reconcile_state import State, state_key
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house, until
from tests.seeds import seeds

TASKS = 24


@asynccontextmanager
async def clinic(folder: Path, **environment: str) -> AsyncIterator[House]:
    quick = {"GROUNDWIRE_EXPORT__DELETION_CONFIRMED_AFTER_S": "1", **environment}
    async with house(folder, DirectoryStore(folder / "lake"), environment=quick) as place:
        yield place


def begin(place: House) -> None:
    """Tasks and data rows come into being and are labelled."""
    for number in range(TASKS):
        series = SeriesSpec(name="ct", dimensions=(6, 5, 4))
        task = place.cast.redbrick.create_task(f"task-{number:02d}", [series])
        place.cast.redbrick.label(task, [Drawing(0)])
    for number in range(TASKS // 2):
        place.cast.labelbox.label(place.cast.labelbox.create_row(f"row-{number:02d}"), [])


def go_on(place: House, rng: random.Random) -> None:
    """Some are approved, sent back, moved by hand; some are deleted."""
    redbrick, labelbox = place.cast.redbrick, place.cast.labelbox
    for number, task in enumerate(sorted(redbrick.projects[redbrick.project_id].tasks)):
        if number % 6 == 0:
            redbrick.delete(task)
        else:
            rng.choice([redbrick.approve, redbrick.reject])(task)
    for number, row in enumerate(sorted(labelbox.rows)):
        if number % 4 == 0:
            labelbox.delete_row(row)
        else:
            labelbox.submit(row)
            rng.choice([labelbox.approve, labelbox.reject])(row)


def stages(place: House) -> Iterator[tuple[str, str, str]]:
    """Project, task and stage of all that the platforms hold."""
    redbrick, labelbox = place.cast.redbrick, place.cast.labelbox
    for name, task in redbrick.projects[redbrick.project_id].tasks.items():
        yield redbrick.project_id, name, task.stage
    for row in labelbox.rows.values():
        yield labelbox.project_id, row.id, row.stage


async def pointers(place: House) -> dict[tuple[str, str], Pointer]:
    found = {}
    async for listed in place.store.list(""):
        if listed.key.endswith("/current.json"):
            stored = await place.store.read(listed.key)
            assert stored is not None
            pointer = decode(stored.data, Pointer)
            found[pointer.project, pointer.task] = pointer
    return found


async def disagreement(place: House) -> str | None:
    held = {(project, task): stage for project, task, stage in stages(place)}
    shown = await pointers(place)
    for key, stage in held.items():
        pointer = shown.get(key)
        if pointer is None or (pointer.stage or "").casefold() != stage.casefold():
            return f"{key} is at {stage}, the lake shows {pointer and pointer.stage}"
        if pointer.change == "deleted":
            return f"{key} is there, the lake calls it deleted"
    left = [key for key, one in shown.items() if key not in held and one.change != "deleted"]
    return f"{left} are gone, and the lake does not say so" if left else None


async def swept_once(place: House) -> str | None:
    """Nothing waits to be logged, and no gap stands in the log twice."""
    log = await place.log()
    moved = Counter((one["project"], one["task"]) for one in log if one["kind"] == "lake")
    for key, pointer in (await pointers(place)).items():
        if moved[key] != pointer.sequence:
            return f"{key}: {moved[key]} moves in the log, {pointer.sequence} in the lake"
    once = Counter((one["task"], one["run"]) for one in log if one["kind"] == "swept")
    assert set(once.values()) <= {1}
    return None


@pytest.mark.parametrize("seed", seeds(0.05))
async def test_with_a_tenth_of_the_webhooks_lost_one_reconcile_makes_all_agree(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    async with clinic(tmp_path) as place:
        place.start("run", "run")
        await place.listening()
        begin(place)
        await place.post_all([one for one in place.webhooks() if rng.random() >= 0.1])
        first = await place.run("backfill")
        assert first.returncode == 0, first.stderr
        await until(lambda: disagreement(place))
        untold = min(place.cast.redbrick.projects[place.cast.redbrick.project_id].tasks)
        go_on(place, rng)
        assert untold not in {task for _, task, _ in stages(place)}, "it was deleted"
        told = [one for one in place.webhooks() if untold.encode() not in one.body]
        await place.post_all([one for one in told if rng.random() >= 0.1])
        again = await place.run("reconcile", "--full")
        assert again.returncode == 0, again.stderr
        assert f"{TASKS - TASKS // 6} seen" in again.stdout
        assert " missing" in again.stdout
        await until(lambda: disagreement(place))
        await until(lambda: swept_once(place))
        quiet = await place.run("reconcile", "--full", "--dry-run")
        assert quiet.stdout.count("0 to look at") == 2, quiet.stdout
        assert await place.stop("run") == 0
    assert not (await verify(DirectoryStore(tmp_path / "lake"))).findings


async def test_without_any_webhook_the_periodic_sweep_finds_everything(tmp_path: Path) -> None:
    often = {"GROUNDWIRE_SWEEP__EVERY_S": "0.5", "GROUNDWIRE_SWEEP__FULL_EVERY_S": "30"}
    async with clinic(tmp_path, **often) as place:
        begin(place)
        place.start("run", "run")
        await until(lambda: disagreement(place))
        go_on(place, random.Random(1))
        await until(lambda: disagreement(place))
        assert await place.stop("run") == 0
        assert not [one for one in await place.log() if one["kind"] == "receipt"]


async def test_a_backfill_that_is_killed_goes_on_under_its_own_name(tmp_path: Path) -> None:
    """It waits for somebody to export what the first source has, and is killed there; then it is
    interrupted."""
    async with clinic(tmp_path, GROUNDWIRE_SWEEP__MOST_WAITING="1") as place:
        begin(place)
        place.start("backfill", "backfill")
        await until(lambda: waiting(place, "backfill"))
        place.kill("backfill")
        begun = await unfinished_run(place)
        place.start("again", "backfill", "labelbox")
        await until(lambda: waiting(place, "again"))
        place.processes["again"].send_signal(signal.SIGINT)
        assert await asyncio.to_thread(place.processes["again"].wait, 10) == 130
        assert "Traceback" not in (place.directory / "again.log").read_text()
        place.start("run", "run")
        again = await place.run("backfill")
        assert again.returncode == 0, again.stderr
        await until(lambda: disagreement(place))
        await until(lambda: swept_once(place))
        runs = {
            one["run"]
            for one in await place.log()
            if one["kind"] == "swept" and one["source"] == "labelbox"
        }
        assert runs == {begun}


async def waiting(place: House, name: str) -> str | None:
    said = (place.directory / f"{name}.log").read_text()
    return None if "wait to be exported" in said else f"it said {said!r}"


async def unfinished_run(place: House) -> str:
    stored = await place.store.read(state_key("labelbox"))
    assert stored is not None
    run = decode(stored.data, State).projects[place.cast.labelbox.project_id].run
    assert run is not None
    return run.id
