"""Whatever fails or is killed on the way, each entry of the log is in the table exactly once."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from consumer.errors import GroundwireError, Transient
from consumer.ports import Cursor
from consumer.stores.directory import DirectoryStore
from handlers.table import Table, TablePlace, Tuning
from handlers.table_schema import SCHEMA, TABLE
from tests.fakes_platform import nifti_label
from tests.fakes_store import Fault, FaultyStore, each_call_once
from tests.handlers.table_house import (
    Folder,
    Rows,
    TableHouse,
    WithTable,
    by_duckdb,
    indices,
    table_house,
)

TUNING = Tuning(rows=2, commit_every_s=0.0, upkeep_every=2, many=1, retention_h=0)
MOVES = 4
STEPS = {
    "look", "table_of", "create", "append", "crowded", "joined", "replaced", "checkpoint", "vacuum",
}  # fmt: skip
KILLS, SEED = 4, 20260102


class Crash(BaseException):
    """Nothing catches it: the process died there."""


class FaultySteps:
    """Steps upon the table, in a thread, whose n-th fails as the plan says."""

    def __init__(self, plan: Mapping[int, Fault], error: Callable[[], BaseException]) -> None:
        self.names: list[str] = []
        self.failed: list[str] = []
        self._plan = plan
        self._error = error

    async def __call__(self, step: Callable[..., Any], *args: Any, **named: Any) -> Any:
        self.names.append(step.__name__)
        fault = self._plan.get(len(self.names))
        if fault is Fault.BEFORE:
            self._fail()
        result = await asyncio.to_thread(step, *args, **named)
        if fault is Fault.AFTER:
            self._fail()
        return result

    def _fail(self) -> None:
        self.failed.append(self.names[-1])
        raise self._error()


def lost() -> BaseException:
    return Transient("table-store", "the answer was lost", shared=True)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[TableHouse]:
    async with table_house(tmp_path / "revisions") as made:
        for number in range(MOVES):
            await made.see(f"task-{number % 3}", labels=(nifti_label(version=f"v{number}"),))
        assert await made.tail.size() == MOVES
        yield made


async def follow_all(house: TableHouse, make: Callable[[], Table]) -> None:
    """As the loop does: whoever fails is started again, whoever died is made anew. Two days pass
    in the middle, so that there is something to vacuum."""
    table, cursor = make(), Cursor(0, {"vacuumed_at": "2025-12-01T00:00:00.000000Z"})
    for _ in range(4):
        try:
            await house.catch_up(table, cursor=cursor, batch=3)
            return
        except Crash:
            table = make()
        except GroundwireError:
            continue
    raise AssertionError("still failing")


async def truth(house: TableHouse, place: Path) -> Rows:
    """What there is without any fault."""
    rows = await house.up_to_date(place=place)
    assert indices(rows) == list(range(MOVES))
    return rows


@pytest.mark.parametrize("error", [pytest.param(lost, marks=pytest.mark.chaos), Crash])
async def test_every_step_upon_the_table_fails_once(
    house: TableHouse, tmp_path: Path, error: Callable[[], BaseException]
) -> None:
    rows = await truth(house, tmp_path / "plain")

    async def play(plan: Mapping[int, Fault]) -> FaultySteps:
        shutil.rmtree(house.place, ignore_errors=True)
        steps = FaultySteps(plan, error)
        place = TablePlace(str(house.place))
        await follow_all(
            house,
            lambda: Table(house.table_ports(house.place), lambda: place, TUNING, run=steps),
        )
        assert by_duckdb(house.place) == rows
        assert await house.records() == []
        return steps

    whole = await play({})
    assert set(whole.names) == STEPS
    for plan in each_call_once(len(whole.names)):
        assert len((await play(plan)).failed) == 1


@pytest.mark.parametrize("error", [lost, pytest.param(Crash, marks=pytest.mark.chaos)])
async def test_every_store_call_of_the_table_fails_once(
    house: TableHouse, tmp_path: Path, error: Callable[[], BaseException]
) -> None:
    rows = await truth(house, tmp_path / "plain")

    async def play(plan: Mapping[int, Fault]) -> FaultyStore:
        shutil.rmtree(house.place, ignore_errors=True)
        store = FaultyStore(WithTable(house.store, Folder(house.place)), plan, error)
        ports = house.table_ports(house.place, store)
        place = TablePlace(str(house.place))
        await follow_all(house, lambda: Table(ports, lambda: place, TUNING))
        assert by_duckdb(house.place) == rows
        return store

    calls = (await play({})).calls
    assert calls > 6  # three manifests, and the table's own log at each look
    for plan in each_call_once(calls):
        assert len((await play(plan)).failed) == 1


async def test_a_queue_that_fails_holds_our_commit_until_somebody_else_s_is_said(
    house: TableHouse,
) -> None:
    await house.up_to_date()
    row = pa.Table.from_pylist([{"project_key": "p"}], schema=SCHEMA)
    write_deltalake(str(house.place), row, mode="append")
    await house.moves(1)
    house.queue.failing = Transient("queue-down")
    with pytest.raises(Transient):
        await house.catch_up(house.table())
    house.queue.failing = None
    assert len(by_duckdb(house.place)) == MOVES + 1
    await house.catch_up(house.table())
    assert [one.kind for one in await house.records()] == ["foreign"]
    assert len(by_duckdb(house.place)) == MOVES + 2


async def test_a_process_killed_at_any_moment_doubles_and_loses_no_row(
    house: TableHouse, tmp_path: Path
) -> None:
    await house.moves(60)
    lake = tmp_path / "lake"
    place = lake / TABLE
    store = DirectoryStore(lake)
    for key, data in house.store.objects.items():
        await store.create(key, data)
    moments = random.Random(SEED)
    kills = 0
    while await run_for(lake, place, moments.uniform(0.0, 0.4) if kills < KILLS else 100.0):
        kills += 1
        if (place / "_delta_log").exists():
            found = indices(by_duckdb(place))
            assert found == list(range(len(found)))
    assert kills == KILLS
    rows = by_duckdb(place)
    assert indices(rows) == list(range(MOVES + 60))
    assert rows == await house.up_to_date(place=tmp_path / "replayed")


async def run_for(lake: Path, place: Path, seconds: float) -> bool:
    """A process that follows, killed so long after it began; False when it had ended by then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.table_child", str(lake), str(place),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"began\n"
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return True
    assert process.returncode == 0
    return False
