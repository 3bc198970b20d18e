"""Garbage: only what nothing names, only when it is old, only when all verifies, logged first."""

from __future__ import annotations

from datetime import timedelta

import pytest

from consumer.errors import Permanent, Transient
from consumer.gc import age, collect, find
from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.model import (
    Change,
    FileRef,
    LakeMove,
    LaneSpec,
    Manifest,
    Outcome,
    Pointer,
    Record,
    canonical,
    digest,
    encode,
)
from consumer.ports import Listed
from tests.fakes_clock import FakeClock
from tests.fakes_queue import FakeQueue
from tests.fakes_store import EPOCH, FakeStore

AUDIT = LaneSpec(name="audit", wants=("record",))
WEEK = timedelta(days=7)
MASK = b"a mask"
STRAY = f"p/tasks/t/files/{digest(MASK)}/A.nii.gz"
MANIFEST = "p/tasks/t/revisions/r1.json"
POINTER = "p/tasks/t/current.json"


async def a_lake() -> FakeStore:
    """With a log, and a mask that nothing names."""
    store = FakeStore()
    signer = Signer.from_seed("log", b"s" * 32)
    log = TileLog(store, signer=signer, origin="log", index_path=None, clock=FakeClock())
    await log.append([{"id": "1", "kind": "started"}])
    await log.close()
    await store.create(STRAY, MASK)
    await store.create("log/stage/left-by-a-crash", b"staged")
    await store.create(f"notes/{digest(b'{}')}.json", b"{}")
    return store


async def a_queue() -> FakeQueue:
    queue = FakeQueue([AUDIT])
    await queue.open()
    return queue


def manifest() -> bytes:
    file = FileRef(path="A.nii.gz", key=STRAY, sha256=digest(MASK), size=len(MASK))
    return canonical(
        Manifest(source="s", project="p", task="t", taxonomy=None, taxonomy_key=None, files=(file,))
    )


def pointer() -> bytes:
    move = LakeMove(
        project_key="p",
        sequence=1,
        change=Change.EXPORTED,
        stage=None,
        old_stage=None,
        revision="r1",
        old_revision=None,
        ground_truth=False,
        was_ground_truth=False,
        ground_truth_label=None,
        ground_truth_reason=None,
        label_version="v",
        recipe="r",
        manifest_key=MANIFEST,
        manifest_sha256=digest(manifest()),
    )
    return encode(
        Pointer(
            source="s",
            project="p",
            task="t",
            name="t",
            sequence=1,
            change=Change.EXPORTED,
            stage=None,
            ground_truth=False,
            was_ground_truth=False,
            ground_truth_label=None,
            ground_truth_reason=None,
            revision="r1",
            manifest=MANIFEST,
            manifest_sha256=digest(manifest()),
            label_version="v",
            labels={},
            recipe="r",
            latest=None,
            history=(),
            workflow=(),
            outcome=Outcome(id="o", source="s", project="p", task="t", move=move),
        )
    )


def listed(*keys: str) -> list[Listed]:
    return [Listed(key=key, size=1, modified=EPOCH) for key in keys]


async def test_what_nothing_names_is_found_once_it_is_old() -> None:
    store = await a_lake()
    later = EPOCH + timedelta(days=8)
    assert [one.key for one in await find(store, older_than=WEEK, now=later)] == [STRAY]
    assert await find(store, older_than=WEEK, now=EPOCH + timedelta(days=6)) == ()


async def test_nothing_is_removed_from_a_lake_that_does_not_verify() -> None:
    store = await a_lake()
    await store.create("p/tasks/t2/current.json", b"no pointer")
    with pytest.raises(Permanent) as caught:
        await find(store, older_than=WEEK, now=EPOCH + timedelta(days=8))
    assert caught.value.reason == "not-verified"


async def test_what_is_removed_is_in_the_log_first() -> None:
    store, queue = await a_lake(), await a_queue()
    done = await collect(store, queue, listed(STRAY), who="ann@desk", clock=FakeClock())
    assert [one.key for one in done.objects] == [STRAY]
    assert await store.read(STRAY) is None
    record = queue.messages("audit")[0]
    assert isinstance(record, Record)
    assert (record.kind, record.fields["who"], record.fields["objects"]) == (
        "collected",
        "ann@desk",
        1,
    )


async def test_nothing_is_removed_when_that_cannot_be_logged() -> None:
    store, queue = await a_lake(), await a_queue()
    queue.failing = Transient("queue-down")
    with pytest.raises(Transient):
        await collect(store, queue, listed(STRAY), who="ann@desk", clock=FakeClock())
    assert await store.read(STRAY) is not None


async def test_what_a_task_names_again_meanwhile_is_put_back() -> None:
    store, queue = await a_lake(), await a_queue()
    await store.create(MANIFEST, manifest())
    await store.swap(POINTER, pointer(), if_match=None)
    done = await collect(store, queue, listed(STRAY, MANIFEST), who="ann", clock=FakeClock())
    assert set(done.kept) == {STRAY, MANIFEST}
    assert done.objects == ()
    assert await store.read(STRAY) is not None
    assert await store.read(MANIFEST) is not None


async def test_what_is_removed_is_never_whole_in_memory() -> None:
    store, queue = await a_lake(), await a_queue()
    store.calls.clear()
    await collect(store, queue, listed(STRAY), who="ann", clock=FakeClock())
    assert [verb for verb, key in store.verbs() if key == STRAY] == ["download", "delete"]


async def test_an_empty_list_is_no_event() -> None:
    queue = await a_queue()
    await collect(FakeStore(), queue, [], who="ann", clock=FakeClock())
    assert queue.puts == []


@pytest.mark.parametrize(
    ("text", "meant"),
    [("1h", timedelta(hours=1)), ("7d", timedelta(days=7)), (" 2w ", timedelta(weeks=2))],
)
def test_an_age_is_written_with_its_unit(text: str, meant: timedelta) -> None:
    assert age(text) == meant


@pytest.mark.parametrize("text", ["", "7", "0d", "-1d", "1m", "1.5d", "999999d"])
def test_anything_else_is_no_age(text: str) -> None:
    with pytest.raises(Permanent):
        age(text)
