"""The lake becomes what the platform holds; what it was stays readable."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import nibabel
import numpy as np
import pytest

from consumer.errors import Permanent, Transient
from consumer.model import (
    Action,
    Change,
    EventType,
    ExportRules,
    Failure,
    Label,
    Manifest,
    Mask,
    Message,
    Outcome,
    TaskKey,
    TaskSnapshot,
    decode,
    digest,
)
from consumer.ports import Result
from handlers import export, layout
from tests.fakes_platform import (
    PROJECT,
    SOURCE,
    FakePlatform,
    event,
    history_item,
    label_map_bytes,
    nifti_label,
    snapshot,
)
from tests.fakes_queue import FakeQueue
from tests.handlers.export_house import AUDIT, House, OneWork

LABELLED: dict[str, Any] = {"labels": (nifti_label(),), "stage": "Review_1"}
TRUTH: dict[str, Any] = {
    "labels": (nifti_label(),),
    "stage": "END",
    "ground_truth": True,
    "ground_truth_label": "label-1",
}


@pytest.mark.parametrize("error", [Transient("download-missing"), Permanent("mask-not-nifti")])
async def test_a_task_sent_back_leaves_the_ground_truth_though_its_new_masks_cannot_be_had(
    error: Transient | Permanent,
) -> None:
    house = House()
    await house.see(**TRUTH)
    house.platform.masks["mask-2"] = error
    drawn = nifti_label(version="v2", reference="mask-2", updated_at="2026-01-03T00:00:00.000000Z")
    assert await house.see(labels=(drawn,), stage="Review_1") is error
    pointer = await house.pointer()
    assert (pointer.ground_truth, pointer.change, pointer.revision) == (
        False,
        Change.RETRACTED,
        None,
    )
    assert pointer.outcome in house.queue.messages("audit")
    house.platform.masks["mask-2"] = label_map_bytes(2)
    await house.handle(event())
    pointer = await house.pointer()
    assert (pointer.change, pointer.sequence) == (Change.EXPORTED, 3)
    assert (await house.manifest()).files[-1].labels[0].value == 2


async def test_a_task_that_never_was_ground_truth_waits_for_its_masks() -> None:
    house = House()
    await house.see(**LABELLED)
    house.platform.masks["mask-2"] = Transient("download-missing")
    drawn = nifti_label(version="v2", reference="mask-2", updated_at="2026-01-03T00:00:00.000000Z")
    await house.see(labels=(drawn,), stage="Label")
    assert (await house.pointer()).sequence == 1


async def test_a_task_nobody_annotated_has_a_pointer_but_no_revision() -> None:
    house = House()
    await house.see()
    pointer = await house.pointer()
    assert (pointer.sequence, pointer.change, pointer.revision) == (1, Change.MOVED, None)
    assert await house.keys() == [layout.pointer_key(PROJECT, "task-1")]


async def test_an_annotated_task_is_exported_with_its_mask_document_and_manifest() -> None:
    house = House()
    result = await house.see(**LABELLED)
    assert isinstance(result, Outcome)
    assert result.move.change is Change.EXPORTED
    manifest = await house.manifest()
    assert [file.path for file in manifest.files] == [
        "annotations.json",
        "segmentations/series1.nii.gz",
    ]
    mask = manifest.files[1]
    data = await house.bytes(mask.key)
    assert (digest(data), len(data)) == (mask.sha256, mask.size)
    assert mask.shape == (4, 5, 3)
    assert [(c.value, c.category, c.voxels) for c in mask.labels] == [(1, "liver", 4)]


async def test_the_voxels_and_the_place_of_a_mask_survive(tmp_path: Any) -> None:
    house = House()
    await house.see(**LABELLED)
    file = (await house.manifest()).files[1]
    copy = tmp_path / "series1.nii.gz"
    copy.write_bytes(await house.bytes(file.key))
    image = nibabel.load(copy)
    source = nibabel.Nifti1Image.from_bytes(gzip.decompress(label_map_bytes()))
    assert np.array_equal(np.asanyarray(image.dataobj), np.asanyarray(source.dataobj))
    assert np.array_equal(image.affine, source.affine)


async def test_the_document_names_the_file_that_was_written() -> None:
    house = House()
    await house.see(**LABELLED)
    mask = (await house.manifest()).files[1]
    assert (await house.document())["series"] == [{"name": "series1", "segmentations": mask.key}]


async def test_the_taxonomy_is_stored_and_its_hash_stands_in_the_manifest() -> None:
    house = House()
    await house.see(**LABELLED)
    sha256 = (await house.manifest()).taxonomy
    assert sha256 is not None
    data = await house.bytes(layout.taxonomy_key(PROJECT, sha256))
    assert digest(data) == sha256
    assert json.loads(data)["name"] == "organs"


async def test_an_unchanged_task_seen_twice_moves_nothing() -> None:
    house = House()
    await house.see(**LABELLED)
    before = await house.pointer()
    result = await house.see(**LABELLED)
    assert result is None
    assert await house.pointer() == before
    assert house.platform.downloads == {"mask-1": 1}


async def test_a_mask_compressed_anew_is_the_same_revision() -> None:
    house = House()
    await house.see(**LABELLED)
    other = House()
    other.platform.masks["mask-1"] = gzip.decompress(label_map_bytes())
    await other.see(**LABELLED)
    assert (await house.pointer()).revision == (await other.pointer()).revision


async def test_a_stage_move_downloads_no_mask() -> None:
    house = House()
    await house.see(**LABELLED)
    result = await house.see(labels=(nifti_label(),), stage="Review_2")
    assert isinstance(result, Outcome)
    assert (result.move.change, result.move.old_stage, result.move.stage) == (
        Change.MOVED,
        "Review_1",
        "Review_2",
    )
    assert house.platform.downloads == {"mask-1": 1}


async def test_a_new_label_version_is_a_new_revision_and_the_old_one_stays_readable() -> None:
    house = House()
    await house.see(**LABELLED)
    old = await house.pointer()
    house.platform.masks["mask-2"] = label_map_bytes(value=2)
    await house.see(labels=(nifti_label(version="v2", reference="mask-2"),), stage="Review_1")
    new = await house.pointer()
    assert new.revision != old.revision
    assert new.change is Change.EXPORTED
    assert old.manifest is not None
    for file in decode(await house.bytes(old.manifest), Manifest).files:
        assert digest(await house.bytes(file.key)) == file.sha256


async def test_labels_without_masks_are_exported_when_their_version_changes() -> None:
    house = House()
    await house.see(labels=(nifti_label(drawn=False),), stage="Review_1")
    result = await house.see(labels=(nifti_label(version="v2", drawn=False),), stage="Review_1")
    assert isinstance(result, Outcome)
    assert result.move.change is Change.EXPORTED


async def test_a_task_that_is_sent_back_leaves_the_ground_truth_at_once() -> None:
    house = House()
    await house.see(**TRUTH)
    assert (await house.pointer()).ground_truth
    result = await house.see(labels=(nifti_label(),), stage="Label")
    assert isinstance(result, Outcome)
    assert result.move.change is Change.RETRACTED
    assert (result.move.was_ground_truth, result.move.ground_truth) == (True, False)


async def test_an_approved_task_with_nothing_drawn_gets_an_empty_label_map() -> None:
    house = House()
    await house.see(**{**TRUTH, "labels": (nifti_label(drawn=False),)})
    mask = (await house.manifest()).files[1]
    assert (mask.path, mask.shape, mask.labels) == ("segmentations/series1.nii.gz", (4, 5, 3), ())


async def test_consensus_labels_are_all_kept_under_their_ids() -> None:
    house = House()
    house.platform.masks["mask-2"] = label_map_bytes(value=2)
    one = nifti_label("ann", slot=("consensus", 0, "segmentations"))
    two = nifti_label("bob", reference="mask-2", slot=("consensus", 1, "segmentations"))
    await house.see(
        labels=(one, two),
        document={"consensus": [{}, {}]},
        ground_truth_reason="consensus-open",
    )
    pointer, manifest = await house.pointer(), await house.manifest()
    assert [file.path for file in manifest.files[1:]] == [
        "segmentations/ann/series1.nii.gz",
        "segmentations/bob/series1.nii.gz",
    ]
    assert (pointer.ground_truth, pointer.ground_truth_reason) == (False, "consensus-open")


async def test_only_the_label_that_changed_is_downloaded_again() -> None:
    house = House()
    house.platform.masks["mask-2"] = label_map_bytes(value=2)
    first = nifti_label("ann", slot=())
    await house.see(labels=(first, nifti_label("bob", reference="mask-2", slot=())))
    changed = nifti_label("bob", version="v2", reference="mask-2", slot=())
    await house.see(labels=(first, changed))
    assert house.platform.downloads == {"mask-1": 1, "mask-2": 2}


async def test_a_task_whose_only_label_was_skipped_has_no_revision() -> None:
    house = House()
    await house.see(labels=(nifti_label(skipped=True),))
    assert (await house.pointer()).revision is None


async def test_in_ground_truth_mode_files_come_and_go_with_the_ground_truth() -> None:
    house = House(ExportRules(when="ground-truth"))
    await house.see(**LABELLED)
    assert (await house.pointer()).revision is None
    await house.see(**TRUTH)
    truth = (await house.pointer()).revision
    assert truth is not None
    await house.see(**LABELLED)
    retracted = await house.pointer()
    assert (retracted.change, retracted.revision) == (Change.RETRACTED, None)
    await house.see(**TRUTH)
    assert (await house.pointer()).revision == truth
    assert house.platform.downloads == {"mask-1": 1}


async def test_labels_that_changed_while_nothing_was_exported_are_downloaded_when_it_is() -> None:
    house = House(ExportRules(when="ground-truth"))
    await house.see(**TRUTH)
    house.platform.masks["mask-2"] = label_map_bytes(value=2)
    corrected = (nifti_label(version="v2", reference="mask-2"),)
    await house.see(labels=corrected, stage="Label")
    await house.see(**{**TRUTH, "labels": corrected})
    (mask,) = [file for file in (await house.manifest()).files if file.labels]
    assert [count.value for count in mask.labels] == [2]


async def test_series_that_exchange_their_names_keep_their_own_voxels() -> None:
    house = House()
    house.platform.masks["mask-2"] = label_map_bytes(value=2)
    label = nifti_label(slot=())
    (first,) = label.series
    masks = tuple(msgspec.structs.replace(mask, reference="mask-2") for mask in first.masks)

    async def values(*names: str) -> dict[str | None, int]:
        series = (
            msgspec.structs.replace(first, name=names[0]),
            msgspec.structs.replace(first, name=names[1], masks=masks),
        )
        await house.see(labels=(msgspec.structs.replace(label, series=series),))
        files = (await house.manifest()).files
        return {file.series: file.labels[0].value for file in files if file.labels}

    assert await values("ct", "pet") == {"ct": 1, "pet": 2}
    assert await values("pet", "ct") == {"pet": 1, "ct": 2}


async def test_named_stages_narrow_what_is_exported() -> None:
    house = House(ExportRules(stages=("review_2",)))
    await house.see(**LABELLED)
    assert (await house.pointer()).revision is None
    await house.see(labels=(nifti_label(),), stage="Review_2")
    assert (await house.pointer()).revision is not None


async def test_a_changed_recipe_exports_anew_when_the_task_is_next_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House()
    await house.see(**LABELLED)
    monkeypatch.setattr("handlers.pointers.CONVERTER_VERSION", 999)
    result = await house.see(**LABELLED)
    assert isinstance(result, Outcome)
    assert result.move.change is Change.EXPORTED
    assert house.platform.downloads == {"mask-1": 2}


async def test_several_events_of_one_task_cost_one_fetch_and_one_move() -> None:
    house = House()
    house.platform.tasks["task-1"] = snapshot(**LABELLED)
    events = [event(name=f"e{n}") for n in range(5)]
    results = await house.handle(*events)
    assert house.platform.asked == {"task-1": 1}
    assert len({result.id for result in results if isinstance(result, Outcome)}) == 1
    outcome = results[0]
    assert isinstance(outcome, Outcome)
    assert outcome.caused_by == tuple(sorted(one.id for one in events))


async def test_tasks_of_one_batch_are_fetched_together() -> None:
    house = House()
    for name in ("a", "b", "c"):
        house.platform.tasks[name] = snapshot(name)
    await house.handle(event("a"), event("b"), event("c"))
    assert house.platform.groups == [["a", "b", "c"]]


async def test_a_group_that_fails_is_halved_until_the_culprit_stands_alone() -> None:
    house = House()
    for name in "abcd":
        house.platform.tasks[name] = snapshot(name)
    house.platform.failing = {"c": Permanent("platform-unknown-id")}
    results = await house.handle(*(event(name) for name in "abcd"))
    assert [isinstance(result, Outcome) for result in results] == [True, True, False, True]
    assert house.platform.asked["a"] == 2


async def test_an_adapter_s_surprise_at_one_task_is_no_neighbours() -> None:
    house = House()
    for name in "abcd":
        house.platform.tasks[name] = snapshot(name)
    house.platform.failing = {"c": cast(Transient, KeyError("not foreseen"))}
    results = await house.handle(*(event(name) for name in "abcd"))
    assert [isinstance(result, Outcome) for result in results] == [True, True, False, True]
    assert cast(Transient, results[2]).reason == "export-crashed"


async def test_an_outcome_that_no_queue_can_hold_stops_its_own_task_only() -> None:
    class SmallQueue(FakeQueue):
        async def put(self, messages: Sequence[Message]) -> None:
            if any(message.id.endswith("/big/1") for message in messages):
                raise Permanent("message-too-large")
            await super().put(messages)

    house = House()
    await house.see("big")
    await house.see("small")
    house.queue = SmallQueue((AUDIT,), opened=True)
    for name in ("big", "small"):
        house.platform.tasks[name] = snapshot(name, stage="END")
    big, small = await house.handle(event("big"), event("small"))
    assert cast(Permanent, big).reason == "message-too-large"
    assert isinstance(small, Outcome)


async def test_an_export_that_is_cancelled_leaves_nothing_running() -> None:
    class Endless(FakePlatform):
        async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
            self.downloads[snapshot.task] += 1
            if len(self.downloads) == 3:
                waiting.set()
            return await asyncio.Future()

    waiting = asyncio.Event()
    house = House()
    house.platform = Endless()
    for name in "abc":
        house.platform.tasks[name] = snapshot(name, **LABELLED)
    running = asyncio.ensure_future(house.handle(*(event(name) for name in "abc")))
    await waiting.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_in_an_outage_two_are_asked_alone_and_nobody_further() -> None:
    house = House()
    house.platform.failing = dict.fromkeys("abcdef", Transient("platform-auth", shared=True))
    results = await house.handle(*map(event, "abcdef"))
    assert [cast(Transient, result).reason for result in results] == ["platform-auth"] * 6
    assert house.platform.groups == [list("abcdef"), ["a"], ["f"]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>not found</html>", "mask-not-nifti"),
        (label_map_bytes()[:-9], "mask-truncated"),
        (label_map_bytes(shape=(4, 5, 4)), "mask-wrong-dimensions"),
        (label_map_bytes(value=9), "mask-unknown-label"),
    ],
)
async def test_a_bad_mask_leaves_the_old_revision_in_place(data: bytes, reason: str) -> None:
    house = House()
    await house.see(**LABELLED)
    before = await house.pointer()
    house.platform.masks["mask-2"] = data
    result = await house.see(labels=(nifti_label(version="v2", reference="mask-2"),))
    assert isinstance(result, Transient | Permanent)
    assert result.reason == reason
    assert await house.pointer() == before


async def test_one_bad_mask_of_two_makes_no_revision() -> None:
    house = House()
    house.platform.masks["mask-2"] = Transient("download-failed")
    label = nifti_label()
    two = msgspec.structs.replace(
        label,
        series=(
            label.series[0],
            msgspec.structs.replace(
                label.series[0],
                name="second",
                masks=(msgspec.structs.replace(label.series[0].masks[0], reference="mask-2"),),
            ),
        ),
    )
    await house.see(labels=(two,))
    assert await house.store.read(layout.pointer_key(PROJECT, "task-1")) is None
    assert not [key for key in await house.keys() if "/revisions/" in key]


async def test_each_history_item_is_told_once_for_ever() -> None:
    house = House()
    created = history_item(EventType.CREATED, "2026-01-01T00:00:00.000000Z")
    moved = history_item(EventType.SUBMITTED, "2026-01-01T00:00:01.000000Z")
    first = await house.see(history=(created,))
    second = await house.see(history=(created, moved), **LABELLED)
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    assert (first.history, second.history) == ((created,), (moved,))


async def test_an_answer_without_history_that_was_seen_never_replaces_the_pointer() -> None:
    house = House()
    created = history_item(EventType.CREATED, "2026-01-01T00:00:00.000000Z")
    await house.see(history=(created,), **LABELLED)
    before = await house.pointer()
    result = await house.see(history=(), **TRUTH)
    assert isinstance(result, Transient)
    assert result.reason == "answer-stale"
    assert await house.pointer() == before


async def test_a_comment_that_was_taken_back_is_no_stale_answer() -> None:
    house = House()
    comment = history_item(EventType.COMMENT_ADDED, "2026-01-01T00:00:00.000000Z", workflow=False)
    await house.see(history=(comment,), **LABELLED)
    assert isinstance(await house.see(history=(), **TRUTH), Outcome)


async def test_an_answer_with_an_older_label_time_is_stale() -> None:
    house = House()
    await house.see(labels=(nifti_label(version="v2"),))
    older = nifti_label(version="v1", updated_at="2025-01-01T00:00:00.000000Z")
    result = await house.see(labels=(older,))
    assert isinstance(result, Transient)
    assert result.reason == "answer-stale"


async def test_an_answer_that_does_not_show_its_event_is_asked_for_again_then_accepted() -> None:
    house = House()
    house.platform.tasks["task-1"] = snapshot(**LABELLED)
    announced = event(history_id="not-yet")
    reasons = []
    for attempt in range(1, 6):
        (result,) = await house.handle(OneWork(announced, attempt))
        reasons.append(getattr(result, "reason", None))
    assert reasons == ["event-not-showing"] * 3 + [None] * 2
    assert (await house.pointer()).revision is not None  # what was there is in the lake already


async def test_a_delete_event_deletes() -> None:
    house = House()
    await house.see(**TRUTH)
    del house.platform.tasks["task-1"]
    (result,) = await house.handle(event(action=Action.DELETE))
    assert isinstance(result, Outcome)
    pointer = await house.pointer()
    assert (pointer.change, pointer.revision, pointer.ground_truth) == (
        Change.DELETED,
        None,
        False,
    )
    assert pointer.was_ground_truth


async def test_a_missing_task_is_deleted_only_when_two_answers_a_minute_apart_agree() -> None:
    house = House()
    await house.see(**LABELLED)
    del house.platform.tasks["task-1"]
    (first,) = await house.handle(event())
    assert isinstance(first, Transient)
    assert (first.reason, first.after_s) == ("task-missing", 60.0)
    assert (await house.pointer()).change is Change.EXPORTED
    too_soon = Failure(reason="task-missing", message="", at="2026-01-01T23:59:01.000000Z")
    (again,) = await house.handle(OneWork(event(), 2, too_soon))
    assert isinstance(again, Transient)
    assert (await house.pointer()).change is Change.EXPORTED
    asked_before = Failure(reason="task-missing", message="", at="2026-01-01T23:59:00.000000Z")
    (second,) = await house.handle(OneWork(event(), 3, asked_before))
    assert isinstance(second, Outcome)
    assert (await house.pointer()).change is Change.DELETED


async def test_an_unknown_task_without_a_pointer_is_asked_for_again_then_buried() -> None:
    house = House()
    (first,) = await house.handle(event("ghost"))
    assert isinstance(first, Transient)
    asked_before = Failure(reason="task-missing", message="", at="2026-01-01T00:00:00.000000Z")
    (second,) = await house.handle(OneWork(event("ghost"), 2, asked_before))
    assert isinstance(second, Permanent)
    assert second.reason == "task-unknown"


async def test_a_task_that_a_sweep_found_and_that_went_before_it_was_looked_at_is_deleted() -> None:
    """The platform's own listing had it: nothing is wrong that a person should look at."""
    house = House()
    (first,) = await house.handle(event("ghost", action=Action.SWEEP))
    assert isinstance(first, Transient)
    asked_before = Failure(reason="task-missing", message="", at="2026-01-01T00:00:00.000000Z")
    found = OneWork(event("ghost", action=Action.SWEEP), 2, asked_before)
    (second,) = await house.handle(found)
    assert isinstance(second, Outcome)
    assert second.move.change is Change.DELETED


async def test_a_late_event_of_a_deleted_task_is_done_without_waiting() -> None:
    house = House()
    await house.handle(event(action=Action.DELETE))
    assert (await house.pointer()).change is Change.DELETED
    assert await house.handle(event(name="late")) == [None]


async def test_a_lagging_answer_does_not_bring_a_deleted_task_back() -> None:
    house = House()
    await house.see(**LABELLED)
    task = house.platform.tasks.pop("task-1")
    await house.handle(event(action=Action.DELETE))
    house.platform.tasks["task-1"] = task
    (result,) = await house.handle(event())
    assert isinstance(result, Transient)
    assert result.reason == "task-reappeared"
    assert (await house.pointer()).change is Change.DELETED


async def test_the_outcome_of_a_pointer_is_put_before_its_task_is_fetched() -> None:
    house = House()
    outcome = await house.see(**LABELLED)
    house.queue.puts.clear()
    seen_at_fetch: list[list[Message]] = []

    async def look() -> None:
        seen_at_fetch.extend(house.queue.puts)

    house.platform.before_answer = look
    await house.see(**LABELLED)
    assert seen_at_fetch == [[outcome]]


async def test_whoever_loses_the_race_for_a_pointer_fetches_again() -> None:
    house = House()
    house.platform.tasks["task-1"] = snapshot(**LABELLED)
    rival = House()
    rival.store, rival.queue = house.store, house.queue
    raced: list[Result] = []

    async def race() -> None:
        rival.platform.tasks["task-1"] = snapshot(**LABELLED)
        raced.extend(await rival.handle(event(name="rival")))

    house.platform.before_answer = race
    (result,) = await house.handle(event(name="late"))
    assert isinstance(raced[0], Outcome)
    assert result is None  # the rival's pointer already shows it
    assert (await house.pointer()).sequence == 1
    assert house.platform.asked["task-1"] == 2


async def test_an_unreadable_pointer_stops_its_own_task_only() -> None:
    house = House()
    house.store.objects[layout.pointer_key(PROJECT, "broken")] = b'{"format": 99}'
    house.platform.tasks = {name: snapshot(name) for name in ("broken", "sound")}
    broken, sound = await house.handle(event("broken"), event("sound"))
    assert isinstance(broken, Permanent)
    assert broken.reason == "pointer-unreadable"
    assert isinstance(sound, Outcome)


async def test_a_damaged_file_is_no_lost_race_and_is_named() -> None:
    house = House()
    await house.see(**LABELLED)
    mask = (await house.manifest()).files[1]
    pointer = layout.pointer_key(PROJECT, "task-1")
    house.store.objects = {mask.key: b"flipped", pointer: house.store.objects[pointer]}
    result = await house.see(**LABELLED)
    assert isinstance(result, Permanent)
    assert result.reason == "lake-damaged"
    assert mask.key in result.message


async def test_nothing_is_taken_over_from_a_manifest_that_somebody_changed() -> None:
    house = House()
    await house.see(**LABELLED)
    key = (await house.pointer()).manifest
    assert key is not None
    data = house.store.objects[key]
    house.store.objects[key] = data.replace(b'"voxels":4', b'"voxels":5')
    assert house.store.objects[key] != data
    await house.see(labels=(nifti_label(),), stage="Review_2", document={"series": [{}]})
    (mask,) = [file for file in (await house.manifest()).files if file.labels]
    assert [count.voxels for count in mask.labels] == [4]


async def test_a_manifest_that_is_gone_is_made_anew() -> None:
    house = House()
    await house.see(**LABELLED)
    gone = (await house.pointer()).manifest
    assert gone is not None
    del house.store.objects[gone]
    await house.see(labels=(nifti_label(),), stage="Review_2")
    assert [file.path for file in (await house.manifest()).files] == [
        "annotations.json",
        "segmentations/series1.nii.gz",
    ]


async def test_an_event_of_a_source_that_is_no_longer_configured_is_buried() -> None:
    house = House()
    (result,) = await house.handle(event(source="gone"))
    assert isinstance(result, Permanent)
    assert result.reason == "unknown-source"


async def test_the_seeds_own_example() -> None:
    """100 uploads of which 80 are annotated give 80 revisions, five more annotated give 85 and
    transfer five."""
    house = House()

    def tasks(annotated: int) -> None:
        for n in range(100):
            labels: tuple[Label, ...] = (nifti_label(slot=()),) if n < annotated else ()
            house.platform.tasks[f"t{n}"] = snapshot(f"t{n}", labels=labels)

    async def revisions() -> int:
        return len([key for key in await house.keys() if "/revisions/" in key])

    tasks(80)
    await house.handle(*(event(f"t{n}") for n in range(100)))
    assert await revisions() == 80
    assert house.platform.downloads["mask-1"] == 80
    tasks(85)
    await house.handle(*(event(f"t{n}", name="e2") for n in range(100)))
    assert await revisions() == 85
    assert house.platform.downloads["mask-1"] == 85


@pytest.mark.parametrize("name", ["../../x", "", ".", "x" * 300, "🩻", "a\x00b"])
async def test_hostile_names_stay_inside_their_task_and_intact_in_the_json(name: str) -> None:
    house = House()
    label = nifti_label()
    hostile = msgspec.structs.replace(
        label, series=(msgspec.structs.replace(label.series[0], name=name),)
    )
    await house.see(labels=(hostile,), name=name)
    manifest = await house.manifest()
    prefix = layout.task_prefix(PROJECT, "task-1")
    for file in manifest.files:
        assert file.key.startswith(f"{prefix}files/{file.sha256}/")
        assert file.key.count("/") == prefix.count("/") + 2
    assert (await house.pointer()).name == name
    assert manifest.files[1].series == name


def test_two_tasks_whose_ids_look_alike_have_two_pointers() -> None:
    keys = {layout.pointer_key(PROJECT, task) for task in ("a/b", "a-b", "a\\b", "A/b")}
    assert len(keys) == 4


def test_the_lane_wants_events_only() -> None:
    key = TaskKey(source=SOURCE, project=PROJECT, task="t")
    assert export.LANE.takes(event(key.task))
    assert not export.LANE.takes(
        cast(Message, msgspec.json.decode(b'{"type":"record","id":"x","kind":"y"}', type=Message))
    )
