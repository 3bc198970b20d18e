"""What only the SQLite adapter does."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer.errors import Permanent, Transient
from consumer.model import Action, Failure, LaneSpec, TaskEvent
from consumer.ports import Lease
from consumer.queues.sqlite import SqliteQueue
from consumer.queues.sqlite_file import SqliteFile
from tests.contracts.queue_harness import EXPORT, LANES, SqliteHarness, eventually

FAILURE = Failure(reason="platform-down", message="it is down", at="2026-01-02T03:04:05.000000Z")


@pytest.fixture
def harness(tmp_path: Path) -> SqliteHarness:
    return SqliteHarness(tmp_path)


@pytest.fixture
async def queue(harness: SqliteHarness) -> AsyncIterator[SqliteQueue]:
    queue = harness.queue()
    await queue.open()
    yield queue
    await queue.close()


def event(name: str = "e1") -> TaskEvent:
    return TaskEvent(
        id=name,
        source="redbrick",
        project="p",
        task="t",
        action=Action.MOVE,
        received_at="2026-01-02T03:04:05.000000Z",
        body_sha256="0" * 64,
    )


async def take_one(queue: SqliteQueue, lane: LaneSpec = EXPORT) -> Lease:
    async with asyncio.timeout(20):
        (lease,) = await queue.take(lane)
    return lease


async def test_the_file_is_its_owners_only(harness: SqliteHarness, queue: SqliteQueue) -> None:
    await queue.put([event()])
    folder = harness.path.parent
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}
    assert modes.pop("queue.db-holders") == "0o700"
    assert modes == {"queue.db": "0o600", "queue.db-wal": "0o600", "queue.db-shm": "0o600"}


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "queue.db", "", busy_s=1)
    await file.open()
    journal = await file.read(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0])
    synchronous = await file.read(lambda db: db.execute("PRAGMA synchronous").fetchone()[0])
    assert (journal, synchronous) == ("wal", 2)
    await file.close()


async def test_concurrent_writers_share_a_commit(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "queue.db", "CREATE TABLE t (n INTEGER)", busy_s=1)
    await file.open()
    statements: list[str] = []
    await file.read(lambda db: db.set_trace_callback(statements.append))
    insert = "INSERT INTO t VALUES (1)"
    await asyncio.gather(*(file.write(lambda db: db.execute(insert)) for _ in range(100)))
    assert statements.count(insert) == 100
    assert statements.count("COMMIT") <= 3
    await file.close()


async def test_a_failed_operation_fails_its_whole_transaction(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "queue.db", "CREATE TABLE t (n INTEGER)", busy_s=1)
    await file.open()
    results = await asyncio.gather(
        file.write(lambda db: db.execute("INSERT INTO t VALUES (1)")),
        file.write(lambda db: db.execute("INSERT INTO missing VALUES (1)")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Transient, Transient]
    assert await file.read(lambda db: db.execute("SELECT count(*) FROM t").fetchone()) == (0,)
    await file.close()


async def test_a_full_disk_is_no_success(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "queue.db", "CREATE TABLE t (b BLOB)", busy_s=1)
    await file.open()
    await file.read(lambda db: db.execute("PRAGMA max_page_count = 10").fetchone())
    with pytest.raises(Transient):
        await file.write(lambda db: db.execute("INSERT INTO t VALUES (zeroblob(1000000))"))
    await file.close()


async def test_an_event_put_again_while_it_waits_is_one_row(queue: SqliteQueue) -> None:
    for _ in range(3):
        await queue.put([event()])
    assert (await queue.depth(EXPORT)).ready == 1


async def test_an_event_put_again_while_it_is_leased_is_a_row_of_its_own(
    queue: SqliteQueue,
) -> None:
    await queue.put([event()])
    lease = await take_one(queue)
    await queue.put([event()])
    await queue.put([event()])
    depth = await queue.depth(EXPORT)
    assert (depth.leased, depth.ready) == (1, 1)
    await lease.ack()
    assert (await queue.depth(EXPORT)).ready == 1


async def test_an_event_put_again_waits_as_long_as_it_was_asked_to(queue: SqliteQueue) -> None:
    await queue.put([event()])
    await (await take_one(queue)).retry(3600, FAILURE)
    await queue.put([event()])
    depth = await queue.depth(EXPORT)
    assert (depth.leased, depth.waiting, depth.ready) == (0, 1, 0)


async def test_an_old_lease_does_not_end_the_new_one_of_the_same_process(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    await queue.put([event()])
    old = await take_one(queue)
    await harness.lose_leases()
    new = await take_one(queue)
    await old.ack()
    await new.retry(0, FAILURE)
    assert (await take_one(queue)).attempt == 2


async def test_a_message_whose_acknowledgement_failed_comes_again(harness: SqliteHarness) -> None:
    queue = harness.queue(put_deadline_s=0.2)
    await queue.open()
    await queue.put([event()])
    lease = await take_one(queue)
    await harness.freeze()
    await lease.ack()
    await harness.thaw()
    await harness.lose_leases()
    assert (await take_one(queue)).message == event()
    await queue.close()


async def test_a_busy_file_does_not_stop_the_event_loop(harness: SqliteHarness) -> None:
    queue = harness.queue(put_deadline_s=1.0)
    await queue.open()
    await harness.freeze()
    loop = asyncio.get_running_loop()
    putting = asyncio.create_task(queue.put([event()]))
    longest = 0.0
    while not putting.done():
        before = loop.time()
        await asyncio.wait([putting], timeout=0.01)
        longest = max(longest, loop.time() - before)
    assert longest < 0.5
    with pytest.raises(Transient):
        await putting
    await harness.thaw()
    await queue.close()


async def test_a_put_into_a_file_that_was_replaced_fails(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    harness.path.rename(harness.path.with_name("moved.db"))
    harness.path.touch()
    with pytest.raises(Transient):
        await queue.put([event()])


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(Permanent) as refusal:
        await SqliteQueue(path, LANES).open()
    assert refusal.value.reason == "queue-unusable"
    assert path.read_bytes() == b"not a database" * 100


async def test_a_place_that_is_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(Permanent):
        await SqliteQueue(tmp_path, LANES).open()


async def test_a_hundred_thousand_rows_that_wait_do_not_hide_one_that_is_due(
    harness: SqliteHarness, queue: SqliteQueue
) -> None:
    now = harness.clock().timestamp()
    with contextlib.closing(sqlite3.connect(harness.path)) as db, db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " INSERT INTO messages (lane, id, body, put_at, due_at)"
            " SELECT 'export', 'w' || i, x'00', ?, ? FROM n",
            (now - 1, now + 3600),
        )
    await queue.put([event()])
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert (await take_one(queue)).message.id == "e1"
    assert loop.time() - before < 1

    async def is_counted() -> bool:
        return (await queue.depth(EXPORT)).waiting == 100_000

    await eventually(is_counted)


async def test_a_clock_set_back_holds_up_nothing_that_was_put_before(tmp_path: Path) -> None:
    ahead = timedelta(hours=3)
    queue = SqliteQueue(tmp_path / "q.db", LANES, clock=lambda: datetime.now(UTC) + ahead)
    await queue.open()
    await queue.put([event()])
    ahead = timedelta()
    assert (await queue.depth(EXPORT)).ready == 1
    lease = await take_one(queue)
    await lease.retry(60.0, FAILURE)
    assert (await queue.depth(EXPORT)).waiting == 1  # and its retries wait as they should
    await queue.close()
