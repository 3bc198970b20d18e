"""Folders for training: nnU-Net's rules checked by a reader of our own, MONAI's list, and what no
training set may hold."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from consumer.errors import Permanent
from handlers.formats.label_map import LabelMap
from handlers.formats.nifti import read_label_map, write_label_map
from handlers.pull.options import Options
from tests.fakes_store import FakeStore
from tests.handlers.pull.lakes import AFFINE, PROJECT, SHAPE, File, Lake, Mask, pulled, tree
from tests.handlers.pull.nnunet_rules import check_nnunet

NNUNET, MONAI = Options(layout="nnunet"), Options(layout="monai")
OTHER = tuple(tuple(value + (row == 0) * 0.5 for value in line) for row, line in enumerate(AFFINE))


@pytest.fixture
def lake() -> Lake:
    return Lake()


def volume_bytes(affine: Any = AFFINE, shape: tuple[int, ...] = SHAPE) -> bytes:
    image = nibabel.Nifti1Image(np.arange(np.prod(shape)).reshape(shape).astype(np.int16),
                                np.array(affine))  # fmt: skip
    image.header.set_xyzt_units("mm")
    packed: bytes = gzip.compress(image.to_bytes(), mtime=0)
    return packed


def volume(series: str = "series1", position: int = 0, affine: Any = AFFINE) -> File:
    path = f"images/{series}.nii.gz"
    return File(path, volume_bytes(affine), series=series, position=position, shape=SHAPE,
                affine=affine)  # fmt: skip


async def approved(lake: Lake, task: str, *files: Mask | File, **more: Any) -> None:
    label = next(file.label for file in files if isinstance(file, Mask))
    await lake.task(task, *files, stage="END", truth=label, **more)


async def set_of_two(lake: Lake) -> None:
    """Two cases whose instances have other numbers for the same classes."""
    first = Mask(values={1: "liver", 2: "liver", 7: "tumour"})
    await approved(lake, "t1", first, volume(), name="study 1")
    await approved(lake, "t2", Mask(values={4: "tumour", 9: "kidney"}), volume(), name="study 2")


async def test_nnunets_rules_hold(lake: Lake, tmp_path: Path) -> None:
    await set_of_two(lake)
    summary = await pulled(lake, tmp_path, NNUNET)
    told = check_nnunet(tmp_path / PROJECT)
    assert told["numTraining"] == 2
    assert summary.problems == []


async def test_a_class_has_one_value_in_the_whole_set(lake: Lake, tmp_path: Path) -> None:
    await set_of_two(lake)
    await pulled(lake, tmp_path, NNUNET)
    told = json.loads((tmp_path / PROJECT / "dataset.json").read_text())
    assert told["labels"] == {"background": 0, "kidney": 1, "liver": 2, "tumour": 3}
    first = nibabel.load(tmp_path / PROJECT / "labelsTr/study-1_series1.nii.gz")
    second = nibabel.load(tmp_path / PROJECT / "labelsTr/study-2_series1.nii.gz")
    assert np.asanyarray(first.dataobj).reshape(-1)[:5].tolist() == [0, 2, 2, 3, 0]
    assert np.asanyarray(second.dataobj).reshape(-1)[:4].tolist() == [0, 3, 1, 0]


async def test_a_training_set_is_the_ground_truth(lake: Lake, tmp_path: Path) -> None:
    await set_of_two(lake)
    await lake.task("t3", Mask(values={1: "lung"}), volume(), stage="Label")
    await pulled(lake, tmp_path, NNUNET)
    told = check_nnunet(tmp_path / PROJECT)
    assert "lung" not in told["labels"]


async def test_a_task_that_leaves_the_ground_truth_leaves_the_set(
    lake: Lake, tmp_path: Path
) -> None:
    await set_of_two(lake)
    await pulled(lake, tmp_path, NNUNET)
    await lake.withdraw("t2")
    summary = await pulled(lake, tmp_path, NNUNET)
    told = check_nnunet(tmp_path / PROJECT)
    assert told["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert summary.removed == ["study 2"]


async def test_nothing_is_made_twice(lake: Lake, tmp_path: Path) -> None:
    await set_of_two(lake)
    await pulled(lake, tmp_path, NNUNET)
    summary = await pulled(lake, tmp_path, NNUNET)
    assert (summary.files, summary.unchanged) == (0, 2)


async def test_of_several_labels_the_ground_truth_trains(lake: Lake, tmp_path: Path) -> None:
    masks = Mask(label="ann", values={1: "liver"}), Mask(label="bob", values={1: "spleen"})
    await lake.task("t1", *masks, volume(), stage="END", truth="bob", name="s")
    await pulled(lake, tmp_path, NNUNET)
    told = check_nnunet(tmp_path / PROJECT)
    assert told["labels"] == {"background": 0, "spleen": 1}


async def test_every_series_is_a_case(lake: Lake, tmp_path: Path) -> None:
    files = Mask("a"), Mask("b", position=1), volume("a"), volume("b", 1)
    await approved(lake, "t1", *files, name="s")
    await pulled(lake, tmp_path, NNUNET)
    assert check_nnunet(tmp_path / PROJECT)["numTraining"] == 2


async def test_cases_that_would_have_one_name_have_two(lake: Lake, tmp_path: Path) -> None:
    await approved(lake, "t1", Mask("b_c"), volume("b_c"), name="a")
    await approved(lake, "t2", Mask("c"), volume("c"), name="a_b")
    await approved(lake, "t3", Mask("C"), volume("C"), name="A b")
    await pulled(lake, tmp_path, NNUNET)
    assert check_nnunet(tmp_path / PROJECT)["numTraining"] == 3


@pytest.mark.parametrize(
    ("mask", "image", "reason"),
    [
        (Mask(), volume(affine=OTHER), "grid-differs"),
        (Mask(geometry="unknown"), volume(), "geometry-unknown"),
        (Mask(values={1: "liver", 2: None}), volume(), "class-unknown"),
        (Mask(position=1), volume(), "images-not-held"),
    ],
)
async def test_what_may_not_train_is_told_and_left_out(
    mask: Mask, image: File, reason: str, lake: Lake, tmp_path: Path
) -> None:
    await set_of_two(lake)
    await approved(lake, "t3", mask, image, name="wrong")
    summary = await pulled(lake, tmp_path, NNUNET)
    assert [(one.task, one.reason) for one in summary.problems] == [("wrong", reason)]
    assert check_nnunet(tmp_path / PROJECT)["numTraining"] == 2


async def test_a_grid_that_is_known_to_differ_costs_no_download(lake: Lake, tmp_path: Path) -> None:
    await set_of_two(lake)
    await approved(lake, "t3", Mask(), volume(affine=OTHER), name="wrong")
    await pulled(lake, tmp_path, NNUNET)
    assert isinstance(lake.store, FakeStore)
    asked = [key for verb, key in lake.store.verbs() if verb == "download"]
    assert [key for key in asked if "/t3/" in key] == []


async def test_an_image_that_lies_elsewhere_than_the_lake_says_is_found(
    lake: Lake, tmp_path: Path
) -> None:
    await set_of_two(lake)
    path = "images/series1.nii.gz"
    liar = File(path, volume_bytes(OTHER), series="series1", shape=SHAPE, affine=AFFINE)
    await approved(lake, "t3", Mask(), liar, name="wrong")
    summary = await pulled(lake, tmp_path, NNUNET)
    assert [(one.task, one.reason) for one in summary.problems] == [("wrong", "grid-differs")]
    assert check_nnunet(tmp_path / PROJECT)["numTraining"] == 2


async def test_a_label_map_with_a_value_that_nobody_told_of_is_found(
    lake: Lake, tmp_path: Path
) -> None:
    await set_of_two(lake)
    array = np.zeros(SHAPE, np.uint8)
    array[1, 1, 1] = 5
    liar = Mask(values={1: "liver"}, data=write_label_map(LabelMap(array, AFFINE)))
    await approved(lake, "t3", liar, volume(), name="wrong")
    summary = await pulled(lake, tmp_path, NNUNET)
    assert [one.reason for one in summary.problems] == ["mask-unknown-label"]


async def test_an_image_that_was_nifti_is_taken_when_its_header_agrees(
    lake: Lake, tmp_path: Path
) -> None:
    image = File("images/series1/scan.nii.gz", volume_bytes(), series="series1")
    await approved(lake, "t1", Mask(), image, name="s")
    await pulled(lake, tmp_path, NNUNET)
    assert check_nnunet(tmp_path / PROJECT)["numTraining"] == 1


async def test_without_images_the_setting_is_named(lake: Lake, tmp_path: Path) -> None:
    await approved(lake, "t1", Mask())
    with pytest.raises(Permanent, match="dicom_to_nifti = true"):
        await pulled(lake, tmp_path, NNUNET)


async def test_the_channel_is_called_what_it_is(lake: Lake, tmp_path: Path) -> None:
    await set_of_two(lake)
    await pulled(lake, tmp_path, Options(layout="nnunet", channel="CT"))
    assert check_nnunet(tmp_path / PROJECT)["channel_names"] == {"0": "CT"}


async def test_monais_list_names_pairs_that_are_there(lake: Lake, tmp_path: Path) -> None:
    await set_of_two(lake)
    await pulled(lake, tmp_path, MONAI)
    told = json.loads((tmp_path / PROJECT / "dataset.json").read_text())
    assert told["labels"] == {"0": "background", "1": "kidney", "2": "liver", "3": "tumour"}
    assert told["numTraining"] == len(told["training"]) == 2
    for pair in told["training"]:
        image, label = (tmp_path / PROJECT / pair[one] for one in ("image", "label"))
        assert np.array_equal(nibabel.load(image).affine, nibabel.load(label).affine)
        assert read_label_map(label.read_bytes()).array.max() <= 3


async def test_monais_path_changes_when_the_content_does(lake: Lake, tmp_path: Path) -> None:
    await approved(lake, "t1", Mask(), volume(), name="s")
    await pulled(lake, tmp_path, MONAI)
    before = set(tree(tmp_path / PROJECT))
    await approved(lake, "t1", Mask(values={1: "liver", 2: "liver"}), volume(), name="s")
    await pulled(lake, tmp_path, MONAI)
    gone, new = before - set(tree(tmp_path / PROJECT)), set(tree(tmp_path / PROJECT)) - before
    assert [path.split("/")[0] for path in (*gone, *new)] == ["labelsTr", "labelsTr"]


async def test_another_layout_takes_the_place_of_the_first(lake: Lake, tmp_path: Path) -> None:
    await set_of_two(lake)
    await pulled(lake, tmp_path)
    await pulled(lake, tmp_path, NNUNET)
    check_nnunet(tmp_path / PROJECT)
    assert not (tmp_path / PROJECT / "tasks.json").exists()
    assert not (tmp_path / PROJECT / "segmentations").exists()
