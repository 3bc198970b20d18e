"""The sweep: what no webhook told is found by comparing lake and platform."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from consumer.errors import Permanent, Transient
from consumer.model import timestamp
from consumer.reconcile_plan import FEW, Pace, Wish, due
from consumer.reconcile_state import CLAIM_S, Kind, Project, Run, Taken, state_key
from consumer.sightings import Window
from tests.fakes_platform import PROJECT, SOURCE, event, nifti_label
from tests.faults.sweep_house import SweepHouse

DAY = 86_400.0
LONG_AGO = "2020-01-01T00:00:00.000000Z"


async def swept_once() -> SweepHouse:
    """A house whose first, full sweep is done: three tasks stand in the lake."""
    house = SweepHouse()
    for task in ("t1", "t2", "t3"):
        house.change(task)
    await house.sweep()
    await house.work()
    house.listing.clock.advance(3600)
    return house


async def test_the_first_sweep_takes_in_the_whole_project() -> None:
    house = SweepHouse()
    for number in range(10):
        house.change(f"t{number}")
    tally = await house.sweep()
    assert (tally.kind, tally.seen, dict(tally.gaps), tally.queued) == (
        "full", 10, {"unknown": 10}, 10,
    )  # fmt: skip
    await house.work()
    assert house.differences() == []


async def test_a_sweep_where_nothing_changed_queues_nothing() -> None:
    house = await swept_once()
    tally = await house.sweep(Wish("full"))
    assert (tally.seen, tally.gaps, house.queued()) == (3, {}, [])


async def test_later_only_what_changed_since_is_asked_for_with_an_overlap() -> None:
    house = await swept_once()
    mark = (await house.state()).projects[PROJECT].watermark
    tally = await house.sweep()
    since = house.listing.clock() - timedelta(seconds=3600 + house.pace.overlap_s)
    assert mark == timestamp(house.listing.clock() - timedelta(seconds=3600))
    assert tally.kind == "changes"
    assert house.listing.windows[-1] == (PROJECT, Window(since=timestamp(since)))


async def test_what_the_platform_calls_changed_is_compared_whatever_its_times_say() -> None:
    """A move by hand may show in what a platform lists, and in no time of the task's."""
    house = await swept_once()
    await house.sweep()
    house.platform.tasks["t2"] = replace(house.change("t2"), stage="END", active_at=LONG_AGO)
    house.listing.restless = {"t2"}
    assert (await house.sweep()).gaps == {"stage": 1}


async def test_a_listing_that_is_given_up_is_closed() -> None:
    house = SweepHouse()
    house.change("t1")
    house.queue.failing = Permanent("queue-denied")
    (tally,) = await house.sweeper().sweep() or []
    assert tally.failure is house.queue.failing
    assert house.listing.closed == 1


async def test_a_change_that_nobody_told_is_queued_with_why_and_logged_as_swept() -> None:
    house = await swept_once()
    house.change("t2", stage="Review_1")
    await house.sweep()
    (found,) = house.queued()
    assert (found.task, found.gap, found.stage, found.action) == (
        "t2",
        "stage",
        "Review_1",
        "SWEEP",
    )
    assert found.occurred_at == timestamp(house.listing.clock())
    await house.work()
    assert house.differences() == []
    (entry,) = [one for one in house.swept() if one["run"] == found.run]
    assert entry["id"] == f"swept:{found.id}"
    assert not [one for one in house.log.entries if one["kind"] == "receipt"]


async def test_a_task_that_is_gone_is_found_by_a_full_sweep_only() -> None:
    house = await swept_once()
    house.remove("t3")
    assert (await house.sweep()).gaps == {}
    house.listing.clock.advance(house.pace.full_every_s)
    tally = await house.sweep()
    assert (tally.kind, dict(tally.gaps)) == ("full", {"missing": 1})
    await house.work()
    held = house.pointer("t3")
    assert held is not None
    assert held.change == "deleted"
    assert (await house.sweep(Wish("full"))).gaps == {}


async def test_where_most_of_a_project_is_missing_a_person_is_asked_first() -> None:
    house = SweepHouse()
    tasks = [f"t{number:02}" for number in range(FEW + 4)]
    for task in tasks:
        house.change(task)
    await house.sweep()
    await house.work()
    for task in tasks[1:]:
        house.remove(task)
    (tally,) = await house.sweeper().sweep(Wish("full")) or []
    assert tally.failure is not None
    assert tally.failure.reason == "sweep-mostly-missing"
    assert house.queued() == []
    tally = await house.sweep(Wish("full", dry=True))
    assert tally.gaps == {"missing": FEW + 3}
    tally = await house.sweep(Wish("full", accept_missing=True))
    assert tally.queued == FEW + 3
    await house.work()
    assert house.differences() == []
    assert (await house.sweep(Wish("full"))).gaps == {}


@pytest.mark.parametrize(("gone", "asked"), [(FEW, False), (FEW + 1, True)])
async def test_a_few_tasks_may_be_missing_however_few_there_are(gone: int, asked: bool) -> None:
    house = SweepHouse()
    tasks = [f"t{number:02}" for number in range(gone)]
    for task in tasks:
        house.change(task)
    await house.sweep()
    await house.work()
    for task in tasks:
        house.remove(task)
    (tally,) = await house.sweeper().sweep(Wish("full")) or []
    assert (tally.failure is not None) is asked
    assert len(house.queued()) == (0 if asked else gone)


async def test_a_task_that_is_new_while_the_platform_is_asked_is_not_called_missing() -> None:
    house = await swept_once()

    async def appear(number: int) -> None:
        house.listing.before_page = None
        house.change("t0")  # stands before the page that is told next
        await house.tell("t0")
        house.listing.lagging["t0"] = None

    house.listing.before_page = appear
    assert (await house.sweep(Wish("full"))).gaps == {}


async def test_a_platform_that_fails_in_the_middle_calls_nothing_missing() -> None:
    house = await swept_once()
    before = (await house.state()).projects[PROJECT].watermark
    house.listing.page_size = 1
    house.listing.failing = {house.listing.calls + 3: Transient("platform-down", shared=True)}
    (tally,) = await house.sweeper().sweep(Wish("full")) or []
    assert tally.failure is not None
    assert tally.failure.reason == "platform-down"
    assert house.queued() == []
    assert (await house.state()).projects[PROJECT].watermark == before


async def test_an_unfinished_sweep_goes_on_under_its_own_name() -> None:
    house = SweepHouse()
    for number in range(6):
        house.change(f"t{number}")
    house.listing.failing = {3: Permanent("platform-denied")}
    (first,) = await house.sweeper().sweep() or []
    assert first.queued == 3
    tally = await house.sweep()
    assert tally.queued == 6  # nothing was exported meanwhile
    ids = [one.id for one in house.queued()]
    assert len(ids) == 9
    assert len(set(ids)) == 6
    assert {one.run for one in house.queued()} == {"run-1"}
    await house.work()
    assert len(house.swept()) == 6


async def test_an_unfinished_full_sweep_is_finished_before_what_changed_is_asked_for() -> None:
    house = await swept_once()
    house.listing.failing = {house.listing.calls + 2: Permanent("platform-denied")}
    await house.sweeper().sweep(Wish("full"))
    assert (await house.sweep()).kind == "full"
    assert (await house.sweep()).kind == "changes"


async def test_one_project_that_fails_does_not_hold_up_the_others() -> None:
    house = await swept_once()
    house.change("t2", stage="END")
    house.listing.known = {"gone": Permanent("project-unknown")}
    tallies = await house.sweeper(projects=("gone", PROJECT)).sweep() or []
    assert [bool(one.failure) for one in tallies] == [True, False]
    assert house.gaps() == {"t2": "stage"}


async def test_what_all_projects_share_ends_the_pass_and_leaves_it_due() -> None:
    house = await swept_once()
    at = (await house.state()).swept_at
    house.listing.known = {"first": Transient("platform-credentials", shared=True)}
    tallies = await house.sweeper(projects=("first", PROJECT)).sweep() or []
    assert [one.project for one in tallies] == ["first"]
    assert (await house.state()).swept_at == at
    assert (await house.state()).claim is None


async def test_without_named_projects_those_that_the_log_tells_of_are_swept() -> None:
    house = SweepHouse()
    house.change("t1")
    await house.tell("t1")
    house.change("t2")
    tally = await house.sweep(projects=("*",))
    assert (tally.project, dict(tally.gaps)) == (PROJECT, {"unknown": 1})
    state = await house.state()
    assert (state.next, state.log) == (len(house.log.entries), "a-log")


async def test_projects_of_other_sources_are_not_swept() -> None:
    house = SweepHouse()
    await house.log.append(
        [{"id": "r1", "kind": "receipt", "source": "another", "project": "theirs"}]
    )
    assert await house.sweeper(projects=("*",)).sweep() == []


async def test_a_state_of_another_log_is_refused_with_what_to_do() -> None:
    house = await swept_once()
    await house.sweep()
    house.log.name = "another-log"
    with pytest.raises(Permanent, match=r"sweeps/clinic\.json.*remove it") as caught:
        await house.sweep()
    assert caught.value.reason == "sweep-state-of-another-log"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"format":2,"source":"clinic"}',
        b'{"format":1,"source":"another"}',
        b'{"format":1,"source":"clinic","swept_at":"yesterday"}',
        b'{"format":1,"source":"clinic","projects":{"p":{"watermark":"2026-01-01"}}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
async def test_a_state_that_cannot_be_read_is_refused_with_what_to_do(data: bytes) -> None:
    house = SweepHouse()
    await house.store.swap(state_key(SOURCE), data, if_match=None)
    with pytest.raises(Permanent, match="remove it") as caught:
        await house.sweep()
    assert caught.value.reason == "sweep-state-unreadable"


async def test_a_log_that_is_shorter_than_what_was_read_of_it_is_refused() -> None:
    house = SweepHouse()
    await house.tell("t1")
    await house.sweeper(projects=("*",)).sweep()
    del house.log.entries[1:]
    with pytest.raises(Permanent, match="restored from a copy"):
        await house.sweeper(projects=("*",)).sweep()


async def test_a_sweep_waits_while_the_lane_is_full_and_then_looks_again() -> None:
    house = await swept_once()
    house.pace = Pace(most_waiting=1)
    for task in ("t1", "t2", "t3"):
        house.change(task, stage="END")
    await house.queue.put([event("t1", name="a"), event("t1", name="b")])

    async def working(seconds: float) -> None:
        house.clock.advance(seconds)
        await house.work()

    await house.sweep(sleep=working)
    assert house.watch.waited == [("queue-full", 2)]
    assert house.gaps() == {"t2": "stage", "t3": "stage"}  # the first was exported meanwhile


async def test_a_sweep_that_finds_nothing_asks_the_queue_nothing() -> None:
    house = await swept_once()
    house.queue.failing = Transient("queue-down")
    assert (await house.sweep()).gaps == {}


async def test_calls_that_may_work_later_are_tried_again_after_what_was_asked_for() -> None:
    house = SweepHouse()
    house.listing.failing = {1: Transient("platform-rate-limit", after_s=17.0)}
    await house.sweep()
    assert 17.0 in house.clock.slept


async def test_a_wait_that_is_long_is_the_callers() -> None:
    house = SweepHouse()
    house.listing.failing = {1: Transient("platform-rate-limit", after_s=900.0, shared=True)}
    (tally,) = await house.sweeper().sweep() or []
    assert isinstance(tally.failure, Transient)
    assert tally.failure.after_s == 900.0
    assert house.clock.slept == []


async def test_a_dry_run_queues_and_remembers_nothing() -> None:
    house = SweepHouse()
    house.change("t1")
    house.queue.failing = Transient("queue-down")
    tally = await house.sweep(Wish(dry=True))
    assert (dict(tally.gaps), tally.named, tally.queued) == (
        {"unknown": 1}, [("unknown", "t1")], 0,
    )  # fmt: skip
    assert [call for call in house.store.calls if call.verb != "read" and call.verb != "list"] == []


async def test_a_dry_run_of_projects_seen_remembers_nothing_either() -> None:
    house = SweepHouse()
    house.change("t1")
    await house.tell("t1")
    house.change("t1", stage="END")
    tally = await house.sweep(Wish(dry=True), projects=("*",))
    assert dict(tally.gaps) == {"stage": 1}
    assert state_key(SOURCE) not in house.store.objects


async def test_of_a_window_only_what_lies_in_it_is_compared_and_no_watermark_moves() -> None:
    house = await swept_once()
    before = (await house.state()).projects[PROJECT]
    house.change("t1", stage="END")
    house.listing.clock.advance(60)
    since = timestamp(house.listing.clock())
    house.change("t2", stage="END")
    tally = await house.sweep(Wish("window", Window(since=since)))
    assert (tally.seen, house.gaps()) == (1, {"t2": "stage"})
    assert (await house.state()).projects[PROJECT] == before


async def test_labels_made_within_a_window_are_what_it_is_of() -> None:
    house = await swept_once()
    for task, at in (("t1", "2026-03-01"), ("t2", "2026-03-05")):
        label = nifti_label(f"l-{task}", updated_at=f"{at}T00:00:00.000000Z")
        house.change(task, labels=(replace(label, created_at=f"{at}T00:00:00.000000Z"),))
    window = Window(label_since="2026-03-02T00:00:00.000000Z")
    await house.sweep(Wish("window", window))
    assert house.gaps() == {"t2": "newer"}


async def test_a_claim_keeps_two_from_sweeping_at_once() -> None:
    house = await swept_once()
    assert await house.sweeper("other").ledger.claim()
    assert await house.sweeper("one").sweep() is None
    house.outlive_claims()
    assert await house.sweeper("one").sweep() is not None


async def test_a_person_takes_over_and_the_other_yields_with_its_work_done_twice_at_most() -> None:
    house = await swept_once()
    house.change("t2", stage="END")

    async def taken_over(number: int) -> None:
        house.listing.before_page = None
        await house.sweeper("person").sweep(force=True)

    house.listing.before_page = taken_over
    with pytest.raises(Taken):
        await house.sweeper("periodic").sweep()
    assert {one.id for one in house.queued()} == {house.queued()[0].id}
    assert (await house.state()).claim is None


async def test_a_claim_is_renewed_while_the_queue_is_full() -> None:
    house = SweepHouse(pace=Pace(most_waiting=1))
    house.change("t1")
    await house.queue.put([event("x", name="a"), event("x", name="b")])
    refused = []

    async def later(seconds: float) -> None:
        house.clock.advance(seconds)
        refused.append(not await house.sweeper("other").ledger.claim())
        if len(refused) * seconds > 2 * CLAIM_S:
            await house.work()

    await house.sweep(sleep=later)
    assert all(refused)
    assert len(refused) * 2 > CLAIM_S


@pytest.mark.parametrize("jump_s", [-DAY, DAY], ids=["back", "ahead"])
async def test_a_clock_of_ours_that_is_set_keeps_nobody_from_sweeping(jump_s: float) -> None:
    house = await swept_once()
    await house.sweeper("died").ledger.claim()
    house.clock.advance(jump_s)
    house.change("t2", stage="END")
    assert (await house.sweep()).gaps == {"stage": 1}
    await house.work()
    assert house.differences() == []


async def test_a_platforms_clock_that_was_set_back_makes_the_sweep_a_full_one() -> None:
    house = await swept_once()
    house.listing.clock.advance(-DAY)
    house.change("t2", stage="END")
    tally = await house.sweep()
    assert (tally.kind, dict(tally.gaps)) == ("full", {"stage": 1})


@pytest.mark.parametrize(
    ("watermark", "full_at", "run", "kind"),
    [
        (None, None, None, "full"),
        ("02T00:00", None, None, "full"),
        ("02T00:00", "02T00:00", None, "changes"),
        ("03T00:00", "02T12:00", None, "full"),  # lies ahead: the clock was set back
        ("02T00:00", "03T00:00", None, "full"),
        ("02T00:00", "01T23:00", None, "full"),  # a day ago
        ("02T00:00", "01T23:01", None, "changes"),
        ("02T00:00", "02T12:00", "full", "full"),
        ("02T00:00", "02T12:00", "changes", "changes"),
    ],
)
def test_which_sweep_is_due(
    watermark: str | None, full_at: str | None, run: Kind | None, kind: Kind
) -> None:
    def day(text: str | None) -> str | None:
        return f"2026-01-{text}:00.000000Z" if text else None

    project = Project(
        watermark=day(watermark), full_at=day(full_at), run=Run(id="r", kind=run) if run else None
    )
    assert due(project, "2026-01-02T23:00:00.000000Z", Pace(full_every_s=DAY)) == kind


async def test_what_an_older_recipe_made_is_queued_without_asking_the_platform() -> None:
    house = await swept_once()
    house.change("t1", labels=(nifti_label(),), stage="Review_1")
    await house.tell("t1")
    asked = house.listing.calls
    assert (await house.sweep(Wish("stale"))).gaps == {}
    house.rules = type(house.rules)(paths="id")
    tally = await house.sweep(Wish("stale"))
    assert (dict(tally.gaps), house.listing.calls) == ({"stale": 3}, asked)
    await house.work()
    assert (await house.sweep(Wish("stale"))).gaps == {}


async def test_a_cancelled_sweep_stops_where_it_is() -> None:
    house = SweepHouse()
    house.change("t1")
    asked = asyncio.Event()

    async def for_ever(number: int) -> None:
        asked.set()
        await asyncio.Event().wait()

    house.listing.before_page = for_ever
    task = asyncio.create_task(house.sweeper().sweep())
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    project = (await house.state()).projects[PROJECT]
    assert (project.watermark, project.run is not None) == (None, True)
