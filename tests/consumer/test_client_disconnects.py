"""A reader whose connection breaks at random bytes, and whose server restarts: each change once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from consumer.changes import TaskChange
from consumer.client import changes
from consumer.ports import Store
from tests.consumer.streams import (
    PROJECTS,
    CuttingProxy,
    Served,
    mixed,
    moves,
    served,
    truths,
)
from tests.fakes_store import Fault, FaultyStore
from tests.seeds import seeds

CHANGES = 10_000
ENTRIES = mixed(16_000, seed=4)


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


async def read_all(url: str, wanted: list[int], **options: Any) -> list[TaskChange]:
    came: list[TaskChange] = []
    stream = changes(url, sleep=at_once, **options)
    async with aclosing(stream):
        async for change in stream:
            came.append(change)
            if change.index >= wanted[-1]:
                return came
    raise AssertionError("the stream never ends")


async def restarting(place: Served, proxy: CuttingProxy) -> None:
    """The server goes away and comes back, some thirty connections apart."""
    connections = 30
    while True:
        while proxy.connections < connections:
            await asyncio.sleep(0.001)
        await place.stop()
        await place.start()
        connections += 30


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"ground_truth": False}, moves(ENTRIES)[:CHANGES]),
        ({}, truths(ENTRIES)),
        ({"projects": ["p-1"]}, truths(ENTRIES, projects=["p-1"])),
    ],
    ids=["every move", "the ground truth", "one project"],
)
@pytest.mark.parametrize("seed", seeds(0.05))
async def test_a_reader_that_is_cut_off_at_random_sees_each_change_once_and_in_order(
    options: dict[str, Any], wanted: list[int], seed: int
) -> None:
    half = len(ENTRIES) // 2
    async with (
        served(*ENTRIES[:half], heartbeat_s=0.05) as place,
        CuttingProxy(place, seed, most_bytes=24_000) as proxy,
        asyncio.timeout(100),
    ):
        reading = asyncio.create_task(read_all(proxy.url, wanted, **options))
        restarts = asyncio.create_task(restarting(place, proxy))
        for start in range(half, len(ENTRIES), 500):
            await place.append(*ENTRIES[start : start + 500])
            await asyncio.sleep(0)
        came = await reading
        assert not restarts.done()
        restarts.cancel()
    assert [one.index for one in came] == wanted
    assert [one.task for one in came] == [ENTRIES[index]["task"] for index in wanted]
    assert proxy.connections > len(wanted) / 60


async def test_a_store_that_fails_again_and_again_costs_no_change() -> None:
    wanted = truths(ENTRIES[:3_000])
    failing: list[FaultyStore] = []

    def faulty(store: Store) -> Store:
        failing.append(FaultyStore(store, dict.fromkeys(range(2, 1_000, 3), Fault.BEFORE)))
        return failing[-1]

    async with served(*ENTRIES[:3_000], reads=faulty) as place, asyncio.timeout(60):
        came = await read_all(place.url, wanted)
    assert [one.index for one in came] == wanted
    assert len(failing[0].failed) > 5


def test_the_story_is_as_long_as_it_is_said_to_be() -> None:
    assert len(moves(ENTRIES)) >= CHANGES
    assert len(truths(ENTRIES)) > 5_000
    assert {ENTRIES[index]["project"] for index in truths(ENTRIES)} == set(PROJECTS)
