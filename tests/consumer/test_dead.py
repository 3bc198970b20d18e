"""Dead letters: found by how their id begins, touched only after who and why is in the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from consumer.dead import Person, Verb, find, letters, settle
from consumer.errors import Permanent, Transient
from consumer.model import Action, DeadLetter, Failure, LaneSpec, Record, TaskEvent, digest
from handlers import layout
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore

EXPORT = LaneSpec(name="export", wants=("event",))
AUDIT = LaneSpec(name="audit", wants=("record",), exclusive=True)
LANES = (EXPORT, AUDIT)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
FAILURE = Failure(reason="mask-truncated", message="12 of 20 bytes came", at="2026-01-02T11:00:00Z")


def event(message_id: str) -> TaskEvent:
    return TaskEvent(
        id=message_id,
        source="lab",
        project="p",
        task=f"task-of-{message_id}",
        action=Action.MOVE,
        received_at="2026-01-01T00:00:00.000000Z",
        body_sha256="0" * 64,
    )


async def a_queue(*ids: str) -> FakeQueue:
    queue = FakeQueue(LANES)
    await queue.open()
    for message_id in ids:
        queue.bury("export", event(message_id), 12, FAILURE)
    return queue


async def done(
    queue: FakeQueue,
    store: FakeStore,
    chosen: list[DeadLetter],
    verb: Verb,
    reason: str = "why not",
    who: str = "ann@desk",
) -> list[DeadLetter]:
    return await settle(
        queue,
        store,
        LANES,
        chosen,
        verb=verb,
        person=Person(who, reason),
        note_key=layout.note_key,
        clock=lambda: NOON,
    )


async def test_a_dead_letter_is_found_by_how_its_id_begins() -> None:
    queue = await a_queue("abc1", "abd2")
    assert [one.message.id for one in await find(queue, LANES, ["abd"])] == ["abd2"]


async def test_a_whole_id_is_found_although_another_begins_with_it() -> None:
    queue = await a_queue("abc", "abcd")
    assert [one.message.id for one in await find(queue, LANES, ["abc"])] == ["abc"]


@pytest.mark.parametrize(("wanted", "reason"), [("ab", "ambiguous"), ("zz", "no-dead-letter")])
async def test_what_fits_several_or_none_is_said(wanted: str, reason: str) -> None:
    queue = await a_queue("abc1", "abd2")
    with pytest.raises(Permanent) as caught:
        await find(queue, LANES, [wanted])
    assert caught.value.reason == reason


async def test_a_replayed_one_is_in_its_lane_again_and_no_longer_dead() -> None:
    queue, store = await a_queue("abc1"), FakeStore()
    settled = await done(queue, store, await letters(queue, LANES), "replayed")
    assert [one.message.id for one in settled] == ["abc1"]
    assert queue.messages("export") == [event("abc1")]
    assert await letters(queue, LANES) == []


async def test_a_dropped_one_is_gone() -> None:
    queue, store = await a_queue("abc1"), FakeStore()
    await done(queue, store, await letters(queue, LANES), "dropped")
    assert queue.messages("export") == []
    assert await letters(queue, LANES) == []


@pytest.mark.parametrize("verb", ["replayed", "dropped"])
async def test_the_log_learns_who_did_it_and_the_hash_of_why(verb: Verb) -> None:
    queue, store = await a_queue("abc1"), FakeStore()
    await done(queue, store, await letters(queue, LANES), verb, "Ms Smith asked for it")
    record = queue.messages("audit")[0]
    assert isinstance(record, Record)
    assert (record.kind, record.fields["who"], record.fields["task"]) == (
        verb,
        "ann@desk",
        "task-of-abc1",
    )
    assert record.fields["reason"] == "mask-truncated"
    assert "Smith" not in repr(record)
    note = await store.read(layout.note_key(record.fields["reason_note"]))
    assert note is not None
    assert json.loads(note.data)["text"] == "Ms Smith asked for it"
    assert digest(note.data) == record.fields["reason_note"]


async def test_equal_reasons_have_different_hashes_so_that_none_can_be_guessed() -> None:
    queue, store = await a_queue("a", "b"), FakeStore()
    for letter in await letters(queue, LANES):
        await done(queue, store, [letter], "dropped", "test data")
    notes = {m.fields["reason_note"] for m in queue.messages("audit") if isinstance(m, Record)}
    assert len(notes) == 2


async def test_nothing_leaves_the_dead_letters_when_the_record_cannot_be_kept() -> None:
    queue, store = await a_queue("abc1"), FakeStore()
    chosen = await letters(queue, LANES)
    queue.failing = Transient("queue-down")
    with pytest.raises(Transient):
        await done(queue, store, chosen, "dropped")
    queue.failing = None
    assert await letters(queue, LANES) == chosen


@pytest.mark.parametrize("reason", ["", "  ", "x" * 2001, "half an emoji \ud83e"])
async def test_a_reason_is_needed_and_has_a_limit(reason: str) -> None:
    queue, store = await a_queue("abc1"), FakeStore()
    with pytest.raises(Permanent):
        await done(queue, store, await letters(queue, LANES), "dropped", reason)
    assert len(await letters(queue, LANES)) == 1


@pytest.mark.parametrize("who", ["", " ", "x" * 201, "x" * 70_000, "ann\n", "a\udcff"])
async def test_who_does_it_must_fit_the_log_before_anything_is_done(who: str) -> None:
    queue, store = await a_queue("abc1"), FakeStore()
    with pytest.raises(Permanent) as caught:
        await done(queue, store, await letters(queue, LANES), "dropped", who=who)
    assert caught.value.reason == "no-name"
    assert queue.messages("audit") == []
    assert len(await letters(queue, LANES)) == 1


async def test_one_that_somebody_else_took_meanwhile_is_not_claimed() -> None:
    queue, store = await a_queue("abc1"), FakeStore()
    chosen = await letters(queue, LANES)
    await queue.drop(EXPORT, "abc1")
    assert await done(queue, store, chosen, "replayed") == []
