"""Verification finds every change that can be made to a log, and names the place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from consumer.log.head import sign_head
from consumer.log.note import BadNote, Signer
from consumer.log.tiles import Edge, decode_bundle, grow
from consumer.log.verify import verify
from consumer.model import canonical
from consumer.ports import Stored
from tests.consumer.log.logs import SIGNER, STRANGER, filled, ids, numbered, restored, writer
from tests.fakes_store import FakeStore

VKEY = SIGNER.verifier.vkey


async def places(store: FakeStore, **options: Any) -> list[str]:
    return [finding.place for finding in (await verify(store, **options)).findings]


async def test_an_untouched_log_is_ok_and_its_origin_is_checked_with_the_key() -> None:
    store = FakeStore()
    await filled(store, 100, 200, 300)
    found = await verify(store, vkey=VKEY)
    assert found.ok, found.findings
    assert found.origin_checked
    assert (found.size, found.counts.entries, found.unreferenced) == (600, 600, ())
    assert "the key you gave signed it" in found.summary


async def test_without_a_key_it_says_that_the_origin_was_not_checked() -> None:
    store = FakeStore()
    await filled(store, 10)
    found = await verify(store)
    assert found.ok
    assert not found.origin_checked
    assert "Consistent in itself, origin not checked" in found.summary


async def test_verifying_changes_nothing() -> None:
    store = FakeStore()
    await filled(store, 300)
    store.calls.clear()
    await verify(store, vkey=VKEY)
    assert {verb for verb, _ in store.verbs()} == {"read", "list"}


async def test_every_flipped_byte_of_every_object_is_found_and_its_place_named() -> None:
    store = FakeStore()
    await filled(store, 3, 2)
    for key, data in sorted(store.objects.items()):
        for position in range(len(data)):
            flipped = bytearray(data)
            flipped[position] ^= 1
            store.objects[key] = bytes(flipped)
            assert key in await places(store, vkey=VKEY), f"{key} byte {position}"
        store.objects[key] = data


async def test_a_flipped_byte_is_found_without_a_key_too() -> None:
    store = FakeStore()
    await filled(store, 3, 2)
    for key, data in sorted(store.objects.items()):
        for position in range(0, len(data), 7):
            flipped = bytearray(data)
            flipped[position] ^= 4
            store.objects[key] = bytes(flipped)
            assert await places(store), f"{key} byte {position}"
        store.objects[key] = data


async def test_every_missing_object_is_found_and_named() -> None:
    store = FakeStore()
    await filled(store, 300)
    for key, data in sorted(store.objects.items()):
        del store.objects[key]
        assert key in await places(store, vkey=VKEY), key
        store.objects[key] = data


async def test_every_object_that_is_cut_short_or_lengthened_is_found_and_named() -> None:
    store = FakeStore()
    await filled(store, 300)
    for key, data in sorted(store.objects.items()):
        for changed in (data[:-1], data + b"\n", data + data, b""):
            store.objects[key] = changed
            assert key in await places(store, vkey=VKEY), key
        store.objects[key] = data


async def test_a_flipped_byte_in_a_large_log_names_the_entry() -> None:
    store = FakeStore()
    await filled(store, 700)
    data = bytearray(store.objects["log/tile/entries/001"])
    data[data.index(b"receipt:300") + 9] ^= 1
    store.objects["log/tile/entries/001"] = bytes(data)
    found = await verify(store, vkey=VKEY)
    assert ("log/tile/entries/001", 300) in [(f.place, f.entry) for f in found.findings]
    assert any(str(f).startswith("log/tile/entries/001, entry 300: ") for f in found.findings)


async def test_a_flipped_hash_is_laid_to_the_tile_and_not_to_the_entry() -> None:
    for key, level in (("log/tile/0/001", 0), ("log/tile/1/000.p/2", 1)):
        store = FakeStore()
        await filled(store, 700)
        data = bytearray(store.objects[key])
        data[33] ^= 1
        store.objects[key] = bytes(data)
        assert await places(store, vkey=VKEY) == [key], level


async def test_partial_tiles_of_older_sizes_are_checked_too() -> None:
    store = FakeStore()
    await filled(store, 10, 10)
    for key in ("log/tile/entries/000.p/10", "log/tile/0/000.p/10"):
        data = store.objects[key]
        store.objects[key] = data[:-1] + bytes([data[-1] ^ 1])
        assert await places(store, vkey=VKEY) == [key]
        store.objects[key] = data


async def rewritten(raw: Sequence[bytes], signer: Signer = SIGNER) -> FakeStore:
    """A whole new log of these entries, as somebody who has the key could make it."""
    edge, made = grow(Edge(), raw)
    head = sign_head(signer, "example.org/lake", edge, "log/stage/" + "0" * 64)
    return await restored(
        {
            **{f"log/{tile.path}": data for tile, data in made},
            "log/checkpoint": head.checkpoint.encode(),
            "log/head": head.data,
            "log/vkey": f"{signer.verifier.vkey}\n".encode(),
        }
    )


async def kept() -> tuple[list[bytes], bytes]:
    """The entries of a log, and a checkpoint kept when it had the first 200."""
    store = FakeStore()
    log = await filled(store, 200)
    older = store.objects["log/checkpoint"]
    await log.append(numbered(range(200, 250)))
    return decode_bundle(store.objects["log/tile/entries/000.p/250"]), older


async def test_a_log_extends_every_checkpoint_that_it_ever_had() -> None:
    store = FakeStore()
    log = writer(store)
    older = []
    for batch in (range(1), range(1, 200), range(200, 256), range(256, 257), range(257, 800)):
        await log.append(numbered(batch))
        older.append(store.objects["log/checkpoint"])
    for note in older:
        found = await verify(store, vkey=VKEY, older=note)
        assert found.ok, found.findings
        assert "It extends your checkpoint" in found.summary


@pytest.mark.parametrize("change", ["removed", "reordered", "inserted", "replaced"])
async def test_an_entry_changed_below_an_old_checkpoint_is_found_even_if_all_is_signed_anew(
    change: str,
) -> None:
    raw, older = await kept()
    if change == "removed":
        del raw[100]
    elif change == "reordered":
        raw[100], raw[101] = raw[101], raw[100]
    elif change == "inserted":
        raw.insert(100, raw[100].replace(b"receipt:100", b"receipt:xxx"))
    else:
        raw[100] = raw[100].replace(b"task-100", b"task-1oo")
    store = await rewritten(raw)
    assert (await verify(store, vkey=VKEY)).ok
    found = await verify(store, vkey=VKEY, older=older)
    assert [finding.place for finding in found.findings] == ["your checkpoint"]
    assert "first 200 entries" in found.findings[0].problem


async def test_an_old_checkpoint_does_not_mind_what_comes_after_it() -> None:
    raw, older = await kept()
    raw[220], raw[221] = raw[221], raw[220]
    assert (await verify(await rewritten(raw), vkey=VKEY, older=older)).ok


async def test_a_log_cut_back_below_an_old_checkpoint_is_found() -> None:
    raw, older = await kept()
    found = await verify(await rewritten(raw[:150]), vkey=VKEY, older=older)
    assert not found.ok
    assert "your checkpoint 200" in found.findings[0].problem


async def test_a_log_signed_by_somebody_else_is_found_with_the_key() -> None:
    raw, _ = await kept()
    store = await rewritten(raw, STRANGER)
    assert (await verify(store)).ok
    assert await places(store, vkey=VKEY) == ["log/vkey", "log/head", "log/checkpoint"]


async def test_two_signed_trees_of_one_size_are_found() -> None:
    raw, _ = await kept()
    store = await rewritten(raw)
    other = await rewritten([raw[0].replace(b"task-0", b"task-x"), *raw[1:]])
    store.objects["log/checkpoint"] = other.objects["log/checkpoint"]
    assert await places(store, vkey=VKEY) == ["log/checkpoint", "log/checkpoint"]
    store.objects["log/head"] = other.objects["log/head"]
    (finding,) = (await verify(store, vkey=VKEY)).findings
    assert finding.place == "log/checkpoint"
    assert "the entries give" in finding.problem


async def test_a_head_that_was_put_back_is_found() -> None:
    store = FakeStore()
    log = await filled(store, 3)
    head, checkpoint = store.objects["log/head"], store.objects["log/checkpoint"]
    await log.append(numbered(range(3, 9)))
    store.objects["log/head"] = head
    assert "log/head" in await places(store, vkey=VKEY)
    store.objects["log/checkpoint"] = checkpoint
    assert await places(store, vkey=VKEY, older=None) == []  # whole, but shorter: keep a checkpoint


async def test_an_id_that_stands_twice_is_found() -> None:
    raw, _ = await kept()
    found = await verify(await rewritten([*raw, raw[3]]), vkey=VKEY)
    assert [(f.entry, f.problem) for f in found.findings] == [
        (250, "the id receipt:3 is logged twice")
    ]


async def test_a_time_that_goes_back_is_found() -> None:
    raw, _ = await kept()
    raw[7] = raw[7].replace(b"2026-01-02", b"2025-01-02")
    found = await verify(await rewritten(raw), vkey=VKEY)
    assert [f.entry for f in found.findings] == [7]
    assert "before" in found.findings[0].problem


@pytest.mark.parametrize("odd", [b"[1]", b"{", canonical({"id": "a"}), b'{"id":1}'])
async def test_an_entry_that_is_none_is_found(odd: bytes) -> None:
    raw, _ = await kept()
    found = await verify(await rewritten([*raw, odd]), vkey=VKEY)
    assert [f.entry for f in found.findings] == [250]


async def test_nothing_is_not_a_verified_log() -> None:
    found = await verify(FakeStore(), vkey=VKEY)
    assert not found.ok
    assert "NOT OK" in found.summary


async def test_a_key_or_checkpoint_that_cannot_be_read_is_the_callers_mistake() -> None:
    store = FakeStore()
    await filled(store, 3)
    with pytest.raises(BadNote):
        await verify(store, vkey="hello")
    with pytest.raises(BadNote):
        await verify(store, vkey=VKEY, older=b"hello")


async def test_a_stray_tile_or_stage_is_unreferenced_and_no_error() -> None:
    store = FakeStore()
    await filled(store, 3)
    strays = ("log/stage/" + "0" * 64, "log/tile/0/001.p/4", "log/tile/other", "log/x")
    for key in strays:
        await store.create(key, b"x")
    found = await verify(store, vkey=VKEY)
    assert found.ok
    assert sorted(found.unreferenced) == sorted(strays)


class Growing(FakeStore):
    """Grows its log behind the reader's back, once, at the first listing."""

    grown = False

    async def read(self, key: str) -> Stored | None:
        found = await super().read(key)
        if key == "log/head" and not self.grown:
            self.grown = True
            await writer(self).append(numbered(range(200, 600)))
        return found


async def test_a_log_that_grows_while_it_is_verified_is_ok() -> None:
    store = Growing()
    store.grown = True
    await filled(store, 200)
    store.grown = False
    found = await verify(store, vkey=VKEY)
    assert found.ok, found.findings
    assert found.size == 200
    assert len(await ids(store)) == 600
