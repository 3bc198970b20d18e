"""Masks drawn in RedBrick and the images they lie on, in every format and variant: told once by
real webhooks to a real process, and looked at by many tests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.demo.phantom import Phantom, ct_series, truth
from consumer.demo.redbrick import phantom_drawing, phantom_series
from consumer.demo.redbrick_taxonomy import CATEGORIES
from consumer.demo.script import Post
from consumer.stores.directory import DirectoryStore
from handlers.formats.grid import Grid
from tests.end_to_end.house import House, house
from tests.end_to_end.volume_rows import Task, until_exported
from tests.handlers.formats.seg_readers import by_dcmqi, by_plastimatch

PHANTOM = Phantom(seed=5, shape=(40, 36, 16))
TRUTH = truth(PHANTOM)
GRID = Grid(PHANTOM.shape, PHANTOM.affine)
NAMES = {organ.value: name for organ, (name, _) in zip(PHANTOM.organs, CATEGORIES, strict=True)}
VALUES = {"liver": 30, "vessel": 4}  # configured; the platform's own number is the third's
MASKS = ("instance", "binary", "semantic")


def configure(place: House, projects: dict[str, str]) -> None:
    """A source for each variant, each with a project of its own."""
    text = place.configuration.read_text()
    head = text[: text.index("\n[export]")]
    start = text.index("[sources.redbrick]")
    own = text[start : text.index("\n[sources.labelbox]")]
    for masks, project in projects.items():
        said = own.replace("[sources.redbrick]", f"[sources.{masks}]")
        head += f"\n{said.replace(place.cast.redbrick.project_id, project)}"
        head += f'export = {{ masks = "{masks}" }}\n'
    place.configuration.write_text(
        f"{head}\n[export]\nwith_files = true\ndicom_to_nifti = true\n"
        'formats = ["nifti", "seg", "rtstruct"]\n'
        f"\n[classes]\n" + "".join(f"{name} = {value}\n" for name, value in VALUES.items())
    )


async def told(folder: Path) -> dict[str, Task]:
    store = DirectoryStore(folder / "lake")
    async with house(folder, store) as place:
        redbrick = place.cast.redbrick
        projects = {masks: redbrick.create_project(masks) for masks in MASKS}
        configure(place, projects)
        place.start("run", "run")
        await place.listening()
        rows = {}
        for masks, project in projects.items():
            series = phantom_series(PHANTOM, folder=masks)
            task = redbrick.create_task(masks, [series], project_id=project)
            redbrick.label(task, [phantom_drawing(PHANTOM)])
            rows[masks] = (project, task)
            told = redbrick.take_webhooks()
            bodies = [json.dumps(body).encode() for body in told]
            await place.post_all([Post(masks, {}, one, token=place.cast.token) for one in bodies])
        await until_exported(place, rows)
        assert await place.stop("run") == 0
        verified = await place.run("verify")
        assert verified.returncode == 0, verified.stdout
        assert "unreferenced" not in verified.stdout
        return {name: await Task.read(store, *row) for name, row in rows.items()}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    return asyncio.run(told(tmp_path_factory.mktemp("redbrick")))


def drawn(value: int) -> NDArray[np.bool_]:
    """Where one organ is."""
    return np.equal(TRUTH, value)


@pytest.mark.parametrize("masks", MASKS)
def test_image_and_label_maps_share_shape_and_affine_bytes(
    tasks: dict[str, Task], masks: str
) -> None:
    task = tasks[masks]
    image = task.image("images/ct.nii.gz")
    maps = [path for path in task.refs if path.startswith("segm") and path.endswith(".nii.gz")]
    assert len(maps) == (3 if masks == "binary" else 1)
    for path in maps:
        mask = task.image(path)
        assert mask.shape == image.shape == PHANTOM.shape
        for part in ("srow_x", "srow_y", "srow_z"):
            assert mask.header[part].tobytes() == image.header[part].tobytes()
    assert np.allclose(image.affine, PHANTOM.affine)


@pytest.mark.parametrize("masks", MASKS)
def test_images_are_copied_byte_for_byte(tasks: dict[str, Task], masks: str) -> None:
    copies = [tasks[masks].data(path) for path in sorted(tasks[masks].refs) if "ct/0" in path]
    assert copies == ct_series(PHANTOM)
    assert tasks[masks].manifest.refused == ()


def test_instance_masks_are_the_truth(tasks: dict[str, Task]) -> None:
    assert np.array_equal(tasks["instance"].voxels("segmentations/ct.nii.gz"), TRUTH)


def test_binary_masks_are_the_truth_of_one_instance_each(tasks: dict[str, Task]) -> None:
    for value in NAMES:
        found = tasks["binary"].voxels(f"segmentations/ct/instance-{value}.nii.gz")
        assert np.array_equal(found, drawn(value))


def test_semantic_masks_have_the_configured_values_or_the_platforms_own(
    tasks: dict[str, Task],
) -> None:
    found = tasks["semantic"].voxels("segmentations/ct.nii.gz")
    numbers = {name: number for number, (name, _) in enumerate(CATEGORIES, start=1)}
    for value, name in NAMES.items():
        expected = VALUES.get(name, numbers[name])
        assert np.array_equal(found == expected, drawn(value)), name


@pytest.mark.parametrize("masks", MASKS)
def test_an_independent_program_reads_every_voxel_of_the_segmentation(
    tasks: dict[str, Task], masks: str, tmp_path: Path
) -> None:
    found = by_dcmqi(tasks[masks].data("segmentations/ct.seg.dcm"), tmp_path, GRID)
    assert sorted(int((one > 0).sum()) for one in found.values()) == sorted(
        int(drawn(value).sum()) for value in NAMES
    )
    for value in NAMES:
        assert any(np.array_equal(one > 0, drawn(value)) for one in found.values()), value


def test_an_independent_program_reads_the_contours(tasks: dict[str, Task], tmp_path: Path) -> None:
    regions = by_plastimatch(
        tasks["instance"].data("segmentations/ct.rtstruct.dcm"), tmp_path, grid=GRID
    )
    assert len(regions) == len(NAMES)
    for value, name in NAMES.items():
        (region,) = [one for found, one in regions.items() if name in found]
        dice = 2 * (region & drawn(value)).sum() / (region.sum() + drawn(value).sum())
        assert dice >= 0.99, name
