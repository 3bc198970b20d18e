"""``groundwire check``: what is wrong, in plain words, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from consumer.check import (
    Checked,
    attempt,
    inbox_check,
    log_check,
    platform_check,
    queue_check,
    store_check,
)
from consumer.errors import Permanent, Transient
from consumer.inbox import INBOX
from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.model import LaneSpec, Missing, Record, TaskKey, TaskSnapshot
from consumer.queues.sqlite import SqliteQueue
from consumer.stores.directory import DirectoryStore
from tests.fakes_clock import FakeClock
from tests.fakes_platform import FakePlatform
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore

LANE = LaneSpec(name="audit", wants=("record",))
MINE, THEIRS = Signer.from_seed("log", b"m" * 32), Signer.from_seed("log", b"t" * 32)


class Answering(FakePlatform):
    """Answers every fetch with one thing: raised, or as each task's own."""

    def __init__(self, answer: Exception | None = None, *, own: Transient | None = None) -> None:
        super().__init__()
        self.answer, self.own = answer, own
        self.projects: list[str] = []

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        self.projects += [key.project for key in tasks]
        if self.answer is not None:
            raise self.answer
        return {
            key: self.own or Missing(source=key.source, project=key.project, task=key.task)
            for key in tasks
        }


async def of_platform(platform: Answering, *projects: str) -> Checked:
    return await platform_check(platform, projects, "https://api.example")


async def test_a_queue_that_takes_messages_is_fine() -> None:
    assert (await queue_check(FakeQueue([LANE]), "somewhere")).ok


async def test_a_queue_that_fails_is_said_with_what_to_do() -> None:
    queue = FakeQueue([LANE], failing=Transient("queue-down", "connection refused"))
    checked = await queue_check(queue, "somewhere")
    assert (checked.ok, checked.said) == (False, "connection refused")
    assert "queue" in checked.advice


async def of_inbox(file: Path) -> Checked:
    return await inbox_check(SqliteQueue(file, [INBOX]), INBOX, file)


async def test_an_inbox_that_holds_messages_is_a_warning_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "inbox.db"
    inbox = SqliteQueue(file, [INBOX])
    await inbox.open()
    await inbox.put([Record(id="1", kind="started"), Record(id="2", kind="started")])
    await inbox.close()
    checked = await of_inbox(file)
    assert (checked.ok, checked.warning) == (True, True)
    assert "holds 2 messages" in checked.said
    assert "receiver" in checked.advice


async def test_an_empty_inbox_and_one_that_is_not_there_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "inbox.db"
    checked = await of_inbox(file)
    assert (checked.ok, checked.warning) == (True, False)
    assert not file.exists()
    inbox = SqliteQueue(file, [INBOX])
    await inbox.open()
    await inbox.close()
    assert (await of_inbox(file)).said == f"{file} is empty"


async def test_an_inbox_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    file = tmp_path / "inbox.db"
    file.write_text("this is no database " * 100)
    assert not (await of_inbox(file)).ok


async def test_a_lake_is_tried_by_writing() -> None:
    async def denied() -> None:
        raise Permanent("store-denied", "access denied to bucket x")

    checked = await store_check(denied, "s3://x")
    assert (checked.what, checked.ok, checked.said) == ("lake", False, "access denied to bucket x")


async def test_a_platform_that_answers_has_a_good_key_and_projects_that_can_be_read() -> None:
    platform = Answering()
    checked = await of_platform(platform, "p1", "p2")
    assert checked.ok
    assert platform.projects == ["p1", "p2"]
    assert "2 project(s) can be read" in checked.said


async def test_a_refused_key_is_said_with_what_to_do() -> None:
    refused = Transient("platform-refused", "401: look at the API key", shared=True)
    checked = await of_platform(Answering(refused), "*")
    assert (checked.ok, checked.said) == (False, "401: look at the API key")
    assert "new API key" in checked.advice


async def test_a_project_that_cannot_be_read_is_named() -> None:
    unknown = Transient("platform-graphql-error", "GraphQL errors")
    assert (await of_platform(Answering(unknown), "p1")).said == "project p1: GraphQL errors"
    assert (await of_platform(Answering(own=unknown), "p1")).said == "project p1: GraphQL errors"


async def test_with_every_project_an_unknown_one_proves_the_key_all_the_same() -> None:
    unknown = Transient("platform-graphql-error", "GraphQL errors")
    assert (await of_platform(Answering(unknown), "*")).ok


async def a_log_of(signer: Signer) -> FakeStore:
    store = FakeStore()
    log = TileLog(store, signer=signer, origin="log", index_path=None, clock=FakeClock())
    await log.append([{"id": "1", "kind": "started"}])
    await log.close()
    return store


async def mine() -> Signer:
    return MINE


async def test_the_logs_own_key_is_fine() -> None:
    assert (await log_check(mine, await a_log_of(MINE))).ok


async def test_another_key_than_the_logs_is_said_before_anything_is_written() -> None:
    checked = await log_check(mine, await a_log_of(THEIRS))
    assert not checked.ok
    assert THEIRS.verifier.vkey in checked.said
    assert "a log has one key" in checked.advice


async def test_an_empty_lake_is_fine() -> None:
    async def none() -> None:
        return None

    assert (await log_check(mine, FakeStore())).ok
    assert (await log_check(none, FakeStore())).ok


async def test_a_lake_without_the_log_that_this_machine_knows_is_not_the_lake(
    tmp_path: Path,
) -> None:
    index = tmp_path / "index.db"
    log = TileLog(FakeStore(), signer=MINE, origin="log", index_path=index, clock=FakeClock())
    await log.append([{"id": "1", "kind": "started"}])
    await log.close()
    checked = await log_check(mine, FakeStore(), index)
    assert not checked.ok
    assert "knows 1 entries" in checked.said
    assert "Mount" in checked.advice


async def test_a_log_in_a_lake_that_fails_is_the_lakes_fault() -> None:
    async def denied() -> Signer:
        raise Transient("store-denied", "bucket x denies GetObject")

    checked = await log_check(denied, FakeStore())
    assert not checked.ok
    assert "`lake`" in checked.advice


async def test_a_first_start_has_no_index_and_is_fine(tmp_path: Path) -> None:
    index = tmp_path / "index.db"
    assert (await log_check(mine, FakeStore(), index)).ok
    assert not index.exists()


async def test_checking_a_lake_that_is_not_there_makes_none(tmp_path: Path) -> None:
    """Else who looks why a disk is gone would let a running process write where it should be."""
    store = DirectoryStore(tmp_path / "lake")
    checked = await store_check(store.check, "lake")
    store.close()
    assert checked.ok
    assert "mount its disk" in checked.said
    assert not (tmp_path / "lake").exists()


async def test_what_nobody_foresaw_is_a_failed_check_and_no_crash() -> None:
    async def crash() -> str:
        raise ZeroDivisionError("secret detail")

    checked = await attempt("x", crash, "do that")
    assert (checked.ok, checked.said) == (False, "unexpected ZeroDivisionError")
