"""A table that somebody else wrote to, changed or damaged, and what an operator is told."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from consumer.errors import Permanent, Transient
from handlers.table import Tuning
from handlers.table_schema import SCHEMA
from tests.handlers.table_house import (
    TableHouse,
    begun,
    by_duckdb,
    feed,
    indices,
    table_house,
    versions,
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[TableHouse]:
    """With three rows in its table."""
    async with table_house(tmp_path / "revisions") as made:
        await made.moves(3)
        await made.up_to_date()
        yield made


def append(place: Path, **columns: Any) -> None:
    """A row of somebody else's."""
    row = {"project_key": "elsewhere", "task": "theirs", **columns}
    write_deltalake(str(place), pa.Table.from_pylist([row], schema=SCHEMA), mode="append")


def ours(house: TableHouse) -> list[int]:
    return [i for i in indices(by_duckdb(house.place)) if i is not None]


def snapshot_of(place: Path) -> dict[str, bytes]:
    return {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()}


async def refusal(house: TableHouse) -> Permanent:
    """What the table says, and that it left everything as it was."""
    before = snapshot_of(house.place)
    await house.moves(1)
    with pytest.raises(Permanent) as caught:
        await house.catch_up(house.table())
    assert snapshot_of(house.place) == before
    assert str(house.place) not in caught.value.message
    return caught.value


# What is tolerated


async def test_rows_that_somebody_appends_between_ours_are_left_alone(house: TableHouse) -> None:
    table = house.table()
    await begun(table)
    position = 3
    for _ in range(3):
        append(house.place)
        await house.moves(2)
        _, position = await feed(house, table, position)
    moves = [e.index for e in await house.tail.read(0, position) if e.data["kind"] == "lake"]
    assert ours(house) == moves
    assert len(moves) == 9
    assert len(by_duckdb(house.place)) == 12


async def test_somebody_else_s_commits_are_said_once(house: TableHouse) -> None:
    append(house.place)
    append(house.place)
    for _ in range(2):
        await begun(house.table())
    first, again = await house.records()
    assert first == again  # of one id: the log keeps the first
    assert first.kind == "foreign"
    assert (first.fields["follower"], first.fields["place"]) == ("table", "tables/revisions")
    assert (first.fields["versions"], first.fields["operations"]) == ([2, 3], ["WRITE"])
    await house.moves(1)
    await house.up_to_date()
    await begun(house.table())
    assert {one.id for one in await house.records()} <= {first.id}


async def test_our_own_commits_are_nobody_else_s(house: TableHouse) -> None:
    tuning = Tuning(rows=1, commit_every_s=0, upkeep_every=2, many=1)
    await house.moves(8)
    await house.catch_up(house.table(tuning=tuning))
    await begun(house.table())
    assert await house.records() == []


async def test_what_somebody_calls_a_commit_is_no_text_of_ours(house: TableHouse) -> None:
    commit = house.place / "_delta_log" / f"{2:020d}.json"
    commit.write_text('{"commitInfo":{"operation":"<b>J. Doe</b>"}}\n')
    await begun(house.table())
    (record,) = await house.records()
    assert record.fields["operations"] == ["UNKNOWN"]


async def test_somebody_else_s_compaction_changes_nothing(house: TableHouse) -> None:
    await house.moves(1)
    await house.up_to_date()
    rows = by_duckdb(house.place)
    DeltaTable(str(house.place)).optimize.compact()
    assert by_duckdb(house.place) == rows
    await house.moves(1)
    assert (await house.up_to_date())[:4] == rows


async def test_a_commit_cut_short_by_a_power_failure_loses_no_row(house: TableHouse) -> None:
    """The newest commit is there, and empty."""
    rows = by_duckdb(house.place)
    (house.place / "_delta_log" / f"{versions(house.place)[-1]:020d}.json").write_bytes(b"")
    assert by_duckdb(house.place) == []
    assert await house.up_to_date() == rows


# What is refused, and left as it is


async def test_a_table_of_another_log_is_refused(house: TableHouse, tmp_path: Path) -> None:
    async with table_house(house.place, origin="example.org/another") as other:
        said = await refusal(other)
    assert said.reason == "table-of-another-log"
    assert "example.org/another" in said.message
    assert "example.org/ground-truth" in said.message


async def test_a_log_begun_anew_under_one_origin_is_another(house: TableHouse) -> None:
    async with table_house(house.place) as other:
        await other.see("quite-another-task")
        assert (await refusal(other)).reason == "table-of-another-log"


async def test_a_delta_table_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "theirs"), pa.table({"x": [1]}))
    async with table_house(tmp_path / "theirs") as house:
        said = await refusal(house)
    assert said.reason == "table-not-ours"
    assert "move it away" in said.message


def with_a_column(place: Path) -> None:
    row = {"project_key": "p", "colour": "red"}
    write_deltalake(str(place), pa.Table.from_pylist([row]), mode="append", schema_mode="merge")


def removable(place: Path) -> None:
    DeltaTable(str(place)).alter.set_table_properties({"delta.appendOnly": "false"})


def with_rows_taken_out(place: Path) -> None:
    """By a writer that heeds no property."""
    log = place / "_delta_log"
    add = next(one for one in (log / f"{1:020d}.json").read_text().splitlines() if '{"add"' in one)
    path = add.split('"path":"')[1].split('"')[0]
    action = '{"remove":{"path":"%s","deletionTimestamp":1,"dataChange":%s}}\n'
    (log / f"{2:020d}.json").write_text(action % (path, "true"))


def with_rows_mislaid(place: Path) -> None:
    """As if it were compaction, which it is not."""
    with_rows_taken_out(place)
    commit = place / "_delta_log" / f"{2:020d}.json"
    commit.write_text(commit.read_text().replace("true", "false"))


def with_rows_doubled(place: Path) -> None:
    """As two compactions at the same time leave it, which delta-rs lets happen."""
    (file,) = place.glob("*/*.parquet")
    shutil.copy(file, file.with_name("again.parquet"))
    log = place / "_delta_log"
    add = next(one for one in (log / f"{1:020d}.json").read_text().splitlines() if '{"add"' in one)
    again = add.replace('"dataChange":true', '"dataChange":false')
    path = again.split('"path":"')[1].split('"')[0]
    folder = path.rpartition("/")[0]
    (log / f"{2:020d}.json").write_text(again.replace(path, f"{folder}/again.parquet") + "\n")


def with_our_transaction(place: Path) -> None:
    log = DeltaTable(str(place)).metadata().configuration["groundwire.log"]
    theirs = CommitProperties(app_transactions=[Transaction(f"groundwire {log}", 99)])
    row = pa.Table.from_pylist([{"project_key": "p"}], schema=SCHEMA)
    write_deltalake(str(place), row, mode="append", commit_properties=theirs)


def with_an_unreadable_commit(place: Path) -> None:
    (place / "_delta_log" / f"{1:020d}.json").write_text("{no JSON")


def with_a_commit_missing(place: Path) -> None:
    append(place)
    (place / "_delta_log" / f"{1:020d}.json").unlink()


def with_an_emptied_commit(place: Path) -> None:
    append(place, log_index=None)
    newest = DeltaTable(str(place))
    mark = CommitProperties(custom_metadata={"groundwire": {"rows": 3}})
    row = pa.Table.from_pylist([{"project_key": "p"}], schema=SCHEMA)
    write_deltalake(newest, row, mode="append", commit_properties=mark)
    (place / "_delta_log" / f"{1:020d}.json").write_bytes(b"")


def with_an_unreadable_checkpoint(place: Path) -> None:
    DeltaTable(str(place)).create_checkpoint()
    (file,) = (place / "_delta_log").glob("*.checkpoint.parquet")
    file.write_bytes(b"PAR1")


def with_features_of_the_future(place: Path) -> None:
    protocol = '{"protocol":{"minReaderVersion":99,"minWriterVersion":99}}\n'
    (place / "_delta_log" / f"{2:020d}.json").write_text(protocol)


def with_features_that_only_writers_need(place: Path) -> None:
    protocol = '{"protocol":{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["new"]}}\n'
    (place / "_delta_log" / f"{2:020d}.json").write_text(protocol)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (with_a_column, "table-schema-changed"),
        (removable, "table-not-append-only"),
        (with_rows_taken_out, "table-changed"),
        (with_rows_mislaid, "table-rows-missing"),
        (with_rows_doubled, "table-rows-doubled"),
        (with_our_transaction, "table-changed"),
        (with_an_unreadable_commit, "table-damaged"),
        (with_a_commit_missing, "table-damaged"),
        (with_an_emptied_commit, "table-rows-missing"),
        (with_an_unreadable_checkpoint, "table-damaged"),
        (with_features_of_the_future, "table-unsupported"),
        (with_features_that_only_writers_need, "table-unsupported"),
    ],
)
async def test_a_table_that_is_not_as_we_made_it_is_refused_and_left_alone(
    house: TableHouse, damage: Callable[[Path], None], reason: str
) -> None:
    damage(house.place)
    assert (await refusal(house)).reason == reason


async def test_what_was_refused_and_moved_away_is_built_anew(house: TableHouse) -> None:
    rows = by_duckdb(house.place)
    with_an_unreadable_commit(house.place)
    await refusal(house)
    shutil.move(house.place, house.place.with_name("away"))
    assert (await house.up_to_date())[:3] == rows


async def test_a_schema_changed_while_the_table_is_followed_is_refused(house: TableHouse) -> None:
    table = house.table()
    await begun(table)
    with_a_column(house.place)
    await house.moves(1)
    with pytest.raises(Permanent) as caught:
        await feed(house, table, 3)
    assert caught.value.reason == "table-schema-changed"
    assert max(versions(house.place)) == 2


async def test_nobody_can_take_rows_out_without_saying_so_first(house: TableHouse) -> None:
    """The table tells every writer that keeps to Delta's protocol."""
    with pytest.raises(DeltaError):
        DeltaTable(str(house.place)).delete()
    rows = pa.Table.from_pylist([{"project_key": "p"}], schema=SCHEMA)
    with pytest.raises(DeltaError):
        write_deltalake(str(house.place), rows, mode="overwrite")
    assert ours(house) == [0, 1, 2]


async def test_a_place_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "revisions").write_text("a file")
    async with table_house(tmp_path / "revisions" / "deeper") as house:
        await house.moves(1)
        with pytest.raises(Transient) as caught:
            await house.catch_up(house.table())
    assert str(tmp_path) not in caught.value.message
