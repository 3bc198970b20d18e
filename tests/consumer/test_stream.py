"""The stream of changes over HTTP: what it tells, from where, and what it refuses."""

from __future__ import annotations

import contextlib
import json

import aiohttp
import pytest
from structlog.testing import capture_logs

from consumer.errors import Transient
from consumer.ports import Store
from tests.consumer.log.logs import ORIGIN
from tests.consumer.streams import (
    Reader,
    mixed,
    move,
    moves,
    reading,
    receipt,
    served,
    truths,
    until,
)
from tests.fakes_store import Fault, FaultyStore

ENTRIES = mixed(600, seed=1)


async def refusal(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as http, http.get(url, headers=named) as answer:
        text = await answer.text()
        return answer.status, json.loads(text), text


async def told_until_the_end(reader: Reader) -> list[int]:
    """The indices that come before the stream ends."""
    came: list[int] = []
    with contextlib.suppress(EOFError):
        while True:
            came += await reader.indices(1)
    return came


async def test_an_event_tells_one_move_and_its_place_in_the_log() -> None:
    async with served(receipt(0), move(1)) as place, reading(place) as reader:
        assert reader.response.headers["Content-Type"] == "text/event-stream"
        block = await reader.block()
        assert block["event"] == "exported"
        assert block["id"] == f"1@{await place.tail.identity()}"
        assert block["id"].startswith(f"1@{ORIGIN}~")
        told = json.loads(block["data"])
        assert (told["task"], told["index"], told["id"]) == ("task-1", 1, block["id"])
        assert told["ground_truth"] == "added"


async def test_every_move_comes_in_its_order() -> None:
    async with served(*ENTRIES) as place, reading(place) as reader:
        assert await reader.indices(len(moves(ENTRIES))) == moves(ENTRIES)


async def test_of_the_ground_truth_only_its_changes_come_each_by_its_word() -> None:
    async with served(*ENTRIES) as place, reading(place, "?ground_truth=true") as reader:
        blocks = await reader.blocks(len(truths(ENTRIES)))
        assert [json.loads(one["data"])["index"] for one in blocks] == truths(ENTRIES)
        assert {one["event"] for one in blocks} == {"added", "changed", "removed"}
        assert all(one["event"] == json.loads(one["data"])["ground_truth"] for one in blocks)


async def test_projects_are_chosen_by_their_id_or_their_name_in_the_lake() -> None:
    wanted = truths(ENTRIES, projects=("p-0", "p-2"))
    query = "?ground_truth=true&project=p-0&project=key-p-2"
    async with served(*ENTRIES) as place, reading(place, query) as reader:
        assert await reader.indices(len(wanted)) == wanted


async def test_a_reader_goes_on_after_the_id_that_it_saw_last() -> None:
    async with served(*ENTRIES) as place:
        after = moves(ENTRIES)[100]
        identity = await place.tail.identity()
        for query in (f"?after={after}", f"?after={after}@{identity}"):
            async with reading(place, query) as reader:
                assert await reader.indices(5) == moves(ENTRIES)[101:106]


async def test_a_browsers_last_event_id_wins_over_the_url_that_it_repeats() -> None:
    async with served(*ENTRIES) as place, reading(place, "?after=0", Last_Event_ID="300") as reader:
        assert (await reader.indices(1))[0] > 300


async def test_an_empty_last_event_id_is_none() -> None:
    async with served(*ENTRIES) as place, reading(place, Last_Event_ID="") as reader:
        assert await reader.indices(1) == moves(ENTRIES)[:1]


async def test_who_has_seen_everything_hears_what_comes_next() -> None:
    async with served(move(0)) as place, reading(place, "?after=0") as reader:
        await place.append(move(1))
        assert await reader.indices(1) == [1]


async def test_before_there_is_a_log_a_reader_waits_for_its_first_entry() -> None:
    async with served() as place, reading(place) as reader:
        await place.append(move(0))
        block = await reader.block()
        assert block["id"] == f"0@{await place.tail.identity()}"


async def test_another_processs_reader_hears_of_what_was_appended_elsewhere() -> None:
    async with served(move(0)) as place, reading(place, "?after=0") as reader:
        await place.log.append([move(1)])  # nobody wakes this process' tail
        assert await reader.indices(1) == [1]


async def test_what_is_committed_but_not_published_is_not_told() -> None:
    async with served(move(0), heartbeat_s=0.05) as place, reading(place, "?after=0") as reader:
        staged = place.store.objects["log/checkpoint"]
        await place.log.append([move(1)])
        published = place.store.objects["log/checkpoint"]
        place.store.objects["log/checkpoint"] = staged
        assert "data" not in await reader.block()
        place.store.objects["log/checkpoint"] = published
        place.tail.wake()
        assert (await reader.block())["id"].startswith("1@")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?afte=1", "unknown-parameter"),
        ("?after=", "bad-position"),
        ("?after=-1", "bad-position"),
        ("?after=01", "bad-position"),
        ("?after=1%0A2@x", "bad-position"),
        ("?after=" + "9" * 400, "bad-position"),
        ("?after=1&after=2", "repeated-parameter"),
        ("?ground_truth=yes", "bad-ground-truth"),
        ("?ground_truth=", "bad-ground-truth"),
        ("?ground_truth=true&ground_truth=false", "repeated-parameter"),
        ("?project=", "bad-project"),
        ("?project=" + "x" * 251, "bad-project"),
        ("?" + "&".join(f"project={n}" for n in range(101)), "bad-project"),
    ],
)
async def test_what_is_not_understood_is_refused_and_not_repeated(query: str, reason: str) -> None:
    async with served(*ENTRIES) as place:
        status, said, text = await refusal(f"{place.url}/changes{query}")
    assert (status, said["error"]) == (400, reason)
    assert len(text) < 300


async def test_a_last_event_id_that_is_none_is_refused() -> None:
    async with served(*ENTRIES) as place:
        status, said, text = await refusal(f"{place.url}/changes", Last_Event_ID="mine\u00e9")
    assert (status, said["error"]) == (400, "bad-position")
    assert "mine" not in text


async def test_a_position_of_another_log_is_refused() -> None:
    async with served(*ENTRIES) as place:
        status, said, text = await refusal(f"{place.url}/changes?after=3@example.org/other~00")
    assert (status, said["error"]) == (409, "another-log")
    assert ORIGIN in said["message"]
    assert "other" not in text.replace("another", "")


async def test_the_log_begun_anew_under_the_same_origin_is_another() -> None:
    async with served(*ENTRIES) as old:
        place_in_old = f"3@{await old.tail.identity()}"
    async with served(*mixed(600, seed=2)) as place:
        status, said, _ = await refusal(f"{place.url}/changes?after={place_in_old}")
    assert (status, said["error"]) == (409, "another-log")


@pytest.mark.parametrize("entries", [ENTRIES, []])
async def test_an_index_that_does_not_exist_yet_is_refused(entries: list[dict[str, str]]) -> None:
    async with served(*entries) as place:
        status, said, _ = await refusal(f"{place.url}/changes?after={len(entries)}")
    assert (status, said["error"]) == (409, "index-ahead")
    assert str(len(entries)) in said["message"]


async def test_the_stream_is_for_those_who_show_the_token() -> None:
    async with served(move(0), token="tok-1234") as place:
        async with reading(place) as reader:
            assert reader.response.status == 401
        async with reading(place, Authorization="Bearer tok-1234") as reader:
            assert await reader.indices(1) == [0]


async def test_one_reader_too_many_is_sent_away_for_a_while() -> None:
    async with served(move(0), max_readers=2) as place, reading(place), reading(place):
        async with reading(place) as third:
            assert third.response.status == 503
            assert int(third.response.headers["Retry-After"]) > 0
        assert place.readers() == 2


async def test_a_reader_that_goes_makes_room_at_once() -> None:
    async with served(move(0), max_readers=1) as place:
        for _ in range(5):
            async with reading(place, "?after=0") as reader:
                assert reader.response.status == 200
            await until(lambda: place.readers() == 0)


async def test_a_filtered_reader_hears_how_far_it_is() -> None:
    entries = [move(0), *(move(n, truth=None) for n in range(1, 9))]
    async with (
        served(*entries, heartbeat_s=0.05) as place,
        reading(place, "?ground_truth=true") as reader,
    ):
        assert await reader.indices(1) == [0]
        beat = await reader.block()
        assert beat == {"": "nothing else", "id": f"8@{await place.tail.identity()}"}
        await place.append(move(9))
        assert await reader.indices(1) in ([8], [9])


async def test_before_the_first_entry_a_heartbeat_names_no_place() -> None:
    async with served(heartbeat_s=0.02) as place, reading(place) as reader:
        while (line := await reader.response.content.readline()) != b": nothing else\n":
            assert not line.startswith(b"id")
        assert await reader.response.content.readline() == b"\n"


async def test_a_store_that_fails_ends_the_stream_and_skips_nothing() -> None:
    failing: list[FaultyStore] = []

    def faulty(store: Store) -> Store:
        failing.append(FaultyStore(store, {9: Fault.BEFORE}))
        return failing[-1]

    async with served(*ENTRIES, reads=faulty) as place:
        with capture_logs() as lines:
            async with reading(place) as reader:
                came = await told_until_the_end(reader)
            await until(lambda: place.readers() == 0)
        assert failing[-1].failed
        assert came == moves(ENTRIES)[: len(came)]
        assert {"event": "stream ended", "reason": "store-disconnected"}.items() <= lines[
            -1
        ].items()
        async with reading(place, f"?after={came[-1]}" if came else "") as reader:
            rest = await reader.indices(len(moves(ENTRIES)) - len(came))
        assert came + rest == moves(ENTRIES)


async def test_a_store_that_fails_at_first_asks_to_come_again() -> None:
    def faulty(store: Store) -> Store:
        return FaultyStore(store, {1: Fault.BEFORE}, lambda: Transient("store-down", "secret"))

    async with served(*ENTRIES, reads=faulty) as place:
        status, said, text = await refusal(f"{place.url}/changes")
        assert (status, said["error"]) == (503, "store-down")
        assert "secret" not in text


async def test_an_entry_that_cannot_be_understood_ends_the_stream_before_it() -> None:
    entries = [*mixed(256), {**move(256), "sequence": "second"}, move(257)]
    with capture_logs() as lines:
        async with served(*entries) as place, reading(place) as reader:
            assert await told_until_the_end(reader) == moves(entries[:256])
            await until(lambda: place.readers() == 0)
    (said,) = [one for one in lines if one["event"] == "stream ended"]
    assert said["reason"] == "log-damaged"
    assert "entry 256" in said["detail"]


async def test_the_stop_ends_every_stream_at_once_and_takes_no_new_one() -> None:
    async with served(*ENTRIES) as place, reading(place) as first, reading(place) as second:
        await place.stream.close()
        assert await first.ended()
        assert await second.ended()
        async with reading(place) as late:
            assert late.response.status == 503


async def test_what_many_read_at_once_is_read_from_the_store_once() -> None:
    async with served(move(0)) as place, aiohttp.ClientSession() as http:
        answers = [await http.get(f"{place.url}/changes?after=0") for _ in range(30)]
        place.store.calls.clear()
        await place.append(move(1))
        for answer in answers:
            assert b"task-1" in await _after_opening(answer)
            answer.close()
        bundles = [one for one in place.store.verbs() if one[0] == "read" and "entries" in one[1]]
        assert len(bundles) <= 2


async def _after_opening(answer: aiohttp.ClientResponse) -> bytes:
    while not (line := await answer.content.readline()).startswith(b"data"):
        assert line
    return line
