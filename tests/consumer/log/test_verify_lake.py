"""Verification holds the lake against the log: manifests, files, pointers, and what is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from consumer.log.check_lake import IN_MEMORY_BYTES
from consumer.log.verify import verify
from consumer.model import Change, canonical, digest
from consumer.stores.directory import DirectoryStore
from tests.consumer.log.lakes import Lake, sealed
from tests.consumer.log.logs import SIGNER
from tests.fakes_store import FakeStore

VKEY = SIGNER.verifier.vkey


async def small_lake() -> Lake:
    lake = Lake()
    await lake.export("one", b"mask of one")
    await lake.export("two", b"mask of two")
    await lake.export("one", b"better mask of one")
    return lake


async def places(store: FakeStore, **options: Any) -> list[str]:
    return [finding.place for finding in (await verify(store, vkey=VKEY, **options)).findings]


async def test_a_lake_as_the_log_says_is_ok_and_counted() -> None:
    found = await verify((await small_lake()).store, vkey=VKEY)
    assert found.ok, found.findings
    assert found.unreferenced == ()
    counts = found.counts
    assert (counts.tasks, counts.revisions, counts.files) == (2, 3, 3)


async def test_every_flipped_byte_of_the_lake_is_found_and_named() -> None:
    lake = Lake()
    await lake.export("one", b"mask of one")
    store = lake.store
    for key in sorted(store.objects):
        if key.startswith("log/"):
            continue
        data = store.objects[key]
        for position in range(len(data)):
            store.objects[key] = (
                data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
            )
            assert key in await places(store), f"{key} byte {position}"
        store.objects[key] = data


async def test_every_missing_object_of_the_lake_is_found() -> None:
    store = (await small_lake()).store
    for key in sorted(key for key in store.objects if not key.startswith("log/")):
        data = store.objects.pop(key)
        found = await verify(store, vkey=VKEY)
        assert not found.ok, key
        if not key.endswith("current.json"):
            assert key in [finding.place for finding in found.findings]
        store.objects[key] = data


async def test_a_missing_pointer_names_its_task_and_newest_entry() -> None:
    store = (await small_lake()).store
    del store.objects["p/tasks/one/current.json"]
    (finding,) = (await verify(store, vkey=VKEY)).findings
    assert (finding.place, finding.entry) == ("p/tasks/", 2)
    assert "task one of s" in finding.problem


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 7},
        {"stage": "Label"},
        {"ground_truth": False},
        {"change": Change.MOVED},
        {"revision": "0"},
        {"manifest": None},
        {"label_version": "9"},
        {"recipe": "9"},
        {"task": "three"},
    ],
)
async def test_a_pointer_that_was_altered_is_found(change: dict[str, Any]) -> None:
    lake = await small_lake()
    pointer = msgspec.structs.replace(lake.pointers["one"], **change)
    lake.store.objects["p/tasks/one/current.json"] = canonical(sealed(pointer))
    assert "p/tasks/one/current.json" in await places(lake.store)


async def test_a_pointer_altered_in_itself_and_its_outcome_contradicts_the_log() -> None:
    lake = await small_lake()
    pointer = lake.pointers["one"]
    move = msgspec.structs.replace(pointer.outcome.move, stage="Label")
    outcome = msgspec.structs.replace(pointer.outcome, move=move)
    forged = msgspec.structs.replace(pointer, stage="Label", outcome=outcome)
    lake.store.objects["p/tasks/one/current.json"] = canonical(sealed(forged))
    (finding,) = (await verify(lake.store, vkey=VKEY)).findings
    assert finding.problem == "entry 2 of the log differs in stage, pointer_sha256"


async def test_a_pointer_that_was_put_back_is_found() -> None:
    lake = await small_lake()
    key = "p/tasks/two/current.json"
    before = lake.store.objects[key]
    await lake.export("two", b"another")
    lake.store.objects[key] = before
    (finding,) = (await verify(lake.store, vkey=VKEY)).findings
    assert finding.place == key
    assert "at move 1, entry 3 of the log at 2" in finding.problem


async def test_a_pointer_ahead_of_the_log_is_a_note_and_its_files_are_checked() -> None:
    lake = await small_lake()
    await lake.export("two", b"not logged yet", logged=False)
    found = await verify(lake.store, vkey=VKEY)
    assert found.ok, found.findings
    assert found.unreferenced == ()
    assert len(found.notes) == 1
    assert "move 2 is not in the log yet" in found.notes[0]
    assert found.ahead == 1


async def test_what_the_log_does_not_cover_yet_is_not_said_to_fit() -> None:
    lake = await small_lake()
    await lake.export("two", b"not logged yet", logged=False)
    said = (await verify(lake.store, vkey=VKEY)).summary
    assert "1 pointer(s) ahead of the log" in said
    assert "Everything fits" not in said


async def test_what_nothing_names_is_listed_and_no_error() -> None:
    store = (await small_lake()).store
    strays = ["p/tasks/one/files/00/B.nii.gz", "p/tasks/one/revisions/00.json"]
    for key in strays:
        await store.create(key, b"x")
    await store.create("p/tasks.json", b"the mirror's")
    await store.create("p/segmentations/study/A.nii.gz", b"the mirror's")
    found = await verify(store, vkey=VKEY)
    assert found.ok, found.findings
    assert list(found.unreferenced) == strays


async def test_an_erased_note_is_fine_and_an_altered_one_is_found() -> None:
    lake = await small_lake()
    name = "notes/" + "0" * 64 + ".json"
    await lake.store.create(name, b"{}")
    assert await places(lake.store) == [name]
    del lake.store.objects[name]
    assert (await verify(lake.store, vkey=VKEY)).ok


async def test_an_erased_file_is_a_note_when_the_log_says_so() -> None:
    lake = await small_lake()
    key = next(key for key in lake.store.objects if key.startswith("p/tasks/two/files/"))
    del lake.store.objects[key]
    assert await places(lake.store) == [key]
    await lake.log.append([{"id": "erased:1", "kind": "erased", "key": key}])
    found = await verify(lake.store, vkey=VKEY)
    assert found.ok
    assert found.notes == (f"{key} was erased, as the log says",)


async def test_the_lake_can_be_left_out() -> None:
    lake = await small_lake()
    key = next(key for key in lake.store.objects if key.startswith("p/tasks/two/files/"))
    lake.store.objects[key] = b"other"
    assert await places(lake.store) == [key]
    assert await places(lake.store, lake=False) == []


async def test_a_large_file_is_hashed_without_being_whole_in_memory() -> None:
    lake = Lake()
    image = bytes(IN_MEMORY_BYTES + 1)
    pointer = await lake.export("one", image)
    key = f"p/tasks/{pointer.task}/files/{digest(image)}/A.nii.gz"
    lake.store.calls.clear()
    found = await verify(lake.store, vkey=VKEY)
    assert found.ok, found.findings
    assert found.counts.size_bytes > len(image)
    assert [verb for verb, asked in lake.store.verbs() if asked == key] == ["download"]
    for spoiled in (b"\1" + image[1:], image + b"\0"):
        lake.store.objects[key] = spoiled
        assert await places(lake.store) == [key]


UNSAFE = ["../../outside", "p//x", "/outside", "p/" + "x" * 300, "p/\x1b[2J"]


@pytest.mark.parametrize("key", UNSAFE)
async def test_a_name_that_no_store_reads_is_a_finding_and_hides_no_other(
    key: str, tmp_path: Path
) -> None:
    lake = Lake(cast(FakeStore, DirectoryStore(tmp_path)))
    pointer = await lake.export("one", b"mask of one")
    move = {"source": "s", "project": "p", "task": "two", "sequence": 1, "manifest_sha256": "0"}
    await lake.log.append(
        [
            {**move, "id": "bad", "kind": "lake", "manifest_key": key},
            {"id": "worse", "kind": "snapshot", "key": f"snapshots/{key}", "sha256": "0"},
        ]
    )
    (tmp_path / f"{pointer.manifest}").write_bytes(b"forged")
    found = await verify(lake.store, vkey=VKEY)
    told = {finding.place for finding in found.findings}
    assert told >= {key, f"snapshots/{key}", pointer.manifest}


NONSENSE = {
    "deep": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge": b'{"sequence": ' + b"9" * 5000 + b"}",
    "text": b"\xff\xfe",
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_whatever_an_enemy_puts_in_a_pointers_place_is_a_finding(name: str) -> None:
    lake = await small_lake()
    lake.store.objects["p/tasks/one/current.json"] = NONSENSE[name]
    assert "p/tasks/one/current.json" in await places(lake.store)


@pytest.mark.parametrize("sequence", ["x", [1], None, {"a": 1}, 1e308])
async def test_a_move_without_a_number_is_a_finding(sequence: object) -> None:
    lake = await small_lake()
    move = {"source": "s", "project": "p", "task": "one", "sequence": sequence}
    await lake.log.append([{**move, "id": "bad", "kind": "lake"}])
    assert "p/tasks/one/current.json" in await places(lake.store)
