"""All followers over one lake, whose store fails at random and whose process dies: they end as if
nothing had happened, and as a replay of the log from its beginning ends."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.ports import LogEntry
from handlers.relay import Publication
from handlers.retrain_policy import Policy
from handlers.targets.trigger import Trigger
from tests.fakes_store import FakeStore, Fault
from tests.faults.followers_together import Together, forgotten
from tests.handlers.lake_house import BEGAN, LakeHouse, lake_house
from tests.handlers.table_house import Rows, indices

SEEDS = 20
FAULTS = 25

POLICIES = (
    Policy(name="any", min_changes=6),
    Policy(name="spleens", classes=("spleen",), min_changes=3),
)
# What tells of tries and of moments, not of the end.
PASSING = {"sequence", "flushed_at", "base", "next", "quiet", "late", "late_since", "before"}


async def first(house: LakeHouse) -> None:
    await house.approve("a", name="study")
    await house.see("b", name="other")
    await house.approve("c", value=2)
    await house.approve("d")


async def then(house: LakeHouse) -> None:
    """Names meet, drawings change, one task goes, one is sent back."""
    await house.approve("b", name="study", version="v2", value=2)
    await house.approve("a", name="study", version="v2", value=2)
    await house.send_back("c")
    await house.remove("d")
    await house.see("e", name="d")


async def last(house: LakeHouse) -> None:
    """Now there are enough changes."""
    await house.approve("c", version="v3", value=2)
    await house.approve("e", name="other", value=2)
    await house.send_back("b", name="other")
    for task in ("f", "g", "h"):
        await house.approve(task, name="f")


PARTS: tuple[Callable[[LakeHouse], Awaitable[None]], ...] = (first, then, last)


@dataclass
class End:
    """What is to be the same, whatever happened on the way."""

    objects: dict[str, bytes]
    rows: Rows
    arrived: list[Publication]
    told: dict[str, Trigger]
    moves: list[LogEntry]
    records: dict[str, Any]
    followers: dict[str, Any]


async def the_end(together: Together) -> End:
    house = together.house
    log = await house.tail.read(0, await house.tail.size())
    data = {one.data["id"]: one.data for one in log if one.data["kind"] != "failed"}
    told = {one.key: msgspec.structs.replace(one, decided_at="") for one in together.target.told}
    passing = ("log/", "followers/")
    return End(
        objects=await house.objects(but=passing),
        rows=together.rows(),
        arrived=together.arrived(),
        told=told,
        moves=[one for one in log if one.data["kind"] == "lake"],
        records={id_: _without(one, "logged_at", "already") for id_, one in data.items()},
        followers=followers(house.store),
    )


def followers(store: FakeStore) -> dict[str, Any]:
    """Cursors and indices; what was intended is over."""
    found = {}
    for key, data in store.objects.items():
        if key.startswith("followers/") and not key.endswith("/intent.json"):
            found[key] = _without(json.loads(data), *PASSING)
    found["followers/table.json"]["state"].pop("vacuumed_at", None)
    return found


def _without(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in names}


def assert_caught_up(together: Together, size: int) -> None:
    for name in ("mirror", "relay", "retrain", "table"):
        stored = json.loads(together.house.store.objects[f"followers/{name}.json"])
        assert stored["next"] == size, name


@asynccontextmanager
async def played(place: Path, **disturbed: Any) -> AsyncIterator[Together]:
    """The story, each part of which is followed to its end before the next begins."""
    async with lake_house() as house:
        together = Together(house, POLICIES, place, **disturbed)
        try:
            for number, part in enumerate(PARTS):
                house.now = BEGAN + timedelta(days=number)
                await part(house)
                await together.settle()
            assert_caught_up(together, await house.tail.size())
            house.store.assert_sound()
            yield together
        finally:
            await together.end()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[End, int]:
    """Its end, and how often the store is called."""

    async def play() -> tuple[End, int]:
        async with played(tmp_path_factory.mktemp("undisturbed") / "table") as together:
            return await the_end(together), together.store.calls

    return asyncio.run(play())


def test_the_undisturbed_end_is_what_it_should_be(undisturbed: tuple[End, int]) -> None:
    end, _ = undisturbed
    shown = [key for key in end.objects if "/segmentations/" in key]
    assert len(shown) == 7
    assert indices(end.rows) == [one.index for one in end.moves]
    assert len(end.moves) == 15
    kinds = [one.routing_key.rsplit(".", 1)[1] for one in end.arrived]
    assert {kind: kinds.count(kind) for kind in kinds} == {"added": 9, "changed": 1, "removed": 3}
    assert [one.policy for one in end.told.values()] == ["any", "spleens"]


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_they_end_the_same_whatever_fails(
    seed: int, undisturbed: tuple[End, int], tmp_path: Path
) -> None:
    expected, calls = undisturbed
    lot = random.Random(seed)
    plan = {number: lot.choice(list(Fault)) for number in lot.sample(range(1, calls), FAULTS)}
    async with played(tmp_path / "table", plan=plan, lot=lot) as together:
        assert len(together.store.failed) >= FAULTS - 5
        assert together.deaths > 0
        assert await the_end(together) == expected


async def test_a_replay_from_the_beginning_ends_as_the_live_ones_did(tmp_path: Path) -> None:
    async with played(tmp_path / "live") as live:
        expected, house = await the_end(live), live.house
        await live.end()
        size = await house.tail.size()
        house.store = forgotten(house)
        replay = Together(house, POLICIES, tmp_path / "anew")
        await replay.settle()
        end = await the_end(replay)
        await replay.end()
        assert await house.tail.size() == size
    assert replay.target.told == []
    assert end.objects == expected.objects
    assert end.rows == expected.rows
    assert end.arrived == expected.arrived
    assert end.followers == expected.followers
