"""Memory ends at any allocation: the process lives on or dies, and what was accepted is exported,
logged once, and nothing is buried for want of memory."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.log.read import entries
from tests.fakes_platform import event
from tests.faults.memory_child import shop_of
from tests.faults.worker_shop import working
from tests.seeds import seeds

TASKS = 4
PATIENCE_S = 4.0  # after which one that goes on for want of memory is killed


def child(folder: Path, megabytes: int, within_s: float) -> bool:
    """Whether it emptied the lanes."""
    command = [sys.executable, "-m", "tests.faults.memory_child"]
    process = subprocess.Popen(
        [*command, str(folder), str(megabytes), str(TASKS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(within_s) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", seeds(0.05))
async def test_no_memory_is_no_fault_of_an_event(seed: int, tmp_path: Path) -> None:
    lot = random.Random(seed)
    shop = shop_of(tmp_path, TASKS)
    accepted = {f"t{number}": event(f"t{number}") for number in range(TASKS)}
    await shop.queue.open()
    await shop.queue.put(list(accepted.values()))
    await shop.queue.close()
    ended = [
        await asyncio.to_thread(child, tmp_path, megabytes, PATIENCE_S)
        for megabytes in sorted(lot.randrange(2, 80) for _ in range(2))
    ]
    last = shop_of(tmp_path, TASKS)
    async with working(last):
        await last.idle()
        ids = {one.id for one in accepted.values()}
        await last.assert_nothing_lost(ids, dict.fromkeys(accepted, "Label"))
        for task in accepted:
            assert (await last.pointer(task)).revision is not None
        log = [one.data async for one in entries(last.store)]
    short = [one["reason"] for one in log if one["kind"] == "failed"]
    assert not all(ended) or short, "there was memory all the time"
