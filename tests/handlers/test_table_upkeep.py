"""Compaction, checkpoints and vacuum: every row stays once, and old versions stay readable."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from consumer.errors import Permanent
from consumer.ports import Cursor, LogEntry
from handlers.table import Tuning
from handlers.table_compact import compact, replaced
from handlers.table_delta import Delta, TablePlace
from handlers.table_rows import move_of, row_of, table_of
from handlers.table_upkeep import checkpoint, is_due
from tests.handlers.table_house import (
    Folder,
    TableHouse,
    WithTable,
    begun,
    by_duckdb,
    by_polars,
    checkpoints,
    did,
    feed,
    indices,
    table_house,
    versions,
)

OFTEN = Tuning(rows=1, commit_every_s=0, upkeep_every=5, many=3)
NEVER = Tuning(rows=1, commit_every_s=0, upkeep_every=10**6)
DAY = 86_400.0


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[TableHouse]:
    async with table_house(tmp_path / "revisions") as made:
        yield made


def files(place: Path) -> list[Path]:
    return sorted(place.glob("project_key=*/*.parquet"))


def files_now(place: Path) -> int:
    return len(DeltaTable(str(place)).file_uris())


async def test_small_files_become_larger_ones_and_every_row_stays_once(house: TableHouse) -> None:
    await house.moves(24)
    rows = await house.up_to_date(tuning=OFTEN)
    assert indices(rows) == list(range(24))
    assert rows == await house.up_to_date(place=house.place.with_name("plain"), tuning=NEVER)
    assert by_polars(house.place) == rows
    assert files_now(house.place) < 8
    assert len(files(house.place)) > 24  # what was replaced is still there
    assert "compact" in did(house.place)


async def test_a_partition_with_few_files_is_left_alone(house: TableHouse) -> None:
    await house.moves(12)
    await house.up_to_date(tuning=Tuning(rows=1, commit_every_s=0, upkeep_every=5, many=100))
    assert set(did(house.place)) == {"create", "append"}


async def test_checkpoints_are_made_and_the_table_is_read_from_them(house: TableHouse) -> None:
    await house.moves(24)
    rows = await house.up_to_date(tuning=OFTEN)
    assert len(checkpoints(house.place)) >= 3
    for version in range(checkpoints(house.place)[-1]):
        (house.place / "_delta_log" / f"{version:020d}.json").unlink()
    assert by_duckdb(house.place) == rows
    assert by_polars(house.place) == rows
    assert (await house.table().start(Cursor())).next == 24
    await house.moves(1)
    assert indices(await house.up_to_date()) == list(range(25))


async def test_a_table_whose_whole_log_is_one_checkpoint_goes_on(house: TableHouse) -> None:
    """As a month after the last commit, when Delta's own log was cleaned up."""
    await house.moves(3)
    await house.up_to_date()
    DeltaTable(str(house.place)).create_checkpoint()
    for version in versions(house.place)[:-1]:  # Delta keeps the one of the checkpoint
        (house.place / "_delta_log" / f"{version:020d}.json").unlink()
    await house.moves(3)
    await house.catch_up(house.table())
    assert indices(by_polars(house.place)) == list(range(6))


async def test_every_version_before_compaction_is_still_read(house: TableHouse) -> None:
    await house.moves(11)
    await house.up_to_date(tuning=OFTEN)
    done = 0
    for version, what in zip(versions(house.place), did(house.place), strict=True):
        done += what == "append"
        table = DeltaTable(str(house.place), version=version)
        assert sorted(table.to_pyarrow_table()["log_index"].to_pylist()) == list(range(done))
        assert indices(by_duckdb(house.place, version)) == list(range(done))
    assert "compact" in did(house.place)


async def test_the_table_stays_append_only(house: TableHouse) -> None:
    await house.moves(24)
    await house.up_to_date(tuning=OFTEN)
    configuration = DeltaTable(str(house.place)).metadata().configuration
    assert configuration["delta.appendOnly"] == "true"
    assert configuration["delta.deletedFileRetentionDuration"] == "interval 168 hours"


async def test_what_is_replaced_is_kept_for_a_week(house: TableHouse) -> None:
    table = house.table(tuning=OFTEN)
    await house.moves(12)
    step = await house.catch_up(table)
    replaced = set(files(house.place))
    house.pass_time(2 * DAY)
    await house.moves(12)
    await house.catch_up(table, cursor=step.cursor)
    assert replaced <= set(files(house.place))


async def test_what_was_replaced_a_week_ago_goes_and_no_row_with_it(house: TableHouse) -> None:
    """Delta looks at the machine's own clock: so the week is made to be no time at all."""
    tuning = Tuning(rows=1, commit_every_s=0, upkeep_every=5, many=3, retention_h=0)
    table = house.table(tuning=tuning)
    await house.moves(12)
    step = await house.catch_up(table)
    before = set(files(house.place))
    house.pass_time(2 * DAY)
    await house.moves(12)
    step = await house.catch_up(table, cursor=step.cursor)
    assert len(before - set(files(house.place))) > 6
    rows = by_duckdb(house.place)
    assert indices(rows) == list(range(24))
    assert by_polars(house.place) == rows
    assert await house.records() == []  # what upkeep commits is ours


async def test_vacuum_comes_once_a_day(house: TableHouse) -> None:
    tuning = Tuning(rows=1, commit_every_s=0, upkeep_every=2, many=2, retention_h=0)
    table = house.table(tuning=tuning)
    times = []
    cursor = Cursor()
    for _ in range(4):
        await house.moves(6)
        cursor = (await house.catch_up(table, cursor=cursor)).cursor
        times.append(cursor.state["vacuumed_at"])
        house.pass_time(0.6 * DAY)
    assert times[0] == times[1] < times[2] == times[3]
    assert did(house.place).count("vacuum") == 2  # its start and its end


async def test_files_that_are_not_of_the_table_are_never_removed(house: TableHouse) -> None:
    tuning = Tuning(rows=1, commit_every_s=0, upkeep_every=2, many=2, retention_h=0)
    table = house.table(tuning=tuning)
    await house.moves(6)
    cursor = (await house.catch_up(table)).cursor
    theirs = house.place / "notes.txt"
    theirs.write_text("keep me")
    os.utime(theirs, (time.time() - 30 * DAY,) * 2)
    house.pass_time(2 * DAY)
    await house.moves(6)
    await house.catch_up(table, cursor=cursor)
    assert theirs.read_text() == "keep me"
    (record,) = await house.records()
    assert (record.kind, record.fields["operations"]) == ("foreign", ["FILES"])
    assert "notes" not in json.dumps(record.fields)


async def test_compaction_beside_another_s_commit_is_put_off(house: TableHouse) -> None:
    await house.moves(6)
    await house.up_to_date(tuning=NEVER)
    delta = Delta(lambda: TablePlace(str(house.place)), await house.tail.identity())
    looked = delta.look()
    assert looked is not None
    await house.moves(1)
    await house.up_to_date(tuning=NEVER)
    before = versions(house.place)
    lake = WithTable(house.store, Folder(house.place))
    await compact(delta, looked, lake, asyncio.to_thread, many=2)
    checkpoint(delta, looked)
    assert (versions(house.place), checkpoints(house.place)) == (before, [])
    assert indices(by_duckdb(house.place)) == list(range(7))


async def test_of_two_compactions_of_one_version_one_is_done(house: TableHouse) -> None:
    """With delta-rs's own both are, and every row is there twice."""
    await house.moves(6)
    rows = await house.up_to_date(tuning=NEVER)
    delta = Delta(lambda: TablePlace(str(house.place)), await house.tail.identity())
    looked = delta.look()
    assert looked is not None
    lake = WithTable(house.store, Folder(house.place))

    async def beside(step: Callable[..., Any], *args: Any) -> Any:
        """The other compaction comes just before this one commits."""
        if step is replaced:
            await compact(delta, looked, lake, asyncio.to_thread, many=2)
        return await asyncio.to_thread(step, *args)

    await compact(delta, looked, lake, beside, many=2)
    assert by_duckdb(house.place) == rows
    assert (did(house.place).count("compact"), files_now(house.place)) == (1, 1)


async def test_joined_files_tell_readers_what_they_hold(house: TableHouse) -> None:
    """What lets a reader skip them."""
    for number in range(6):
        house.pass_time(1.25)
        await house.moves(1, task=f"task-{number}")
    await house.up_to_date(tuning=NEVER)
    before = statistics(house.place)
    await house.moves(1)
    await house.up_to_date(tuning=Tuning(rows=1, commit_every_s=0, upkeep_every=1, many=2))
    (joined,) = statistics(house.place)
    assert (joined["num_records"], joined["min.log_index"], joined["max.log_index"]) == (7, 0, 6)
    for name in ("logged_at", "task", "source", "sequence"):
        assert joined[f"min.{name}"] == min(one[f"min.{name}"] for one in before)
    assert joined["null_count.revision"] == 7
    early = polars.scan_delta(str(house.place)).filter(polars.col("log_index") < 3).collect()
    assert sorted(early["log_index"]) == [0, 1, 2]


async def test_a_file_that_is_damaged_is_not_joined(house: TableHouse) -> None:
    await house.moves(6)
    await house.up_to_date(tuning=NEVER)
    files(house.place)[0].write_bytes(b"PAR1 no more")
    before = versions(house.place)
    await house.moves(1)
    with pytest.raises(Permanent) as caught:
        await house.catch_up(
            house.table(tuning=Tuning(rows=1, commit_every_s=0, upkeep_every=1, many=2))
        )
    assert caught.value.reason == "table-damaged"
    assert versions(house.place) == [*before, len(before)]  # the new row is in, all the same


@pytest.mark.parametrize("key", ["a b+c&d=%41~@(1),x", "project-1"])
async def test_files_of_any_project_are_joined(house: TableHouse, key: str) -> None:
    """Their folder's name is escaped, and Delta's log escapes that once more."""
    await house.moves(4)
    entries = await house.tail.read(0, 4)
    log = await house.tail.identity()
    delta = Delta(lambda: TablePlace(str(house.place)), log)
    delta.create()
    for entry in entries:
        standing = delta.look()
        assert standing is not None
        moved = LogEntry(entry.index, {**entry.data, "project_key": key})
        delta.append(standing, table_of([row_of(move_of(moved, log), None)]), entry.index + 1)
    rows = by_duckdb(house.place)
    looked = delta.look()
    assert looked is not None
    lake = WithTable(house.store, Folder(house.place))
    await compact(delta, looked, lake, asyncio.to_thread, many=2)
    assert files_now(house.place) == 1
    assert by_duckdb(house.place) == rows
    assert {row["project_key"] for row in by_polars(house.place)} == {key}


def statistics(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pa.table(
        DeltaTable(str(place)).get_add_actions(flatten=True)
    ).to_pylist()
    return found


async def test_a_follower_goes_on_after_its_own_upkeep(house: TableHouse) -> None:
    table = house.table(tuning=OFTEN)
    await house.moves(1)
    await begun(table)
    position = 0
    for _ in range(20):
        step, position = await feed(house, table, position)
        assert step.cursor.next == position
        await house.moves(1)
    assert indices(by_duckdb(house.place)) == list(range(20))
    assert await house.records() == []


def test_a_turn_is_due_once_so_many_versions_were_made() -> None:
    assert [is_due(0, version, 20) for version in (1, 19, 20, 21)] == [False, False, True, True]
    assert [is_due(20, version, 20) for version in (20, 39, 40)] == [False, False, True]
