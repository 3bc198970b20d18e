"""RedBrick's state as we read it, the simulated RedBrick being the peer on a real socket."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy
import pytest

from consumer.demo.redbrick import (
    Drawing,
    Fault,
    Instance,
    Kind,
    SeriesSpec,
    SimulatedRedBrick,
    status,
)
from consumer.demo.redbrick_masks import nifti
from consumer.download import Downloader
from consumer.errors import Permanent, Transient
from consumer.model import Action, EventType, Label, Missing, TaskKey, TaskSnapshot
from consumer.platforms.redbrick import RedBrick


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def connected(simulator: SimulatedRedBrick, **settings: Any) -> AsyncIterator[RedBrick]:
    downloader = Downloader(stall_s=5.0)
    async with simulator.serve() as url:
        platform = RedBrick(
            "redbrick",
            **{
                "secrets": [b"token"],
                "api_key": simulator.api_key,
                "organization": simulator.org_id,
                "downloader": downloader,
                "api_url": url,
                **settings,
            },
        )
        try:
            yield platform
        finally:
            await platform.close()
            await downloader.close()


def key(simulator: SimulatedRedBrick, task_id: str) -> TaskKey:
    return TaskKey(source="redbrick", project=simulator.project_id, task=task_id)


async def answer(simulator: SimulatedRedBrick, task_id: str, **settings: Any) -> Any:
    async with connected(simulator, **settings) as platform:
        asked = key(simulator, task_id)
        return (await platform.fetch([asked]))[asked]


async def snapshot(simulator: SimulatedRedBrick, task_id: str, **settings: Any) -> TaskSnapshot:
    got = await answer(simulator, task_id, **settings)
    assert isinstance(got, TaskSnapshot)
    return got


def only_label(task: TaskSnapshot) -> Label:
    (label,) = task.labels
    return label


# Labels and masks


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


async def test_equal_state_gives_an_equal_snapshot() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    assert await snapshot(simulator, task_id) == await snapshot(simulator, task_id)


# Ground truth


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


# History


async def test_history_says_who_did_what_and_what_it_means() -> None:
    simulator = SimulatedRedBrick(reviews=2)
    task_id = simulator.create_task("study01")
    simulator.label(task_id, by="ben")
    simulator.reject(task_id, by="cleo")
    simulator.label(task_id, by="dora")
    simulator.approve(task_id, by="cleo")
    simulator.correct(task_id, by="ada")
    simulator.move(task_id, "Label", by="ada")
    history = (await snapshot(simulator, task_id)).history
    names = {user.user_id: name for name, user in simulator.users.items()}
    told = [
        (item.type, item.action, item.stage, names[item.actor or ""], item.final)
        for item in history
        if item.workflow
    ]
    assert told == [
        (EventType.CREATED, Action.CREATE, None, "ada", False),
        (EventType.SUBMITTED, Action.MOVE, "Label", "ben", False),
        (EventType.REJECTED, Action.REJECT, "Review_1", "cleo", False),
        (EventType.SUBMITTED, Action.REWORK, "Label", "dora", False),
        (EventType.ACCEPTED, Action.APPROVE, "Review_1", "cleo", False),
        (EventType.CORRECTED, Action.APPROVE, "Review_2", "ada", True),
        (EventType.MOVED, Action.MOVE, "END", "ada", False),
    ]
    assert [item.at for item in history] == sorted(item.at for item in history)


async def test_items_that_may_go_away_are_not_workflow() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.assign(task_id, "ben")
    simulator.assign(task_id, "dora")
    simulator.assign(task_id)
    comment = simulator.comment(task_id, "the lower pole is missing")
    simulator.skip(task_id)
    items = (await snapshot(simulator, task_id)).history
    assert {item.type for item in items if not item.workflow} == {
        EventType.ASSIGNED,
        EventType.REASSIGNED,
        EventType.UNASSIGNED,
        EventType.COMMENT_ADDED,
        EventType.SKIPPED,
    }
    simulator.delete_comment(task_id, comment)
    later = (await snapshot(simulator, task_id)).history
    assert {item.id for item in items} > {item.id for item in later}


async def test_an_item_keeps_its_id_when_people_change_their_names() -> None:
    def story(email: str) -> SimulatedRedBrick:
        simulator = SimulatedRedBrick()
        old = simulator.users["ben"]
        simulator.users["ben"] = type(old)(old.user_id, email, "Benjamin")
        simulator.comment(simulator.create_task("study01"), "a", by="ben")
        return simulator

    ids = []
    for simulator in (story("ben@hospital.example"), story("b@elsewhere.example")):
        (task_id,) = simulator.projects[simulator.project_id].tasks
        ids.append([item.id for item in (await snapshot(simulator, task_id)).history])
    assert ids[0] == ids[1]


async def test_no_history_item_names_a_person_or_quotes_a_comment() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.comment(task_id, "patient Doe")
    text = repr((await snapshot(simulator, task_id)).history)
    assert "hospital.example" not in text
    assert "Doe" not in text


async def test_an_edit_of_ground_truth_is_an_update() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.approve(task_id)
    version = simulator.label(task_id, by="dora")
    task = await snapshot(simulator, task_id)
    assert only_label(task).version == version
    assert (task.history[-1].type, task.history[-1].action) == (
        EventType.GROUND_TRUTH_EDITED,
        Action.UPDATE,
    )


async def test_a_stale_answer_lacks_history_that_a_later_one_has() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.approve(task_id)
    simulator.faults.add("taskSDK", Fault(Kind.STALE))
    async with connected(simulator) as platform:
        asked = key(simulator, task_id)
        stale, current = [(await platform.fetch([asked]))[asked] for _ in range(2)]
    assert isinstance(stale, TaskSnapshot)
    assert isinstance(current, TaskSnapshot)
    assert {item.id for item in stale.history} < {item.id for item in current.history}
    assert (stale.active_at or "") < (current.active_at or "")


# Cost


async def test_many_tasks_cost_one_query_each_and_the_project_one() -> None:
    simulator = SimulatedRedBrick()
    tasks = [simulator.create_task(f"study{n}") for n in range(20)]
    async with connected(simulator, clock=Clock()) as platform:
        for _ in range(3):
            answers = await platform.fetch([key(simulator, task) for task in tasks])
    assert [a.name for a in answers.values() if isinstance(a, TaskSnapshot)] == [
        f"study{n}" for n in range(20)
    ]
    assert simulator.counters == {"taskSDK": 60, "getProjectSDK": 1}


async def test_the_project_is_asked_for_again_after_a_minute() -> None:
    simulator, clock = SimulatedRedBrick(), Clock()
    asked = key(simulator, simulator.create_task("study01"))
    async with connected(simulator, clock=clock) as platform:
        for seconds in (0, 59, 1):
            clock.now += timedelta(seconds=seconds)
            await platform.fetch([asked])
    assert simulator.counters["getProjectSDK"] == 2


async def test_a_stage_move_downloads_no_labels_file_again() -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    async with connected(simulator) as platform:
        await platform.fetch([key(simulator, task_id)])
        simulator.approve(task_id)
        await platform.fetch([key(simulator, task_id)])
    assert simulator.counters["other GET"] == 1


async def test_a_class_that_the_known_taxonomy_lacks_is_looked_up_anew() -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    async with connected(simulator, clock=Clock()) as platform:
        asked = key(simulator, task_id)
        await platform.fetch([asked])
        kinds = simulator.projects[simulator.project_id].taxonomy["objectTypes"]
        kinds.append({**kinds[0], "category": "spleen", "classId": 9})
        simulator.label(task_id, [Drawing(0, (Instance(1, 9),))])
        task = (await platform.fetch([asked]))[asked]
    assert isinstance(task, TaskSnapshot)
    assert only_label(task).series[0].segments[0].category == "spleen"


async def test_labels_that_the_storage_keeps_gzipped_are_read() -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    path = next(path for path in simulator.files if path.endswith("labels.json"))
    simulator.files[path] = gzip.compress(simulator.files[path])
    assert only_label(await snapshot(simulator, task_id)).series[0].segments[0].category == "liver"


# What is not there, and what fails


async def test_a_deleted_task_is_missing_when_its_project_can_be_read() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.delete(task_id)
    assert await answer(simulator, task_id) == Missing(
        source="redbrick", project=simulator.project_id, task=task_id
    )


async def test_a_task_of_a_project_that_went_away_meanwhile_is_not_missing() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    async with connected(simulator, clock=Clock()) as platform:
        asked = key(simulator, task_id)
        await platform.fetch([asked])
        simulator.delete(task_id)
        simulator.faults.add("getProjectSDK", Fault(Kind.GRAPHQL_ERROR))
        got = (await platform.fetch([asked]))[asked]
    assert isinstance(got, Transient)
    assert got.reason == "platform-graphql-error"


async def test_an_unknown_project_is_an_error_not_a_missing_task() -> None:
    simulator = SimulatedRedBrick()
    async with connected(simulator) as platform:
        asked = TaskKey(source="redbrick", project="elsewhere", task="x")
        got = (await platform.fetch([asked]))[asked]
    assert isinstance(got, Transient)


@pytest.mark.parametrize(
    ("fault", "reason", "after_s"),
    [
        (status(401), "platform-refused", None),
        (status(403), "platform-refused", None),
        (status(429, retry_after_s=17), "platform-rate-limited", 17.0),
        (status(503, retry_after_s=3), "platform-down", 3.0),
        (status(302), "platform-address", None),
        (status(404), "platform-address", None),
    ],
    ids=lambda value: getattr(value, "status", None),
)
async def test_what_every_task_would_meet_is_raised_as_shared(
    fault: Fault, reason: str, after_s: float | None
) -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.faults.add("taskSDK", fault)
    with pytest.raises(Transient) as raised:
        await answer(simulator, task_id)
    assert (raised.value.reason, raised.value.shared, raised.value.after_s) == (
        reason, True, after_s,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(500), "platform-failed"),
        (status(413), "platform-failed"),
        (Fault(Kind.GRAPHQL_ERROR, message="Dr. Ada Example may not"), "platform-graphql-error"),
        (Fault(Kind.TRUNCATED), "platform-truncated"),
        (Fault(Kind.CUT), "platform-answer-malformed"),
        (Fault(Kind.HANG), "platform-timeout"),
    ],
    ids=["500", "413", "graphql error", "truncated", "cut", "hang"],
)
async def test_one_task_s_failure_is_its_own_and_never_an_empty_result(
    fault: Fault, reason: str
) -> None:
    simulator = SimulatedRedBrick()
    failing, fine = simulator.create_task("study01"), simulator.create_task("study02")
    async with connected(simulator, timeout_s=1.0) as platform:
        first = await platform.fetch([key(simulator, failing)])
        assert isinstance(first[key(simulator, failing)], TaskSnapshot)
        simulator.faults.add("taskSDK", fault)
        got = await platform.fetch([key(simulator, failing), key(simulator, fine)])
    kinds = sorted(type(one).__name__ for one in got.values())
    assert kinds == ["TaskSnapshot", "Transient"]
    error = next(one for one in got.values() if isinstance(one, Transient))
    assert (error.reason, error.shared) == (reason, False)
    assert "Ada" not in str(error)


async def test_a_refused_query_is_permanent() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.faults.add("taskSDK", status(400))
    got = await answer(simulator, task_id)
    assert isinstance(got, Permanent)
    assert got.reason == "platform-query-refused"


async def test_a_wrong_key_is_refused_without_being_told() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    with pytest.raises(Transient) as raised:
        await answer(simulator, task_id, api_key="x" * 43)
    assert raised.value.reason == "platform-refused"
    assert "xxx" not in str(raised.value)


async def test_a_platform_that_is_down_is_shared() -> None:
    simulator = SimulatedRedBrick()
    asked = key(simulator, simulator.create_task("study01"))
    async with connected(simulator) as platform:
        gone = platform
    with pytest.raises(Transient) as raised:
        await gone.fetch([asked])
    assert raised.value.reason in ("platform-unreachable", "platform-down")
    assert raised.value.shared


async def test_an_answer_of_another_shape_is_malformed_not_a_crash() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.task(task_id).created_at = "yesterday"
    got = await answer(simulator, task_id)
    assert isinstance(got, Transient)
    assert got.reason == "platform-answer-malformed"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(404), "download-missing"),
        (status(403), "download-refused"),
        (status(500), "download-failed"),
        (Fault(Kind.TRUNCATED), "download-truncated"),
    ],
    ids=["404", "403", "500", "truncated"],
)
async def test_a_mask_that_does_not_come_whole_is_an_error(fault: Fault, reason: str) -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    async with connected(simulator) as platform:
        asked = key(simulator, task_id)
        task = (await platform.fetch([asked]))[asked]
        assert isinstance(task, TaskSnapshot)
        simulator.faults.add("file GET", fault)
        with pytest.raises(Transient) as raised:
            await platform.download(task, only_label(task).series[0].masks[0])
    assert raised.value.reason == reason
    assert "Signature" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[{", "labels-malformed"),
        (b"{}", "labels-malformed"),
        (b"\x1f\x8b\x08", "labels-malformed"),
    ],
    ids=["cut", "no list", "half a gzip"],
)
async def test_a_broken_file_of_labels_is_an_error_not_an_empty_label(
    content: bytes, reason: str
) -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    path = next(path for path in simulator.files if path.endswith("labels.json"))
    simulator.files[path] = content
    got = await answer(simulator, task_id)
    assert isinstance(got, Transient)
    assert got.reason == reason


async def test_a_file_of_labels_that_unpacks_beyond_the_limit_is_refused() -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    path = next(path for path in simulator.files if path.endswith("labels.json"))
    simulator.files[path] = gzip.compress(b" " * ((64 << 20) + 1), compresslevel=1)
    got = await answer(simulator, task_id)
    assert isinstance(got, Permanent)
    assert got.reason == "labels-too-large"
