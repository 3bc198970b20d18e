"""The disk fills up at any moment, and has room again: what was accepted is there, nothing twice.

The kernel refuses to let any file grow beyond a limit (``RLIMIT_FSIZE``), for all files of this
process alike: queue, lake, log, index. Whoever is refused waits and tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from consumer.errors import Transient
from consumer.log.index import IdIndex
from consumer.telemetry import configure_logging
from tests.fakes_platform import event, nifti_label, snapshot
from tests.faults.worker_shop import Shop, working
from tests.seeds import seeds

TASKS = ("one", "two", "three")
STAGES = ("Label", "Review_1", "END")


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[io.StringIO]:
    """As a process has them: a line that cannot be written harms nobody."""
    lines = io.StringIO()
    configure_logging(stream=lines)
    yield lines
    structlog.reset_defaults()


@contextlib.contextmanager
def full(limit_bytes: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("seed", seeds(0.15))
async def test_what_was_accepted_before_the_disk_was_full_is_there_when_it_has_room(
    seed: int, tmp_path: Path
) -> None:
    lot = random.Random(seed)
    shop = Shop(tmp_path)
    accepted: set[str] = set()
    at: dict[str, str] = {}

    async def changes(task: str, number: int) -> None:
        at[task] = lot.choice(STAGES)
        label = nifti_label(f"label-{task}", version=f"v{number}")
        shop.platform.tasks[task] = snapshot(task, stage=at[task], labels=(label,))
        told = event(task, name=f"e{number}")
        while True:
            try:
                await shop.queue.put([told])
            except Transient:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                continue
            accepted.add(told.id)
            return

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with working(shop):
        try:
            for number in range(12):
                if lot.random() < 0.5:
                    resource.setrlimit(
                        resource.RLIMIT_FSIZE, (lot.choice((0, 600, 3_000, 20_000)), limits[1])
                    )
                await changes(lot.choice(TASKS), number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(lot.random() / 20):
                        await shop.idle()
                if lot.random() < 0.5:
                    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        await shop.idle()
        await shop.assert_nothing_lost(accepted, at)


async def test_a_full_disk_refuses_an_event_rather_than_promise_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with working(shop):
        shop.platform.tasks["one"] = snapshot("one")
        with full(0), pytest.raises(Transient) as caught:
            await shop.queue.put([event("one", name="e1")])
        assert caught.value.reason == "queue-unavailable"
        await shop.queue.put([event("one", name="e2")])
        await shop.idle()
        await shop.assert_nothing_lost({"one-e2"}, {"one": "Label"})


def test_an_index_on_a_full_disk_waits_and_forgets_nothing(tmp_path: Path) -> None:
    index = IdIndex(tmp_path / "index.db")
    index.extend(0, [b"a" * 16], b"root")
    with full(0), pytest.raises(Transient) as caught:
        index.extend(1, [b"b" * 16], b"next")
    assert caught.value.reason == "log-index-failed"
    assert index.covered() == (1, b"root")
    index.extend(1, [b"b" * 16], b"next")
    assert index.covered() == (2, b"next")
    index.close()
