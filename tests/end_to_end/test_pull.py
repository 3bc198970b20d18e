"""What webhooks brought into a lake is pulled: from a folder and from S3, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from consumer.demo.phantom import Phantom, ct_series, nifti_mask, truth
from consumer.demo.redbrick import Drawing, Instance, SeriesSpec
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from tests.end_to_end.house import House, house, until
from tests.handlers.pull.nnunet_rules import check_nnunet
from tests.servers_s3 import ACCESS_KEY, SECRET_KEY, S3Server, use_credentials

AT_ONCE = {"GROUNDWIRE_EXPORT__DELETION_CONFIRMED_AFTER_S": "0"}


async def two_studies(place: House) -> list[str]:
    """Labelled in RedBrick; the first is approved."""
    redbrick = place.cast.redbrick
    made = []
    for name in ("study01", "study02"):
        series = [SeriesSpec(name="ct", dimensions=(12, 10, 6))]
        made.append(redbrick.create_task(name, series))
        redbrick.label(made[-1], [Drawing(0, (Instance(1), Instance(2, 1)))])
    approve(place, made[0])
    return made


def approve(place: House, task: str) -> None:
    for _ in range(2):  # there are two reviews
        place.cast.redbrick.approve(task)


async def told(place: House, *tasks: str, truth: str | None = None) -> None:
    """The webhooks have arrived and the lake shows them."""
    await place.post_all(place.webhooks())
    project = place.cast.redbrick.project_id

    async def shown() -> str | None:
        for task in tasks:
            pointer = await place.pointer(project, task)
            if pointer is None or pointer.revision is None:
                return f"{task} is not exported"
            if task == truth and not pointer.ground_truth:
                return f"{task} is no ground truth"
        return None

    await until(shown, within_s=60)


async def pull(place: House, *words: str) -> str:
    done = await place.run("pull", place.cast.redbrick.project_id, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tasks_json(place: House) -> list[dict[str, Any]]:
    folder = place.directory / place.cast.redbrick.project_id
    found: list[dict[str, Any]] = json.loads((folder / "tasks.json").read_text())
    return found


def assert_every_mask_is_there(place: House) -> None:
    folder = place.directory / place.cast.redbrick.project_id
    for task in tasks_json(place):
        (series,) = task["series"]
        assert series["segmentations"] == f"segmentations/{task['name']}/ct.nii.gz"
        mask = nibabel.load(folder / series["segmentations"])
        assert {str(v) for v in np.unique(np.asanyarray(mask.dataobj))} - {"0"} == set(
            series["segmentMap"]
        )


async def the_story_is_pulled(place: House) -> None:
    first, second = await two_studies(place)
    await told(place, first, second, truth=first)
    assert "added 1: study01" in await pull(place, ".", "--ground-truth")
    assert_every_mask_is_there(place)
    assert "added 1: study02" in await pull(place, ".", "--all")
    assert_every_mask_is_there(place)
    assert "2 unchanged; 0 file(s), 0 bytes fetched" in await pull(place)
    place.cast.redbrick.delete(first)
    await place.post_all(place.webhooks())

    async def gone() -> str | None:
        pointer = await place.pointer(place.cast.redbrick.project_id, first)
        return None if pointer and pointer.revision is None else "the task is still there"

    await until(gone, within_s=60)
    assert "removed 1: study01" in await pull(place)
    assert [task["name"] for task in tasks_json(place)] == ["study02"]


@pytest.mark.chaos
async def test_a_lake_in_a_folder_is_pulled(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    async with house(tmp_path, store, environment=AT_ONCE) as place:
        place.start("run", "run")
        await place.listening()
        await the_story_is_pulled(place)


@pytest.mark.timeout(240)
async def test_a_lake_on_s3_is_pulled(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch)
    prefix = s3_server.new_prefix()
    store = S3Store(s3_server.bucket, prefix, endpoint=s3_server.endpoint)
    environment = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "GROUNDWIRE_LAKE_ENDPOINT": s3_server.endpoint,
        **AT_ONCE,
    }
    lake = f"s3://{s3_server.bucket}/{prefix}"
    async with house(tmp_path, store, lake=lake, environment=environment) as place:
        place.start("run", "run")
        await place.listening()
        await the_story_is_pulled(place)


async def test_a_phantoms_images_and_masks_become_a_training_set(tmp_path: Path) -> None:
    images = {
        "GROUNDWIRE_EXPORT__WITH_FILES": "true",
        "GROUNDWIRE_EXPORT__DICOM_TO_NIFTI": "true",
    }
    phantom = Phantom(seed=3, shape=(48, 40, 12))
    async with house(tmp_path, DirectoryStore(tmp_path / "lake"), environment=images) as place:
        place.start("run", "run")
        await place.listening()
        task = place.cast.redbrick.create_task("CT 1", [scanned(phantom)])
        mask = nifti_mask(truth(phantom), phantom.affine)
        instances = tuple(Instance(organ.value, organ.value - 1) for organ in phantom.organs)
        place.cast.redbrick.label(task, [Drawing(0, instances, mask)])
        approve(place, task)
        await told(place, task, truth=task)
        await pull(place, ".", "--layout", "nnunet", "--channel", "CT")
        folder = place.directory / place.cast.redbrick.project_id
        assert check_nnunet(folder)["numTraining"] == 1
        (label,) = (folder / "labelsTr").iterdir()
        drawn = np.asanyarray(nibabel.load(label).dataobj) > 0
        assert np.array_equal(drawn, truth(phantom) > 0)
        for format_ in ("seg", "rtstruct", "png"):
            await pull(place, ".", "--format", format_)
        await pull(place, ".", "--with-files")
        (series,) = tasks_json(place)[0]["series"]
        assert len([item for item in series["items"] if (folder / item).is_file()]) == 12


def scanned(phantom: Phantom) -> SeriesSpec:
    """The phantom's CT as the platform serves it."""
    slices = {f"patient/{k:03d}.dcm": data for k, data in enumerate(ct_series(phantom))}
    return SeriesSpec(
        name="ct",
        items=tuple(slices),
        dimensions=phantom.shape,
        spacing=phantom.spacing,
        contents=slices,
    )
