"""A person fires a policy: refused, raced, late; and what a person is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from consumer.errors import Permanent, Transient
from handlers import retrain_by_hand
from handlers.retrain_by_hand import Hand
from handlers.retrain_policy import Policy, Wait
from handlers.retrain_reading import Overview, decisions, overview
from handlers.retrain_records import Decision
from tests.handlers.lake_house import BEGAN
from tests.handlers.retrain_house import RetrainHouse, retrain_house

HUNDRED = Policy(name="hundred", min_changes=100, target="fake")


@pytest.fixture
async def house() -> AsyncIterator[RetrainHouse]:
    async with retrain_house(HUNDRED) as made:
        yield made


async def fire(
    house: RetrainHouse, nonce: str = "n1", *, policy: Policy = HUNDRED, within_s: float = 10.0
) -> Decision:
    ports: dict[str, Any] = {"store": house.lake.store, "log": house.lake.tail}
    await retrain_by_hand.check(policy, **ports)
    hand = Hand("ann@desk", "a" * 64, nonce)
    queue: Any = house.lake.queue
    return await retrain_by_hand.fire(policy, hand, queue=queue, within_s=within_s, **ports)


async def logging(house: RetrainHouse, *firing: asyncio.Task[Decision]) -> list[Decision]:
    """The log is written until all have what they fired."""
    while not all(one.done() for one in firing):
        await house.lake.write_log()
        await asyncio.sleep(0.001)
    return [one.result() for one in firing]


async def fired(house: RetrainHouse, nonce: str = "n1") -> Decision:
    (made,) = await logging(house, asyncio.create_task(fire(house, nonce)))
    return made


async def test_a_person_decides_though_the_policy_would_wait(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    made = await fired(house)
    assert (made.decision, made.reason, made.tasks) == (1, "fired-by-hand", 1)
    (entry,) = await house.entries("decided")
    assert (entry.data["who"], entry.data["reason_note"]) == ("ann@desk", "a" * 64)
    house.process()
    await house.settle()
    assert house.target.told[0].reason == "fired-by-hand"
    await house.assert_every_decision_ends()


async def test_a_person_may_train_again_on_what_has_not_changed(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    await fired(house)
    again = await fired(house, "n2")
    assert (again.decision, again.tasks) == (2, 0)


async def test_two_people_at_once_have_a_decision_each(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    firing = [asyncio.create_task(fire(house, nonce)) for nonce in ("n1", "n2", "n3")]
    made = await logging(house, *firing)
    assert sorted(one.decision for one in made) == [1, 2, 3]
    assert {one.nonce for one in made} == {"n1", "n2", "n3"}
    house.process()
    await house.settle()
    await house.assert_every_decision_ends()


async def test_a_person_and_the_policy_at_once_have_a_decision_each(house: RetrainHouse) -> None:
    house.policies[:] = [Policy(name="hundred", min_changes=1)]
    await house.lake.approve("a")
    process = house.process()
    await process.turn()  # the policy has put its first decision
    made = await fired(house)
    assert made.decision == 2
    await house.settle()
    await house.assert_every_decision_ends()
    assert house.target.begun == [("hundred", 1), ("hundred", 2)]


async def test_nothing_to_train_on_is_refused(house: RetrainHouse) -> None:
    with pytest.raises(Permanent, match="nothing of what hundred trains on"):
        await fire(house)
    await house.lake.approve("a")
    await house.lake.send_back("a")
    with pytest.raises(Permanent, match="nothing of what hundred trains on"):
        await fire(house)
    assert await house.entries("decided") == []


async def test_a_ground_truth_without_the_policys_classes_is_nothing_to_train_on(
    house: RetrainHouse,
) -> None:
    await house.lake.approve("a", value=1)
    spleen = Policy(name="hundred", classes=("spleen",), min_changes=100)
    with pytest.raises(Permanent, match="nothing of what hundred trains on"):
        await fire(house, policy=spleen)


async def test_a_log_that_nobody_writes_is_said(house: RetrainHouse) -> None:
    await house.lake.approve("a")
    with pytest.raises(Transient, match="does groundwire run") as caught:
        await fire(house, within_s=0.02)
    assert caught.value.reason == "not-logged-yet"


async def shown(house: RetrainHouse, *, with_cursor: bool = True) -> Overview:
    cursor = await house.lake.cursor("retrain") if with_cursor else None
    return await overview(
        house.policies,
        cursor,
        log=house.lake.tail,
        store=house.lake.store,
        now=house.lake.clock(),
    )


@pytest.mark.parametrize("with_cursor", [True, False])
async def test_what_is_pending_is_shown_with_and_without_the_followers_state(
    house: RetrainHouse, with_cursor: bool
) -> None:
    house.policies[:] = [Policy(name="p", min_changes=2, quiet_s=60)]
    await house.lake.approve("a")
    house.process()
    await house.settle()
    await house.lake.approve("b")
    found = await shown(house, with_cursor=with_cursor)
    (standing,) = found.standings
    assert (standing.pending.added, standing.next) == (2, Wait(BEGAN + timedelta(seconds=60)))
    assert (found.behind is None) is not with_cursor


async def test_classes_that_nobody_has_drawn_yet_are_shown(house: RetrainHouse) -> None:
    house.policies[:] = [Policy(name="p", classes=("liver", "kidney"), min_changes=5)]
    await house.lake.approve("a", value=1)
    (standing,) = (await shown(house)).standings
    assert (standing.undrawn, standing.sought) == (("kidney",), 1)
    assert standing.pending.tasks == 1


async def test_what_has_not_begun_is_shown_with_its_last_failure(house: RetrainHouse) -> None:
    house.target.fails = [Permanent("no-such-pipeline", "there is no such pipeline")]
    house.policies[:] = [Policy(name="p", min_changes=1)]
    await house.lake.approve("a")
    house.process()
    await house.settle()
    (opened,) = (await shown(house)).open
    assert (opened.attempts, opened.reason) == (1, "no-such-pipeline")
    (told,) = await decisions(house.lake.tail)
    assert (told.ended, told.failures) == (None, ["no-such-pipeline"])
    house.policies[:] = []
    assert (await shown(house)).gone == {"p"}


async def test_a_decision_that_ended_is_told_with_its_end(house: RetrainHouse) -> None:
    house.policies[:] = [Policy(name="p", min_changes=1, target="fake")]
    await house.lake.approve("a")
    house.process()
    await house.settle()
    (told,) = await decisions(house.lake.tail)
    assert told.decision.tasks == 1
    assert told.ended is not None
    assert (told.ended["target"], told.ended["reference"]) == ("fake", "run-1")
