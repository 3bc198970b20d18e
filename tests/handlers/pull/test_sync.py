"""A pulled folder is what the lake holds: exactly, incrementally, and never half."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.errors import Permanent, Transient
from consumer.model import Change, digest
from consumer.ports import Listed
from handlers import layout
from handlers.pull.folder import Folder
from handlers.pull.options import Options
from handlers.pull.state import HIDDEN, load, save
from tests.fakes_store import FakeStore, Fault, FaultyStore
from tests.handlers.pull.lakes import PROJECT, File, Lake, Mask, pulled, tasks_of, tree


@pytest.fixture
def lake() -> Lake:
    return Lake()


def calls(lake: Lake, *verbs: str) -> list[str]:
    """The keys asked for since the last time."""
    assert isinstance(lake.store, FakeStore)
    found = [key for verb, key in lake.store.verbs() if verb in verbs]
    lake.store.calls.clear()
    return found


async def test_the_folder_has_the_platforms_own_structure(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", Mask("series1"), name="study01")
    await lake.task("t2", Mask("series1"), Mask("series2", position=1), name="study02")
    await pulled(lake, tmp_path)
    assert tree(tmp_path / PROJECT) == [
        "segmentations/study01/series1.nii.gz",
        "segmentations/study02/series1.nii.gz",
        "segmentations/study02/series2.nii.gz",
        "tasks.json",
    ]


async def test_tasks_json_names_the_files_that_are_there(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="study01")
    await pulled(lake, tmp_path)
    (task,) = tasks_of(tmp_path)
    assert task["series"][0]["segmentations"] == "segmentations/study01/series1.nii.gz"


async def test_a_second_pull_reads_nothing_and_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1")
    await pulled(lake, tmp_path)
    before = {path: (tmp_path / PROJECT / path).stat() for path in tree(tmp_path / PROJECT)}
    calls(lake)
    summary = await pulled(lake, tmp_path)
    assert calls(lake, "read", "download") == []
    assert (summary.unchanged, summary.files, summary.size) == (1, 0, 0)
    assert {path: (tmp_path / PROJECT / path).stat().st_mtime_ns for path in before} == {
        path: found.st_mtime_ns for path, found in before.items()
    }


class Versionless(FaultyStore):
    """A store whose listings do not tell versions."""

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        async for item in super().list(prefix):
            yield Listed(key=item.key, size=item.size, modified=item.modified)


async def test_without_versions_every_pointer_is_read_again(lake: Lake, tmp_path: Path) -> None:
    store = Versionless(lake.store, {})
    await lake.task("t1", name="old")
    await pulled(lake, tmp_path, store=store)
    await lake.task("t1", name="new")
    assert (await pulled(lake, tmp_path, store=store)).changed == ["new"]


async def test_only_what_changed_is_fetched(lake: Lake, tmp_path: Path) -> None:
    for number in range(5):
        await lake.task(f"t{number}")
    await pulled(lake, tmp_path)
    await lake.task("t3", Mask(values={1: "liver", 2: "spleen"}))
    calls(lake)
    summary = await pulled(lake, tmp_path)
    asked = calls(lake, "read", "download")
    assert len(asked) == 4  # pointer, manifest, document, mask
    assert all(key.startswith(f"{PROJECT}/tasks/t3/") for key in asked)
    assert summary.changed == ["study t3"]


async def test_a_move_to_another_stage_fetches_no_mask(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", stage="Label")
    await pulled(lake, tmp_path)
    await lake.task("t1", stage="Review_1", document={"taskId": "t1", "series": [], "n": 2})
    calls(lake)
    await pulled(lake, tmp_path)
    assert calls(lake, "download") == []


async def test_a_deleted_task_vanishes_and_is_said(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="study01")
    await lake.task("t2", name="study02")
    await pulled(lake, tmp_path)
    await lake.withdraw("t1")
    summary = await pulled(lake, tmp_path)
    assert summary.removed == ["study01"]
    assert tree(tmp_path / PROJECT) == ["segmentations/study02/series1.nii.gz", "tasks.json"]
    assert not (tmp_path / PROJECT / "segmentations/study01").exists()


async def test_a_retracted_task_vanishes(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1")
    await pulled(lake, tmp_path)
    await lake.withdraw("t1", change=Change.RETRACTED)
    await pulled(lake, tmp_path)
    assert tasks_of(tmp_path) == []


async def test_a_renamed_task_is_moved_without_a_download(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="old")
    await pulled(lake, tmp_path)
    await lake.task("t1", name="new")
    calls(lake)
    await pulled(lake, tmp_path)
    assert calls(lake, "download") == []
    assert tree(tmp_path / PROJECT) == ["segmentations/new/series1.nii.gz", "tasks.json"]


async def test_a_mask_that_is_gone_leaves_its_folder(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", Mask("a"), Mask("b", position=1), name="s")
    await pulled(lake, tmp_path)
    await lake.task("t1", Mask("a"), name="s")
    await pulled(lake, tmp_path)
    assert tree(tmp_path / PROJECT) == ["segmentations/s/a.nii.gz", "tasks.json"]


async def test_clearing_the_cache_fetches_every_file_again(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1")
    await pulled(lake, tmp_path)
    calls(lake)
    await pulled(lake, tmp_path, clear_cache=True)
    assert len(calls(lake, "read", "download")) == 4


async def test_a_file_that_a_person_edited_is_kept_aside_and_said(
    lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", name="s")
    await pulled(lake, tmp_path)
    mask = tmp_path / PROJECT / "segmentations/s/series1.nii.gz"
    right = mask.read_bytes()
    mask.write_bytes(b"mine")
    summary = await pulled(lake, tmp_path)
    assert summary.aside == ["kept-aside/segmentations/s/series1.nii.gz"]
    assert (tmp_path / PROJECT / summary.aside[0]).read_bytes() == b"mine"
    assert mask.read_bytes() == right


async def test_an_edit_of_the_same_length_is_seen(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="s")
    await pulled(lake, tmp_path)
    mask = tmp_path / PROJECT / "segmentations/s/series1.nii.gz"
    mask.write_bytes(bytes(mask.stat().st_size))
    assert len((await pulled(lake, tmp_path)).aside) == 1


async def test_an_edited_file_of_a_withdrawn_task_is_kept_aside(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="s")
    await lake.task("t2", name="other")
    await pulled(lake, tmp_path)
    (tmp_path / PROJECT / "segmentations/s/series1.nii.gz").write_bytes(b"mine")
    await lake.withdraw("t1")
    summary = await pulled(lake, tmp_path)
    assert (tmp_path / PROJECT / summary.aside[0]).read_bytes() == b"mine"
    assert not (tmp_path / PROJECT / "segmentations/s").exists()


async def test_two_edits_of_one_file_are_both_kept(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="s")
    mask = tmp_path / PROJECT / "segmentations/s/series1.nii.gz"
    kept = []
    for text in (b"one", b"two", b"three"):
        await pulled(lake, tmp_path)
        mask.write_bytes(text)
        kept += (await pulled(lake, tmp_path)).aside
    assert [(tmp_path / PROJECT / place).read_bytes() for place in kept] == [
        b"one", b"two", b"three"
    ]  # fmt: skip


async def test_a_strangers_file_in_a_tasks_folder_stays(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="s")
    await lake.task("t2", name="other")
    await pulled(lake, tmp_path)
    note = tmp_path / PROJECT / "segmentations/s/note.txt"
    note.write_text("mine")
    await lake.withdraw("t1")
    await pulled(lake, tmp_path)
    assert note.read_text() == "mine"


async def test_an_edited_tasks_json_is_kept_aside(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1")
    await pulled(lake, tmp_path)
    (tmp_path / PROJECT / "tasks.json").write_text("mine")
    summary = await pulled(lake, tmp_path)
    assert summary.aside == ["kept-aside/tasks.json"]
    assert len(tasks_of(tmp_path)) == 1


async def test_a_file_that_was_only_touched_is_still_ours(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="s")
    await pulled(lake, tmp_path)
    (tmp_path / PROJECT / "segmentations/s/series1.nii.gz").touch()
    calls(lake)
    summary = await pulled(lake, tmp_path)
    assert (calls(lake, "download"), summary.aside) == ([], [])


async def test_a_file_that_a_person_removed_comes_back(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="s")
    await pulled(lake, tmp_path)
    (tmp_path / PROJECT / "segmentations/s/series1.nii.gz").unlink()
    await pulled(lake, tmp_path)
    assert "segmentations/s/series1.nii.gz" in tree(tmp_path / PROJECT)


async def test_nothing_is_written_through_a_link(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="s")
    outside = tmp_path / "outside"
    (tmp_path / PROJECT).mkdir()
    outside.mkdir()
    (tmp_path / PROJECT / "segmentations").symlink_to(outside)
    summary = await pulled(lake, tmp_path)
    assert list(outside.iterdir()) == []
    assert summary.aside == ["kept-aside/segmentations"]


async def test_nothing_is_removed_through_a_link(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="s")
    await lake.task("t2", name="other")
    await pulled(lake, tmp_path)
    folder = tmp_path / PROJECT / "segmentations/s"
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    await lake.withdraw("t1")
    await pulled(lake, tmp_path)
    assert (tmp_path / "moved/series1.nii.gz").exists()


async def test_two_pulls_into_one_folder_exclude_each_other(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1")
    with Folder(tmp_path / PROJECT).locked(), pytest.raises(Permanent, match="at work"):
        await pulled(lake, tmp_path)


async def test_a_folder_of_another_project_is_refused(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1")
    await pulled(lake, tmp_path)
    other = Lake(store=lake.store, project="project-2")
    await other.task("t1")
    (tmp_path / PROJECT).rename(tmp_path / "project-2")
    with pytest.raises(Permanent) as raised:
        await pulled(other, tmp_path)
    assert raised.value.reason == "another-project"


async def test_a_project_that_the_lake_has_not_makes_no_folder(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="no project project-1"):
        await pulled(lake, tmp_path)
    assert tree(tmp_path) == []


async def test_a_stage_that_nobody_knows_touches_nothing(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", stage="Review_1")
    await pulled(lake, tmp_path)
    before = tree(tmp_path / PROJECT)
    with pytest.raises(Permanent, match="there are Review_1"):
        await pulled(lake, tmp_path, Options(stage="Reveiw_1"))
    assert tree(tmp_path / PROJECT) == before


async def test_a_stage_that_everybody_left_empties_its_folder(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", stage="Review_1", name="s")
    await pulled(lake, tmp_path, Options(stage="Review_1"))
    await lake.task("t1", stage="Label", name="s")
    summary = await pulled(lake, tmp_path, Options(stage="Review_1"))
    assert (summary.removed, tree(tmp_path / PROJECT)) == (["s"], ["tasks.json"])


async def test_an_interrupted_pull_goes_on_from_what_it_has(lake: Lake, tmp_path: Path) -> None:
    for number in range(20):
        await lake.task(f"t{number}")
    store = FaultyStore(lake.store, dict.fromkeys(range(75, 100), Fault.BEFORE))
    with pytest.raises(Transient):
        await pulled(lake, tmp_path, store=store)
    first = calls(lake, "read", "download")
    await pulled(lake, tmp_path)
    again = calls(lake, "read", "download")
    assert len(first) + len(again) == 20 * 4  # nothing was fetched twice
    assert min(len(first), len(again)) > 0


async def test_a_narrower_pull_holds_no_more_than_it_selects(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="a", stage="Label")
    await lake.task("t2", name="b", stage="END", truth="label-1")
    await pulled(lake, tmp_path)
    summary = await pulled(lake, tmp_path, Options(ground_truth=True))
    assert summary.removed == ["a"]
    assert tree(tmp_path / PROJECT) == ["segmentations/b/series1.nii.gz", "tasks.json"]


async def test_what_is_filtered_out_costs_no_manifest(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", stage="Label")
    await lake.task("t2", stage="END", truth="label-1")
    calls(lake)
    await pulled(lake, tmp_path, Options(ground_truth=True))
    asked = calls(lake, "read", "download")
    assert [key for key in asked if "/t1/" in key] == [f"{PROJECT}/tasks/t1/current.json"]


async def test_of_several_labels_each_has_its_folder(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", Mask(label="ann"), Mask(label="bob"), name="s")
    await pulled(lake, tmp_path)
    assert tree(tmp_path / PROJECT)[:2] == [
        "segmentations/s/ann/series1.nii.gz",
        "segmentations/s/bob/series1.nii.gz",
    ]


async def test_the_ground_truth_is_its_labels_files_alone(lake: Lake, tmp_path: Path) -> None:
    masks = Mask(label="ann"), Mask(label="bob", values={2: "spleen"})
    await lake.task("t1", *masks, name="s", truth="bob")
    await pulled(lake, tmp_path, Options(ground_truth=True))
    assert tree(tmp_path / PROJECT) == ["segmentations/s/series1.nii.gz", "tasks.json"]
    (task,) = tasks_of(tmp_path)
    named = [one.get("segmentations") for one in task["series"]]
    assert named == [None, "segmentations/s/series1.nii.gz"]


async def test_a_labelbox_project_is_rows_whose_urls_are_paths(lake: Lake, tmp_path: Path) -> None:
    png = File("masks/Axial/feature-1/000006.png", b"png", label="label-1")
    key = layout.file_key(PROJECT, "t1", digest(b"png"), "000006.png")
    labels = [{"id": "label-1", "mask": {"url": key}}]
    row = {"data_row": {"id": "t1"}, "projects": {"p": {"labels": labels}}}
    await lake.task("t1", png, name="scan", document=row)
    summary = await pulled(lake, tmp_path)
    assert summary.index == "export.ndjson"
    (line,) = (tmp_path / PROJECT / "export.ndjson").read_text().splitlines()
    (label,) = json.loads(line)["projects"]["p"]["labels"]
    assert label["mask"]["url"] == "masks/scan/Axial/feature-1/000006.png"
    assert (tmp_path / PROJECT / label["mask"]["url"]).read_bytes() == b"png"


async def test_a_rows_other_labels_are_no_ground_truth(lake: Lake, tmp_path: Path) -> None:
    labels = [{"id": "ann"}, {"id": "bob"}]
    row = {"data_row": {"id": "t1"}, "projects": {"p": {"labels": labels}}}
    masks = Mask(label="ann"), Mask(label="bob")
    await lake.task("t1", *masks, name="scan", document=row, truth="bob")
    await pulled(lake, tmp_path, Options(ground_truth=True))
    told = json.loads((tmp_path / PROJECT / "export.ndjson").read_text())
    assert told["projects"]["p"]["labels"] == [{"id": "bob"}]


async def test_a_document_keeps_numbers_and_texts_as_they_are(lake: Lake, tmp_path: Path) -> None:
    odd = {"taskId": "t1", "series": [], "big": 2**70, "half": "\ud800", "text": "\u00fc \u2028"}
    await lake.task("t1", document=odd)
    await pulled(lake, tmp_path)
    assert tasks_of(tmp_path) == [odd]


async def test_a_key_that_the_manifest_does_not_name_is_not_left_dangling(
    lake: Lake, tmp_path: Path
) -> None:
    lost = f"{PROJECT}/tasks/t1/files/{'0' * 64}/x.nii.gz"
    told = {"taskId": "t1", "series": [{"segmentations": lost, "name": "x"}], "list": [lost, 1]}
    await lake.task("t1", document=told)
    await pulled(lake, tmp_path)
    assert tasks_of(tmp_path) == [{"taskId": "t1", "series": [{"name": "x"}], "list": [1]}]


async def test_a_damaged_manifest_or_document_is_told(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", name="a")
    await lake.task("t2", name="b")
    await lake.task("t3", name="c")
    assert isinstance(lake.store, FakeStore)
    for key in lake.store.objects:
        if "/t1/revisions/" in key or ("/t2/" in key and key.endswith("annotations.json")):
            lake.store.objects[key] += b" "
    summary = await pulled(lake, tmp_path)
    assert sorted((one.task, one.reason) for one in summary.problems) == [
        ("a", "lake-file-damaged"),
        ("b", "lake-file-damaged"),
    ]
    assert [task["taskId"] for task in tasks_of(tmp_path)] == ["t3"]


async def test_what_is_kept_between_pulls_is_not_believed_when_damaged(
    lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1")
    await pulled(lake, tmp_path)
    before = tasks_of(tmp_path)
    for file in (tmp_path / PROJECT / HIDDEN / "cache").iterdir():
        file.write_bytes(b'{"files": []}')
    (tmp_path / PROJECT / "tasks.json").unlink()
    await pulled(lake, tmp_path)
    assert tasks_of(tmp_path) == before


async def test_nothing_old_is_kept_in_the_hidden_folder(lake: Lake, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        await lake.task("t1", Mask(values={number: "liver"}))
        await pulled(lake, tmp_path)
    hidden = tmp_path / PROJECT / HIDDEN
    assert len(list((hidden / "cache").iterdir())) == 2  # manifest and document
    assert list((hidden / "staged").iterdir()) == []


async def test_a_file_that_was_secretly_changed_is_not_copied_to_a_new_name(
    lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", name="old")
    await pulled(lake, tmp_path)
    mask = tmp_path / PROJECT / "segmentations/old/series1.nii.gz"
    right, times = mask.read_bytes(), mask.stat()
    mask.write_bytes(bytes(len(right)))
    os.utime(mask, ns=(times.st_atime_ns, times.st_mtime_ns))
    await lake.task("t1", name="new")
    await pulled(lake, tmp_path)
    assert (tmp_path / PROJECT / "segmentations/new/series1.nii.gz").read_bytes() == right


async def test_where_case_means_nothing_a_renamed_task_keeps_its_file(
    lake: Lake, tmp_path: Path
) -> None:
    """Two links to one file stand for one name written in two ways."""
    old, new = (tmp_path / PROJECT / f"segmentations/{one}/series1.nii.gz" for one in "Ss")
    await lake.task("t1", name="S")
    await pulled(lake, tmp_path)
    new.parent.mkdir()
    new.hardlink_to(old)
    await lake.task("t1", name="s")
    assert (await pulled(lake, tmp_path)).aside == []
    old.parent.mkdir(exist_ok=True)
    old.hardlink_to(new)
    state = load(tmp_path / PROJECT)
    assert state is not None
    state.files[str(old.relative_to(tmp_path / PROJECT))] = state.files[
        str(new.relative_to(tmp_path / PROJECT))
    ]
    save(tmp_path / PROJECT, state)
    await pulled(lake, tmp_path)
    assert old.exists()


@pytest.mark.parametrize("where", ["files", "pending"])
@pytest.mark.parametrize("path", ["../theirs.txt", "a/../../theirs.txt", "/theirs.txt"])
async def test_a_folder_that_somebody_else_made_has_no_file_outside_of_it_removed(
    lake: Lake, tmp_path: Path, where: str, path: str
) -> None:
    await lake.task("t1", Mask())
    await pulled(lake, tmp_path)
    theirs = tmp_path / "theirs.txt"
    theirs.write_bytes(b"theirs")
    file = tmp_path / PROJECT / HIDDEN / "state.json"
    forged = json.loads(file.read_bytes())
    named = f"{tmp_path}{path}" if path.startswith("/") else path
    held = ["index", digest(b"theirs"), 6, theirs.stat().st_mtime_ns]
    forged[where] = {**forged.get(where, {}), named: held}
    file.write_text(json.dumps(forged))
    with pytest.raises(Permanent) as refused:
        await pulled(lake, tmp_path)
    assert refused.value.reason == "pull-state-unreadable"
    assert theirs.read_bytes() == b"theirs"
