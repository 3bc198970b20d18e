"""Each move of a task is one row of the table, which holds what a reader of the lake needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from consumer.errors import Permanent, Transient
from consumer.model import Action, EventType, ExportRules, Missing
from consumer.ports import Cursor, LogEntry
from handlers.table_delta import Delta, TablePlace
from handlers.table_rows import move_of, partition, row_of, table_of
from handlers.table_schema import SCHEMA
from tests.fakes_platform import PROJECT, event, history_item, label_map_bytes, nifti_label
from tests.handlers.table_house import (
    Rows,
    TableHouse,
    by_duckdb,
    by_polars,
    indices,
    table_house,
)

APPROVED_AT = "2026-01-02T13:00:00.250000Z"
APPROVAL = history_item(EventType.ACCEPTED, APPROVED_AT, action=Action.APPROVE)
TRUTH: dict[str, Any] = {
    "labels": (nifti_label(),),
    "stage": "Ground Truth",
    "ground_truth": True,
    "history": (APPROVAL,),
}
SENT_BACK = history_item(EventType.REJECTED, "2026-01-02T14:00:00.000000Z", action=Action.REJECT)


@pytest.fixture(params=["redbrick", "labelbox"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TableHouse]:
    async with table_house(tmp_path / "revisions", kind=request.param) as made:
        yield made


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[TableHouse]:
    """Where the platform makes no difference."""
    async with table_house(tmp_path / "revisions") as made:
        yield made


async def last_row(house: TableHouse) -> dict[str, Any]:
    return (await house.up_to_date())[-1]


async def test_a_task_that_nobody_drew_in_is_a_row_without_files(house: TableHouse) -> None:
    await house.see(stage="Label")
    (row,) = await house.up_to_date()
    assert (row["change"], row["truth_change"], row["manifest"]) == ("moved", None, "none")
    assert (row["revision"], row["name"], row["files"], row["labels"]) == (None, None, None, None)
    assert (row["stage"], row["old_stage"], row["sequence"]) == ("Label", None, 1)


async def test_a_row_says_which_task_of_which_platform_it_is_of(house: TableHouse) -> None:
    await house.see("task-7", **TRUTH)
    row = await last_row(house)
    assert (row["platform"], row["source"]) == (house.kind, "clinic")
    assert (row["project"], row["project_key"], row["task"]) == (PROJECT, PROJECT, "task-7")
    assert (row["name"], row["caused_by"]) == ("study task-7", ["task-7-e1"])


async def test_an_exported_revision_names_its_files_as_its_manifest_does(house: TableHouse) -> None:
    await house.see(labels=(nifti_label(),))
    row, manifest = await last_row(house), await house.manifest()
    assert (row["change"], row["manifest"]) == ("exported", "read")
    assert row["revision"] == (await house.pointer()).revision
    for told, file in zip(row["files"], manifest.files, strict=True):
        assert (told["path"], told["key"], told["size"]) == (file.path, file.key, file.size)
        assert (told["sha256"], told["series"]) == (file.sha256, file.series)
        assert len(await house.bytes(told["key"])) == told["size"]
    mask = row["files"][-1]
    assert (mask["shape"], mask["geometry"], mask["label"]) == ([4, 5, 3], "affine", "label-1")
    assert [mask["affine"][at] for at in (0, 5, 10, 15)] == [1.0, 1.0, 2.0, 1.0]


async def test_labels_are_told_with_their_voxels(house: TableHouse) -> None:
    house.platform.masks["mask-2"] = label_map_bytes(2)
    labels = (nifti_label(), nifti_label("label-2", reference="mask-2"))
    await house.see(labels=labels)
    row = await last_row(house)
    found = {(one["label"], one["value"], one["category"], one["voxels"]) for one in row["labels"]}
    assert found == {("label-1", 1, "liver", 4), ("label-2", 2, "spleen", 4)}
    assert {one["path"] for one in row["labels"]} <= {one["path"] for one in row["files"]}
    assert {one["series"] for one in row["labels"]} == {"series1"}


async def test_an_approved_task_joins_the_ground_truth(house: TableHouse) -> None:
    await house.see(labels=(nifti_label(),), stage="Review")
    await house.see(**TRUTH)
    row = await last_row(house)
    assert (row["change"], row["truth_change"]) == ("moved", "added")
    assert (row["ground_truth"], row["was_ground_truth"]) == (True, False)
    assert (row["approved_by"], row["old_stage"]) == ("user-1", "Review")
    assert row["approved_at"] == datetime(2026, 1, 2, 13, 0, 0, 250_000, tzinfo=UTC)


async def test_new_masks_of_an_approved_task_change_the_ground_truth(house: TableHouse) -> None:
    await house.see(**TRUTH)
    first = (await house.pointer()).revision
    house.platform.masks["mask-1"] = label_map_bytes(2)
    await house.see(**{**TRUTH, "labels": (nifti_label(version="v2"),)})
    row = await last_row(house)
    assert (row["change"], row["truth_change"]) == ("exported", "changed")
    assert (row["old_revision"], row["revision"] != first) == (first, True)
    assert [one["category"] for one in row["labels"]] == ["spleen"]


async def test_a_rejected_task_leaves_the_ground_truth(house: TableHouse) -> None:
    await house.see(**TRUTH)
    await house.see(labels=(nifti_label(),), stage="Label", history=(APPROVAL, SENT_BACK))
    row = await last_row(house)
    assert (row["change"], row["truth_change"]) == ("retracted", "removed")
    assert (row["ground_truth"], row["was_ground_truth"]) == (False, True)
    assert (row["approved_by"], row["approved_at"]) == (None, None)


async def test_a_deleted_task_is_a_row_without_revision(house: TableHouse) -> None:
    await house.see(**TRUTH)
    del house.platform.tasks["task-1"]
    result = (await house.handle(event(name="e2", action=Action.DELETE)))[0]
    assert not isinstance(result, Missing | None)
    await house.queue.put([result])  # type: ignore[list-item]
    await house.write_log()
    row = await last_row(house)
    assert (row["change"], row["truth_change"], row["revision"]) == ("deleted", "removed", None)
    assert (row["manifest"], row["files"], row["ground_truth_reason"]) == ("none", None, "deleted")


async def test_of_several_labels_the_one_that_counts_is_told(one: TableHouse) -> None:
    labels = (nifti_label(), nifti_label("label-2"))
    await one.see(**{**TRUTH, "labels": labels, "ground_truth_label": "label-1"})
    await one.see(**{**TRUTH, "labels": labels, "ground_truth_label": "label-2"})
    row = await last_row(one)
    assert (row["ground_truth_label"], row["old_ground_truth_label"]) == ("label-2", "label-1")
    assert row["truth_change"] == "changed"


async def test_what_could_not_be_made_is_told_by_its_reason(tmp_path: Path) -> None:
    rules = ExportRules(formats=("nifti", "seg"))
    async with table_house(tmp_path / "revisions", rules=rules) as house:
        await house.see(labels=(nifti_label(),))
        row = await last_row(house)
        assert row["refused"]
        assert row["refused"] == list((await house.pointer()).outcome.move.refused)


async def test_times_are_those_of_the_log_and_never_decrease(one: TableHouse) -> None:
    for _ in range(3):
        one.pass_time(60.25)
        await one.moves(1)
    rows = await one.up_to_date()
    logged = [entry.data["logged_at"] for entry in await one.tail.read(0, 3)]
    assert [row["logged_at"] for row in rows] == [datetime.fromisoformat(at) for at in logged]
    assert logged == sorted(set(logged))


async def test_only_moves_are_rows_and_each_names_its_entry(one: TableHouse) -> None:
    await one.say("started", "1")
    await one.see(**TRUTH)
    await one.say("swept", "1")
    await one.moves(1, task="task-2")
    size = await one.tail.size()
    lake = [e.index for e in await one.tail.read(0, size) if e.data["kind"] == "lake"]
    assert indices(await one.up_to_date()) == lake
    assert len(lake) == 2 < size


async def test_other_engines_read_equal_rows(house: TableHouse) -> None:
    await history_of_three_tasks(house)
    rows = await house.up_to_date()
    assert len(rows) == 9
    assert by_polars(house.place) == rows
    assert by_delta_rs(house.place) == rows


async def test_replayed_from_0_into_another_place_all_columns_are_equal(
    house: TableHouse, tmp_path: Path
) -> None:
    live = house.table()
    for patient in ("a", "b"):
        await history_of_three_tasks(house, patient)
        await house.catch_up(live)
    rows = by_duckdb(house.place)
    assert len(rows) == 18
    assert set(rows[0]) == set(SCHEMA.names)
    assert await house.up_to_date(place=tmp_path / "replayed") == rows


async def test_a_manifest_that_is_gone_leaves_a_row_that_says_so(one: TableHouse) -> None:
    await one.see(**TRUTH)
    key = (await one.pointer()).manifest
    assert key is not None
    await one.store.delete(key)
    row = await last_row(one)
    assert (row["manifest"], row["name"], row["files"]) == ("gone", None, None)
    assert (row["manifest_key"], row["truth_change"]) == (key, "added")


@pytest.mark.parametrize("damage", [b"{}", b"no JSON", b"\xff", b"%b "])
async def test_a_damaged_manifest_stops_the_table_until_it_is_mended(
    one: TableHouse, damage: bytes
) -> None:
    """One byte more is damage, too."""
    await one.moves(1, task="task-0")
    await one.see(**TRUTH)
    key = (await one.pointer()).manifest
    assert key is not None
    whole = one.store.objects[key]
    one.store.objects[key] = damage.replace(b"%b", whole)
    for _ in range(2):
        with pytest.raises(Permanent) as caught:
            await one.catch_up(one.table())
        assert caught.value.reason == "manifest-damaged"
        assert key in caught.value.message
    assert [row["task"] for row in by_duckdb(one.place)] == ["task-0"]
    one.store.objects[key] = whole
    assert [row["task"] for row in await one.up_to_date()] == ["task-0", "task-1"]


async def test_a_manifest_is_read_once_while_its_task_moves_on(one: TableHouse) -> None:
    for stage in ("Label", "Review", "Ground Truth"):
        await one.see(labels=(nifti_label(),), stage=stage)
    key = (await one.pointer()).manifest
    table = one.table()
    await one.catch_up(table)
    await one.see(labels=(nifti_label(),), stage="Archive")
    one.store.calls.clear()
    await one.catch_up(table)
    assert ("read", key) not in one.store.verbs()
    assert len(by_duckdb(one.place)) == 4


@pytest.mark.parametrize(
    "damage",
    [{"logged_at": "yesterday"}, {"logged_at": None}, {"sequence": "x"}, {"change": "other"}],
)
async def test_an_entry_that_is_none_is_refused_by_its_index(
    one: TableHouse, damage: dict[str, Any]
) -> None:
    await one.moves(1)
    (entry,) = await one.tail.read(0, 1)
    with pytest.raises(Permanent) as caught:
        move_of(LogEntry(17, {**entry.data, **damage}), "log")
    assert caught.value.reason == "log-entry-malformed"
    assert "17" in caught.value.message


async def test_a_time_of_approval_that_is_none_is_left_out(one: TableHouse) -> None:
    await one.moves(1)
    (entry,) = await one.tail.read(0, 1)
    row = row_of(move_of(LogEntry(0, {**entry.data, "approved_at": "soon"}), "log"), None)
    assert row["approved_at"] is None


async def test_entries_of_before_a_field_was_there_are_rows_too(one: TableHouse) -> None:
    await one.moves(1)
    (entry,) = await one.tail.read(0, 1)
    old = {k: v for k, v in entry.data.items() if k not in ("platform", "approved_at", "nameless")}
    assert row_of(move_of(LogEntry(0, old), "log"), None)["platform"] == "clinic"


async def test_a_log_without_entries_is_waited_for(one: TableHouse) -> None:
    with pytest.raises(Transient):
        await one.table().start(Cursor())


async def test_every_column_explains_itself(one: TableHouse) -> None:
    await one.moves(1)
    await one.up_to_date()
    fields = DeltaTable(str(one.place)).schema().fields
    assert [field.name for field in fields] == SCHEMA.names
    assert all(field.metadata["comment"] for field in fields)


@pytest.mark.parametrize(
    "key", ["a b+c&d=%41~@(1),x", "ü" * 10, "a" * 100, "a" + "= " * 49 + "b", "x~" + "0" * 32]
)
async def test_any_project_s_name_is_a_folder(tmp_path: Path, key: str) -> None:
    async with table_house(tmp_path / "revisions") as house:
        await house.see(**TRUTH)
        (entry,) = [e for e in await house.tail.read(0, 9) if e.data["kind"] == "lake"]
        row = row_of(move_of(LogEntry(0, {**entry.data, "project_key": key}), "log"), None)
    assert row["project_key"] == partition(key)
    assert (row["project_key"] == key) == ("= " not in key)
    await write_and_read(tmp_path / "other", row)


async def write_and_read(place: Path, row: Any) -> None:
    """A table of one row, by the very code that the follower runs."""
    delta = Delta(lambda: TablePlace(str(place)), "log")
    delta.create()
    looked = delta.look()
    assert looked is not None
    delta.append(looked, table_of([row]), 1)
    assert by_duckdb(place)[0]["project_key"] == row["project_key"]
    assert by_polars(place) == by_duckdb(place)


async def history_of_three_tasks(house: TableHouse, patient: str = "a") -> None:
    """Exports, approvals, rework, rejections and a task that is not drawn in."""
    size = await house.tail.size()
    for number, task in enumerate((f"{patient}-1", f"{patient}-2", f"{patient}-3")):
        house.pass_time(1.5)
        version = f"v{size}-{number}"
        house.platform.masks["mask-1"] = label_map_bytes(1 + (size + number) % 2)
        labels = (nifti_label(version=version),)
        await house.see(task, stage=f"Label {version}")
        await house.see(task, **{**TRUTH, "labels": labels})
        await house.see(task, labels=labels, stage="Label", history=(APPROVAL, SENT_BACK))


def by_delta_rs(place: Path) -> Rows:
    rows: Rows = DeltaTable(str(place)).to_pyarrow_table().to_pylist()
    return sorted((dict(sorted(row.items())) for row in rows), key=lambda row: row["log_index"])
