"""Every store call of an export fails once, before and after it took effect: same lake."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.errors import Permanent, Transient
from consumer.model import Outcome
from consumer.ports import Result
from tests.fakes_platform import event, label_map_bytes, nifti_label
from tests.fakes_platform import snapshot as snapshot_of
from tests.fakes_store import FakeStore, FaultyStore, each_call_once
from tests.handlers.export_house import House
from tests.handlers.test_export import LABELLED, TRUTH

STORY: tuple[dict[str, Any], ...] = (
    {},
    LABELLED,
    TRUTH,
    {"labels": (nifti_label(version="v2", reference="mask-2"),), "stage": "Label"},
)


class Crash(BaseException):
    """Nothing catches it: the process died there."""


async def until_done(house: House, name: str) -> Result:
    """One event, tried again as its lane would: the result of the try that worked."""
    for _ in range(3):
        try:
            (result,) = await house.handle(event(name=name))
        except Crash:
            continue
        if not isinstance(result, Transient | Permanent):
            return result
    raise AssertionError("still failing")


async def play(store: Any) -> tuple[House, dict[str, Outcome]]:
    """The story told to an export over ``store``; gives, by id, the outcomes that reached
    ``audit`` or would have from its dispatcher."""
    house = House()
    house.store = store
    house.platform.masks["mask-2"] = label_map_bytes(value=2)
    results: list[Result] = []
    for number, changes in enumerate(STORY):
        house.platform.tasks["task-1"] = snapshot_of(**changes)
        results.append(await until_done(house, f"e{number}"))
    assert await until_done(house, "last") is None  # whoever reads next puts what it carries
    told: dict[str, Outcome] = {}
    for message in (*results, *(message for put in house.queue.puts for message in put)):
        if isinstance(message, Outcome):
            assert told.setdefault(message.id, message) == message, "one id, two outcomes"
    return house, dict(sorted(told.items()))


async def undisturbed() -> tuple[dict[str, bytes], dict[str, Outcome], int]:
    store = FakeStore()
    counting = FaultyStore(store, {})
    _, told = await play(counting)
    return dict(store.objects), told, counting.calls


async def test_the_undisturbed_story_is_what_it_should_be() -> None:
    objects, told, calls = await undisturbed()
    assert [outcome.move.change for outcome in told.values()] == [
        "moved",
        "exported",
        "moved",
        "retracted",
    ]
    assert len([key for key in objects if key.endswith(".nii.gz")]) == 2
    assert calls > 15


@pytest.mark.parametrize("crash", [False, True], ids=["answer-lost", "process-died"])
async def test_no_failed_store_call_changes_where_the_lake_ends(crash: bool) -> None:
    objects, told, calls = await undisturbed()
    failed = 0
    for plan in each_call_once(calls):
        store = FakeStore()
        faulty = FaultyStore(store, plan, Crash) if crash else FaultyStore(store, plan)
        _, outcomes = await play(faulty)
        failed += len(faulty.failed)
        assert dict(store.objects) == objects, plan
        assert outcomes == told, plan
        store.assert_sound()
    assert failed == 2 * calls
