"""What a platform tells of its tasks without their labels is never fewer tasks than there are,
and shows what a pointer would be moved by, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import pytest

from consumer.demo import labelbox as lb
from consumer.demo import redbrick as rb
from consumer.errors import Transient
from consumer.model import TaskSnapshot
from consumer.sightings import Page, Sighting, Window
from tests.faults.platform_peers import KINDS, Peer, ids, peer, something_happens
from tests.seeds import seeds

LISTING = {"redbrick": ["tasksPagedSDK"], "labelbox": ["export", "poll", "export header",
           "export offset", "export file GET", "user"]}  # fmt: skip

kinds = pytest.mark.parametrize("kind", KINDS)
each_seed = pytest.mark.parametrize("seed", seeds())


def _settings(kind: str, rng: random.Random) -> dict[str, Any]:
    settings: dict[str, Any] = {"moves_show": rng.random() < 0.5}
    if kind == "redbrick":
        return settings | {"paging": rng.choice(["place", "activity", "key"])}
    return settings | {"export_polls": rng.randrange(3), "legacy": rng.random() < 0.5}


def _pages_are_small(told_by: Peer, rng: random.Random) -> None:
    if told_by.kind == "redbrick":
        told_by.simulated.page_limit = rng.randrange(1, 6)
    else:
        told_by.simulated.chunk_bytes = rng.randrange(50, 5_000)


@kinds
@each_seed
async def test_every_task_that_stays_is_told_while_others_come_move_and_go(
    kind: str, seed: int
) -> None:
    rng = random.Random(seed)
    async with peer(kind, **_settings(kind, rng)) as platform:
        for _ in range(rng.randrange(1, 25)):
            something_happens(platform, rng, platform.tasks())
        _pages_are_small(platform, rng)
        stay, left = set(platform.tasks()), rng.randrange(8)

        def meanwhile(_: Page | None = None) -> None:
            nonlocal left
            for _ in range(min(left, rng.randrange(3))):
                left -= 1
                tasks = platform.tasks()
                if tasks and rng.random() < 0.5:
                    gone = rng.choice(tasks)
                    platform.delete(gone)
                    stay.discard(gone)
                else:
                    something_happens(platform, rng, tasks)

        platform.while_waiting = meanwhile
        told = await platform.listed(between=meanwhile)

    assert stay <= ids(told)


@kinds
@each_seed
async def test_a_listing_shows_what_would_move_a_pointer_and_nothing_else(
    kind: str, seed: int
) -> None:
    rng = random.Random(seed)
    settings = _settings(kind, rng)
    if kind == "redbrick":
        settings |= {
            "consensus": rng.random() < 0.5,
            "labels_in_files": rng.random() < 0.5,
            "upload_saves_labels": rng.random() < 0.5,
        }
    async with peer(kind, **settings) as platform:
        task = platform.create()
        exported = await platform.snapshot(task)
        for _ in range(6):
            assert not _lags(exported, await _only(platform))
            rng.choice([platform.label, platform.forward, platform.back])(task)
            now, seen = await platform.snapshot(task), await _only(platform)
            assert seen.stage == now.stage
            assert (seen.active_at or "") <= (now.active_at or ""), "or it lags for ever"
            assert {one.created_at for one in now.labels} <= set(seen.label_created_at or ())
            assert _lags(exported, seen) == _differ(exported, now)
            exported = now


@pytest.mark.parametrize("legacy", [False, True])
@each_seed
async def test_what_changes_no_time_shows_by_which_labels_there_are_and_which_is_the_truth(
    seed: int, legacy: bool
) -> None:
    rng = random.Random(seed)
    async with peer("labelbox", legacy=legacy) as platform:
        task, people = platform.create(), platform.simulated
        platform.label(task)
        people.label(task, [lb.Drawing("Axial", 1, "f-2", "liver", line=((1.0, 2.0), (3.0, 4.0)))],
                     by="second@example.com")  # fmt: skip
        for _ in range(5):
            labels = sorted(people.rows[task].labels)
            match rng.choice(["forward", "benchmark", "delete"]):
                case "forward":
                    platform.forward(task)
                case "benchmark" if labels:
                    people.make_benchmark(task, rng.choice(labels))
                case "delete" if labels:
                    people.delete_label(task, rng.choice(labels))
            now, seen = await platform.snapshot(task), await _only(platform)
            assert seen.labels == {label.id for label in now.labels}
            assert seen.judged
            assert seen.ground_truth_label == now.ground_truth_label


async def _only(platform: Peer) -> Sighting:
    (seen,) = await platform.listed()
    return seen


def _lags(exported: TaskSnapshot, seen: Sighting) -> bool:
    return seen.stage != exported.stage or (seen.active_at or "") > (exported.active_at or "")


def _differ(old: TaskSnapshot, new: TaskSnapshot) -> bool:
    """Whether an export would move the task's pointer."""

    def standing(task: TaskSnapshot) -> object:
        versions = {label.id: label.version for label in task.labels}
        return task.stage, versions, {item.id for item in task.history}

    return standing(old) != standing(new)


@kinds
@each_seed
async def test_an_answer_that_fails_is_asked_for_again_or_is_an_error_and_never_fewer_tasks(
    kind: str, seed: int
) -> None:
    rng = random.Random(seed)
    async with peer(kind, **_settings(kind, rng)) as platform:
        held = {platform.create() for _ in range(rng.randrange(1, 12))}
        _pages_are_small(platform, rng)
        for _ in range(rng.randrange(1, 4)):
            _order(platform, rng)
        try:
            told = await platform.listed()
        except Transient:
            told = await _when_it_is_over(platform)

    assert ids(told) == held


async def _when_it_is_over(platform: Peer) -> list[Sighting]:
    platform.simulated.faults.clear()
    return await platform.listed()


def _order(platform: Peer, rng: random.Random) -> None:
    """One to six answers in a row go wrong."""
    operation, times = rng.choice(LISTING[platform.kind]), rng.randrange(1, 7)
    code = rng.choice([429, 500, 502, 503, 403])
    after = rng.choice([None, "7", "Mon, 05 Jan 2026 09:30:00 GMT", "soon"])
    if platform.kind == "redbrick":
        headers = {} if after is None else {"Retry-After": after}
        faults = [
            rb.Fault(rb.Kind.STATUS, status=code, headers=headers),
            *map(rb.Fault, [rb.Kind.GRAPHQL_ERROR, rb.Kind.TRUNCATED, rb.Kind.CUT]),
            *map(rb.Fault, [rb.Kind.HALF_PAGE, rb.Kind.NO_CURSOR, rb.Kind.SAME_CURSOR]),
        ]
        platform.simulated.faults.add(operation, rng.choice(faults), times=times)
        return
    names: list[Any] = ["graphql", "null", "rate-limit", "truncated", "failed-task", "line-lost"]
    choice = rng.choice([lb.Fault("status", code, retry_after=after), *map(lb.Fault, names)])
    job_only = {"failed-task", "line-lost"}
    if choice.kind in job_only or (choice.kind == "truncated") != ("GET" in operation):
        choice, operation = lb.Fault("failed-task"), "export"
    platform.simulated.faults.order(operation, choice, times=times)


@kinds
async def test_a_listing_that_lags_tells_what_stood_there_and_is_no_error(kind: str) -> None:
    async with peer(kind) as platform:
        gone, moved = platform.create(), platform.create()
        stage = platform.stage(moved)
        platform.simulated.hold_listing()
        platform.delete(gone)
        platform.forward(moved)
        created = platform.create()
        lagging = {one.task: one.stage for one in await platform.listed()}
        platform.simulated.release_listing()
        current = {one.task: one.stage for one in await platform.listed()}

    assert lagging == {gone: stage, moved: stage}
    assert set(current) == {moved, created}
    assert current[moved] != stage


@kinds
@pytest.mark.parametrize("moves_show", [True, False])
async def test_a_move_that_the_platform_hides_is_found_when_all_are_listed(
    kind: str, moves_show: bool
) -> None:
    async with peer(kind, moves_show=moves_show) as platform:
        task = platform.create()
        platform.create()
        since = await platform.platform.now()
        platform.back(task)
        changed = ids(await platform.listed(Window(since=since)))
        all_of_them = {one.task: one for one in await platform.listed()}
        exported = await platform.snapshot(task)

    assert (task in changed) == moves_show
    assert all_of_them[task].active_at == exported.history[-1].at


@kinds
async def test_what_changed_since_the_platform_s_own_time_is_told(kind: str) -> None:
    async with peer(kind) as platform:
        before = platform.create()
        for _ in range(3):
            platform.create()
        since = await platform.platform.now()
        platform.label(before)
        created = platform.create()
        told = await platform.listed(Window(since=since))

    assert {before, created} <= ids(told)
    assert len(ids(told)) < 5
