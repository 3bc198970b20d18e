"""The machine's clock is set by hours, back and forth, while people work: leases lapse and retries
come early or late, and still nothing is lost, nothing doubled, and the log's time never goes
back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer.log.log import TileLog
from consumer.log.read import entries
from tests.consumer.log.logs import ORIGIN, SIGNER, HandClock, numbered
from tests.fakes_platform import event, nifti_label, snapshot
from tests.fakes_store import FakeStore
from tests.faults.worker_shop import Shop, working
from tests.seeds import seeds

TASKS = ("one", "two", "three")
STAGES = ("Label", "Review_1", "END")
HOURS = (-48, -3, -1, 1, 3, 48)


class JumpingClock:
    """The real time, and so many hours more or less."""

    def __init__(self) -> None:
        self.hours = 0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=self.hours)


@pytest.mark.parametrize("seed", seeds(0.25))
async def test_a_clock_that_is_set_by_hours_loses_nothing(seed: int, tmp_path: Path) -> None:
    lot, clock = random.Random(seed), JumpingClock()
    shop = Shop(tmp_path, clock=clock)
    accepted: set[str] = set()
    at: dict[str, str] = {}
    async with working(shop):
        for number in range(10):
            task = lot.choice(TASKS)
            at[task] = lot.choice(STAGES)
            label = nifti_label(f"label-{task}", version=f"v{number}")
            shop.platform.tasks[task] = snapshot(task, stage=at[task], labels=(label,))
            told = event(task, name=f"e{number}")
            await shop.queue.put([told])
            accepted.add(told.id)
            clock.hours += lot.choice((0, lot.choice(HOURS)))
            await shop.idle()
        await shop.assert_nothing_lost(accepted, at)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / f"{number}.db" for number in range(99))


@pytest.mark.parametrize("seed", seeds())
async def test_the_logs_time_never_goes_back_whoever_writes_with_whatever_clock(
    seed: int, files: Iterator[Path]
) -> None:
    """Three writers, of which each dies now and then; and a year's jump is one as well."""
    lot, store = random.Random(seed), FakeStore()
    clocks = [HandClock() for _ in range(3)]
    writers: list[TileLog | None] = [None] * 3
    written = 0
    for _ in range(30):
        who = lot.randrange(3)
        clocks[who].move(lot.choice((0, 1, -1, 3600, -3600, -365 * 86400, 86400)))
        log = writers[who] or TileLog(
            store, signer=SIGNER, origin=ORIGIN, index_path=next(files), clock=clocks[who]
        )
        size = await log.append(numbered(range(max(0, written - 3), written + 4)))
        assert size == written + 4
        written = size
        writers[who] = log if lot.random() < 0.7 else None
        if writers[who] is None:
            await log.close()
    for one in filter(None, writers):
        await one.close()
    times = [one.data["logged_at"] async for one in entries(store)]
    assert len(times) == written == 120
    assert times == sorted(times)
    store.assert_sound()
