"""A snapshot is the ground truth at one size of the log: the same for everybody, for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from consumer.errors import Permanent
from consumer.log.tail import LogTail
from consumer.model import ExportRules, Mask, Segment, Series
from handlers import audit
from handlers.snapshots.create import record_of
from tests.fakes_platform import label_map_bytes, nifti_label
from tests.fakes_store import FakeStore
from tests.handlers.lake_house import LakeHouse, lake_house
from tests.handlers.snapshots.making import made, parquet_rows, rows, snapshot_objects


@pytest.fixture
async def house() -> AsyncIterator[LakeHouse]:
    async with lake_house() as opened:
        yield opened


async def test_it_holds_each_task_of_the_ground_truth_with_its_files(house: LakeHouse) -> None:
    await house.approve("t1")
    await house.approve("t2", value=2)
    await house.see("t3")  # in no ground truth
    snapshot = await made(house)
    first, second = rows(house, snapshot)
    assert (first["task"], second["task"]) == ("t1", "t2")
    assert first["label_key"] in house.store.objects
    assert first["manifest_key"] in house.store.objects
    assert first["spacing_mm"] == [1.0, 1.0, 2.0]
    assert first["shape"] == [4, 5, 3]
    assert [one["category"] for one in second["voxels"]] == ["spleen"]
    assert second["voxels"][0]["voxels"] == 4
    assert (first["approved_by"], first["approved_at"]) == ("user-1", "2026-01-02T12:00:00.000000Z")
    assert first["ground_truth_label"] == "label-t1"
    entry = (await house.tail.read(first["log_index"], first["log_index"] + 1))[0]
    assert entry.data["revision"] == first["revision"]


async def test_the_parquet_file_holds_the_very_rows_of_the_json_lines(house: LakeHouse) -> None:
    for number in range(7):
        await house.approve(f"t{number}", value=1 + number % 2)
    snapshot = await made(house)
    assert parquet_rows(house, snapshot) == rows(house, snapshot)


async def test_only_the_newest_move_of_a_task_counts(house: LakeHouse) -> None:
    await house.approve("t1", version="v1", value=1)
    await house.approve("t2")
    await house.approve("t1", version="v2", value=2)
    await house.send_back("t2")
    (row,) = rows(house, await made(house))
    assert row["task"] == "t1"
    assert [one["category"] for one in row["voxels"]] == ["spleen"]


async def test_it_is_pinned_to_log_root_and_size(house: LakeHouse) -> None:
    await house.approve("t1")
    size = await house.tail.size()
    await house.approve("t2")
    snapshot = await made(house, size=size)
    assert snapshot.size == size
    assert snapshot.root == await house.tail.root(size)
    assert snapshot.log == await house.tail.identity()
    assert [row["task"] for row in rows(house, snapshot)] == ["t1"]


async def test_the_same_log_state_gives_the_same_bytes_whoever_makes_it(house: LakeHouse) -> None:
    await house.approve("t1")
    await house.approve("t2")
    first = await made(house)
    elsewhere = FakeStore()
    elsewhere.objects.update(
        {k: v for k, v in house.store.objects.items() if not k.startswith("snapshots/")}
    )
    again = await made(house, store=elsewhere, log=LogTail(elsewhere))
    assert again == first
    for key, data in snapshot_objects(house).items():
        assert elsewhere.objects[key] == data


async def test_making_it_again_writes_nothing_and_says_so(house: LakeHouse) -> None:
    await house.approve("t1")
    first = await made(house)
    calls = len(house.store.calls)
    second = await made(house)
    assert (first.is_new, second.is_new) == (True, False)
    assert (second.id, second.sha256) == (first.id, first.sha256)
    verbs = {call.verb for call in house.store.calls[calls:]}
    assert verbs <= {"read", "list"}


async def test_entries_that_move_no_task_make_no_other_snapshot(house: LakeHouse) -> None:
    await house.approve("t1")
    first = await made(house)
    await house.queue.put([record_of(first)])
    await house.write_log()
    await house.say("started", "again")
    assert (await made(house)).id == first.id


async def test_a_named_size_is_taken_as_it_is(house: LakeHouse) -> None:
    await house.approve("t1")
    await house.say("started", "again")
    size = await house.tail.size()
    assert (await made(house, size=size)).size == size


@pytest.mark.parametrize(
    "other",
    [
        {"classes": ("liver",)},
        {"projects": ("project-1",)},
        {"split": {"train": 1.0}},
        {"key": b"another"},
        {"patient": "^(.)"},
    ],
)
async def test_another_selection_or_split_is_another_snapshot(
    house: LakeHouse, other: dict[str, Any]
) -> None:
    await house.approve("t1")
    assert (await made(house)).id != (await made(house, **other)).id


async def test_the_order_in_which_a_selection_is_given_does_not_matter(house: LakeHouse) -> None:
    await house.approve("t1")
    await house.approve("t2", value=2)
    one = await made(house, classes=("liver", "spleen"))
    other = await made(house, classes=("spleen", "liver", "liver"))
    assert one.id == other.id


async def test_a_class_selects_the_tasks_in_which_it_is_drawn(house: LakeHouse) -> None:
    await house.approve("t1", value=1)
    await house.approve("t2", value=2)
    snapshot = await made(house, classes=("spleen",))
    assert [row["task"] for row in rows(house, snapshot)] == ["t2"]
    assert snapshot.described.counts.classes.keys() == {"spleen"}


async def test_a_task_with_nothing_drawn_is_not_lost(house: LakeHouse) -> None:
    label = nifti_label("label-t1", drawn=False)
    bare = Series(name="series1")  # nobody tells its grid, so it gets no empty label map either
    label = type(label)(id=label.id, version="v1", series=(bare,))
    await house.approve("t1", labels=(label,))
    (row,) = rows(house, await made(house))
    assert (row["task"], row["label_key"], row["path"], row["voxels"]) == ("t1", None, None, [])


async def test_of_several_labels_only_the_ground_truths_files_are_there(house: LakeHouse) -> None:
    house.platform.masks["mask-2"] = label_map_bytes(2)
    labels = (nifti_label("a"), nifti_label("b", reference="mask-2"))
    await house.approve("t1", labels=labels, ground_truth_label="b")
    (row,) = rows(house, await made(house))
    assert row["labels"] == ["a", "b"]
    assert (row["ground_truth_label"], row["format"]) == ("b", "nifti")
    assert [one["category"] for one in row["voxels"]] == ["spleen"]
    assert row["path"] == "segmentations/b/series1.nii.gz"


async def test_each_series_has_a_row(house: LakeHouse) -> None:
    label = nifti_label("label-t1")
    second = Series(
        name="series2",
        masks=(Mask(reference="mask-1", kind="nifti"),),
        segments=(Segment(value=1, category="liver"),),
    )
    label = type(label)(id=label.id, version="v1", series=(*label.series, second))
    await house.approve("t1", labels=(label,))
    snapshot = await made(house)
    assert [(row["series"], row["position"]) for row in rows(house, snapshot)] == [
        ("series1", 0),
        ("series2", 1),
    ]
    counts = snapshot.described.counts
    assert (counts.tasks, counts.series, counts.files) == (1, 2, 2)
    (liver,) = counts.classes["liver"].values()
    assert (liver.tasks, liver.series, liver.voxels) == (1, 2, 8)


async def test_the_record_names_hashes_and_counts_and_repeats_itself(house: LakeHouse) -> None:
    await house.approve("t1")
    snapshot = await made(house)
    record = record_of(snapshot)
    assert record == record_of(await made(house))
    (entry,) = audit.entries_of(record)
    assert entry["id"] == f"snapshot:lungs:{snapshot.id}"
    assert entry["key"] == snapshot.key
    assert (entry["log_size"], entry["log_root"], entry["tasks"]) == (
        snapshot.size,
        snapshot.root,
        1,
    )


async def refused(house: LakeHouse, **wanted: Any) -> Permanent:
    """Why, with nothing written."""
    with pytest.raises(Permanent) as raised:
        await made(house, **wanted)
    assert not snapshot_objects(house)
    return raised.value


async def test_an_unknown_class_is_refused_with_those_that_there_are(house: LakeHouse) -> None:
    await house.approve("t1")
    error = await refused(house, classes=("liver", "kidney"))
    assert error.reason == "no-such-class"
    assert "kidney" in error.message
    assert "liver" in error.message.split("it holds")[1]


async def test_an_unknown_project_is_refused_with_those_that_there_are(house: LakeHouse) -> None:
    await house.approve("t1")
    error = await refused(house, projects=("elsewhere",))
    assert error.reason == "no-such-project"
    assert "project-1" in error.message


@pytest.mark.parametrize("given", [("project-1",), ("*",), ()])
async def test_a_project_is_known_by_its_id(house: LakeHouse, given: tuple[str, ...]) -> None:
    await house.approve("t1")
    assert (await made(house, projects=given)).tasks == 1


async def test_a_size_that_the_log_has_not_is_refused(house: LakeHouse) -> None:
    await house.approve("t1")
    size = await house.tail.size()
    error = await refused(house, size=size + 1)
    assert error.reason == "log-index-ahead"
    assert f"{size} entries" in error.message


@pytest.mark.parametrize("size", [None, 0, -1])
async def test_a_snapshot_of_nothing_is_refused(house: LakeHouse, size: int | None) -> None:
    await house.see("t1")
    assert (await refused(house, size=size)).reason == "empty-ground-truth"


async def test_a_lake_without_a_log_is_refused(house: LakeHouse) -> None:
    assert (await refused(house)).reason == "empty-ground-truth"


@pytest.mark.parametrize(
    "name", ["", "-x", "../x", "a/b", "A", "a" * 65, "x\n", "ä", "con.", "a b", "_a", "a\x00"]
)
async def test_a_name_that_is_no_slug_is_refused(house: LakeHouse, name: str) -> None:
    await house.approve("t1")
    assert (await refused(house, name=name)).reason == "snapshot-name"


async def test_a_name_of_64_characters_is_fine(house: LakeHouse) -> None:
    await house.approve("t1")
    assert (await made(house, name="a" * 64)).tasks == 1


@pytest.mark.parametrize("data", [None, b"{}"])
async def test_a_manifest_that_is_lost_or_changed_is_named_and_nothing_written(
    house: LakeHouse, data: bytes | None
) -> None:
    await house.approve("t1")
    await house.approve("t2")
    key = (await house.pointer("t2")).manifest
    assert key is not None
    if data is None:
        del house.store.objects[key]
    else:
        house.store.objects[key] = data
    error = await refused(house)
    assert error.reason == ("lake-file-missing" if data is None else "lake-file-damaged")
    assert key in error.message


async def test_shares_that_do_not_add_up_are_refused(house: LakeHouse) -> None:
    await house.approve("t1")
    assert (await refused(house, split={"train": 0.5})).reason == "bad-split"


async def test_manifests_begun_with_another_parquet_library_are_taken_over(
    house: LakeHouse,
) -> None:
    """Its rows are compared; other rows are refused."""
    import io

    import pyarrow.parquet as pq

    await house.approve("t1")
    first = await made(house)
    key = f"{first.folder}manifest.parquet"
    table = pq.read_table(io.BytesIO(house.store.objects[key]))
    out = io.BytesIO()
    pq.write_table(table, out, compression="snappy")
    fresh = FakeStore()
    fresh.objects.update(
        {k: v for k, v in house.store.objects.items() if not k.startswith("snapshots/")}
    )
    await fresh.create(key, out.getvalue())
    made_here = await made(house, store=fresh, log=LogTail(fresh))
    assert made_here.id == first.id
    assert fresh.objects[key] == out.getvalue()
    del fresh.objects[first.key]
    fresh.objects[key] = b"no parquet"
    with pytest.raises(Permanent, match="holds other rows"):
        await made(house, store=fresh, log=LogTail(fresh))


async def test_a_log_of_many_entries_is_read_in_order(house: LakeHouse) -> None:
    """Across several reads, in both directions of the ground truth."""
    await house.approve("t1")
    entries = [
        {"id": f"x{number}", "kind": "receipt", "task": f"t{number}"} for number in range(3000)
    ]
    await house.log.append(entries)
    await house.approve("t2")
    await house.send_back("t1")
    await house.log.append([{"id": f"y{number}", "kind": "receipt"} for number in range(2500)])
    snapshot = await made(house)
    assert [row["task"] for row in rows(house, snapshot)] == ["t2"]
    assert snapshot.size < await house.tail.size() - 2000


async def test_a_lake_entry_that_is_none_is_named(house: LakeHouse) -> None:
    await house.approve("t1")
    await house.log.append([{"id": "lake:bad", "kind": "lake", "task": 7}])
    assert (await refused(house)).reason == "lake-entry-unreadable"


async def test_an_entry_that_comes_late_moves_no_task_back(house: LakeHouse) -> None:
    await house.approve("t1", version="v1", value=1)
    old = (await house.pointer("t1")).outcome
    await house.approve("t1", version="v2", value=2)
    entry = next(one for one in audit.entries_of(old) if one["kind"] == "lake")
    await house.log.append([{**entry, "id": "lake:late"}])
    (row,) = rows(house, await made(house))
    assert [one["category"] for one in row["voxels"]] == ["spleen"]


async def test_of_a_standing_wish_some_classes_and_projects_may_be_absent(
    house: LakeHouse,
) -> None:
    await house.approve("t1")
    wish = {"classes": ("kidney", "liver"), "projects": ("elsewhere", "project-1")}
    assert (await made(house, "standing", **wish, absent_ok=True)).tasks == 1


@pytest.mark.parametrize("wish", [{"classes": ("kidney",)}, {"projects": ("elsewhere",)}])
async def test_of_a_standing_wish_something_must_be_there(
    house: LakeHouse, wish: dict[str, Any]
) -> None:
    await house.approve("t1")
    assert (await refused(house, **wish, absent_ok=True)).reason.startswith("no-such-")


async def test_that_names_are_to_stay_out_of_paths_is_remembered() -> None:
    async with lake_house(rules=ExportRules(paths="id")) as house:
        await house.approve("t1")
        (row,) = rows(house, await made(house))
        assert row["nameless"] is True
