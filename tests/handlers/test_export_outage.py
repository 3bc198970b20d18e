"""A group of tasks that a platform does not answer: is it away, or is it one task's doing?"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from consumer.errors import Permanent, Transient
from consumer.model import Missing, Outcome, TaskKey, TaskSnapshot
from handlers import export
from handlers.answers import SHARED_IN_A_ROW
from tests.fakes_platform import FakePlatform, event, snapshot
from tests.handlers.export_house import House, OneWork

DOWN = Transient("platform-down", shared=True)
LIMITED = Transient("platform-rate-limited", after_s=9.0, shared=True)
TASKS = [f"t{number}" for number in range(64)]


def house(platform: FakePlatform | None = None) -> House:
    made = House()
    made.platform = platform or made.platform
    made.platform.tasks |= {task: snapshot(task) for task in TASKS}
    return made


async def failed(made: House, *works: OneWork) -> dict[str, str]:
    """The tasks that failed, with why; all others have come out well."""
    results = await made.handle(*(works or map(event, TASKS)))
    names = [work.message.task for work in works] if works else TASKS  # type: ignore[union-attr]
    found = {}
    for task, result in zip(names, results, strict=True):
        if isinstance(result, Transient | Permanent):
            found[task] = result.reason
        else:
            assert isinstance(result, Outcome)
    return found


@pytest.mark.parametrize("culprit", ["t0", "t17", "t63"])
@pytest.mark.parametrize("reason", ["platform-down", "platform-timeout", "platform-refused"])
async def test_one_task_that_looks_like_an_outage_stands_alone(culprit: str, reason: str) -> None:
    made = house()
    made.platform.failing = {culprit: Transient(reason, shared=True)}
    assert await failed(made) == {culprit: reason}
    assert len(made.platform.groups) <= 15


async def test_two_of_them_stand_alone_as_well() -> None:
    made = house()
    made.platform.failing = {"t20": DOWN, "t40": DOWN}
    assert await failed(made) == {"t20": "platform-down", "t40": "platform-down"}


async def test_a_rate_limit_is_asked_once() -> None:
    made = house()
    made.platform.failing = {"t20": LIMITED}
    assert set((await failed(made)).values()) == {"platform-rate-limited"}
    assert len(made.platform.groups) == 1


class GoneSoon(FakePlatform):
    """It answers when the first is asked alone, and nothing after."""

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        self.groups.append([key.task for key in tasks])
        if len(tasks) == len(TASKS) or len(self.groups) > 2:
            raise DOWN
        return {key: self.tasks[key.task] for key in tasks}  # type: ignore[misc]


async def test_a_platform_that_goes_while_halves_are_asked_is_not_asked_for_each_task() -> None:
    platform = GoneSoon()
    made = house(platform)
    assert set(await failed(made)) == set(TASKS) - {"t0"}
    alone = [group for group in platform.groups if len(group) == 1]
    assert len(alone) == 2 + SHARED_IN_A_ROW


async def test_what_failed_before_is_asked_for_apart() -> None:
    made = house()
    works = [OneWork(event("t0")), OneWork(event("t1"), attempt=2), OneWork(event("t2"))]
    assert await failed(made, *works) == {}
    assert made.platform.groups == [["t0", "t2"], ["t1"]]


async def test_failures_are_told_before_what_came_out_well() -> None:
    made = house()
    made.platform.failing = {"t63": DOWN}
    told: list[str] = []
    async for work, _ in export.handle([OneWork(event(task)) for task in TASKS], made.ports):
        told.append(work.message.id)
    assert told[0] == "t63-e1"
