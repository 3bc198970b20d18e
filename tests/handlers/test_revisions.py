"""What a revision holds: volumes of frames, images, formats and variants; and what is refused."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from consumer.demo.phantom import Phantom, ct_series, frame_masks, truth
from consumer.errors import Refused, Transient
from consumer.model import (
    ClassRule,
    ExportRules,
    FileRef,
    Image,
    Label,
    Mask,
    Polyline,
    Segment,
    Series,
    ViewConvention,
    encode,
)
from tests.fakes_platform import NOON, label_map_bytes, nifti_label
from tests.handlers.export_house import House

PHANTOM = Phantom(seed=3, shape=(24, 20, 9))
TRUTH = truth(PHANTOM)
NAMES = {1: "liver", 2: "spleen", 3: "aorta"}
CLASSES = tuple(ClassRule(name=name, value=value) for value, name in NAMES.items())
IMAGES = (Image(reference="ct", name="series.zip"),)
AT = ("series", 0)


def a_house(**rules: Any) -> House:
    house = House(rules=ExportRules(**rules))
    files = ct_series(PHANTOM)
    house.platform.images["ct"] = [(f"{k:03d}.dcm", data) for k, data in enumerate(files)]
    return house


def framed(house: House, group: str = "Axial", **changes: Any) -> dict[str, Any]:
    """A row whose objects were drawn on every frame of one group."""
    masks = []
    for value, name in NAMES.items():
        for frame, png in frame_masks(TRUTH, value)[group].items():
            reference = f"{group}-{name}-{frame}"
            house.platform.masks[reference] = png
            masks.append(
                Mask(
                    reference=reference,
                    kind="png",
                    slot=("masks", reference),
                    group=group,
                    feature=f"feature-{value}",
                    frame=frame,
                    category=name,
                )
            )
    series = Series(**{"name": None, "masks": tuple(masks), "images": IMAGES, **changes})
    label = Label(id="label-1", version="v1", updated_at=NOON, series=(series,))
    document = {"masks": {mask.reference: "url" for mask in masks}}
    return {"labels": (label,), "stage": "Review", "document": document}


def drawn(house: House, **changes: Any) -> dict[str, Any]:
    """A task with a label map of the platform's own, on the phantom's grid."""
    image = nibabel.Nifti1Image(TRUTH, np.asarray(changes.pop("affine", PHANTOM.affine)))
    house.platform.masks["mask-1"] = gzip.compress(image.to_bytes())
    segments = tuple(
        Segment(value=v, category=n, category_value=v, slot=("segments", str(v)))
        for v, n in NAMES.items()
    )
    mask = Mask(reference="mask-1", kind="nifti", slot=("files",))
    fields = {"name": "ct", "masks": (mask,), "segments": segments, "images": IMAGES}
    series = Series(**{**fields, "slot": ("files",), "png_slot": ("png",), **changes})
    label = Label(id="label-1", version="v1", updated_at=NOON, series=(series,))
    document: dict[str, Any] = {"files": None, "png": False, "segments": {}}
    return {"labels": (label,), "stage": "Review", "document": document}


def tilted_series() -> list[tuple[str, bytes]]:
    """The phantom's files as of a gantry that was tilted: each slice a little further back."""
    files = []
    for k, data in enumerate(ct_series(PHANTOM)):
        dataset = pydicom.dcmread(io.BytesIO(data))
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + 0.5 * k, z]
        out = io.BytesIO()
        dataset.save_as(out)
        files.append((f"{k}.dcm", out.getvalue()))
    return files


async def files_of(house: House) -> dict[str, FileRef]:
    return {file.path: file for file in (await house.manifest()).files}


async def volume(house: House, path: str) -> Any:
    data = await house.bytes((await files_of(house))[path].key)
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data))


def voxels(image: Any) -> Any:
    return np.asanyarray(image.dataobj)


# Volumes of frames


@pytest.mark.parametrize("group", ["Axial", "Sagittal", "Coronal"])
async def test_frames_become_one_label_map_on_the_grid_of_their_images(group: str) -> None:
    house = a_house(classes=CLASSES)
    await house.see(**framed(house, group))
    image = await volume(house, "segmentations/A.nii.gz")
    assert np.array_equal(voxels(image), TRUTH)
    assert np.allclose(image.affine, PHANTOM.affine, atol=1e-4)
    file = (await files_of(house))["segmentations/A.nii.gz"]
    assert {(c.value, c.category, c.feature, c.voxels) for c in file.labels} == {
        (v, n, f"feature-{v}", int((v == TRUTH).sum())) for v, n in NAMES.items()
    }
    (series, laid) = (await house.manifest()).volumes
    assert series.pitch_mm == PHANTOM.spacing[2]
    assert series.pitch_deviation == 0
    assert laid.assumed_views == (group,)


async def test_a_document_names_the_volume_in_the_place_of_each_picture() -> None:
    house = a_house()
    await house.see(**framed(house))
    named = (await house.document())["masks"].values()
    assert set(named) == {(await files_of(house))["segmentations/A.nii.gz"].key}


async def test_a_series_that_cannot_be_placed_keeps_its_masks_in_voxel_space() -> None:
    house = a_house(classes=CLASSES)
    house.platform.images["ct"] = tilted_series()
    await house.see(**framed(house))
    (file,) = [f for f in (await house.manifest()).files if f.path.startswith("segm")]
    assert (file.geometry, file.affine, file.shape) == ("unknown", None, PHANTOM.shape)
    image = await volume(house, file.path)
    assert np.array_equal(voxels(image), TRUTH)
    assert (image.header["sform_code"], image.header["qform_code"]) == (0, 0)
    (refusal,) = (await house.manifest()).refused
    assert refusal.what == "volume"
    assert "dcm" in refusal.message
    assert "mm" in refusal.message


@pytest.mark.parametrize("damaged", [b"", b"\0" * 4000, b"<html>not found</html>"])
async def test_a_damaged_slice_at_the_end_is_not_left_aside(damaged: bytes) -> None:
    house = a_house()
    files = house.platform.images["ct"]
    assert isinstance(files, list)
    house.platform.images["ct"] = [*files[:-1], ("last.dcm", damaged)]
    await house.see(**framed(house))
    (refusal,) = (await house.manifest()).refused
    assert "last.dcm" in refusal.message


async def test_what_archives_hold_beside_images_is_left_aside() -> None:
    house = a_house()
    files = house.platform.images["ct"]
    assert isinstance(files, list)
    house.platform.images["ct"] = [("README.txt", b"hello"), (".DS_Store", b"x"), *files]
    await house.see(**framed(house))
    assert (await house.manifest()).refused == ()


async def test_frames_without_images_are_kept_as_pictures_and_it_is_said() -> None:
    house = a_house()
    house.platform.images["ct"] = Refused("images-unreachable", "gs:// is not fetched")
    await house.see(**framed(house))
    files = await files_of(house)
    assert {path.split("/")[0] for path in files} == {"annotations.json", "masks"}
    assert [r.reason for r in (await house.manifest()).refused] == ["images-unreachable"]
    document = await house.document()
    assert set(document["masks"].values()) <= {file.key for file in files.values()}


async def test_no_address_in_the_name_of_an_image_reaches_a_key_or_a_refusal() -> None:
    house = a_house(with_files=True, dicom_to_nifti=True, emails="drop")
    images = [(f"of anna@x.example {name}", data) for name, data in tilted_series()]
    house.platform.images["ct"] = [*images, ("bo@x.example.dcm", images[0][1])]
    await house.see(**drawn(house))
    manifest = await house.manifest()
    assert manifest.refused
    assert b"@" not in encode(manifest)
    assert not [key for key in await house.keys() if "@" in key]
    assert all(f.path.endswith(".dcm") for f in manifest.files if f.path.startswith("images/"))


async def test_images_that_may_come_later_are_waited_for() -> None:
    house = a_house()
    house.platform.images["ct"] = Transient("download-failed", "not now")
    assert isinstance(await house.see(**framed(house)), Transient)


async def test_groups_that_disagree_refuse_the_volume_and_keep_the_pictures() -> None:
    house = a_house(views={"Sagittal": ViewConvention(flip_frame=True)})
    both = framed(house)
    sagittal = framed(house, "Sagittal")
    series = both["labels"][0].series[0]
    masks = (*series.masks, *sagittal["labels"][0].series[0].masks)
    document = {"masks": {mask.reference: "url" for mask in masks}}
    series = Series(name=None, masks=masks, images=IMAGES)
    label = Label(id="label-1", version="v1", series=(series,))
    await house.see(labels=(label,), stage="Review", document=document)
    files = await files_of(house)
    assert not [path for path in files if path.startswith("segmentations/")]
    kept = [file for path, file in files.items() if path.startswith("masks/")]
    assert len(kept) == len(masks)
    assert {file.geometry for file in kept} == {"unknown"}
    (refusal,) = (await house.manifest()).refused
    assert (refusal.reason, refusal.label) == ("groups-disagree", "label-1")
    assert "Dice" in refusal.message


async def test_lines_are_geometry_with_their_place_in_the_patient() -> None:
    house = a_house()
    line = Polyline(
        group="Axial", feature="f", frame=3, category="line", points=((0.0, 0.0), (2.0, 1.0))
    )
    await house.see(**framed(house, masks=(), polylines=(line,)))
    files = await files_of(house)
    assert set(files) == {"annotations.json", "geometry/A.json"}
    (shown,) = json.loads(await house.bytes(files["geometry/A.json"].key))["lines"]
    x, y, z = PHANTOM.origin
    i, j, k = PHANTOM.spacing
    assert shown["patient"] == [[x, y, z + 2 * k], [x + 2 * i, y + j, z + 2 * k]]


async def test_a_closed_line_is_filled_as_its_class_wants() -> None:
    house = a_house(classes=(ClassRule(name="lesion", value=7, closed=True),))
    square = ((1.5, 1.5), (4.5, 1.5), (4.5, 3.5), (1.5, 3.5))
    line = Polyline(group="Axial", feature="f", frame=1, category="lesion", points=square)
    await house.see(**framed(house, masks=(), polylines=(line,)))
    array = voxels(await volume(house, "segmentations/A.nii.gz"))
    assert np.argwhere(array).tolist() == [[i, j, 0] for i in (2, 3, 4) for j in (2, 3)]
    assert set(np.unique(array)) == {0, 7}


async def test_a_row_approved_with_nothing_drawn_is_empty_on_the_grid_of_its_images() -> None:
    house = a_house()
    row = framed(house, masks=())
    await house.see(**row, ground_truth=True, ground_truth_label="label-1")
    image = await volume(house, "segmentations/A.nii.gz")
    assert not voxels(image).any()
    assert np.allclose(image.affine, PHANTOM.affine, atol=1e-4)
    assert (await house.manifest()).empty == ()


async def test_one_mask_for_each_object_loses_nothing_where_they_overlap() -> None:
    house = a_house(masks="binary")
    row = framed(house)
    overlapping = row["labels"][0].series[0].masks
    everywhere = np.full((20, 24), 255, np.uint8)
    out = io.BytesIO()
    Picture.fromarray(everywhere).save(out, format="PNG")
    for mask in overlapping:
        house.platform.masks[mask.reference] = out.getvalue()
    await house.see(**row)
    manifest = await house.manifest()
    masks = [file for file in manifest.files if file.path.startswith("segmentations/")]
    assert [file.feature for file in masks] == ["feature-1", "feature-2", "feature-3"]
    frames = {f: sum(m.feature == f for m in overlapping) for f in (x.feature for x in masks)}
    assert [file.labels[0].voxels for file in masks] == [480 * frames[f.feature] for f in masks]
    named = (await house.document())["masks"]
    for mask in overlapping:
        assert named[mask.reference] == next(f.key for f in masks if f.feature == mask.feature)


# What costs nothing


async def test_a_label_drawn_anew_fetches_no_image() -> None:
    house = a_house()
    await house.see(**framed(house))
    row = framed(house)
    label = Label(id="label-1", version="v2", series=row["labels"][0].series)
    await house.see(**{**row, "labels": (label,)})
    assert house.platform.fetched_images["ct"] == 1
    assert (await house.manifest()).volumes[0].affine is not None


async def test_a_stage_move_fetches_nothing() -> None:
    house = a_house(with_files=True, dicom_to_nifti=True)
    await house.see(**framed(house))
    before, downloads = await house.manifest(), house.platform.downloads.total()
    await house.see(**{**framed(house), "stage": "Done"})
    assert (await house.manifest()).files == before.files
    assert (await house.manifest()).volumes == before.volumes
    assert house.platform.fetched_images["ct"] == 1
    assert house.platform.downloads.total() == downloads


async def test_a_refused_series_is_not_fetched_again_for_a_label_drawn_anew() -> None:
    house = a_house()
    house.platform.images["ct"] = tilted_series()
    await house.see(**framed(house))
    before = await house.manifest()
    row = framed(house)
    label = Label(id="label-1", version="v2", series=row["labels"][0].series)
    await house.see(**{**row, "labels": (label,)})
    after = await house.manifest()
    assert after.refused == before.refused != ()
    assert after.volumes == before.volumes
    assert house.platform.fetched_images["ct"] == 1


async def test_images_that_moved_are_fetched_anew() -> None:
    house = a_house()
    house.platform.images["ct2"] = house.platform.images["ct"]
    await house.see(**framed(house))
    await house.see(**framed(house, images=(Image(reference="ct2", name="b.zip"),)))
    assert house.platform.fetched_images == {"ct": 1, "ct2": 1}


async def test_images_that_are_found_by_a_tasks_name_are_fetched_anew_with_another_name() -> None:
    for template, times in (("s3://bucket/{name}/", 2), ("s3://bucket/{task}/", 1)):
        house = a_house(images=(template,))
        await house.see(**framed(house), name="first")
        await house.see(**framed(house), name="second")
        assert house.platform.fetched_images["ct"] == times


async def test_a_changed_setting_exports_the_task_anew() -> None:
    house = a_house()
    await house.see(**framed(house))
    house.rules = ExportRules(classes=(ClassRule(name="liver", value=9),))
    await house.see(**framed(house))
    file = (await files_of(house))["segmentations/A.nii.gz"]
    assert {c.category: c.value for c in file.labels}["liver"] == 9


# Images


@pytest.mark.parametrize("kind", [framed, drawn])
async def test_image_and_label_map_share_shape_and_affine_to_the_last_bit(kind: Any) -> None:
    house = a_house(dicom_to_nifti=True)
    await house.see(**kind(house))
    name = "A" if kind is framed else "ct"
    image = await volume(house, f"images/{name}.nii.gz")
    label = await volume(house, f"segmentations/{name}.nii.gz")
    assert image.shape == label.shape == PHANTOM.shape
    assert image.affine.tobytes() == label.affine.tobytes()
    for field in ("srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "pixdim", "sform_code"):
        assert image.header[field].tobytes() == label.header[field].tobytes()
    assert voxels(image)[TRUTH == 3].mean() > 200  # the aorta is where the label says


async def test_a_label_map_turned_round_is_laid_on_the_grid_of_its_image() -> None:
    house = a_house(dicom_to_nifti=True)
    row = drawn(house)
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(TRUTH, np.asarray(PHANTOM.affine)))
    house.platform.masks["mask-1"] = gzip.compress(turned.to_bytes())
    await house.see(**row)
    assert np.array_equal(voxels(await volume(house, "segmentations/ct.nii.gz")), TRUTH)
    assert (await house.manifest()).refused == ()


async def test_no_image_is_made_that_would_differ_from_its_label_map() -> None:
    house = a_house(dicom_to_nifti=True, with_files=True)
    affine = np.asarray(PHANTOM.affine).copy()
    affine[0, 3] += 2
    await house.see(**drawn(house, affine=affine))
    files = await files_of(house)
    assert "images/ct.nii.gz" not in files
    assert "images/ct/000.dcm" in files
    (refusal,) = (await house.manifest()).refused
    assert (refusal.what, refusal.reason) == ("image", "geometry-mismatch")
    assert "mm" in refusal.message


async def test_images_are_copied_as_they_are() -> None:
    house = a_house(with_files=True)
    await house.see(**drawn(house))
    files = await files_of(house)
    for name, data in house.platform.images["ct"]:  # type: ignore[misc]
        file = files[f"images/ct/{name}"]
        assert await house.bytes(file.key) == data
        assert file.label is None


async def test_images_go_by_the_name_that_their_series_has_today() -> None:
    house = a_house(with_files=True, dicom_to_nifti=True)
    house.platform.images["other"] = [("a.txt", b"no image")]
    (ours,) = drawn(house)["labels"][0].series
    for name in ("ct", "pet"):  # the second series is ct_1, then ct
        other = Series(name=name, images=(Image(reference="other", name="a.png"),))
        label = Label(id="label-1", version="v1", updated_at=NOON, series=(other, ours))
        await house.see(labels=(label,), document=drawn(house)["document"])
    files = await files_of(house)
    assert {path.split("/")[1] for path in files if path.startswith("images/")} == {
        "ct", "ct.nii.gz", "pet",
    }  # fmt: skip


async def test_images_of_other_formats_are_copied_and_not_converted() -> None:
    house = a_house(with_files=True, dicom_to_nifti=True)
    house.platform.images["ct"] = [("t1.nii.gz", b"a volume")]
    await house.see(**drawn(house, images=(Image(reference="ct", name="t1.nii.gz"),)))
    assert [path for path in await files_of(house) if path.startswith("images")] == [
        "images/ct/t1.nii.gz"
    ]
    assert (await house.manifest()).refused == ()


async def test_paths_by_id_tell_no_name() -> None:
    house = a_house(with_files=True, dicom_to_nifti=True, paths="id")
    house.platform.images["ct"] = [
        (f"DOE^JANE {k}.dcm", data) for k, data in enumerate(ct_series(PHANTOM))
    ]
    await house.see(**drawn(house))
    named = [key for key in await house.keys() if "annotations" not in key]
    assert not [key for key in named if "DOE" in key or "ct" in Path(key).name.split(".")]
    assert "images/A/000001.dcm" in await files_of(house)
    assert (await house.pointer()).paths == "id"


# Formats and variants


async def test_every_format_that_is_wanted_is_written() -> None:
    house = a_house(formats=("nifti", "png", "seg", "rtstruct"))
    await house.see(**drawn(house))
    files = await files_of(house)
    assert {path.split("/", 2)[1] for path in files if "/" in path} == {
        "ct.nii.gz", "ct", "ct.classes.json", "ct.seg.dcm", "ct.rtstruct.dcm",
    }  # fmt: skip
    pictures = [files[f"segmentations/ct/{k:06d}.png"] for k in range(PHANTOM.shape[2])]
    stack = [np.asarray(Picture.open(io.BytesIO(await house.bytes(p.key)))) for p in pictures]
    assert np.array_equal(np.stack(stack, axis=2).transpose(1, 0, 2), TRUTH)
    meaning = json.loads(await house.bytes(files["segmentations/ct.classes.json"].key))
    assert meaning == {str(value): name for value, name in NAMES.items()}
    for suffix, modality in (("seg", "SEG"), ("rtstruct", "RTSTRUCT")):
        data = await house.bytes(files[f"segmentations/ct.{suffix}.dcm"].key)
        dataset = pydicom.dcmread(io.BytesIO(data))
        assert (dataset.Modality, dataset.StudyInstanceUID) == (modality, PHANTOM.uid("study"))


async def test_the_document_names_the_first_of_several_formats() -> None:
    house = a_house(formats=("png", "nifti"))
    await house.see(**drawn(house))
    document = await house.document()
    assert document["files"].endswith("/ct.nii.gz")
    assert document["png"] is False
    house.rules = ExportRules(formats=("png",))
    await house.see(**drawn(house))
    document = await house.document()
    assert len(document["files"]) == PHANTOM.shape[2]
    assert document["png"] is True


async def test_objects_of_a_format_that_references_images_are_refused_without_them() -> None:
    house = a_house(formats=("nifti", "seg"))
    await house.see(**drawn(house, images=()))
    assert "segmentations/ct.nii.gz" in await files_of(house)
    (refusal,) = (await house.manifest()).refused
    assert (refusal.what, refusal.reason) == ("seg", "images-unknown")


async def test_binary_masks_are_a_file_for_each_instance() -> None:
    house = a_house(masks="binary")
    await house.see(**drawn(house))
    files = await files_of(house)
    document = await house.document()
    for value, name in NAMES.items():
        file = files[f"segmentations/ct/instance-{value}.nii.gz"]
        assert np.array_equal(voxels(await volume(house, file.path)), value == TRUTH)
        assert [(c.value, c.category) for c in file.labels] == [(1, name)]
        assert document["segments"][str(value)] == file.key
    assert document["files"] == [files[p].key for p in sorted(files) if p.startswith("segm")]


async def test_semantic_masks_hold_the_value_of_each_class() -> None:
    house = a_house(masks="semantic", classes=(ClassRule(name="liver", value=40),))
    await house.see(**drawn(house))
    found = voxels(await volume(house, "segmentations/ct.nii.gz"))
    expected = np.where(TRUTH == 1, 40, TRUTH)
    assert np.array_equal(found, expected)


async def test_a_kept_binary_mask_goes_by_todays_name_of_its_category() -> None:
    house = a_house(masks="binary")
    await house.see(**drawn(house))
    renamed = tuple(Segment(value=v, category=f"new {n}") for v, n in NAMES.items())
    await house.see(**{**drawn(house, segments=renamed), "stage": "END"})
    files = await files_of(house)
    assert files["segmentations/ct/instance-2.nii.gz"].labels[0].category == "new spleen"
    assert house.platform.downloads["mask-1"] == 1


@pytest.mark.parametrize(
    "rules", [{"masks": "semantic"}, {"formats": ("seg",)}, {"formats": ("nifti", "png")}]
)
async def test_files_that_hold_names_are_made_anew_when_a_category_is_renamed(rules: Any) -> None:
    house = a_house(**rules)
    await house.see(**drawn(house))
    await house.see(**drawn(house))
    assert house.platform.downloads["mask-1"] == 1
    renamed = tuple(Segment(value=v, category=f"x{n}", category_value=v) for v, n in NAMES.items())
    await house.see(**drawn(house, segments=renamed))
    assert house.platform.downloads["mask-1"] == 2


async def test_a_label_map_of_any_integer_type_is_read() -> None:
    house = House()
    house.platform.masks["mask-1"] = gzip.decompress(label_map_bytes(2))
    await house.see(labels=(nifti_label(),), stage="Label")
    assert voxels(await volume(house, "segmentations/series1.nii.gz")).max() == 2


async def test_a_move_tells_why_something_was_not_made() -> None:
    house = a_house()
    house.platform.images["ct"] = tilted_series()
    await house.see(**framed(house))
    pointer = await house.pointer()
    assert pointer.outcome.move.refused == ((await house.manifest()).refused[0].reason,)
