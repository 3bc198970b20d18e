"""How a task's document and segments are told for masks of instances, of one instance, of classes.

That the documents are the vendor's own is proved beside its SDK (tests/end_to_end).
"""

from __future__ import annotations

from typing import Any

import pytest

from consumer.demo.redbrick import Drawing, Instance, SeriesSpec, SimulatedRedBrick
from consumer.model import ClassRule, Series, TaskSnapshot
from tests.consumer.platforms.redbrick_peer import only_label, snapshot

INSTANCES = (Instance(1, 0), Instance(2, 1, (9,)), Instance(5, 1))
AT = ("series", 0)


async def a_task(*, series: int = 1, **settings: Any) -> TaskSnapshot:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01", [SeriesSpec(f"s{n}") for n in range(series)])
    simulator.label(task_id, [Drawing(0, INSTANCES)])
    return await snapshot(simulator, task_id, **settings)


def the_series(task: TaskSnapshot) -> tuple[Series, dict[str, Any]]:
    return only_label(task).series[0], task.document["series"][0]


def flags(document: dict[str, Any]) -> tuple[bool, bool, bool]:
    return document["binaryMask"], document["semanticMask"], document["pngMask"]


@pytest.mark.parametrize("masks", ["instance", "binary", "semantic"])
async def test_segments_carry_the_class_s_number_in_semantic_masks(masks: str) -> None:
    series, _ = the_series(await a_task(masks=masks))
    assert [(s.value, s.category_value, s.overlaps) for s in series.segments] == [
        (1, 1, ()),
        (2, 2, (9,)),
        (5, 2, ()),
    ]


async def test_a_mask_of_instances_is_named_once_and_at_each_of_them() -> None:
    series, document = the_series(await a_task())
    assert series.slot == series.masks[0].slot == (*AT, "segmentations")
    assert [s.slot for s in series.segments] == [
        (*AT, "segmentMap", str(value), "mask") for value in (1, 2, 5)
    ]
    assert document["segmentations"] is None
    assert flags(document) == (False, False, False)
    assert document["segmentMap"]["2"]["overlappingGroups"] == [9]


async def test_masks_of_one_instance_are_listed_and_named_at_each_of_them() -> None:
    series, document = the_series(await a_task(masks="binary"))
    assert document["segmentations"] == []
    assert series.slot == (*AT, "segmentations")
    assert [s.slot for s in series.segments] == [
        (*AT, "segmentMap", str(value), "mask") for value in (1, 2, 5)
    ]
    assert flags(document) == (True, False, False)
    assert "overlappingGroups" not in document["segmentMap"]["2"]


async def test_a_mask_of_classes_is_a_list_of_one_with_an_entry_for_each_class() -> None:
    series, document = the_series(await a_task(masks="semantic"))
    assert document["segmentations"] == []
    assert series.slot == (*AT, "segmentations")
    assert {s.slot for s in series.segments} == {()}
    assert flags(document) == (False, True, False)
    assert {key: one["category"] for key, one in document["segmentMap"].items()} == {
        "1": "liver",
        "2": "lesion",
    }


async def test_configured_class_values_are_the_keys_of_a_mask_of_classes() -> None:
    rules = (ClassRule(name="lesion", value=40), ClassRule(name="spleen", value=7))
    _, document = the_series(await a_task(masks="semantic", classes=rules))
    assert {key: one["category"] for key, one in document["segmentMap"].items()} == {
        "1": "liver",
        "40": "lesion",
    }


@pytest.mark.parametrize("masks", ["instance", "binary", "semantic"])
async def test_a_series_without_a_mask_has_room_for_an_empty_one_only(masks: str) -> None:
    task = await a_task(series=2, masks=masks)
    undrawn = only_label(task).series[1]
    assert undrawn.slot == ("series", 1, "segmentations")
    assert undrawn.png_slot == ()
    assert "segmentations" not in task.document["series"][1]
    assert "binaryMask" not in task.document["series"][1]


@pytest.mark.parametrize("masks", ["instance", "binary", "semantic"])
async def test_the_document_has_a_place_for_whether_masks_are_pictures(masks: str) -> None:
    series, document = the_series(await a_task(masks=masks))
    assert series.png_slot == (*AT, "pngMask")
    assert document["pngMask"] is False


async def test_masks_of_each_annotator_are_named_in_their_own_series() -> None:
    simulator = SimulatedRedBrick(consensus=True)
    task_id = simulator.create_task("study01")
    simulator.assign(task_id, "ben", "dora")
    for person in ("ben", "dora"):
        simulator.label(task_id, [Drawing(0, INSTANCES)], by=person)
    task = await snapshot(simulator, task_id, masks="semantic")
    slots = [label.series[0].slot for label in task.labels]
    assert slots == [("consensusTasks", n, "series", 0, "segmentations") for n in (0, 1)]
    told = [one["series"][0]["segmentMap"].keys() for one in task.document["consensusTasks"]]
    assert told == [{"1", "2"}, {"1", "2"}]
