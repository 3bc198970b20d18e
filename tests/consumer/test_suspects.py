"""What was lost with its process, apart from the rest."""

from __future__ import annotations

import asyncio

import pytest

from consumer.ports import ALONE_AFTER
from consumer.suspects import GROUP, LOSSES_ALONE, Room, groups, kills
from tests.fakes_platform import event
from tests.fakes_queue import FakeLease, FakeQueue


def leases(*losses: int) -> list[FakeLease]:
    queue = FakeQueue(())
    return [
        FakeLease(queue, "export", event(f"t{n}"), 1, None, losses=lost)
        for n, lost in enumerate(losses)
    ]


def test_what_was_never_lost_stays_one_batch() -> None:
    (group,) = groups(leases(*[0] * 64))
    assert (len(group.leases), group.alone) == (64, False)


def test_what_was_lost_once_comes_in_small_groups_after_the_rest() -> None:
    sizes = [(len(group.leases), group.alone) for group in groups(leases(*[1] * 10, 0, 0))]
    assert sizes == [(2, False), (GROUP, False), (2, False)]


def test_what_was_lost_again_comes_alone_and_last() -> None:
    sizes = [(len(group.leases), group.alone) for group in groups(leases(2, 0, 3, 0))]
    assert sizes == [(2, False), (1, True), (1, True)]


@pytest.mark.parametrize("losses", [0, 1, 2, 6])
def test_nobody_is_a_killer_before_he_was_lost_alone_five_times(losses: int) -> None:
    assert not kills(*leases(losses))


def test_lost_alone_five_times_it_is_a_killer() -> None:
    assert LOSSES_ALONE == 5
    assert kills(*leases(ALONE_AFTER + LOSSES_ALONE))


async def test_whoever_is_alone_waits_for_the_others_and_keeps_them_out() -> None:
    room, inside, most = Room(), [], []

    async def work(name: str, *, alone: bool) -> None:
        async with room.enter(alone=alone):
            inside.append(name)
            for _ in range(5):
                most.append(tuple(inside))
                await asyncio.sleep(0)
            inside.remove(name)

    await asyncio.gather(
        *(work(name, alone=name.isupper()) for name in ("a", "b", "X", "c", "Y", "d"))
    )
    assert ("a", "b") in most
    with_alone = [names for names in most if any(name.isupper() for name in names)]
    assert {len(names) for names in with_alone} == {1}
    assert {name for names in with_alone for name in names} == {"X", "Y"}


async def test_who_waits_to_be_alone_is_let_in_before_who_came_later() -> None:
    room, order = Room(), []

    async def work(name: str, *, alone: bool) -> None:
        async with room.enter(alone=alone):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(
        work("first", alone=False), work("alone", alone=True), work("later", alone=False)
    )
    assert order == ["first", "alone", "later"]


async def test_who_is_cancelled_while_he_waits_to_be_alone_keeps_nobody_out() -> None:
    room, go_on = Room(), asyncio.Event()

    async def hold() -> None:
        async with room.enter(alone=False):
            await go_on.wait()

    async def enter(*, alone: bool) -> None:
        async with room.enter(alone=alone):
            pass

    holding = asyncio.create_task(hold())
    waiting = asyncio.create_task(enter(alone=True))
    await asyncio.wait([waiting], timeout=0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(enter(alone=False), 5)
    go_on.set()
    await holding
