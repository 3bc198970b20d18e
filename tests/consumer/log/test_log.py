"""Appending: what the log holds afterwards, what it skips, and whom it refuses."""

from __future__ import annotations

import json

import pytest

from consumer.errors import Permanent
from consumer.log.locate import owner
from consumer.log.log import MAX_BATCH
from consumer.log.read import entries, published
from consumer.log.tiles import MAX_ENTRY
from tests.consumer.log.logs import (
    ORIGIN,
    SIGNER,
    STRANGER,
    HandClock,
    entry,
    filled,
    ids,
    numbered,
    writer,
)
from tests.fakes_store import FakeStore


async def test_appended_entries_are_published_in_order() -> None:
    store = FakeStore()
    assert await writer(store).append(numbered(range(3))) == 3
    assert await ids(store) == ["receipt:0", "receipt:1", "receipt:2"]
    store.assert_sound()


async def test_an_entry_is_canonical_json_with_format_and_time() -> None:
    store = FakeStore()
    await writer(store).append([{"task": "t", "kind": "receipt", "id": "receipt:é"}])
    assert store.objects["log/tile/entries/000.p/1"][2:].decode() == (
        '{"format":1,"id":"receipt:é","kind":"receipt",'
        '"logged_at":"2026-01-02T03:04:05.000000Z","task":"t"}'
    )


async def test_after_an_append_the_store_holds_the_log_and_no_stage() -> None:
    store = FakeStore()
    await writer(store).append(numbered(range(3)))
    assert sorted(store.objects) == [
        "log/checkpoint",
        "log/head",
        "log/tile/0/000.p/3",
        "log/tile/entries/000.p/3",
        "log/vkey",
    ]


async def test_the_checkpoint_is_signed_by_the_key_that_vkey_shows() -> None:
    store = FakeStore()
    await writer(store).append(numbered(range(3)))
    assert store.objects["log/vkey"].decode() == SIGNER.verifier.vkey + "\n"
    assert SIGNER.verifier.open(store.objects["log/checkpoint"]).startswith(f"{ORIGIN}\n3\n")


async def test_nothing_signed_is_stored_before_head_is_swapped() -> None:
    store = FakeStore()
    await writer(store).append(numbered(range(3)))
    verbs = [call for call in store.verbs() if call[0] in ("create", "swap", "delete")]
    assert [verb for verb, _ in verbs] == [
        "create",
        "swap",
        "create",
        "create",
        "create",
        "swap",
        "delete",
    ]
    assert verbs[0][1].startswith("log/stage/")
    assert verbs[1] == ("swap", "log/head")
    assert verbs[-2] == ("swap", "log/checkpoint")
    assert verbs[-1] == ("delete", verbs[0][1])


async def test_ids_that_the_log_holds_are_skipped_however_old() -> None:
    store = FakeStore()
    log = await filled(store, 300, 300)
    assert await log.append([entry(7), entry(600), entry(599)]) == 601
    assert (await ids(store))[-1] == "receipt:600"


async def test_of_equal_ids_in_one_call_the_first_is_logged() -> None:
    store = FakeStore()
    first = {"id": "a", "kind": "k", "n": 1}
    await writer(store).append([first, {"id": "b", "kind": "k"}, {**first, "n": 2}])
    assert [(one.data["id"], one.data.get("n")) async for one in entries(store)] == [
        ("a", 1),
        ("b", None),
    ]


async def test_an_append_of_known_ids_writes_nothing() -> None:
    store = FakeStore()
    log = await filled(store, 5)
    calls = len(store.calls)
    assert await log.append(numbered(range(5))) == 5
    assert len(store.calls) == calls


async def test_logged_at_never_goes_back_when_the_clock_does() -> None:
    store, clock = FakeStore(), HandClock()
    log = writer(store, clock=clock)
    await log.append([entry(0)])
    clock.move(-3600)
    await log.append([entry(1)])
    await writer(store, clock=clock).append([entry(2)])
    times = [one.data["logged_at"] async for one in entries(store)]
    assert times == ["2026-01-02T03:04:05.000000Z"] * 3


async def test_a_large_append_is_split_into_batches() -> None:
    store = FakeStore()
    assert await writer(store).append(numbered(range(2 * MAX_BATCH + 1))) == 2 * MAX_BATCH + 1
    assert [call for call in store.verbs() if call == ("swap", "log/head")] == [
        ("swap", "log/head")
    ] * 3
    assert len(set(await ids(store))) == 2 * MAX_BATCH + 1


async def test_partial_tiles_go_when_the_full_one_is_published() -> None:
    store = FakeStore()
    await filled(store, 100, 100, 100)
    tiles = [key for key in store.objects if key.startswith("log/tile/")]
    assert sorted(tiles) == [
        "log/tile/0/000",
        "log/tile/0/001.p/44",
        "log/tile/1/000.p/1",
        "log/tile/entries/000",
        "log/tile/entries/001.p/44",
    ]


async def test_an_entry_of_the_largest_size_is_logged_and_one_byte_more_is_refused() -> None:
    store = FakeStore()
    log = writer(store)
    await log.append([{**entry(0), "pad": ""}])
    bare = len(store.objects["log/tile/entries/000.p/1"]) - 2
    await log.append([{**entry(1), "pad": "x" * (MAX_ENTRY - bare)}])
    with pytest.raises(Permanent) as caught:
        await log.append([entry(2), {**entry(3), "pad": "x" * (MAX_ENTRY - bare + 1)}])
    assert caught.value.reason == "entry-too-large"
    assert await ids(store) == ["receipt:0", "receipt:1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "k"},
        {"id": "a"},
        {"id": "", "kind": "k"},
        {"id": 1, "kind": "k"},
        {"id": "a", "kind": "k", "logged_at": "yesterday"},
        {"id": "a", "kind": "k", "format": 2},
        {"id": "a", "kind": "k", "n": 2**60},
        {"id": "a", "kind": "k", "n": float("nan")},
        {"id": "a", "kind": "k", "n": object()},
        {"id": "a", "kind": "k", "n": "\ud800"},
    ],
)
async def test_what_is_no_entry_is_refused_before_anything_is_stored(
    wrong: dict[str, object],
) -> None:
    store = FakeStore()
    with pytest.raises(Permanent) as caught:
        await writer(store).append([entry(0), wrong])
    assert caught.value.reason == "bad-entry"
    assert store.objects == {}


async def test_a_writer_with_another_key_is_told_what_to_do_and_changes_nothing() -> None:
    store = FakeStore()
    await filled(store, 3)
    before = dict(store.objects)
    stranger = writer(store, signer=STRANGER)
    for step in (stranger.open(), stranger.append([entry(9)])):
        with pytest.raises(Permanent, match=r"Set \[log\] key") as caught:
            await step
        assert caught.value.reason == "log-key"
    assert store.objects == before


async def test_a_writer_with_another_key_does_not_even_finish_a_batch() -> None:
    store = FakeStore()
    await filled(store, 3)
    del store.objects["log/checkpoint"]
    before = dict(store.objects)
    with pytest.raises(Permanent, match="key"):
        await writer(store, signer=STRANGER).open()
    assert store.objects == before


async def test_a_writer_of_another_origin_is_refused() -> None:
    store = FakeStore()
    await filled(store, 3)
    with pytest.raises(Permanent, match="origin"):
        await writer(store, origin="elsewhere").open()


async def test_no_log_is_begun_where_head_is_lost() -> None:
    store = FakeStore()
    await filled(store, 3)
    del store.objects["log/head"]
    with pytest.raises(Permanent, match="log/head") as caught:
        await writer(store).append([entry(9)])
    assert caught.value.reason == "log-damaged"


async def test_a_writer_refuses_to_grow_a_damaged_edge() -> None:
    for key in ("log/tile/0/000.p/3", "log/tile/entries/000.p/3", "log/checkpoint", "log/head"):
        store = FakeStore()
        await filled(store, 3)
        data = bytearray(store.objects[key])
        data[40] ^= 1
        store.objects[key] = bytes(data)
        with pytest.raises(Permanent) as caught:
            await writer(store).open()
        assert caught.value.reason == "log-damaged", key


async def test_a_writer_refuses_to_grow_on_a_damaged_upper_tile() -> None:
    store = FakeStore()
    await filled(store, 300)
    tile = store.objects["log/tile/1/000.p/1"]
    store.objects["log/tile/1/000.p/1"] = bytes([tile[0] ^ 1]) + tile[1:]
    with pytest.raises(Permanent, match="root"):
        await writer(store).open()


async def test_owner_tells_whose_log_it_is_before_a_key_is_made() -> None:
    store = FakeStore()
    assert await owner(store) is None
    await filled(store, 1)
    assert await owner(store) == SIGNER.verifier.vkey


async def test_opening_an_empty_store_writes_nothing() -> None:
    store = FakeStore()
    await writer(store).open()
    assert store.objects == {}
    assert await published(store) is None


async def test_state_tells_size_and_age_of_the_newest_entry() -> None:
    store, clock = FakeStore(), HandClock()
    log = writer(store, clock=clock)
    assert log.state().size == 0
    assert log.state().age_s is None
    await log.append(numbered(range(3)))
    clock.move(90)
    assert (log.state().size, log.state().age_s) == (3, 90.0)
    again = writer(store, clock=clock)
    await again.open()
    assert again.state() == log.state()


async def test_entries_can_be_read_from_and_to_any_index() -> None:
    store = FakeStore()
    await filled(store, 600)
    for start, end in ((0, 0), (0, 1), (255, 257), (500, 900), (600, None)):
        found = [one.index async for one in entries(store, start, end)]
        assert found == list(range(start, 600 if end is None else min(end, 600)))


async def test_head_holds_the_signed_checkpoint_and_names_the_stage() -> None:
    store = FakeStore()
    await filled(store, 3)
    head = json.loads(store.objects["log/head"])
    assert head["checkpoint"].encode() == store.objects["log/checkpoint"]
    assert head["size"] == 3
    assert head["key"] == SIGNER.verifier.vkey
    assert head["stage"].startswith("log/stage/")
