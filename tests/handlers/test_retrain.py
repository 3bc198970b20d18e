"""Retraining: decided when its policy says so, logged first, then fired once, with one key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from consumer.errors import Permanent, Transient
from consumer.model import FileRef, LabelCount, Manifest, Record, canonical, digest, encode
from consumer.ports import Cursor
from handlers.retrain_drawn import is_drawn
from handlers.retrain_policy import Policy
from handlers.retrain_tasks import Task
from tests.fakes_store import FakeStore
from tests.handlers.retrain_house import RetrainHouse, retrain_house

TWO = Policy(name="two", min_changes=2, target="fake")


@pytest.fixture
async def house() -> AsyncIterator[RetrainHouse]:
    async with retrain_house(TWO) as made:
        yield made


async def test_enough_new_tasks_are_decided_logged_and_fired(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    house.process()
    await house.settle()
    decided, snapshot, ended = await house.entries("decided", "snapshot", "triggered")
    assert decided.data["reason"] == "enough-changes"
    assert (decided.data["tasks"], decided.data["added"], decided.data["changed"]) == (2, 2, 0)
    assert decided.data["log_size"] == decided.index
    (trigger,) = house.target.told
    assert ended.data["key"] == trigger.key
    assert (ended.data["reference"], ended.data["already"]) == ("run-1", False)
    assert (trigger.log_size, trigger.decided_at) == (decided.index, decided.data["logged_at"])
    assert snapshot.data["id"] == f"snapshot:two:{trigger.snapshot}"


async def test_fewer_tasks_are_not_enough(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.see("b")
    house.process()
    await house.settle()
    assert await house.decisions() == []


async def test_one_task_that_changes_twice_counts_once(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.approve("a", version="v2", value=2)
    house.process()
    await house.settle()
    assert await house.decisions() == []


async def test_a_task_that_left_the_ground_truth_counts_no_longer(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.send_back("a")
    await house.lake.approve("b")
    house.process()
    await house.settle()
    assert await house.decisions() == []


async def test_after_a_decision_counting_begins_anew_and_other_masks_count(
    house: RetrainHouse,
) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    house.process()
    await house.settle()
    await house.lake.approve("a", version="v2", value=2)
    await house.settle()
    assert len(await house.decisions()) == 1
    await house.lake.approve("c")
    await house.settle()
    second = (await house.entries("decided"))[1].data
    assert (second["decision"], second["added"], second["changed"]) == (2, 1, 1)
    await house.assert_every_decision_ends()


async def test_a_move_within_the_ground_truth_does_not_count(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    house.process()
    await house.settle()
    for task in ("a", "b"):
        await house.lake.approve(task, document={"series": [{"name": "series1"}], "note": 1})
    moved = [e.data for e in await house.entries("lake")][-2:]
    assert {one["change"] for one in moved} == {"moved"}
    await house.settle()
    assert len(await house.decisions()) == 1


async def test_nothing_is_fired_before_the_log_holds_the_decision(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    for _ in range(5):
        await process.turn()
    assert len(house.lake.queue.puts[-1]) == 1
    assert (house.target.asked, house.snapshots.made) == (0, [])


async def test_a_decision_that_does_not_reach_the_log_is_put_again(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    await process.turn()
    lost = await house.lose()
    assert [one.id for one in lost] == ["two:1"]
    await house.settle()
    assert await house.decisions() == []
    house.lake.pass_time(31)
    await house.settle()
    assert await house.decisions() == [("two", 1, 2)]


async def test_the_first_decision_logged_is_the_one_whoever_made_it(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    await process.turn()
    (ours,) = await house.lose()
    assert isinstance(ours, Record)
    theirs = {**ours.fields, "reason": "fired-by-hand", "tasks": 1, "log_size": 2}
    await house.lake.say("decided", "two:1", **theirs)
    await house.lake.queue.put([ours])
    await house.settle()
    assert await house.decisions() == [("two", 1, 1)]
    (trigger,) = house.target.told
    assert (trigger.reason, trigger.log_size) == ("fired-by-hand", 2)


async def test_what_changed_after_the_size_that_was_decided_on_stays_pending(
    house: RetrainHouse,
) -> None:
    await house.lake.approve("a")
    size = await house.lake.tail.size()
    await house.lake.approve("b")
    await house.lake.approve("a", version="v2", value=2)
    await house.lake.say(
        "decided",
        "two:1",
        policy="two",
        decision=1,
        log_size=size,
        reason="fired-by-hand",
        tasks=1,
        added=1,
        changed=0,
    )
    house.process()
    await house.settle()
    second = (await house.entries("decided"))[1].data
    assert (second["decision"], second["added"], second["changed"]) == (2, 1, 1)


async def test_nothing_is_decided_until_nothing_has_changed_for_a_while() -> None:
    async with retrain_house(Policy(name="calm", min_changes=1, quiet_s=900)) as house:
        await house.lake.approve("a")
        house.process()
        await house.settle()
        house.lake.pass_time(800)
        await house.lake.approve("b")
        house.lake.pass_time(800)
        await house.settle()
        assert await house.decisions() == []
        step = house.processes[0].step
        assert step is not None
        assert step.wake_s == pytest.approx(100)
        house.lake.pass_time(100)
        await house.settle()
        assert await house.decisions() == [("calm", 1, 2)]


async def test_a_removal_is_a_change_as_well() -> None:
    async with retrain_house(Policy(name="calm", min_changes=1, quiet_s=900)) as house:
        await house.lake.approve("a")
        await house.lake.approve("b")
        house.lake.pass_time(800)
        await house.lake.send_back("b")
        house.lake.pass_time(800)
        house.process()
        await house.settle()
        assert await house.decisions() == []
        house.lake.pass_time(100)
        await house.settle()
        assert await house.decisions() == [("calm", 1, 1)]


async def test_the_oldest_waits_no_longer_than_it_may() -> None:
    async with retrain_house(Policy(name="weekly", min_changes=50, max_wait_s=604_800)) as house:
        await house.lake.approve("a")
        house.process()
        await house.settle()
        house.lake.pass_time(604_799)
        await house.lake.approve("b")
        await house.settle()
        assert await house.decisions() == []
        house.lake.pass_time(1)
        await house.settle()
        assert await house.decisions() == [("weekly", 1, 2)]
        assert (await house.entries("decided"))[0].data["reason"] == "waited-long-enough"


async def test_a_clock_that_was_put_back_fires_nothing_early_and_nothing_twice() -> None:
    async with retrain_house(Policy(name="calm", min_changes=1, quiet_s=900)) as house:
        await house.lake.approve("a")
        house.process()
        house.lake.pass_time(-86_400)
        await house.settle()
        house.lake.pass_time(900)
        await house.settle()
        assert await house.decisions() == []
        house.lake.pass_time(86_400)
        await house.settle()
        assert await house.decisions() == [("calm", 1, 1)]
        house.lake.pass_time(-86_400)
        await house.settle()
        await house.assert_every_decision_ends()
        assert len(house.target.told) == 1


async def test_only_the_policys_projects_count() -> None:
    policies = [
        Policy(name="here", projects=("project-1",), min_changes=1),
        Policy(name="there", projects=("project-2",), min_changes=1),
    ]
    async with retrain_house(*policies) as house:
        await house.lake.approve("a")
        house.process()
        await house.settle()
        assert await house.decisions() == [("here", 1, 1)]


async def test_only_tasks_count_in_which_one_of_the_classes_is_drawn() -> None:
    policies = [
        Policy(name="liver", classes=("liver",), min_changes=1),
        Policy(name="spleen", classes=("spleen", "kidney"), min_changes=1),
    ]
    async with retrain_house(*policies) as house:
        await house.lake.approve("a", value=1)
        house.process()
        await house.settle()
        assert await house.decisions() == [("liver", 1, 1)]
        await house.lake.approve("a", version="v2", value=2)
        await house.settle()
        assert await house.decisions() == [("liver", 1, 1), ("spleen", 1, 1)]


@pytest.mark.parametrize("damage", [None, b"{}"])
async def test_a_manifest_that_cannot_be_had_is_said_and_looked_for_again(
    damage: bytes | None,
) -> None:
    policies = [
        Policy(name="liver", classes=("liver",), min_changes=1),
        Policy(name="any", min_changes=1),
    ]
    async with retrain_house(*policies) as house:
        await house.lake.approve("a", value=1)
        (lake,) = await house.entries("lake")
        key = lake.data["manifest_key"]
        kept = house.lake.store.objects.pop(key)
        if damage is not None:
            house.lake.store.objects[key] = damage
        process = house.process()
        await house.settle()
        assert await house.decisions() == [("any", 1, 1)]
        said = "manifest-damaged" if damage else "manifest-missing"
        assert process.troubles == (said,)
        house.lake.store.objects[key] = kept
        house.lake.pass_time(61)
        await house.settle()
        assert ("liver", 1, 1) in await house.decisions()
        assert process.troubles == ()


async def test_a_dry_run_is_decided_and_ends_there() -> None:
    async with retrain_house(Policy(name="dry", min_changes=1, dry_run=True)) as house:
        await house.lake.approve("a")
        house.process()
        await house.settle()
        (decided,) = await house.entries("decided", "snapshot", "triggered")
        assert decided.data["dry_run"] is True
        assert (house.target.asked, house.snapshots.made) == (0, [])


async def test_a_target_that_fails_is_tried_again_for_ever_and_said_once(
    house: RetrainHouse,
) -> None:
    house.target.fails = [Transient("target-down", "it is down")] * 6
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    waits = []
    for _ in range(6):
        await house.settle()
        assert process.troubles == ("target-down",)
        assert process.step is not None
        assert process.step.wake_s is not None
        waits.append(round(process.step.wake_s, 3))
        house.lake.pass_time(waits[-1])
    await house.settle()
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert [e.data["id"] for e in await house.entries("failed")] == [
        "failed:trigger:two:1:target-down"
    ]
    assert process.troubles == ()
    await house.assert_every_decision_ends()


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (Transient("busy", after_s=120.0), 120.0),
        (Transient("busy", after_s=1e9), 86_400.0),
        (Permanent("gone", "no such pipeline"), 600.0),
        (ValueError("a mistake of ours"), 0.5),
    ],
)
async def test_what_fails_waits_as_long_as_it_should(
    house: RetrainHouse, error: Exception, wait_s: float
) -> None:
    house.target.fails = [error]
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    await house.settle()
    assert process.step is not None
    assert process.step.wake_s == pytest.approx(wait_s)
    house.lake.pass_time(wait_s)
    await house.settle()
    await house.assert_every_decision_ends()


async def test_the_waits_survive_a_restart(house: RetrainHouse) -> None:
    house.target.fails = [Permanent("gone", "no such pipeline")]
    await house.lake.approve("a")
    await house.lake.approve("b")
    house.process()
    await house.settle()
    house.lake.pass_time(500)
    again = house.process()
    await house.settle()
    assert (house.target.asked, again.troubles) == (1, ("gone",))
    house.lake.pass_time(100)
    await house.settle()
    await house.assert_every_decision_ends()


async def test_a_target_that_hangs_holds_up_neither_the_log_nor_other_policies() -> None:
    slow, quick = (Policy(name=n, min_changes=1, target="fake") for n in ("slow", "quick"))
    async with retrain_house(slow) as house:
        house.target.holding.clear()
        await house.lake.approve("a")
        house.process()
        await house.settle()
        assert house.target.at_once == 1
        await house.lake.approve("b")
        await house.settle()
        assert [n for _, n, _ in await house.decisions()] == [1, 2]
        assert house.target.most_at_once == 1  # of one policy at most one at a time
        house.policies.append(quick)
        await house.processes[0].follower.close()
        house.process()
        await house.settle()
        assert house.target.at_once == 2  # of two policies side by side
        house.target.holding.set()
        await house.settle()
        await house.assert_every_decision_ends()


async def test_a_target_that_hangs_is_cut_by_its_time_limit() -> None:
    async with retrain_house(Policy(name="p", min_changes=1, timeout_s=0.01)) as house:
        house.more = {"grace_s": 0.01}
        house.target.holding.clear()
        await house.lake.approve("a")
        process = house.process()
        async with asyncio.timeout(10):
            while process.troubles != ("target-timeout",):
                await process.turn()
                await house.lake.write_log()
                await asyncio.sleep(0.005)
        assert house.target.cancelled == 1


async def test_what_is_under_way_is_ended_with_the_follower(house: RetrainHouse) -> None:
    house.target.holding.clear()
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    await house.settle()
    await process.follower.close()
    assert (house.target.cancelled, house.target.at_once) == (1, 0)


async def test_a_failing_follower_does_not_ask_twice_for_what_is_under_way(
    house: RetrainHouse,
) -> None:
    house.target.holding.clear()
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    await house.settle()
    process.step = None  # something failed: its loop begins it again
    await house.settle()
    house.target.holding.set()
    await house.settle()
    assert house.target.asked == 1
    await house.assert_every_decision_ends()


async def test_a_later_decision_need_not_wait_for_one_that_fails(house: RetrainHouse) -> None:
    house.target.fails = [Permanent("gone")]
    await house.lake.approve("a")
    await house.lake.approve("b")
    house.process()
    await house.settle()
    for task in ("c", "d"):
        await house.lake.approve(task)
    await house.settle()
    assert house.target.begun == [("two", 2)]
    house.lake.pass_time(600)
    await house.settle()
    assert house.target.begun == [("two", 2), ("two", 1)]


async def test_a_snapshot_that_fails_is_tried_again_and_said(house: RetrainHouse) -> None:
    house.snapshots.fails = [Permanent("lake-file-missing", "a manifest is gone")]
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    await house.settle()
    assert process.troubles == ("lake-file-missing",)
    assert house.target.asked == 0
    house.lake.pass_time(600)
    await house.settle()
    await house.assert_every_decision_ends()


async def test_a_queue_that_fails_holds_up_nothing_and_loses_nothing(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    house.lake.queue.failing = Transient("queue-unreachable")
    for _ in range(20):
        await process.turn()
    assert (process.troubles, process.failures) == (("queue-unreachable",), [])
    house.lake.queue.failing = None
    house.lake.pass_time(5)
    await house.settle()
    await house.assert_every_decision_ends()


async def test_a_policy_that_is_gone_fires_nothing_and_loses_nothing(house: RetrainHouse) -> None:
    house.target.fails = [Permanent("gone")]
    await house.lake.approve("a")
    await house.lake.approve("b")
    house.process()
    await house.settle()
    house.policies[:] = [Policy(name="other", min_changes=9)]
    without = house.process()
    house.lake.pass_time(3600)
    await house.settle()
    assert without.troubles == ("policy-not-configured",)
    assert house.target.told == []
    house.policies[:] = [TWO]
    house.process()
    await house.settle()
    await house.assert_every_decision_ends()
    assert await house.decisions() == [("two", 1, 2)]


async def test_a_policy_whose_classes_change_counts_anew_from_its_last_decision() -> None:
    async with retrain_house(Policy(name="p", classes=("kidney",), min_changes=1)) as house:
        await house.lake.approve("a", value=1)
        house.process()
        await house.settle()
        assert await house.decisions() == []
        house.policies[:] = [Policy(name="p", classes=("liver",), min_changes=1)]
        house.process()
        await house.settle()
        assert await house.decisions() == [("p", 1, 1)]


async def test_a_new_policy_begins_with_all_the_ground_truth(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    house.process()
    await house.settle()
    house.policies.append(Policy(name="late", min_changes=2))
    house.process()
    await house.settle()
    assert await house.decisions() == [("two", 1, 2), ("late", 1, 2)]
    await house.assert_every_decision_ends()


async def test_a_decision_keeps_the_classes_that_it_was_made_with() -> None:
    async with retrain_house(Policy(name="p", classes=("liver",), min_changes=1)) as house:
        house.snapshots.fails = [Transient("store-down")]
        await house.lake.approve("a", value=1)
        house.process()
        await house.settle()
        house.policies[:] = [Policy(name="p", min_changes=5)]
        house.lake.pass_time(1)
        house.process()
        await house.settle()
        assert house.target.told[0].snapshot.endswith("-liver")


@pytest.mark.parametrize("batch", [1, 3, 1000])
async def test_replayed_from_the_beginning_it_comes_to_the_same_and_fires_nothing_again(
    house: RetrainHouse, batch: int
) -> None:
    await story(house)
    live = (await house.lake.cursor("retrain")).state
    asked = house.target.asked
    copy = FakeStore(objects=await house.lake.objects(but=["followers/"]))
    again = house.process(store=copy, batch=batch)
    puts = len(house.lake.queue.puts)
    await house.settle()
    assert again.step is not None
    assert encode(again.step.cursor.state) == encode(live)
    assert (house.target.asked, len(house.lake.queue.puts)) == (asked, puts)
    await house.assert_every_decision_ends()


async def story(house: RetrainHouse) -> None:
    house.process()
    for number, task in enumerate("abacadbce"):
        await house.lake.approve(task, version=f"v{number}", value=1 + number % 2)
        if number % 3 == 2:
            await house.lake.send_back(task)
        house.lake.pass_time(1)
        await house.settle()


async def test_a_state_of_another_version_is_had_from_the_log_again(house: RetrainHouse) -> None:
    await story(house)
    live = (await house.lake.cursor("retrain")).state
    follower = house.process().follower
    begin = await follower.start(Cursor(9, {"policies": 3}))
    assert begin == Cursor(0, {})
    step = await house.lake.catch_up(follower, cursor=Cursor(9, {"policies": 3}))
    assert encode(step.cursor.state) == encode(live)


async def test_many_pending_tasks_are_counted_again_and_the_state_stays_small(
    house: RetrainHouse,
) -> None:
    house.more = {"kept": 1}
    house.policies[:] = [Policy(name="two", min_changes=3)]
    process = house.process()
    for task in ("a", "b"):
        await house.lake.approve(task)
        await house.settle()
    stored: Any = await house.lake.cursor("retrain")
    assert stored.next == 0
    assert stored.state["policies"]["two"].get("tasks", []) == []
    again = house.process()
    await house.lake.approve("c")
    await house.settle(again)
    assert await house.decisions() == [("two", 1, 3)]
    await process.follower.close()


async def test_a_lake_entry_that_is_none_is_an_error_that_says_where(house: RetrainHouse) -> None:
    await house.lake.say("lake", "strange")
    process = house.process()
    await process.turn()
    (error,) = process.failures
    assert isinstance(error, Permanent)
    assert error.reason == "lake-entry-unreadable"


async def test_a_target_that_began_is_not_told_again_while_the_log_does_not_say_so(
    house: RetrainHouse,
) -> None:
    await house.lake.approve("a")
    await house.lake.approve("b")
    process = house.process()
    await process.turn()
    await house.lake.write_log()
    for _ in range(20):
        await process.turn()
        await asyncio.sleep(0)
        house.lake.pass_time(31)
    assert house.target.asked == 1
    assert process.troubles == ("not-logged",)  # it is put again and again
    await house.settle()
    await house.assert_every_decision_ends()


def manifest(*files: FileRef) -> bytes:
    made = Manifest(
        source="s", project="p", task="t", taxonomy=None, taxonomy_key=None, files=files
    )
    return canonical(made)


def label_map(label: str, category: str, voxels: int) -> FileRef:
    counts = (LabelCount(value=1, voxels=voxels, category=category),)
    return FileRef(path="p", key="k", sha256="0" * 64, size=1, label=label, labels=counts)


@pytest.mark.parametrize(
    ("file", "drawn"),
    [
        (label_map("truth", "liver", 5), True),
        (label_map("truth", "liver", 0), False),  # in the table, and nowhere in the volume
        (label_map("truth", "spleen", 5), False),
        (label_map("somebody's", "liver", 5), False),  # not the label that is the ground truth
    ],
)
async def test_a_class_is_drawn_when_the_ground_truth_has_voxels_of_it(
    file: FileRef, drawn: bool
) -> None:
    data = manifest(file)
    store = FakeStore(objects={"m.json": data})
    task = Task("s", "p", "t", (), None, digest(data), "m.json", "truth")
    assert await is_drawn(store, task, ["liver"]) is drawn
