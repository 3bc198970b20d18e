"""A task tells how its source's frames lie, and nothing is written for it."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.demo.phantom import frame_masks
from consumer.errors import Permanent, Refused
from consumer.model import Label, Mask, Series, TaskKey, ViewConvention
from handlers.calibrate import calibrate
from tests.fakes_platform import PROJECT, SOURCE, snapshot
from tests.handlers.export_house import House
from tests.handlers.test_revisions import IMAGES, TRUTH, a_house, drawn

KEY = TaskKey(source=SOURCE, project=PROJECT, task="task-1")


def drawn_in_all_groups(house: House, **changes: Any) -> None:
    masks = []
    for group, frames in frame_masks(TRUTH, 1).items():
        for frame, png in frames.items():
            house.platform.masks[f"{group}-{frame}"] = png
            masks.append(
                Mask(
                    reference=f"{group}-{frame}",
                    kind="png",
                    group=group,
                    feature="f",
                    frame=frame,
                    category="liver",
                )
            )
    series = Series(**{"name": None, "masks": tuple(masks), "images": IMAGES, **changes})
    label = Label(id="label-1", version="v1", series=(series,))
    house.platform.tasks["task-1"] = snapshot("task-1", labels=(label,))


async def test_the_groups_conventions_are_found_and_nothing_is_written() -> None:
    house = a_house()
    drawn_in_all_groups(house)
    found = {one.group: one for one in await calibrate(KEY, house.ports)}
    assert found["Sagittal"].decided == found["Coronal"].decided == ViewConvention()
    assert house.store.objects == {}


async def test_a_task_that_is_not_there_or_has_no_frames_is_said() -> None:
    house = a_house()
    with pytest.raises(Permanent, match="knows no task"):
        await calibrate(KEY, house.ports)
    house.platform.tasks["task-1"] = snapshot("task-1", **drawn(house))
    with pytest.raises(Permanent, match="masks on frames"):
        await calibrate(KEY, house.ports)


async def test_images_that_cannot_be_read_are_said() -> None:
    house = a_house()
    drawn_in_all_groups(house)
    house.platform.images["ct"] = Refused("images-unreachable", "gs:// is not fetched")
    with pytest.raises(Refused, match="gs://"):
        await calibrate(KEY, house.ports)
