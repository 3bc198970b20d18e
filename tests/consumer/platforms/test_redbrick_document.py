"""The odd shapes of RedBrick's answers, which the simulated platform does not make by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.demo.redbrick import SimulatedRedBrick
from consumer.model import TaskKey, TaskSnapshot
from consumer.platforms.redbrick_document import MAX_SERIES, images_of
from consumer.platforms.redbrick_snapshot import Content, ProjectFacts, snapshot_of
from consumer.platforms.redbrick_versions import named, parts_of, version_of
from tests.consumer.platforms.redbrick_peer import only_label, snapshot

KEY = TaskKey(source="redbrick", project="project-1", task="task-1")
BEN = {"userId": "user-ben", "email": "ben@hospital.example", "givenName": "Ben"}
DORA = {"userId": "user-dora", "email": "dora@hospital.example", "givenName": "Dora"}
SEGMENT = {"labelid": "l", "category": "liver", "dicom": {"instanceid": 1}}


def data(td_id: str = "td-1", labels: Any = (SEGMENT,), **changes: Any) -> dict[str, Any]:
    labels_map = [{"seriesIndex": 0, "imageIndex": None, "labelName": "m.nii.gz"}]
    return {
        "tdId": td_id,
        "createdAt": "2026-01-05T09:00:00+00:00",
        "createdByEntity": BEN,
        "labelsData": json.dumps(list(labels)),
        "labelsMap": labels_map,
        **changes,
    }


def entry(**changes: Any) -> dict[str, Any]:
    datapoint = {
        "name": "study01",
        "items": ["a.dcm", "b.dcm", "c.dcm"],
        "createdAt": "2026-01-05T08:00:00Z",
        "seriesInfo": [{"name": "ct", "itemsIndices": [2, 0]}, {"itemsIndices": [1]}],
        "storageMethod": {"storageId": "s"},
        **changes.pop("datapoint", {}),
    }
    return {
        "taskId": "task-1",
        "currentStageName": "END",
        "datapoint": datapoint,
        "latestTaskData": data(),
        "genericEvents": [],
        **changes,
    }


def read(
    answer: dict[str, Any], *, consensus: bool = False, reviews: tuple[str, ...] = ()
) -> TaskSnapshot:
    images = images_of(answer["datapoint"])
    content = Content(
        entry=answer,
        images=images,
        version=version_of(answer.get("latestTaskData"), images.series_of_item),
        parts=tuple(parts_of(answer, images.series_of_item)) if consensus else (),
    )
    facts = ProjectFacts(taxonomy={}, consensus=consensus, reviews=reviews)
    return snapshot_of(KEY, content, facts, {"end", "output"})


def test_items_are_sorted_within_their_series() -> None:
    series = read(entry()).document["series"]
    assert [one["items"] for one in series] == [["a.dcm", "c.dcm"], ["b.dcm"]]


def test_a_mask_named_by_an_image_belongs_to_that_image_s_series() -> None:
    labels_map = [{"seriesIndex": None, "imageIndex": 1, "labelName": "m.nii.gz"}]
    task = read(entry(latestTaskData=data(labelsMap=labels_map)))
    assert [len(series.masks) for series in only_label(task).series] == [0, 1]


@pytest.mark.parametrize("split", [None, [{"name": "ct"}, {"name": "mr"}]])
def test_images_that_no_series_claims_are_all_in_the_first(split: Any) -> None:
    task = read(entry(datapoint={"seriesInfo": split}))
    assert task.document["series"][0]["items"] == ["a.dcm", "b.dcm", "c.dcm"]
    assert {series.name for series in only_label(task).series} == {None}


def test_a_segment_without_a_series_is_in_every_one() -> None:
    task = read(entry())
    assert [[s.value for s in series.segments] for series in only_label(task).series] == [[1], [1]]


def test_a_trail_of_an_old_taxonomy_leaves_out_its_root() -> None:
    deep = {**SEGMENT, "category": [["object", "organ", "liver"]], "volumeindex": 0}
    flat = {**deep, "category": [["object", "liver"]], "dicom": {"instanceid": 2}}
    task = read(entry(latestTaskData=data(labels=[deep, flat])))
    segments = only_label(task).series[0].segments
    assert [segment.category for segment in segments] == ["organ::liver", "liver"]
    assert task.document["series"][0]["segmentMap"]["1"]["category"] == ["organ", "liver"]


def test_a_task_without_a_name_is_called_by_its_first_image_in_the_export() -> None:
    task = read(entry(datapoint={"name": None}))
    assert (task.name, task.document["name"]) == ("task-1", "a.dcm")


@pytest.mark.parametrize("index", [-1, MAX_SERIES, 10**12])
def test_a_series_index_out_of_bounds_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="series index"):
        read(entry(latestTaskData=data(labels=[{**SEGMENT, "volumeindex": index}])))


def consensus_entry(stage: str, *statuses: str, truth: Any = None) -> dict[str, Any]:
    seats = [
        {"state": status, "assignedTo": user, "taskData": data(f"td-{user['userId']}")}
        for status, user in zip(statuses, (BEN, DORA), strict=True)
    ]
    sub_task = {**seats[0], "subTasks": seats[1:]}
    return entry(currentStageName=stage, currentStageSubTask=sub_task, latestTaskData=truth)


def test_a_skipped_label_of_a_consensus_is_never_ground_truth() -> None:
    one = read(consensus_entry("END", "SKIPPED", "COMPLETED"), consensus=True)
    none = read(consensus_entry("END", "SKIPPED", "SKIPPED"), consensus=True)
    assert (one.ground_truth, one.ground_truth_label) == (True, "user-dora")
    assert (none.ground_truth, none.ground_truth_reason) == (False, "skipped")


def test_a_later_review_of_a_consensus_shows_the_merged_version() -> None:
    answer = entry(currentStageName="Review_2", currentStageSubTask={"state": "ASSIGNED"})
    task = read(answer, consensus=True, reviews=("Review_1", "Review_2"))
    assert only_label(task).super_truth
    assert "segmentations" in task.document["superTruth"]["series"][0]
    assert not task.ground_truth


def test_the_choice_of_an_older_version_as_the_truth_is_not_stale() -> None:
    answer = entry(currentStageSubTask={"state": None})
    assert only_label(read(answer, consensus=True)).updated_at is None


def test_labels_from_a_file_get_the_names_of_their_options() -> None:
    options = [{"optionId": 0, "name": "left"}, {"optionId": 1, "name": "right"}]
    attributes = [
        {"attrId": 0, "name": "side", "attrType": "SELECT", "options": options},
        {"attrId": 1, "name": "sides", "attrType": "MULTISELECT", "options": options},
    ]
    kind = {"classId": 4, "category": "kidney", "attributes": attributes}
    chosen = [{"attrid": 0, "optionid": 1}, {"attrid": 1, "optionid": [1, 0]}]
    study = {"studyclassify": True, "attributes": [{"attrid": 0, "optionid": 0}]}
    taxonomy = {"isNew": True, "objectTypes": [kind], "studyClassify": attributes[:1]}
    organ, whole = named([{"classid": 4, "attributes": chosen}, study], taxonomy)
    assert organ["category"] == "kidney"
    assert [a["value"] for a in organ["attributes"]] == ["right", ["right", "left"]]
    assert whole["attributes"][0]["value"] == "left"


async def test_who_acted_is_told_even_when_the_task_is_another_s() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.assign(task_id, "ben")
    simulator.move(task_id, "Review_1", by="ada")
    moved = (await snapshot(simulator, task_id)).history[-1]
    assert moved.actor == simulator.users["ada"].user_id
