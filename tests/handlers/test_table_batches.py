"""When rows are committed, and that each entry of the log is in the table exactly once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from consumer.errors import Conflict, Permanent, Transient
from consumer.ports import Batch, Cursor
from handlers.table import Tuning
from handlers.table_delta import Delta, TablePlace
from handlers.table_errors import Moved
from handlers.table_rows import move_of, row_of, table_of
from handlers.table_schema import SCHEMA
from tests.fakes_platform import nifti_label
from tests.handlers.table_house import (
    TableHouse,
    begun,
    by_duckdb,
    commits,
    feed,
    indices,
    table_house,
)

LOG = "example.org/log~0123456789ab"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[TableHouse]:
    async with table_house(tmp_path / "revisions") as made:
        yield made


def appended(place: Path) -> list[int]:
    """How many rows each commit of rows has."""
    found = [one for one in commits(place) if one["groundwire"]["did"] == "append"]
    return [one["operationMetrics"]["num_added_rows"] for one in found]


async def test_while_more_is_to_come_rows_are_gathered(house: TableHouse) -> None:
    await house.moves(25)
    await house.catch_up(house.table(tuning=Tuning(rows=10, commit_every_s=0)), batch=3)
    assert appended(house.place) == [10, 10, 5]
    assert indices(by_duckdb(house.place)) == list(range(25))


async def test_the_first_rows_after_a_pause_are_committed_at_once(house: TableHouse) -> None:
    table = house.table(tuning=Tuning())
    await house.moves(1)
    await begun(table)
    step, position = await feed(house, table, 0)
    assert (step.cursor.next, step.wake_s) == (1, None)
    house.pass_time(1.0)
    await house.moves(1)
    step, _ = await feed(house, table, position)
    assert (step.cursor.next, step.wake_s) == (2, None)


async def test_rows_that_follow_within_a_second_wait_for_its_end(house: TableHouse) -> None:
    table = house.table(tuning=Tuning())
    await house.moves(1)
    await begun(table)
    _, position = await feed(house, table, 0)
    for _ in range(4):
        house.pass_time(0.2)
        await house.moves(1)
        step, position = await feed(house, table, position)
        assert step.cursor.next == 1
    assert step.wake_s == pytest.approx(0.2)
    assert indices(by_duckdb(house.place)) == [0]
    house.pass_time(0.2)
    step, _ = await feed(house, table, position)
    assert (step.cursor.next, step.wake_s) == (5, None)
    assert appended(house.place) == [1, 4]


async def test_a_clock_that_is_set_back_holds_no_row_up(house: TableHouse) -> None:
    table = house.table(tuning=Tuning())
    await house.moves(1)
    await begun(table)
    _, position = await feed(house, table, 0)
    await house.moves(1)
    house.pass_time(-3600)
    step, _ = await feed(house, table, position)
    assert step.cursor.next == 2


async def test_a_commit_is_bounded_by_its_files_and_labels_too(house: TableHouse) -> None:
    for number in range(7):
        await house.see(f"task-{number}", labels=(nifti_label(),))
    first = (await house.up_to_date())[0]
    each = len(first["files"]) + len(first["labels"])
    place = house.place.with_name("other")
    await house.catch_up(house.table(place, Tuning(cells=2 * each, commit_every_s=0)))
    rows = by_duckdb(place)
    assert rows == by_duckdb(house.place)
    assert appended(place) == [2, 2, 2, 1]


async def test_entries_that_are_no_moves_make_no_commit(house: TableHouse) -> None:
    await house.moves(1)
    table = house.table()
    await house.catch_up(table)
    await house.say("swept", "1")
    step = await house.catch_up(table)
    assert step.cursor.next == 2
    assert appended(house.place) == [1]


async def test_the_table_is_its_own_cursor(house: TableHouse) -> None:
    await house.moves(3)
    table = house.table()
    await house.catch_up(table)
    for stored in (Cursor(0), Cursor(1), Cursor(3), Cursor(2**40)):
        assert (await house.table().start(stored)).next == 3
    await house.moves(2)
    await house.catch_up(house.table(), cursor=Cursor(0))
    assert indices(by_duckdb(house.place)) == list(range(5))


async def test_a_table_that_was_removed_is_built_anew_from_0(house: TableHouse) -> None:
    await house.moves(3)
    rows = await house.up_to_date()
    shutil.rmtree(house.place)
    assert (await house.table().start(Cursor(3))).next == 0
    assert await house.up_to_date() == rows


async def test_a_table_that_is_removed_while_it_is_followed_is_built_anew(
    house: TableHouse,
) -> None:
    table = house.table()
    await house.moves(3)
    await begun(table)
    _, position = await feed(house, table, 0)
    shutil.rmtree(house.place)
    await house.moves(2)
    with pytest.raises(Transient) as caught:
        await feed(house, table, position)
    assert caught.value.reason == "table-removed"
    assert indices(await house.up_to_date()) == list(range(5))


async def test_a_log_that_is_shorter_than_the_table_is_refused(house: TableHouse) -> None:
    await house.moves(1)
    entries = await house.tail.read(0, 1)
    table = house.table()
    await begun(table)
    await table.follow(Batch(entries, 0, 9, 9))
    with pytest.raises(Permanent) as caught:
        await begun(house.table())
    assert caught.value.reason == "table-ahead"


# Two writers


async def delta_with(house: TableHouse, *, rows: int) -> tuple[Delta, Any]:
    """A table with its first ``rows`` rows; and how to make rows of entries."""
    await house.moves(rows + 4)
    entries = await house.tail.read(0, rows + 4)

    def of(start: int, end: int) -> Any:
        return table_of([row_of(move_of(entry, LOG), None) for entry in entries[start:end]])

    delta = Delta(lambda: TablePlace(str(house.place)), LOG)
    delta.create()
    looked = delta.look()
    assert looked is not None
    delta.append(looked, of(0, rows), rows)
    return delta, of


async def test_of_two_handles_of_one_version_one_commits(house: TableHouse) -> None:
    """delta-rs itself lets both in: the second is put on top of the first, without a word."""
    delta, of = await delta_with(house, rows=2)
    looked = delta.look()
    assert looked is not None
    delta.append(looked, of(2, 4), 4)
    with pytest.raises(Moved):
        delta.append(looked, of(2, 4), 4)
    assert indices(by_duckdb(house.place)) == [0, 1, 2, 3]


async def test_a_commit_between_our_opening_and_our_commit_is_noticed(house: TableHouse) -> None:
    """The other handle commits after ours was opened and checked."""
    other, of = await delta_with(house, rows=2)
    looked = other.look()
    assert looked is not None
    standing = looked

    class Slow(Delta):
        def standing(self, table: DeltaTable, rows: int) -> Any:
            seen = super().standing(table, rows)
            if table.version() == standing.version:
                other.append(standing, of(2, 4), 4)
            return seen

    slow = Slow(lambda: TablePlace(str(house.place)), LOG)
    with pytest.raises(Moved):
        slow.append(standing, of(2, 4), 4)
    assert indices(by_duckdb(house.place)) == [0, 1, 2, 3]


async def test_nothing_of_ours_goes_on_top_of_what_nobody_looked_at(house: TableHouse) -> None:
    """Somebody else commits after our handle was opened and checked; delta-rs would go on."""
    delta, of = await delta_with(house, rows=2)
    standing = delta.look()
    assert standing is not None

    class Slow(Delta):
        def standing(self, table: DeltaTable, rows: int) -> Any:
            seen = super().standing(table, rows)
            row = pa.Table.from_pylist([{"project_key": "theirs"}], schema=SCHEMA)
            write_deltalake(str(house.place), row, mode="append")
            return seen

    slow = Slow(lambda: TablePlace(str(house.place)), LOG)
    with pytest.raises(Moved):
        slow.append(standing, of(2, 4), 4)
    assert [row["project_key"] for row in by_duckdb(house.place)].count("theirs") == 1
    assert len(by_duckdb(house.place)) == 3


async def test_a_follower_that_another_got_ahead_of_yields(house: TableHouse) -> None:
    await house.moves(2)
    first, second = house.table(), house.table()
    await begun(first)
    await begun(second)
    _, position = await feed(house, first, 0)
    await house.moves(2)
    await feed(house, first, position)
    entries = list(await house.tail.read(0, 3))
    with pytest.raises(Conflict):
        await second.follow(Batch(entries, 0, 3, 3))
    assert indices(by_duckdb(house.place)) == [0, 1, 2, 3]


async def test_a_follower_whose_rows_another_put_in_goes_on(house: TableHouse) -> None:
    """As after a commit whose answer was lost."""
    first, second = house.table(), house.table()
    await house.moves(2)
    await begun(first)
    await begun(second)
    await feed(house, first, 0)
    step, position = await feed(house, second, 0)
    assert step.cursor.next == 2
    await house.moves(1)
    await feed(house, second, position)
    assert indices(by_duckdb(house.place)) == [0, 1, 2]


async def test_two_followers_that_race_never_double_a_row(house: TableHouse) -> None:
    await house.moves(40)

    async def follow(rows: int) -> int:
        """As the loop does: whoever yields, begins again."""
        yielded = 0
        while True:
            try:
                await house.catch_up(
                    house.table(tuning=Tuning(rows=rows, commit_every_s=0, upkeep_every=3, many=2))
                )
                return yielded
            except (Conflict, Transient):
                yielded += 1

    yielded = await asyncio.gather(follow(3), follow(4), follow(5))
    assert sum(yielded) > 0
    assert indices(by_duckdb(house.place)) == list(range(40))
