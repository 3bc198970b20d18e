"""What a RedBrick task is to us: labels, masks, and which of them is the truth."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pytest

from consumer.demo.redbrick import (
    Drawing,
    Instance,
    SeriesSpec,
    SimulatedRedBrick,
)
from consumer.demo.redbrick_masks import nifti
from consumer.model import TaskSnapshot
from tests.consumer.platforms.redbrick_peer import (
    connected,
    key,
    only_label,
    snapshot,
)


@pytest.mark.parametrize("upload_saves_labels", [True, False])
async def test_a_task_nobody_has_annotated_has_no_label(*, upload_saves_labels: bool) -> None:
    simulator = SimulatedRedBrick(upload_saves_labels=upload_saves_labels)
    task_id = simulator.create_task("study01")
    simulator.assign(task_id, "ben")
    task = await snapshot(simulator, task_id)
    assert (task.labels, task.stage, task.ground_truth) == ((), "Label", False)
    assert task.name == "study01"


async def test_a_saved_draft_is_a_label_whose_version_is_its_td_id() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    first = simulator.save(task_id)
    before = only_label(await snapshot(simulator, task_id))
    second = simulator.save(task_id)
    after = only_label(await snapshot(simulator, task_id))
    assert [before.version, after.version] == [first, second]
    assert before.id == after.id
    assert (before.updated_at or "") < (after.updated_at or "")
    assert (before.created_at, after.created_at) == (before.updated_at, after.updated_at)


@pytest.mark.parametrize("in_files", [False, True], ids=["inline", "in a file"])
async def test_segments_carry_value_category_and_overlaps(*, in_files: bool) -> None:
    simulator = SimulatedRedBrick(labels_in_files=in_files)
    task_id = simulator.create_task("study01", [SeriesSpec("ct"), SeriesSpec(dimensions=(9, 7, 5))])
    simulator.label(
        task_id, [Drawing(0, (Instance(1, 0), Instance(2, 1, (3,)))), Drawing(1, (Instance(7, 2),))]
    )
    label = only_label(await snapshot(simulator, task_id))
    first, second = label.series
    assert [(s.value, s.category, s.overlaps) for s in first.segments] == [
        (1, "liver", ()),
        (2, "lesion", (3,)),
    ]
    assert [(s.value, s.category) for s in second.segments] == [(7, "vessel")]
    assert (first.name, second.name) == ("ct", None)
    assert (first.dimensions, second.dimensions) == ((16, 16, 8), (9, 7, 5))


async def test_a_mask_s_slot_is_its_place_in_the_document() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01", [SeriesSpec("ct"), SeriesSpec("mr")])
    simulator.label(task_id, [Drawing(1)])
    task = await snapshot(simulator, task_id)
    drawn = [series.masks for series in only_label(task).series]
    assert [len(masks) for masks in drawn] == [0, 1]
    assert drawn[1][0].slot == ("series", 1, "segmentations")
    assert "segmentations" not in task.document["series"][0]
    assert task.document["series"][1]["segmentMap"]["1"]["category"] == "liver"


async def test_a_mask_comes_as_it_is_stored_and_only_when_asked_for() -> None:
    simulator = SimulatedRedBrick()
    voxels = numpy.arange(16 * 16 * 8).reshape(16, 16, 8) % 3
    stored = nifti(voxels, SeriesSpec())
    task_id = simulator.create_task("study01")
    simulator.label(task_id, [Drawing(0, (Instance(1), Instance(2)), mask=stored)])
    async with connected(simulator) as platform:
        asked = key(simulator, task_id)
        task = (await platform.fetch([asked]))[asked]
        assert isinstance(task, TaskSnapshot)
        assert simulator.counters["presignItemsSDK"] == simulator.counters["mask GET"] == 0
        mask = only_label(task).series[0].masks[0]
        assert await platform.download(task, mask) == stored
    assert simulator.counters["mask GET"] == 1


async def test_labels_submitted_with_nothing_drawn_are_a_label_without_masks() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id, [])
    simulator.approve(task_id)
    task = await snapshot(simulator, task_id)
    (series,) = only_label(task).series
    assert (series.masks, series.dimensions) == ((), (16, 16, 8))
    assert series.slot == ("series", 0, "segmentations")
    assert task.ground_truth


async def test_a_task_moved_to_the_end_unannotated_is_no_ground_truth() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.move(task_id, "END")
    task = await snapshot(simulator, task_id)
    assert (task.ground_truth, task.ground_truth_reason) == (False, "not-annotated")


async def test_urls_in_the_document_lose_their_query() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("x", [SeriesSpec(items=("https://s3.example/a.dcm?sig=1",))])
    task = await snapshot(simulator, task_id)
    assert task.document["series"][0]["items"] == ["https://s3.example/a.dcm"]


async def test_no_name_and_no_free_text_holds_a_signature() -> None:
    simulator = SimulatedRedBrick()
    link = "from https://s3.example/a.dcm?sig=secret"
    simulator.projects[simulator.project_id].taxonomy["name"] = link
    task_id = simulator.create_task(link, [SeriesSpec(name=link)], meta_data={"source": link})
    simulator.label(task_id)
    task = await snapshot(simulator, task_id)
    assert "secret" not in json.dumps([task.document, task.taxonomy, task.name])
    assert task.labels[0].series[0].name == "from https://s3.example/a.dcm"


async def test_equal_state_gives_an_equal_snapshot() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    assert await snapshot(simulator, task_id) == await snapshot(simulator, task_id)


async def test_ground_truth_comes_with_the_last_stage_and_goes_when_moved_back() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    states = []
    for change in (simulator.approve, lambda t: simulator.move(t, "Label"), simulator.label):
        change(task_id)
        task = await snapshot(simulator, task_id)
        states.append((task.stage, task.ground_truth, task.ground_truth_reason))
    assert states == [
        ("END", True, None),
        ("Label", False, "not-final"),
        ("Review_1", False, "not-final"),
    ]


async def test_which_stages_are_ground_truth_is_configurable() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    task = await snapshot(simulator, task_id, ground_truth_stages=["REVIEW_1"])
    assert task.ground_truth
    assert task.ground_truth_label == only_label(task).id


async def test_a_skipped_label_says_so() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.save(task_id)
    simulator.skip(task_id)
    assert only_label(await snapshot(simulator, task_id)).skipped


def a_consensus(**settings: Any) -> tuple[SimulatedRedBrick, str]:
    simulator = SimulatedRedBrick(consensus=True, **settings)
    task_id = simulator.create_task("study01")
    simulator.assign(task_id, "ben", "dora")
    return simulator, task_id


@pytest.mark.parametrize("in_files", [False, True], ids=["inline", "in a file"])
async def test_every_annotator_s_label_is_kept_under_their_id(*, in_files: bool) -> None:
    simulator, task_id = a_consensus(labels_in_files=in_files)
    simulator.label(task_id, [Drawing(0, (Instance(1, 1),))], by="ben")
    half = await snapshot(simulator, task_id)
    simulator.label(task_id, [Drawing(0, (Instance(1, 2),))], by="dora")
    both = await snapshot(simulator, task_id)
    ben, dora = (simulator.users[name].user_id for name in ("ben", "dora"))
    assert [label.id for label in half.labels] == [ben]
    assert [label.id for label in both.labels] == [ben, dora]
    assert [label.series[0].segments[0].category for label in both.labels] == ["lesion", "vessel"]
    slots = [label.series[0].masks[0].slot for label in both.labels]
    assert slots == [("consensusTasks", n, "series", 0, "segmentations") for n in (0, 1)]


async def test_the_merged_version_is_the_ground_truth_of_a_consensus() -> None:
    simulator, task_id = a_consensus()
    simulator.label(task_id, by="ben")
    simulator.label(task_id, by="dora")
    undecided = await snapshot(simulator, task_id)
    simulator.approve(task_id)
    task = await snapshot(simulator, task_id)
    assert undecided.ground_truth is False
    assert task.ground_truth_label == "super-truth"
    merged = next(label for label in task.labels if label.super_truth)
    assert merged.series[0].masks[0].slot == ("superTruth", "series", 0, "segmentations")
    assert len(task.labels) == 3


async def test_a_consensus_without_a_merged_version_is_undecided() -> None:
    simulator, task_id = a_consensus()
    simulator.label(task_id, by="ben")
    simulator.label(task_id, by="dora")
    simulator.approve(task_id)
    simulator.task(task_id).latest = None
    task = await snapshot(simulator, task_id)
    assert (task.ground_truth, task.ground_truth_reason) == (False, "consensus-undecided")
