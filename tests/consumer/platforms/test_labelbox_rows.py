"""What a data row says, in the current and in the legacy shape."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import GroundwireError, Permanent
from consumer.model import Action, EventType, TaskKey, TaskSnapshot
from consumer.platforms.labelbox import EXPORT_PARAMS
from consumer.platforms.labelbox_history import history_of
from consumer.platforms.labelbox_legacy import current_row, frame_urls, is_legacy, read_frames
from consumer.platforms.labelbox_rows import LabelFacts, choose, snapshot_of
from tests.samples.labelbox import Sample, ours, samples

Json = dict[str, Any]
SAMPLES = samples()


@pytest.fixture(params=list(SAMPLES))
def sample(request: pytest.FixtureRequest) -> Sample:
    return copy.deepcopy(SAMPLES[request.param])


def _key(row: Json) -> TaskKey:
    (project,) = row["projects"]
    return TaskKey(source="lb", project=project, task=row["data_row"]["id"])


def _read(row: Json, details: tuple[str, ...] = EXPORT_PARAMS) -> TaskSnapshot:
    return snapshot_of(row, _key(row), details)


def _entry(row: Json) -> Json:
    entry: Json = row["projects"][_key(row).project]
    return entry


def _legacy(sample: Sample) -> TaskSnapshot:
    (url,) = frame_urls([sample.legacy])
    row = current_row([sample.legacy], "cpro", {url: sample.frames})
    return _read(row)


# the current shape


def test_a_row_that_was_approved_without_a_next_task_is_ground_truth(sample: Sample) -> None:
    seen = _read(sample.current)

    assert (seen.stage, seen.ground_truth) == ("Done", True)
    assert seen.ground_truth_label == _entry(sample.current)["labels"][0]["id"]
    assert seen.ground_truth_reason is None


def test_history_is_told_oldest_first_in_our_words(sample: Sample) -> None:
    items = _read(sample.current).history

    assert [item.type for item in items] == [
        EventType.CREATED,
        EventType.SUBMITTED,
        EventType.ACCEPTED,
    ]
    assert [item.action for item in items] == [Action.CREATE, Action.MOVE, Action.APPROVE]
    assert [item.final for item in items] == [False, False, True]
    assert [item.at for item in items] == sorted(item.at for item in items)


def test_every_mask_has_its_place_in_the_document(sample: Sample) -> None:
    seen = _read(sample.current)

    (mask,) = seen.labels[0].series[0].masks
    place: Any = seen.document
    for step in mask.slot:
        place = place[step]
    assert place == mask.reference
    assert mask.kind == "png"
    assert mask.group in ("Axial", "Sagittal", "Coronal")
    assert str(mask.frame) in mask.slot
    assert mask.feature in mask.slot


def test_the_document_is_the_row_with_urls_without_their_query(sample: Sample) -> None:
    document = _read(sample.current).document

    assert "?" not in document["data_row"]["row_data"]
    assert document["data_row"]["id"] == sample.current["data_row"]["id"]
    assert _entry(document)["project_details"] == _entry(sample.current)["project_details"]


def test_no_name_or_document_holds_a_signature() -> None:
    seen = _read(ours().current)

    assert "secret" not in json.dumps(seen.document)
    assert seen.name == "https://storage.example.com/studies/7.dcm"


@pytest.mark.parametrize("details", EXPORT_PARAMS)
def test_a_detail_that_is_switched_off_is_only_left_out_of_the_document(details: str) -> None:
    row = ours().current
    kept = tuple(name for name in EXPORT_PARAMS if name != details)
    place = {
        "attachments": lambda d: d,
        "metadata_fields": lambda d: d,
        "data_row_details": lambda d: d["data_row"],
        "project_details": _entry,
        "label_details": lambda d: _entry(d)["labels"][0],
        "performance_details": lambda d: _entry(d)["labels"][0],
    }[details]
    name = "details" if details == "data_row_details" else details

    everything, without = _read(row), _read(row, kept)

    assert name in place(everything.document)
    assert name not in place(without.document)
    assert (without.history, without.ground_truth) == (everything.history, everything.ground_truth)
    assert without.labels == everything.labels


def test_the_order_in_which_labels_are_listed_changes_nothing() -> None:
    one, other = _consensus("clab1", "clab2"), _consensus("clab2", "clab1")

    assert _read(one) == _read(other)


def test_a_stage_move_leaves_the_version_of_the_labels() -> None:
    row, moved = ours().current, ours().current
    _entry(moved)["project_details"]["workflow_history"].pop(0)

    assert _read(row).labels == _read(moved).labels
    assert _read(moved).stage == "Initial review task"


def test_a_label_tells_when_it_was_made_and_when_it_changed() -> None:
    row = ours().current
    details = _entry(row)["labels"][0]["label_details"]
    details |= {"created_at": "2026-02-01T10:00:00+02:00", "updated_at": "2026-02-03T11:30:00Z"}

    (label, *_) = _read(row).labels

    assert label.created_at == "2026-02-01T08:00:00.000000Z"
    assert label.updated_at == "2026-02-03T11:30:00.000000Z"


@pytest.mark.parametrize("what", ["time", "drawing"])
def test_a_later_save_or_another_drawing_is_another_version(what: str) -> None:
    row, changed = ours().current, ours().current
    label = _entry(changed)["labels"][0]
    if what == "time":
        label["label_details"]["updated_at"] = "2026-02-03T11:30:01+00:00"
    else:
        frame = label["annotations"]["groups"]["Coronal"]["frames"]["90"]
        frame["objects"]["cfea0000000000000000000002"]["line"].pop()

    assert _read(row).labels[0].version != _read(changed).labels[0].version


def test_a_signed_url_that_changes_is_the_same_version() -> None:
    rows = [ours().current, ours().current]
    for number, row in enumerate(rows):
        frame = _entry(row)["labels"][0]["annotations"]["groups"]["Axial"]["frames"]["12"]
        frame["objects"]["cfea0000000000000000000001"]["mask"]["url"] += f"?signature={number}"

    one, other = map(_read, rows)

    assert one.labels[0].version == other.labels[0].version
    assert one.labels[0].series[0].masks[0].reference.endswith("?signature=0")


def test_a_composite_mask_is_a_mask_too() -> None:
    row = ours().current
    frame = _entry(row)["labels"][0]["annotations"]["groups"]["Axial"]["frames"]["12"]
    drawn = frame["objects"]["cfea0000000000000000000001"]
    drawn["composite_mask"] = {"url": drawn.pop("mask")["url"], "color_rgb": [1, 2, 3]}

    (mask,) = _read(row).labels[0].series[0].masks

    assert mask.slot[-2:] == ("composite_mask", "url")


def test_an_intermediate_approval_is_not_final() -> None:
    row = ours().current
    step = _entry(row)["project_details"]["workflow_history"][0]
    step |= {"next_task_name": "Second review", "next_task_id": "queue-2"}

    seen = _read(row)

    assert (seen.stage, seen.ground_truth) == ("Second review", False)
    assert not seen.history[-1].final


def test_a_row_sent_back_from_done_leaves_the_ground_truth() -> None:
    row = ours().current
    _entry(row)["project_details"]["workflow_history"].insert(
        0,
        {
            "action": "REJECT",
            "created_at": "2026-02-05T08:00:00+00:00",
            "next_task_name": "Rework (all rejected)",
            "next_task_id": "queue-rework",
        },
    )

    seen = _read(row)

    assert (seen.stage, seen.ground_truth) == ("Rework (all rejected)", False)
    assert seen.ground_truth_reason == "not-approved"


def test_a_status_that_contradicts_the_history_makes_no_ground_truth() -> None:
    row = ours().current
    _entry(row)["project_details"]["workflow_status"] = "IN_REVIEW"

    assert not _read(row).ground_truth


def test_a_row_moved_to_done_by_hand_is_ground_truth_when_the_status_says_so() -> None:
    row = ours().current
    details = _entry(row)["project_details"]
    details["workflow_history"][0]["action"] = "MOVE"

    assert not _read(row).ground_truth
    details["workflow_status"] = "DONE"
    assert (_read(row).ground_truth, _read(row).stage) == (True, "Done")


def test_a_row_that_is_on_its_way_is_not_done_whatever_the_status_says() -> None:
    row = ours().current
    details = _entry(row)["project_details"]
    details["workflow_history"].pop(0)
    details["workflow_status"] = "DONE"

    assert (_read(row).ground_truth, _read(row).stage) == (False, "Initial review task")


# history ids


def test_an_item_keeps_its_id_whoever_prints_it() -> None:
    current: Json = {
        "action": "MOVE",
        "created_at": "2026-05-11T18:06:16.859000+00:00",
        "created_by": "somebody@example.com",
        "next_task_name": "Renamed since",
        "next_task_id": "q1",
    }
    legacy = {**current, "created_at": "2026-05-11T18:06:16.859Z", "created_by": "cuser"}
    legacy["next_task_name"] = "Initial labeling task"

    assert history_of([current], "p", "r")[0].id == history_of([legacy], "p", "r")[0].id


def test_two_equal_items_are_two() -> None:
    step = {"action": "MOVE", "created_at": "2026-05-11T18:06:16Z", "next_task_id": "q1"}

    one, other = history_of([step, step], "p", "r")

    assert one.id != other.id


def test_items_are_put_in_the_order_of_their_times_and_equal_times_stay_as_listed() -> None:
    at = "2026-05-11T18:06:1"
    listed = [
        {"action": "REWORK", "created_at": f"{at}7Z"},
        {"action": "REJECT", "created_at": f"{at}7Z"},
        {"action": "APPROVE", "created_at": f"{at}9Z"},
        {"action": "MOVE", "created_at": f"{at}6Z"},
    ]

    actions = [item.action for item in history_of(listed, "p", "r")]

    assert actions == [Action.CREATE, Action.REJECT, Action.REWORK, Action.APPROVE]


def test_an_action_that_nobody_knows_is_kept_without_a_meaning() -> None:
    first = {"action": "MOVE", "created_at": "2026-05-11T18:06:16Z"}
    strange = {"action": "TELEPORT", "created_at": "2026-05-11T18:06:17Z"}

    item = history_of([strange, first], "p", "r")[-1]

    assert (item.type, item.action) == (EventType.MOVED, None)


# which label is the ground truth


def _facts(label: str, **flags: bool) -> LabelFacts:
    given = {"skipped": False, "benchmark": False, "approved": False, **flags}
    return LabelFacts(id=label, **given)


@pytest.mark.parametrize(
    ("labels", "selected", "chosen"),
    [
        ([_facts("a")], None, "a"),
        ([_facts("a"), _facts("b", skipped=True)], None, "a"),
        ([_facts("a"), _facts("b", approved=True)], None, "b"),
        ([_facts("a", approved=True), _facts("b", benchmark=True)], None, "b"),
        ([_facts("a", approved=True), _facts("b", benchmark=True)], "a", "a"),
        ([_facts("a"), _facts("b")], "b", "b"),
    ],
)
def test_one_label_of_several_is_the_ground_truth(
    labels: list[LabelFacts], selected: str | None, chosen: str
) -> None:
    assert choose(labels, {"selected_label_id": selected}, done=True).label == chosen


@pytest.mark.parametrize(
    ("labels", "done", "reason"),
    [
        ([_facts("a")], False, "not-approved"),
        ([], True, "no-label"),
        ([_facts("a", skipped=True, approved=True, benchmark=True)], True, "skipped"),
        ([_facts("a"), _facts("b")], True, "consensus-undecided"),
        ([_facts("a", approved=True), _facts("b", approved=True)], True, "several-approved"),
    ],
)
def test_no_label_is_the_ground_truth_and_it_says_why(
    labels: list[LabelFacts], done: bool, reason: str
) -> None:
    choice = choose(labels, {}, done=done)

    assert (choice.label, choice.reason) == (None, reason)


def test_a_selected_label_that_was_skipped_is_not_the_ground_truth() -> None:
    labels = [_facts("a", skipped=True), _facts("b")]

    assert choose(labels, {"selected_label_id": "a"}, done=True).label == "b"


@pytest.mark.parametrize(
    ("reviews", "approved"),
    [
        ([{"approved": True}], True),
        ([{"approved": True}, {"approved": False}], False),
        ([{"score": 1}], True),
        ([{"score": -1}], False),
        ([{"type": "Approve"}], True),
        ([{"comment": "?"}], False),
        ("nonsense", False),
    ],
)
def test_the_last_review_decides(reviews: object, approved: bool) -> None:
    row = ours().current
    _entry(row)["labels"][0]["label_details"]["reviews"] = reviews

    assert _read(row).labels[0].approved is approved


def _consensus(*labels: str) -> Json:
    row = ours().current
    entry = _entry(row)
    entry["labels"] = [{**copy.deepcopy(entry["labels"][0]), "id": label} for label in labels]
    return row


# the legacy shape


def test_a_legacy_row_reads_as_a_current_one(sample: Sample) -> None:
    seen = _legacy(sample)

    assert is_legacy(sample.legacy)
    assert not is_legacy(sample.current)
    assert (seen.stage, seen.ground_truth) == ("Done", True)
    assert seen.ground_truth_label == sample.legacy["ID"]
    assert [item.action for item in seen.history] == [
        Action.CREATE,
        Action.MOVE,
        Action.REJECT,
        Action.REWORK,
        Action.APPROVE,
    ]


def test_a_resubmission_is_a_submission_and_a_sending_back_a_rejection(sample: Sample) -> None:
    types = [item.type for item in _legacy(sample).history]

    assert types[2:4] == [EventType.REJECTED, EventType.SUBMITTED]


def test_legacy_frames_give_masks_and_lines(sample: Sample) -> None:
    seen = _legacy(sample)
    frames = seen.document["projects"]["cpro"]["labels"][0]["annotations"]["groups"]["Axial"][
        "frames"
    ]

    (mask,) = seen.labels[0].series[0].masks
    assert (mask.group, mask.frame) == ("Axial", 172)
    assert "/masks/feature/" in mask.reference
    (line,) = frames["185"]["objects"].values()
    assert line["annotation_kind"] == "DICOMPolyline"
    assert line["name"] == "Tool 2"


def test_a_legacy_row_that_waits_for_review_is_not_ground_truth(sample: Sample) -> None:
    info = sample.legacy["DataRow Workflow Info"]
    info["taskName"] = "Initial review task"
    info["Workflow History"].pop(0)

    assert _legacy(sample).stage == "Initial review task"
    assert not _legacy(sample).ground_truth


def test_a_legacy_label_that_is_the_benchmark_is_the_super_truth(sample: Sample) -> None:
    for benchmark, expected in ((sample.legacy["ID"], True), ("cother", False), (None, False)):
        sample.legacy["Benchmark ID"] = benchmark
        assert _legacy(sample).labels[0].super_truth is expected


def test_what_the_current_shape_has_no_place_for_is_kept(sample: Sample) -> None:
    label = _legacy(sample).document["projects"]["cpro"]["labels"][0]

    assert label["performance_details"]["agreement"] == -1
    assert label["performance_details"]["view_label"].startswith("https://")
    assert "?" not in label["performance_details"]["view_label"]


@pytest.mark.parametrize("between", ["\n", "", ",\n", "\r\n\r\n"])
def test_frames_may_follow_each_other_in_any_way(between: str) -> None:
    frames = [{"frameNumber": 1}, {"frameNumber": 2}]
    text = between.join(json.dumps(frame, indent=2) for frame in frames)

    assert read_frames(text.encode()) == frames
    assert read_frames(json.dumps(frames).encode()) == frames


@pytest.mark.parametrize("data", [b'{"a": ', b"\xff\xfe", b"[1, 2]", b"[" * 100_000])
def test_frames_that_are_not_frames_are_refused(data: bytes) -> None:
    with pytest.raises(Permanent, match="frames of a group"):
        read_frames(data)


# rows that are not rows


@pytest.mark.parametrize(
    "path",
    [
        ("projects",),
        ("data_row",),
        ("projects", "cpro0000000000000000000001", "labels"),
        ("projects", "cpro0000000000000000000001", "project_details"),
        ("projects", "cpro0000000000000000000001", "labels", 0, "id"),
    ],
)
def test_a_row_that_lacks_what_matters_is_refused_and_never_empty(path: tuple[Any, ...]) -> None:
    row = ours().current
    key = _key(row)
    place: Any = row
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]

    with pytest.raises(Permanent) as caught:
        snapshot_of(row, key, EXPORT_PARAMS)
    assert caught.value.reason == "row-unreadable"


def test_a_row_that_is_nested_too_deep_is_refused() -> None:
    row = ours().current
    deep: Json = {}
    for _ in range(200):
        deep = {"deeper": deep}
    row["media_attributes"] = deep

    with pytest.raises(Permanent, match="nested too deep"):
        _read(row)


@pytest.mark.parametrize("number", ["-1", "1.5", "", "x", "1" * 10, "१"])
def test_a_frame_number_that_is_no_number_is_refused(number: str) -> None:
    row = ours().current
    frames = _entry(row)["labels"][0]["annotations"]["groups"]["Axial"]["frames"]
    frames[number] = frames.pop("12")

    with pytest.raises(Permanent):
        _read(row)


def test_what_comes_in_numbers_has_its_limits() -> None:
    step = {"action": "MOVE", "created_at": "2026-05-11T18:06:16Z"}
    with pytest.raises(Permanent, match="more than 10000 entries"):
        history_of([step] * 10_001, "p", "r")
    with pytest.raises(Permanent, match="too many"):
        read_frames(b"{}" * 10_001)
    with pytest.raises(Permanent, match="too long"):
        _read(_consensus(*[f"clab{n}" for n in range(1_001)]))


def test_a_label_with_too_many_masks_is_refused() -> None:
    row = ours().current
    group = _entry(row)["labels"][0]["annotations"]["groups"]["Axial"]
    group["frames"] = dict.fromkeys(map(str, range(50_001)), group["frames"]["12"])

    with pytest.raises(Permanent) as caught:
        _read(row)
    assert caught.value.reason == "too-many-masks"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=300)
@given(data=st.data())
def test_a_wrong_value_anywhere_is_read_or_refused_and_never_crashes(data: st.DataObject) -> None:
    sample = ours()
    broken = data.draw(st.sampled_from(["current", "legacy", "frames"]))
    target: Any = getattr(sample, broken)
    key = _key(sample.current)
    places = list(_places(target))
    parent, step = data.draw(st.sampled_from(places))
    parent[step] = data.draw(JSON_VALUES)
    try:
        if broken == "current":
            snapshot_of(sample.current, key, EXPORT_PARAMS)
        else:
            urls = frame_urls([sample.legacy])
            frames = read_frames(json.dumps(sample.frames).encode())
            row = current_row([sample.legacy], "cpro", dict.fromkeys(urls, frames))
            snapshot_of(row, TaskKey(source="lb", project="cpro", task="t"), EXPORT_PARAMS)
    except GroundwireError:
        pass


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for step in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, step
            yield from _places(value[step])
