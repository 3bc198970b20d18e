"""A snapshot is rebuilt byte for byte, whatever became of its tasks; a folder stays what it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.errors import Permanent
from consumer.model import Pointer, SeenLabel, decode, digest
from handlers import audit
from handlers.pull import where
from handlers.pull.options import Options
from handlers.pull.state import HIDDEN
from handlers.pull.sync import Summary
from handlers.snapshots.create import Snapshot
from handlers.snapshots.pull import Destination, pull
from tests.handlers.pull.lakes import PROJECT, Mask, NoProgress, no_sleep, pulled, tree
from tests.handlers.pull.nnunet_rules import check_nnunet
from tests.handlers.pull.test_training import volume
from tests.handlers.snapshots.making import LoggedLake

LAYOUTS = {
    "redbrick": Options(),
    "redbrick-images": Options(dicom_to_nifti=True),
    "redbrick-ids": Options(paths="id"),
    "redbrick-png": Options(format="png"),
    "nnunet": Options(layout="nnunet", channel="CT"),
    "monai": Options(layout="monai"),
}


@pytest.fixture
async def there() -> AsyncIterator[LoggedLake]:
    lake = LoggedLake()
    yield lake
    await lake.log.close()
    lake.store.assert_sound()


async def study(there: LoggedLake, task: str, *values: int, **told: Any) -> None:
    mask = Mask(values={value: f"class {value}" for value in values})
    given = {"stage": "END", "truth": "label-1", "name": f"study {task}", **told}
    await there.lake.task(task, mask, volume(), **given)


async def kept(
    there: LoggedLake, snapshot: Snapshot, directory: Path, options: Options | None = None
) -> dict[Path, Summary]:
    to = Destination(directory, options)
    return await pull(there.store, snapshot, to, progress=NoProgress(), sleep=no_sleep)


def bytes_of(folder: Path) -> dict[str, str]:
    return {path: digest((folder / path).read_bytes()) for path in tree(folder)}


async def disturb(there: LoggedLake) -> None:
    """Every task is drawn anew, renamed, sent back or deleted, and others come."""
    await study(there, "t1", 5, 6, name="renamed")
    await study(there, "t2", 1, truth=None, stage="Label")
    await there.lake.withdraw("t3")
    await study(there, "t4", 3, name="study t3")
    await there.see()


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_it_is_rebuilt_byte_for_byte_after_everything_changed(
    there: LoggedLake, tmp_path: Path, layout: str
) -> None:
    await study(there, "t1", 1, 2)
    await study(there, "t2", 3, name="CON")
    await study(there, "t3", 2)
    snapshot = await there.snapshot()
    (before,) = await kept(there, snapshot, tmp_path / "before", LAYOUTS[layout])
    await disturb(there)
    (after,) = await kept(there, snapshot, tmp_path / "after", LAYOUTS[layout])
    assert bytes_of(before) == bytes_of(after)
    assert len(bytes_of(before)) >= 4
    assert before.name == f"lungs-{snapshot.id}"


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_it_is_what_a_pull_of_the_ground_truth_gave_then(
    there: LoggedLake, tmp_path: Path, layout: str
) -> None:
    await study(there, "t1", 1, 2)
    await study(there, "t2", 3)
    snapshot = await there.snapshot()
    options = LAYOUTS[layout]
    live = Options(
        ground_truth=True,
        layout=options.layout,
        dicom_to_nifti=options.dicom_to_nifti,
        paths=options.paths,
        format=options.format,
        channel=options.channel,
    )
    await pulled(there.lake, tmp_path, live)
    (folder,) = await kept(there, snapshot, tmp_path, options)
    assert bytes_of(folder) == bytes_of(tmp_path / PROJECT)


async def test_a_training_set_of_it_keeps_nnunets_rules(there: LoggedLake, tmp_path: Path) -> None:
    await study(there, "t1", 1, 2)
    snapshot = await there.snapshot()
    (folder,) = await kept(there, snapshot, tmp_path, Options(layout="nnunet"))
    assert check_nnunet(folder)["numTraining"] == 1


async def test_of_several_labels_the_ground_truths_alone_is_pulled(
    there: LoggedLake, tmp_path: Path
) -> None:
    masks = (Mask(label="a"), Mask(label="b", values={2: "spleen"}))
    await there.lake.task("t1", *masks, truth="b", stage="END")
    snapshot = await there.snapshot()
    (folder,) = await kept(there, snapshot, tmp_path, Options())
    assert tree(folder) == ["segmentations/study t1/series1.nii.gz", "tasks.json"]
    await pulled(there.lake, tmp_path, Options(ground_truth=True))
    assert bytes_of(folder) == bytes_of(tmp_path / PROJECT)


async def test_a_label_of_several_that_alone_has_files_is_known_as_one_of_several(
    there: LoggedLake, tmp_path: Path
) -> None:
    labels = {"a": SeenLabel(version="v1"), "b": SeenLabel(version="v1")}
    await there.lake.task("t1", Mask(label="a"), truth="a", stage="END", labels=labels)
    snapshot = await there.snapshot()
    (folder,) = await kept(there, snapshot, tmp_path, Options())
    assert tree(folder) == ["segmentations/study t1/series1.nii.gz", "tasks.json"]


async def test_several_projects_are_one_training_set_or_a_folder_each(
    there: LoggedLake, tmp_path: Path
) -> None:
    await study(there, "t1", 1)
    await there.lakes["project-2"].task(
        "t1", Mask(values={1: "class 2"}), volume(), truth="label-1", name="study t1"
    )
    snapshot = await there.snapshot()
    (one,) = await kept(there, snapshot, tmp_path / "one", Options(layout="nnunet"))
    assert check_nnunet(one)["labels"] == {"background": 0, "class 1": 1, "class 2": 2}
    several = await kept(there, snapshot, tmp_path / "several", Options())
    assert [folder.name for folder in several] == ["project-1", "project-2"]
    for folder in several:
        assert tree(folder) == ["segmentations/study t1/series1.nii.gz", "tasks.json"]
    for directory, options in (("one", Options()), ("several", Options(layout="monai"))):
        with pytest.raises(Permanent, match="another layout"):
            await kept(there, snapshot, tmp_path / directory, options)


async def test_pulled_again_it_fetches_nothing_and_remembers_how(
    there: LoggedLake, tmp_path: Path
) -> None:
    await study(there, "t1", 1)
    snapshot = await there.snapshot()
    (folder,) = await kept(there, snapshot, tmp_path, Options(layout="monai"))
    ((again, summary),) = (await kept(there, snapshot, tmp_path)).items()
    assert (again, summary.files, summary.unchanged) == (folder, 0, 1)
    ((inside, _),) = (await kept(there, snapshot, folder)).items()  # standing in it
    assert inside == folder


async def test_a_damaged_file_of_it_is_put_right(there: LoggedLake, tmp_path: Path) -> None:
    await study(there, "t1", 1)
    snapshot = await there.snapshot()
    (folder,) = await kept(there, snapshot, tmp_path, Options())
    before = bytes_of(folder)
    (folder / "segmentations/study t1/series1.nii.gz").unlink()
    await kept(there, snapshot, tmp_path)
    assert bytes_of(folder) == before


async def test_a_pull_of_today_never_turns_a_snapshot_into_another(
    there: LoggedLake, tmp_path: Path
) -> None:
    await study(there, "t1", 1)
    snapshot = await there.snapshot()
    (folder,) = await kept(there, snapshot, tmp_path / "a", Options())
    folder.rename(tmp_path / PROJECT)
    with pytest.raises(Permanent, match=f"holds the snapshot lungs/{snapshot.id}") as raised:
        await pulled(there.lake, tmp_path)
    assert raised.value.reason == "another-snapshot"


async def test_a_snapshot_never_takes_a_live_folder(there: LoggedLake, tmp_path: Path) -> None:
    await study(there, "t1", 1)
    snapshot = await there.snapshot()
    await pulled(there.lake, tmp_path)
    before = bytes_of(tmp_path / PROJECT)
    with pytest.raises(Permanent, match="kept equal to the lake by groundwire pull"):
        await kept(there, snapshot, tmp_path / PROJECT, Options(layout="monai"))
    assert bytes_of(tmp_path / PROJECT) == before


async def test_a_folder_of_one_snapshot_never_becomes_another(
    there: LoggedLake, tmp_path: Path
) -> None:
    await study(there, "t1", 1)
    first = await there.snapshot()
    await study(there, "t2", 1)
    second = await there.snapshot()
    (folder,) = await kept(there, first, tmp_path, Options())
    with pytest.raises(Permanent, match=f"holds the snapshot lungs/{first.id}"):
        await kept(there, second, folder)


async def test_a_pull_beside_a_snapshot_means_the_live_folder(
    there: LoggedLake, tmp_path: Path
) -> None:
    await study(there, "t1", 1)
    await kept(there, await there.snapshot(), tmp_path, Options())
    assert where.find(None, tmp_path) is None
    await pulled(there.lake, tmp_path)
    found = where.find(None, tmp_path)
    assert found is not None
    assert found[0] == tmp_path / PROJECT


async def test_a_name_that_no_path_may_hold_is_in_none(there: LoggedLake, tmp_path: Path) -> None:
    """The log remembers that names were to stay out of paths."""
    await study(there, "t1", 1, name="Jane Doe")
    await there.see()
    lines = []
    for key, data in list(there.store.objects.items()):
        if key.endswith("/current.json"):
            (entry,) = audit.entries_of(decode(data, Pointer).outcome)
            lines.append({**entry, "id": "lake:nameless", "sequence": 2, "nameless": True})
    await there.log.append(lines)
    snapshot = await there.snapshot()
    (folder,) = await kept(there, snapshot, tmp_path, Options())
    assert tree(folder) == ["segmentations/t1/series1.nii.gz", "tasks.json"]


@pytest.mark.parametrize("lost", [True, False])
async def test_a_lost_or_changed_manifest_of_rows_is_named(
    there: LoggedLake, tmp_path: Path, lost: bool
) -> None:
    await study(there, "t1", 1)
    snapshot = await there.snapshot()
    key = f"{snapshot.folder}manifest.jsonl"
    if lost:
        del there.store.objects[key]
    else:
        there.store.objects[key] += b"\n"
    with pytest.raises(Permanent, match=key):
        await kept(there, snapshot, tmp_path)
    assert tree(tmp_path) == []


async def test_a_mask_that_is_lost_is_told_and_the_rest_is_there(
    there: LoggedLake, tmp_path: Path
) -> None:
    await study(there, "t1", 1)
    await study(there, "t2", 2)
    snapshot = await there.snapshot()
    lost = next(k for k in there.store.objects if "/t1/files/" in k and "series1.nii.gz" in k)
    del there.store.objects[lost]
    ((folder, summary),) = (await kept(there, snapshot, tmp_path, Options())).items()
    assert [problem.reason for problem in summary.problems] == ["lake-file-missing"]
    assert "segmentations/study t2/series1.nii.gz" in tree(folder)
    assert (folder / HIDDEN).is_dir()


@pytest.mark.parametrize("project", ["../../outside", "/outside", "..", "a/../../outside", ""])
async def test_no_row_of_an_enemys_lake_names_a_folder_outside(
    there: LoggedLake, tmp_path: Path, project: str
) -> None:
    await study(there, "t1", 1)
    await study(there, "t2", 1)
    snapshot = await there.snapshot()
    stored = await there.store.read(f"{snapshot.folder}manifest.jsonl")
    assert stored is not None
    one, other = (msgspec.json.decode(line) for line in stored.data.splitlines())
    named = f"{tmp_path}{project}" if project.startswith("/") else project
    forged = b"".join(
        msgspec.json.encode(row) + b"\n" for row in ({**one, "project_key": named}, other)
    )
    await there.store.create("snapshots/forged/manifest.jsonl", forged)
    theirs = msgspec.structs.replace(
        snapshot, folder="snapshots/forged/", manifest_sha256=digest(forged)
    )
    (tmp_path / "pulled").mkdir()
    with pytest.raises(Permanent) as refused:
        await kept(there, theirs, tmp_path / "pulled")
    assert refused.value.reason == "path-unsafe"
    assert tree(tmp_path) == []
