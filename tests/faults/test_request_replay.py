"""A signed request that somebody sends again: at once, and to a receiver that has forgotten it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from consumer.app import LANES, make_queue
from consumer.settings import load
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house, until
from tests.seeds import seeds

TIMES = 8


@pytest.mark.parametrize("seed", seeds(0.05))
async def test_a_replayed_request_makes_no_new_receipt_and_moves_nothing(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    async with house(tmp_path, DirectoryStore(tmp_path / "lake"), seed=f"replay-{seed}") as place:
        place.start("run", "run")
        await place.listening()
        for name in ("one", "two"):
            place.cast.redbrick.label(place.cast.redbrick.create_task(name))
            place.cast.labelbox.submit(place.cast.labelbox.create_row(name))
        told = place.webhooks()
        assert {post.source for post in told} == {"redbrick", "labelbox"}
        await place.post_all(told)
        await until(lambda: _receipts(place, len(told)))
        await until(lambda: _settled(place))
        before, lake = await _log(place), _pointers(tmp_path)
        assert lake

        await place.post_all([chance.choice(told) for _ in range(TIMES)])  # within minutes
        assert await place.stop("run") == 0
        place.start("run", "run")  # remembers nothing
        await place.listening()
        await place.post_all([chance.choice(told) for _ in range(TIMES)])
        new = place.cast.redbrick.create_task("three")  # whatever came before it is worked on first
        await place.post_all(place.webhooks())
        await until(lambda: _exported(place, new))
        await until(lambda: _settled(place))

        after = await _log(place)
        assert {key: after[key] for key in before} == before
        assert all(count == 1 for count in after.values())
        pointers = _pointers(tmp_path)
        assert {path: pointers[path] for path in lake} == lake


async def _log(place: House) -> Counter[tuple[str, str]]:
    """How often each receipt, and each move of each task, stands in the log."""
    entries = await place.log()
    kinds = [entry for entry in entries if entry["kind"] in ("receipt", "lake", "history")]
    return Counter((entry["kind"], entry["id"]) for entry in kinds)


async def _receipts(place: House, least: int) -> str | None:
    receipts = [key for key in await _log(place) if key[0] == "receipt"]
    return None if len(receipts) >= least else f"{len(receipts)} receipts of {least}"


async def _exported(place: House, task: str) -> str | None:
    project = place.cast.redbrick.project_id
    return None if await place.pointer(project, task) else f"{task} has no pointer"


async def _settled(place: House) -> str | None:
    """Nothing waits in any lane."""
    queue = make_queue(load(place.configuration, place.environment))
    await queue.open()
    try:
        depths = [await queue.depth(lane) for lane in LANES]
    finally:
        await queue.close()
    left = sum(depth.ready + depth.leased + depth.waiting for depth in depths)
    return f"{left} messages wait" if left else None


def _pointers(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (folder / "lake").rglob("current.json")}
