"""A person looks at what the lake holds of one task."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image as Picture

from consumer.errors import Permanent
from handlers.show import find, show
from tests.fakes_platform import PROJECT, nifti_label
from tests.handlers.export_house import House
from tests.handlers.test_revisions import PHANTOM, TRUTH, a_house, drawn, framed


async def test_the_masks_are_shown_over_the_image() -> None:
    house = a_house(dicom_to_nifti=True)
    await house.see(**drawn(house))
    shown = await show(house.store, PROJECT, "task-1", slices=4)
    slices = int(TRUTH.any(axis=(0, 1)).sum())
    assert Picture.open(io.BytesIO(shown.png)).format == "PNG"
    assert shown.about.endswith(f"{min(4, slices)} of {PHANTOM.shape[2]} slices")


async def test_without_an_image_it_is_said_what_would_bring_one() -> None:
    house = a_house()
    await house.see(**framed(house))
    shown = await show(house.store, PROJECT, "task-1")
    assert "dicom_to_nifti = true" in shown.about


async def test_a_task_is_found_by_its_id_and_by_its_name() -> None:
    house = House()
    await house.see("task-1", labels=(nifti_label(),), name="CT 7")
    await house.see("task-2", labels=(nifti_label(),), name="twin")
    await house.see("task-3", labels=(nifti_label(),), name="twin")
    assert await find(house.store, "task-1", None) == (PROJECT, "task-1")
    assert await find(house.store, "CT 7", PROJECT) == (PROJECT, "task-1")
    for wanted, reason in (("twin", "task-ambiguous"), ("nobody", "task-unknown")):
        with pytest.raises(Permanent) as caught:
            await find(house.store, wanted, None)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "asked", "reason"),
    [
        ({}, {}, "nothing-exported"),
        ({"labels": (nifti_label(),)}, {"series": "other"}, "nothing-drawn"),
        ({"labels": (nifti_label(),)}, {"label": "other"}, "nothing-drawn"),
    ],
)
async def test_what_cannot_be_shown_is_said(
    changes: dict[str, Any], asked: dict[str, Any], reason: str
) -> None:
    house = House()
    await house.see(**changes)
    with pytest.raises(Permanent) as caught:
        await show(house.store, PROJECT, "task-1", **asked)
    assert caught.value.reason == reason


async def test_a_changed_image_is_not_shown() -> None:
    house = a_house(dicom_to_nifti=True)
    await house.see(**drawn(house))
    image = next(f for f in (await house.manifest()).files if f.path == "images/ct.nii.gz")
    house.store.objects[image.key] += b"!"
    with pytest.raises(Permanent) as caught:
        await show(house.store, PROJECT, "task-1")
    assert caught.value.reason == "lake-damaged"
