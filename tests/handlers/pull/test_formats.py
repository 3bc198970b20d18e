"""Masks in other formats and images: taken from the lake, made here of what it holds, or refused
with the setting that would bring them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from consumer.demo.phantom import Phantom, ct_series, truth
from consumer.errors import Permanent
from consumer.model import Refusal
from handlers.formats.label_map import LabelMap
from handlers.formats.nifti import write_label_map
from handlers.pull.options import Options
from tests.handlers.pull.lakes import AFFINE, PROJECT, File, Lake, Mask, pulled, tasks_of, tree

PHANTOM = Phantom(shape=(40, 32, 10))
PNG = Options(format="png")


@pytest.fixture
def lake() -> Lake:
    return Lake()


def organs() -> Mask:
    """The phantom's own organs, as a label map on its grid."""
    data = write_label_map(LabelMap(truth(PHANTOM), PHANTOM.affine))
    return Mask("ct", {1: "liver", 2: "spleen", 3: "aorta"}, data=data, shape=PHANTOM.shape)


def originals() -> list[File]:
    return [
        File(f"images/ct/{k:03d}.dcm", data, series="ct")
        for k, data in enumerate(ct_series(PHANTOM))
    ]


async def test_a_label_map_becomes_pictures_of_its_slices(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", organs(), name="s")
    await pulled(lake, tmp_path, PNG)
    folder = tmp_path / PROJECT / "segmentations/s"
    pictures = [np.asarray(Image.open(folder / f"ct/{k:06d}.png")).T for k in range(10)]
    assert np.array_equal(np.stack(pictures, axis=2), truth(PHANTOM))
    assert json.loads((folder / "ct.classes.json").read_text())["2"] == "spleen"


async def test_tasks_json_names_every_picture_and_says_that_they_are(
    lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", organs(), name="s")
    await pulled(lake, tmp_path, PNG)
    (series,) = tasks_of(tmp_path)[0]["series"]
    assert series["segmentations"] == [f"segmentations/s/ct/{k:06d}.png" for k in range(10)]
    assert series["pngMask"] is True


async def test_pictures_are_not_made_twice(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", organs())
    await pulled(lake, tmp_path, PNG)
    summary = await pulled(lake, tmp_path, PNG)
    assert (summary.files, summary.size, summary.unchanged) == (0, 0, 1)


async def test_pictures_that_the_lake_holds_are_taken(lake: Lake, tmp_path: Path) -> None:
    held = File("segmentations/series1.png", b"a picture", label="label-1", series="series1")
    await lake.task("t1", Mask(), held, name="s")
    await pulled(lake, tmp_path, PNG)
    assert tree(tmp_path / PROJECT) == ["segmentations/s/series1.png", "tasks.json"]
    assert (tmp_path / PROJECT / "segmentations/s/series1.png").read_bytes() == b"a picture"


async def test_without_nifti_what_the_lake_holds_is_pulled(lake: Lake, tmp_path: Path) -> None:
    held = File("segmentations/series1.png", b"a picture", label="label-1", series="series1")
    await lake.task("t1", held, name="s")
    await pulled(lake, tmp_path)
    assert "segmentations/s/series1.png" in tree(tmp_path / PROJECT)
    with pytest.raises(Permanent, match=r'set \[export\] formats = \["nifti"\]'):
        await pulled(lake, tmp_path, Options(format="nifti"))


async def test_a_label_map_becomes_dicom_seg_of_its_images(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", organs(), *originals(), name="s")
    await pulled(lake, tmp_path, Options(format="seg"))
    seg = pydicom.dcmread(tmp_path / PROJECT / "segmentations/s/ct.seg.dcm")
    names = [str(one.SegmentLabel) for one in seg.SegmentSequence]
    assert names == ["liver", "spleen", "aorta"]
    image = pydicom.dcmread(io.BytesIO(ct_series(PHANTOM)[0]))
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
    assert int(seg.pixel_array.sum()) == int((truth(PHANTOM) > 0).sum())


async def test_a_label_map_becomes_an_rtstruct_of_its_images(lake: Lake, tmp_path: Path) -> None:
    await lake.task("t1", organs(), *originals(), name="s")
    await pulled(lake, tmp_path, Options(format="rtstruct"))
    struct = pydicom.dcmread(tmp_path / PROJECT / "segmentations/s/ct.rtstruct.dcm")
    assert [one.ROIName for one in struct.StructureSetROISequence] == ["liver", "spleen", "aorta"]
    assert tree(tmp_path / PROJECT) == ["segmentations/s/ct.rtstruct.dcm", "tasks.json"]


@pytest.mark.parametrize("format_", ["seg", "rtstruct"])
async def test_dicom_masks_without_images_name_the_setting(
    format_: str, lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", organs())
    with pytest.raises(Permanent, match=r"set \[export\] with_files = true"):
        await pulled(lake, tmp_path, Options(format=format_))  # type: ignore[arg-type]


async def test_a_task_that_cannot_be_had_so_is_left_out_and_told(
    lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", organs(), *originals(), name="whole")
    await lake.task("t2", organs(), name="bare")
    summary = await pulled(lake, tmp_path, Options(format="seg"))
    assert [problem.task for problem in summary.problems] == ["bare"]
    assert [task["taskId"] for task in tasks_of(tmp_path)] == ["t1"]


async def test_a_mask_of_one_instance_alone_is_no_label_map(lake: Lake, tmp_path: Path) -> None:
    one = File("segmentations/ct/instance-1.nii.gz", b"1", label="label-1", series="ct")
    await lake.task("t1", one)
    with pytest.raises(Permanent, match=r'set \[export\] masks = "instance"'):
        await pulled(lake, tmp_path, PNG)


async def test_masks_of_instances_are_told_beside_what_else_the_lake_holds(
    lake: Lake, tmp_path: Path
) -> None:
    one = File("segmentations/ct/instance-1.nii.gz", b"1", label="label-1", series="ct")
    seg = File("segmentations/ct.seg.dcm", b"2", label="label-1", series="ct")
    await lake.task("t1", seg, one)
    with pytest.raises(Permanent, match=r'set \[export\] masks = "instance"'):
        await pulled(lake, tmp_path, PNG)


async def test_nifti_that_the_lake_does_not_hold_names_the_setting(
    lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", File("segmentations/ct.png", b"1", label="label-1", series="ct"))
    with pytest.raises(Permanent, match=r"holds it not as NIfTI: set \[export\] formats"):
        await pulled(lake, tmp_path, Options(format="nifti"))


async def test_instances_have_a_folder_of_their_series(lake: Lake, tmp_path: Path) -> None:
    ones = [
        File(f"segmentations/ct/instance-{n}.nii.gz", b"%d" % n, label="label-1", series="ct")
        for n in (1, 2)
    ]
    await lake.task("t1", *ones, name="s")
    await pulled(lake, tmp_path)
    assert tree(tmp_path / PROJECT)[:2] == [
        "segmentations/s/ct/instance-1.nii.gz",
        "segmentations/s/ct/instance-2.nii.gz",
    ]


async def test_images_come_when_they_are_asked_for(lake: Lake, tmp_path: Path) -> None:
    volume = File("images/ct.nii.gz", b"volume", series="ct", shape=(1, 1, 1), affine=AFFINE)
    await lake.task("t1", organs(), *originals(), volume, name="s")
    await pulled(lake, tmp_path)
    assert not (tmp_path / PROJECT / "images").exists()
    await pulled(lake, tmp_path, Options(with_files=True))
    items = tasks_of(tmp_path)[0]["series"][0]["items"]
    assert items == [f"images/s/ct/{k:03d}.dcm" for k in range(10)]
    assert all((tmp_path / PROJECT / item).is_file() for item in items)
    await pulled(lake, tmp_path, Options(with_files=True, dicom_to_nifti=True))
    assert tasks_of(tmp_path)[0]["series"][0]["items"] == ["images/s/ct.nii.gz"]
    assert not (tmp_path / PROJECT / "images/s/ct").exists()


async def test_images_that_were_nifti_from_the_start_stay_what_they_are(
    lake: Lake, tmp_path: Path
) -> None:
    image = File("images/ct/scan.nii", b"a volume", series="ct")
    await lake.task("t1", organs(), image, name="s")
    await pulled(lake, tmp_path, Options(dicom_to_nifti=True))
    assert "images/s/ct/scan.nii" in tree(tmp_path / PROJECT)


@pytest.mark.parametrize(
    ("options", "setting"),
    [(Options(with_files=True), "with_files = true"),
     (Options(dicom_to_nifti=True), "dicom_to_nifti = true")],
)  # fmt: skip
async def test_images_that_the_lake_does_not_hold_name_the_setting(
    options: Options, setting: str, lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", organs())
    with pytest.raises(Permanent, match=setting):
        await pulled(lake, tmp_path, options)


async def test_an_image_that_could_not_be_converted_is_told_with_its_reason(
    lake: Lake, tmp_path: Path
) -> None:
    why = Refusal(
        what="image", reason="uneven-pitch", message="003.dcm: gap 7.1 mm", position=0, series="ct"
    )
    volume = File("images/ct.nii.gz", b"volume", series="ct")
    await lake.task("t1", organs(), name="tilted", refused=(why,))
    await lake.task("t2", organs(), volume, name="even")
    summary = await pulled(lake, tmp_path, Options(dicom_to_nifti=True))
    (problem,) = summary.problems
    assert (problem.task, "003.dcm: gap 7.1 mm" in problem.message) == ("tilted", True)


async def test_by_id_no_name_is_in_a_path(lake: Lake, tmp_path: Path) -> None:
    named = [File(f"images/ct/JANE_DOE_{k}.dcm", b"%d" % k, series="ct") for k in (1, 2)]
    await lake.task("t1", organs(), *named, name="Jane Doe")
    await pulled(lake, tmp_path, Options(with_files=True, paths="id"))
    assert tree(tmp_path / PROJECT) == [
        "images/t1/A/000000.dcm",
        "images/t1/A/000001.dcm",
        "segmentations/t1/A.nii.gz",
        "tasks.json",
    ]


async def test_a_damaged_file_of_the_lake_is_told_and_its_task_left_out(
    lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", name="right")
    await lake.task("t2", Mask(values={7: "x"}), name="damaged")
    store = lake.store
    (key,) = [key for key in store.objects if "/t2/files/" in key and key.endswith(".gz")]  # type: ignore[attr-defined]
    store.objects[key] = b"something else"  # type: ignore[attr-defined]
    summary = await pulled(lake, tmp_path)
    (problem,) = summary.problems
    assert (problem.task, problem.reason) == ("damaged", "lake-file-damaged")
    assert [task["taskId"] for task in tasks_of(tmp_path)] == ["t1"]
    assert tree(tmp_path / PROJECT) == ["segmentations/right/series1.nii.gz", "tasks.json"]


async def test_what_is_known_of_a_task_stays_while_its_pointer_cannot_be_read(
    lake: Lake, tmp_path: Path
) -> None:
    await lake.task("t1", name="s")
    await lake.task("t2", name="other")
    await pulled(lake, tmp_path)
    lake.store.objects[f"{PROJECT}/tasks/t1/current.json"] = b"{}"  # type: ignore[attr-defined]
    summary = await pulled(lake, tmp_path)
    assert [problem.reason for problem in summary.problems] == ["pointer-unreadable"]
    assert (tmp_path / PROJECT / "segmentations/s/series1.nii.gz").exists()
    assert [task["taskId"] for task in tasks_of(tmp_path)] == ["t2"]
    assert summary.removed == []
