"""The id index: derived from the entries, so that losing or ageing it never loses an id."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from consumer.errors import Permanent, Transient
from consumer.log.index import DIGEST_BYTES, IdIndex, id_digest
from consumer.log.segment import SEGMENT
from consumer.log.verify import verify
from tests.consumer.log.logs import entry, filled, ids, numbered, restored, writer
from tests.fakes_store import FakeStore


async def skips_everything(store: FakeStore, index: Path | None, size: int) -> None:
    """Appending what the log holds changes nothing; what it does not hold is appended."""
    log = writer(store, index=index)
    await log.open()
    assert await log.append(numbered(range(size))) == size
    assert await log.append([entry(size)]) == size + 1
    await log.close()
    assert len(set(await ids(store))) == size + 1


async def test_an_index_built_from_nothing_gives_the_same_skips(tmp_path: Path) -> None:
    store = FakeStore()
    await filled(store, 600)
    await skips_everything(store, tmp_path / "new.db", 600)


async def test_an_index_that_is_behind_catches_up(tmp_path: Path) -> None:
    store, index = FakeStore(), tmp_path / "index.db"
    log = writer(store, index=index)
    await log.append(numbered(range(10)))
    await log.close()
    await writer(store).append(numbered(range(10, 700)))
    await skips_everything(store, index, 700)


async def test_an_index_that_is_level_is_not_read_again(tmp_path: Path) -> None:
    store, index = FakeStore(), tmp_path / "index.db"
    log = writer(store, index=index)
    await log.append(numbered(range(600)))
    await log.close()
    store.calls.clear()
    await writer(store, index=index).open()
    assert ("read", "log/tile/entries/000") not in store.verbs()


async def test_an_index_of_another_log_is_dropped(tmp_path: Path) -> None:
    other, index = FakeStore(), tmp_path / "index.db"
    log = writer(other, index=index)
    await log.append([{"id": f"x:{n}", "kind": "x"} for n in range(300)])
    await log.close()
    store = FakeStore()
    await filled(store, 600)
    await skips_everything(store, index, 600)


async def test_a_lake_whose_log_is_shorter_than_this_machine_knows_it_gets_no_entry(
    tmp_path: Path,
) -> None:
    store, index = FakeStore(), tmp_path / "index.db"
    log = writer(store, index=index)
    await log.append(numbered(range(10)))
    before = dict(store.objects)
    await log.append(numbered(range(10, 20)))
    await log.close()
    for found in (await restored(before), FakeStore()):  # an old copy, an unmounted disk
        again = writer(found, index=index)
        objects = dict(found.objects)
        with pytest.raises(Permanent) as refused:
            await again.append(numbered(range(20, 21)))
        assert refused.value.reason == "log-shrunk"
        assert "knows 20 entries" in refused.value.message
        assert found.objects == objects
        await again.close()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
async def test_a_file_that_is_no_index_is_made_anew(tmp_path: Path, content: bytes) -> None:
    store, index = FakeStore(), tmp_path / "index.db"
    await filled(store, 20)
    index.write_bytes(content)
    await skips_everything(store, index, 20)


async def test_an_index_damaged_in_use_fails_once_and_is_made_anew(tmp_path: Path) -> None:
    store, path = FakeStore(), tmp_path / "index.db"
    log = writer(store, index=path)
    await log.append(numbered(range(600)))
    await log.close()
    damaged = bytearray(path.read_bytes())
    for start in range(4096, len(damaged), 4096):
        damaged[start : start + 200] = b"\xff" * 200
    path.write_bytes(bytes(damaged))
    log = writer(store, index=path)
    with pytest.raises(Transient, match="index"):
        await log.append(numbered(range(600)))
    assert await log.append(numbered(range(601))) == 601


async def test_an_index_that_cannot_be_opened_is_transient(tmp_path: Path) -> None:
    blocked = tmp_path / "directory"
    blocked.mkdir()
    with pytest.raises(Transient):
        await writer(FakeStore(), index=blocked).append([entry(0)])


def test_the_file_holds_hashes_and_no_ids(tmp_path: Path) -> None:
    index = IdIndex(tmp_path / "index.db")
    index.open()
    index.extend(0, [id_digest("receipt:secret-name")], b"r")
    index.close()
    with sqlite3.connect(tmp_path / "index.db") as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert "secret" not in dump
    assert id_digest("receipt:secret-name").hex().upper() in dump


def test_extending_from_another_size_does_nothing() -> None:
    index = IdIndex(None)
    index.extend(0, [id_digest("a")], b"r1")
    index.extend(0, [id_digest("b")], b"r2")
    assert index.covered() == (1, b"r1")
    assert index.known(["a", "b"]) == {"a"}
    index.close()


async def segmented() -> FakeStore:
    store = FakeStore()
    await filled(store, SEGMENT + 300)
    return store


async def test_a_new_machine_reads_the_saved_segments_instead_of_the_entries() -> None:
    store = await segmented()
    assert "log/ids/000" in store.objects
    assert (await verify(store)).ok
    store.calls.clear()
    log = writer(store)
    await log.open()
    bundles = [key for verb, key in store.verbs() if key.startswith("log/tile/entries/")]
    assert len(set(bundles)) == 2  # those after the segment
    assert await log.append(numbered(range(0, SEGMENT + 300, 97))) == SEGMENT + 300


async def test_a_saved_segment_that_was_altered_is_not_used_and_verify_names_it() -> None:
    store = await segmented()
    body = store.objects["log/ids/000"].index(b"\n") + 1
    for position in (5, 100, body + 97 * DIGEST_BYTES):
        altered = bytearray(store.objects["log/ids/000"])
        altered[position] ^= 1
        broken = await restored({**store.objects, "log/ids/000": bytes(altered)})
        log = writer(broken)
        assert await log.append(numbered(range(0, SEGMENT + 300, 97))) == SEGMENT + 300
        assert [f.place for f in (await verify(broken)).findings] == ["log/ids/000"]


async def test_a_lost_segment_is_saved_again_by_the_next_start() -> None:
    store = await segmented()
    saved = store.objects.pop("log/ids/000")
    await writer(store).open()
    assert store.objects["log/ids/000"] == saved
