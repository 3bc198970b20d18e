"""What the relay publishes: which changes, under which keys, in which form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.errors import Permanent, Transient
from consumer.ports import Batch, Cursor, LogEntry
from handlers.relay import Publication, Relay, routing_key
from tests.handlers.exchanges import FakeExchange
from tests.handlers.lake_house import LakeHouse, lake_house

NAMES = st.text(st.characters(), max_size=300)
HOSTILE = (
    "", "a", "a.b", "a%2Eb", "*", "#", "a.#", "%", "a b", "ä", "~", "\ud800", "x" * 181, "." * 90,
)  # fmt: skip


@pytest.fixture
async def house() -> AsyncIterator[LakeHouse]:
    async with lake_house() as made:
        yield made


async def relayed(house: LakeHouse, *, batch: int = 1000) -> list[Publication]:
    exchange = FakeExchange()
    await house.catch_up(Relay(house.follow_ports(), exchange), batch=batch)
    return exchange.out


def keys(publications: list[Publication]) -> list[str]:
    return [one.routing_key.split(".")[2] for one in publications]


async def test_what_enters_changes_and_leaves_the_ground_truth_is_published(
    house: LakeHouse,
) -> None:
    await house.approve()
    await house.approve(version="v2", value=2)
    await house.send_back()
    assert keys(await relayed(house)) == ["added", "changed", "removed"]


async def test_what_does_not_touch_the_ground_truth_is_not_published(house: LakeHouse) -> None:
    await house.see("task-1")
    await house.say("started", "one")
    await house.approve("task-2")
    await house.see("task-1", stage="Review_1")
    assert [json.loads(one.body)["data"]["task"] for one in await relayed(house)] == ["task-2"]


async def test_a_deleted_task_is_removed(house: LakeHouse) -> None:
    await house.approve()
    await house.remove()
    assert keys(await relayed(house)) == ["added", "removed"]


async def test_an_event_is_a_cloud_event_that_names_its_place_in_the_log(house: LakeHouse) -> None:
    await house.approve()
    (published,) = await relayed(house)
    identity = await house.tail.identity()
    (entry,) = [e for e in await house.tail.read(0, 9) if e.data["kind"] == "lake"]
    event: dict[str, Any] = json.loads(published.body)
    data = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": f"{entry.index}@{identity}",
        "source": "example.org/ground-truth",
        "type": "io.groundwire.ground-truth.added",
        "subject": f"{entry.data['project']}/task-1",
        "time": entry.data["logged_at"],
        "datacontenttype": "application/json",
    }
    assert data["revision"] == entry.data["revision"]
    assert (data["ground_truth"], data["approved_by"]) == ("added", "user-1")
    assert published.message_id == str(entry.index)
    assert published.content_type == "application/cloudevents+json"


async def test_events_come_in_the_logs_order_in_batches_of_a_bounded_size() -> None:
    exchange = FakeExchange()
    async with lake_house() as house:
        await house.approve()
        (lake,) = [e.data for e in await house.tail.read(0, 9) if e.data["kind"] == "lake"]
        relay = Relay(house.follow_ports(), exchange)
        await relay.start(Cursor())
        entries = [LogEntry(index, lake) for index in range(600)]
        step = await relay.follow(Batch(entries, 0, 600, 700))
    assert [len(batch) for batch in exchange.taken] == [256, 256, 88]
    assert [int(one.message_id) for one in exchange.out] == list(range(600))
    assert step.cursor == Cursor(600)


@pytest.mark.parametrize("batch", [1, 2, 5])
async def test_replayed_from_the_beginning_it_says_the_same_bytes(
    house: LakeHouse, batch: int
) -> None:
    for value in (1, 2, 1):
        await house.approve("a", version=f"v{value}", value=value)
        await house.approve("b", version=f"v{value}", value=value)
        await house.send_back("a")
    first = await relayed(house)
    assert len(first) >= 6
    assert await relayed(house, batch=batch) == first


async def test_what_was_not_confirmed_is_published_again_and_nothing_is_skipped(
    house: LakeHouse,
) -> None:
    await house.approve("a")
    await house.approve("b")
    exchange = FakeExchange(takes=1)
    relay = Relay(house.follow_ports(), exchange)
    cursor = await relay.start(Cursor())
    size = await house.tail.size()
    entries = await house.tail.read(0, size)
    exchange.failing = Transient("queue-unavailable")
    with pytest.raises(Transient):
        await relay.follow(Batch(entries, 0, size, size))
    exchange.failing = None
    await relay.start(cursor)
    await relay.follow(Batch(entries, 0, size, size))
    tasks = [json.loads(one.body)["data"]["task"] for one in exchange.out]
    assert tasks == ["a", "a", "b"]


async def test_an_exchange_that_is_missing_is_told_before_there_is_anything_to_publish(
    house: LakeHouse,
) -> None:
    missing = Permanent("exchange-missing")
    with pytest.raises(Permanent, match="exchange missing"):
        await Relay(house.follow_ports(), FakeExchange(failing=missing)).start(Cursor())


async def test_an_entry_that_cannot_be_understood_stops_it_with_a_reason(house: LakeHouse) -> None:
    exchange = FakeExchange()
    relay = Relay(house.follow_ports(), exchange)
    await relay.start(Cursor())
    with pytest.raises(Permanent, match="entry 7") as caught:
        await relay.follow(Batch([LogEntry(7, {"kind": "lake"})], 7, 8, 8))
    assert caught.value.reason == "log-damaged"
    assert not exchange.out


async def test_an_empty_batch_only_moves_the_cursor(house: LakeHouse) -> None:
    exchange = FakeExchange()
    relay = Relay(house.follow_ports(), exchange)
    await relay.start(Cursor(4))
    assert (await relay.follow(Batch([], 4, 9, 9))).cursor == Cursor(9)
    assert not exchange.taken


@pytest.mark.parametrize(
    ("platform", "project", "key"),
    [
        ("redbrick", "4f3c-11", "redbrick.4f3c-11.added"),
        ("labelbox", "labelbox.log", "labelbox.labelbox%2Elog.added"),
        ("redbrick", "a%2Eb", "redbrick.a%252Eb.added"),
        ("redbrick", "#", "redbrick.%23.added"),
        ("redbrick", "*.*", "redbrick.%2A%2E%2A.added"),
        ("redbrick", "Köln 1", "redbrick.K%C3%B6ln%201.added"),
    ],
)
def test_a_routing_key_has_three_words_whatever_the_project_is_called(
    platform: str, project: str, key: str
) -> None:
    assert routing_key(platform, project, "added") == key


@given(platform=NAMES, project=NAMES)
@example(platform="p" * 300, project="." * 300)
@example(platform="", project="")
def test_no_name_makes_a_key_of_other_words_or_one_that_amqp_cannot_carry(
    platform: str, project: str
) -> None:
    key = routing_key(platform, project, "removed")
    assert key.isascii()
    assert len(key) <= 255
    assert key.count(".") == 2
    assert key.endswith(".removed")
    assert not {"*", "#"} & set(key)


@given(one=NAMES, other=NAMES)
def test_two_projects_never_share_a_key(one: str, other: str) -> None:
    same = routing_key("p", one, "added") == routing_key("p", other, "added")
    assert same == (one == other)


@pytest.mark.parametrize("plain", [144, 145, 146, 147, 148])
def test_a_word_that_is_too_long_is_cut_at_a_whole_escape_and_marked(plain: int) -> None:
    project = "x" * plain + "." * 20
    kept, _, mark = routing_key("p", project, "added").split(".")[1].partition("~")
    assert kept == "x" * min(plain, 147) + "%2E" * ((147 - plain) // 3)
    assert mark == hashlib.sha256(project.encode()).hexdigest()[:32]


def test_names_made_to_collide_do_not() -> None:
    long = [f"{'x' * 147}{end}" + "y" * 40 for end in ("", ".", "%", "%2E")]
    cut = routing_key("p", "x" * 300, "added").split(".")[1]
    names = [*HOSTILE, *long, cut, "x" * 300, "x" * 180, "x" * 182]
    assert len({routing_key("p", name, "added") for name in names}) == len(names)


async def test_an_origin_of_any_characters_is_a_source_that_is_a_uri_reference() -> None:
    async with lake_house(origin="örtlich:8080/lake~1") as house:
        await house.approve()
        (published,) = await relayed(house)
    event = json.loads(published.body)
    assert event["source"] == "%C3%B6rtlich%3A8080/lake~1"
    assert event["id"].partition("@")[2].startswith("örtlich:8080/lake~1~")
