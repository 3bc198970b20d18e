"""What RedBrick tells of its tasks without their labels, and what it is not asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from consumer.demo.redbrick import Fault, Kind, SimulatedRedBrick, status
from consumer.errors import Permanent, Transient
from consumer.platforms import redbrick_queries as queries
from consumer.platforms.redbrick import RedBrick
from consumer.platforms.redbrick_api import RedBrickApi
from consumer.platforms.redbrick_projects import Projects
from consumer.platforms.redbrick_sightings import Listing
from consumer.sightings import Page, Sighting, Window
from tests.consumer.platforms.redbrick_peer import Clock, connected, served, snapshot

PAGED = "tasksPagedSDK"


class Waits:
    """Sleeps in no time and remembers for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


def of(tasks: int, **settings: Any) -> SimulatedRedBrick:
    simulator = SimulatedRedBrick(**settings)
    for number in range(tasks):
        simulator.create_task(f"study{number:03d}")
    return simulator


async def pages(platform: RedBrick, project: str, window: Window | None = None) -> list[Page]:
    return [page async for page in platform.changed_since(project, window or Window())]


async def listed(simulator: SimulatedRedBrick, **settings: Any) -> list[Sighting]:
    async with connected(simulator, **{"sleep": Waits(), **settings}) as platform:
        told = await pages(platform, simulator.project_id)
    return [one for page in told for one in page.sightings]


async def directly(
    simulator: SimulatedRedBrick, *, max_pages: int = 9, max_bytes: int = 1 << 20
) -> list[Page]:
    """What a listing with limits of its own gives."""
    async with simulator.serve() as url:
        api = RedBrickApi(url, simulator.api_key, max_bytes=max_bytes)
        projects = Projects(api, simulator.org_id, Clock())
        listing = Listing(api, simulator.org_id, projects, ("end",), Waits(), max_pages=max_pages)
        try:
            window = Window()
            return [page async for page in listing.changed_since(simulator.project_id, window)]
        finally:
            await api.close()


async def failure(simulator: SimulatedRedBrick) -> Transient:
    with pytest.raises(Transient) as raised:
        await listed(simulator)
    return raised.value


async def test_a_listing_asks_for_no_label_no_mask_and_no_url() -> None:
    simulator = of(3)
    for task in list(simulator.projects[simulator.project_id].tasks):
        simulator.label(task)
    assert len(await listed(simulator)) == 3
    assert simulator.counters == {"getProjectSDK": 1, PAGED: 1}
    query = queries.page(consensus=True)
    assert [word for word in ("labels", "presign", "email", "givenName") if word in query] == []


async def test_pages_follow_each_other_and_say_how_many_there_are_in_all() -> None:
    simulator = of(250)
    async with connected(simulator) as platform:
        told = await pages(platform, simulator.project_id)
    assert [len(page.sightings) for page in told] == [100, 100, 50]
    assert {page.total for page in told} == {250}
    assert len({one.task for page in told for one in page.sightings}) == 250


async def test_a_project_without_tasks_is_no_error() -> None:
    assert await listed(of(0)) == []


async def test_since_is_for_the_platform_and_the_rest_of_a_window_is_not() -> None:
    simulator = of(3)
    async with connected(simulator) as platform:
        since = await platform.now()
        created = simulator.create_task("late")
        closed = Window(since=since, until="1999-01-01T00:00:00.000000Z")
        (page,) = await pages(platform, simulator.project_id, closed)
    assert created in {one.task for one in page.sightings}
    assert len(page.sightings) < 4


@pytest.mark.parametrize("kind", [Kind.HALF_PAGE, Kind.NO_CURSOR], ids=["half a page", "no cursor"])
async def test_fewer_tasks_than_are_counted_are_an_error(kind: Kind) -> None:
    simulator = of(5)
    simulator.page_limit = 2
    simulator.faults.add(PAGED, Fault(kind), times=99)
    assert (await failure(simulator)).reason == "platform-listing-short"


async def test_a_listing_that_was_short_once_is_begun_again() -> None:
    simulator = of(5)
    simulator.page_limit = 2
    simulator.faults.add(PAGED, Fault(Kind.NO_CURSOR))
    assert len({one.task for one in await listed(simulator)}) == 5


async def test_a_cursor_that_comes_back_is_an_error() -> None:
    simulator = of(5)
    simulator.page_limit = 2
    simulator.faults.add(PAGED, Fault(Kind.SAME_CURSOR), times=99)
    assert (await failure(simulator)).reason == "platform-listing-circles"


async def test_a_task_that_slipped_over_a_page_s_edge_is_told_all_the_same() -> None:
    simulator = of(6)
    simulator.page_limit = 2
    tasks = list(simulator.projects[simulator.project_id].tasks)
    told: list[str] = []
    async with connected(simulator) as platform:
        async for page in platform.changed_since(simulator.project_id, Window()):
            told += [one.task for one in page.sightings]
            if len(told) == 2:
                simulator.delete(tasks[0])  # so that the third is now on the page just read
    assert set(told) == set(tasks)


async def test_tasks_that_go_away_all_the_time_make_the_listing_an_error() -> None:
    simulator = of(40)
    simulator.page_limit = 5

    async def told(platform: RedBrick) -> None:
        async for page in platform.changed_since(simulator.project_id, Window()):
            simulator.delete(page.sightings[0].task)

    async with connected(simulator) as platform:
        with pytest.raises(Transient) as raised:
            await told(platform)
    assert raised.value.reason == "platform-listing-short"


async def test_a_listing_without_an_end_is_refused() -> None:
    simulator = of(5)
    simulator.page_limit = 1
    with pytest.raises(Permanent) as raised:
        await directly(simulator, max_pages=4)
    assert raised.value.reason == "platform-listing-endless"
    assert len(await directly(simulator, max_pages=5)) == 5


async def test_a_page_that_fails_is_asked_for_again_as_late_as_the_platform_wants() -> None:
    simulator, waits = of(5), Waits()
    simulator.page_limit = 2
    async with connected(simulator, sleep=waits) as platform:
        told = platform.changed_since(simulator.project_id, Window())
        first = await anext(told)
        simulator.faults.add(PAGED, status(429, retry_after_s=17))
        simulator.faults.add(PAGED, status(503))
        rest = [page async for page in told]
    assert [len(page.sightings) for page in (first, *rest)] == [2, 2, 1]
    assert waits.slept == [17.0, 4.0]
    assert simulator.counters[PAGED] == 5


@pytest.mark.parametrize(
    ("fault", "reason", "asked"),
    [
        (status(401), "platform-refused", 1),
        (status(429, retry_after_s=301), "platform-rate-limited", 1),
        (status(503), "platform-down", 5),
        (Fault(Kind.GRAPHQL_ERROR), "platform-graphql-error", 5),
    ],
    ids=["a key refused", "a long wait", "down", "errors in a 200"],
)
async def test_a_page_is_not_asked_for_without_end(fault: Fault, reason: str, asked: int) -> None:
    simulator = of(1)
    simulator.faults.add(PAGED, fault, times=99)
    assert (await failure(simulator)).reason == reason
    assert simulator.counters[PAGED] == asked


async def test_a_project_that_cannot_be_read_is_an_error() -> None:
    simulator = of(1)
    async with connected(simulator, sleep=Waits()) as platform:
        with pytest.raises(Transient):
            await pages(platform, "elsewhere")


async def test_a_task_whose_times_cannot_be_read_is_told_without_them() -> None:
    simulator = of(2)
    odd, _ = simulator.projects[simulator.project_id].tasks.values()
    odd.events[0]["createdAt"] = "yesterday"
    first, second = await listed(simulator)
    assert first == Sighting(odd.task_id)
    assert second.active_at is not None


async def test_saving_in_a_consensus_shows_before_anybody_submits() -> None:
    simulator = of(1, consensus=True)
    (task,) = simulator.projects[simulator.project_id].tasks
    simulator.assign(task, "ben", "cleo")
    simulator.save(task, by="ben")
    simulator.save(task, by="ben")
    (seen,) = await listed(simulator)
    assert seen.active_at == (await snapshot(simulator, task)).active_at


# answers of another kind

Spoil = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda page: page.update(entries=None),
        lambda page: page.update(entries={}),
        lambda page: page["entries"].append(None),
        lambda page: page["entries"][0].pop("taskId"),
        lambda page: page["entries"][0].update(taskId=7),
        lambda page: page["entries"][0].update(taskId=""),
        lambda page: page["entries"][0].update(taskId="x" * 201),
        lambda page: page["entries"][0].update(taskId="a\nb"),
        lambda page: page.update(cursor=3),
        lambda page: page.update(count=True),
        lambda page: page.update(count="2"),
        lambda page: page.update(count=1),
    ],
)
async def test_a_page_of_another_shape_is_an_error_and_not_fewer_tasks(spoil: Spoil) -> None:
    simulator = of(2)
    async with served(simulator, PAGED, lambda data: spoil(data["tasksPaged"])) as platform:
        with pytest.raises(Transient) as raised:
            await pages(platform, simulator.project_id)
    assert raised.value.reason == "platform-answer-malformed"


async def test_a_count_of_the_page_alone_is_not_taken_for_that_of_all() -> None:
    simulator = of(5)
    simulator.page_limit = 2

    def count(data: dict[str, Any]) -> None:
        page = data["tasksPaged"]
        page["count"] = len(page["entries"])

    async with served(simulator, PAGED, count) as platform:
        told = await pages(platform, simulator.project_id)
    assert [len(page.sightings) for page in told] == [2, 2, 1]
    assert {page.total for page in told} == {None}


async def test_a_platform_that_counts_nothing_is_believed() -> None:
    simulator = of(3)
    async with served(simulator, PAGED, lambda data: data["tasksPaged"].update(count=None)) as one:
        (page,) = await pages(one, simulator.project_id)
    assert (len(page.sightings), page.total) == (3, None)


async def test_an_answer_over_the_limit_is_refused() -> None:
    with pytest.raises(Permanent) as raised:
        await directly(of(20), max_bytes=15_000)
    assert raised.value.reason == "platform-answer-too-large"
