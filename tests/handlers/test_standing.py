"""How the lake's pointers stand to what was sighted: pure comparison, and what is read for it."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.errors import Transient
from consumer.model import Action, ExportRules, Pointer
from consumer.sightings import Gap, Sighting, Window
from handlers import layout
from handlers.pointers import recipe_of
from handlers.standing import LakeStanding, Unreadable, gap_of, is_stale
from tests.fakes_clock import FakeClock
from tests.fakes_platform import NOON, PROJECT, SOURCE, event, nifti_label
from tests.fakes_store import Fault, FaultyStore
from tests.handlers.export_house import House
from tests.handlers.test_export import LABELLED

LATER = "2026-01-02T12:00:00.000001Z"


async def held(**changes: Any) -> Pointer:
    """The pointer of a task at the stage Label, last active at noon."""
    house = House()
    await house.see(**changes)
    return await house.pointer()


async def deleted() -> Pointer:
    house = House()
    await house.see()
    del house.platform.tasks["task-1"]
    await house.handle(event(name="gone", action=Action.DELETE))
    return await house.pointer()


def standing(house: House, store: Any = None) -> LakeStanding:
    return LakeStanding(
        source=SOURCE,
        store=store or house.store,
        project_key=house.ports.project_key,
        rules=house.rules,
        sleep=FakeClock().sleep,
    )


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (Sighting("task-1"), None),
        (Sighting("task-1", "Label", NOON), None),
        (Sighting("task-1", "LABEL", NOON), None),
        (Sighting("task-1", None, NOON), None),
        (Sighting("task-1", "Label", None), None),
        (Sighting("task-1", "Label", "2026-01-02T11:59:59.999999Z"), None),
        (Sighting("task-1", "END", NOON), "stage"),
        (Sighting("task-1", "END", LATER), "stage"),
        (Sighting("task-1", "Label", LATER), "newer"),
        (Sighting("task-1", None, LATER), "newer"),
        (Sighting("task-1", "Label", NOON, labels=frozenset()), None),
        (Sighting("task-1", "Label", NOON, labels=frozenset({"label-1"})), "labels"),
        (Sighting("task-1", "Label", NOON, judged=True), None),
        (Sighting("task-1", ground_truth_label="label-1", judged=True), "ground-truth"),
    ],
)
async def test_a_sighting_of_a_task_that_the_lake_knows(seen: Sighting, why: str | None) -> None:
    assert gap_of(seen, await held()) == why


async def test_a_pointer_without_a_time_is_older_than_any() -> None:
    pointer = await held(active_at=None)
    assert gap_of(Sighting("task-1", "Label", NOON), pointer) == "newer"


async def test_a_task_that_the_lake_does_not_know_is_a_gap() -> None:
    assert gap_of(Sighting("task-1"), None) == "unknown"


async def test_a_deleted_task_that_is_sighted_has_reappeared() -> None:
    assert gap_of(Sighting("task-1"), await deleted()) == "reappeared"
    assert gap_of(Sighting("task-1", "Label", NOON), await deleted()) == "reappeared"


async def test_something_else_in_a_pointers_place_is_a_gap_and_no_crash() -> None:
    house = House()
    await house.store.swap(layout.pointer_key(PROJECT, "bad"), b"{", if_match=None)
    await house.store.swap(layout.pointer_key(PROJECT, "not utf/8"), b"\xff", if_match=None)
    lake = standing(house)
    assert await lake.gaps(PROJECT, [Sighting("bad")]) == [Gap("bad", "unreadable")]
    assert await lake.gaps(PROJECT, [Sighting("not utf/8")]) == [Gap("not utf/8", "unreadable")]
    assert await lake.missing(PROJECT, ["bad"]) == [Gap("bad", "unreadable")]
    assert gap_of(Sighting("bad"), Unreadable()) == "unreadable"


async def test_an_unreadable_pointer_whose_place_names_no_task_is_left_to_verify() -> None:
    house = House()
    key = layout.pointer_key(PROJECT, "a/b")
    await house.store.swap(key, b"{", if_match=None)
    assert await standing(house).missing(PROJECT, [key.split("/")[2]]) == []


async def test_a_task_told_twice_is_compared_as_it_was_told_last() -> None:
    house = House()
    await house.see()
    seen = [Sighting("task-1", "END", LATER), Sighting("task-1", "Label", NOON)]
    assert await standing(house).gaps(PROJECT, seen) == []


async def test_places_are_those_of_pointers_and_tasks_of_any_name_are_found_in_theirs() -> None:
    house = House()
    for task in ("task-1", "über/../x"):
        await house.see(task, **LABELLED)
    lake = standing(house)
    places = await lake.places(PROJECT)
    assert places == {lake.place("task-1"), lake.place("über/../x")}
    gaps = await lake.missing(PROJECT, sorted(places))
    assert {gap.task for gap in gaps} == {"task-1", "über/../x"}


async def test_a_deleted_task_is_not_missing() -> None:
    house = House()
    await house.see()
    del house.platform.tasks["task-1"]
    await house.handle(event(name="gone", action=Action.DELETE))
    assert await standing(house).missing(PROJECT, ["task-1"]) == []


async def test_a_store_that_fails_once_is_asked_again_and_one_that_is_down_raises() -> None:
    house = House()
    await house.see()
    once = FaultyStore(house.store, {1: Fault.BEFORE})
    assert await standing(house, once).gaps(PROJECT, [Sighting("task-1")]) == []
    down = FaultyStore(house.store, dict.fromkeys(range(1, 10), Fault.BEFORE))
    with pytest.raises(Transient):
        await standing(house, down).gaps(PROJECT, [Sighting("task-1")])


@pytest.mark.parametrize(
    ("now", "changes", "stale"),
    [
        (ExportRules(), LABELLED, False),
        (ExportRules(), {}, False),  # nobody has worked on it
        (ExportRules(masks="binary"), LABELLED, True),
        (ExportRules(masks="binary"), {}, True),  # its pointer names the recipe, too
        (ExportRules(when="ground-truth"), LABELLED, True),  # has files, is to have none
        (ExportRules(when="ground-truth"), {}, False),
        (ExportRules(stages=("END",)), LABELLED, True),
        (ExportRules(stages=("label",)), LABELLED, False),
    ],
)
async def test_what_the_rules_of_today_would_make_otherwise(
    now: ExportRules, changes: dict[str, Any], stale: bool
) -> None:
    assert is_stale(await held(**{**changes, "stage": "Label"}), now, recipe_of(now)) is stale


async def test_a_task_without_files_that_is_to_have_them_is_stale() -> None:
    house = House(ExportRules(when="ground-truth"))
    await house.see(**LABELLED)
    rules = ExportRules()
    assert is_stale(await house.pointer(), rules, recipe_of(rules))


async def test_a_deleted_task_is_never_stale() -> None:
    rules = ExportRules(masks="binary")
    assert not is_stale(await deleted(), rules, recipe_of(rules))


async def test_of_a_window_only_stale_tasks_within_it_are_told() -> None:
    house = House()
    await house.see("early", active_at=NOON)
    await house.see("late", active_at=LATER)
    house.rules = ExportRules(masks="binary")
    told = await standing(house).stale(PROJECT, ["early", "late"], Window(since=LATER))
    assert told == [Gap("late", "stale")]


async def test_a_label_whose_time_nobody_knows_may_be_within_any_window() -> None:
    house = House()
    await house.see(labels=(nifti_label(),))
    house.rules = ExportRules(masks="binary")
    window = Window(label_since=LATER)
    assert await standing(house).stale(PROJECT, ["task-1"], window) == [Gap("task-1", "stale")]


async def test_a_later_time_alone_moves_the_pointer_so_that_it_is_found_once() -> None:
    house = House()
    await house.see()
    seen = Sighting("task-1", "Label", LATER)
    assert gap_of(seen, await house.pointer()) == "newer"
    await house.see(active_at=LATER)
    assert gap_of(seen, await house.pointer()) is None
    moved = (await house.pointer()).sequence
    await house.see(active_at=LATER)
    assert (await house.pointer()).sequence == moved
