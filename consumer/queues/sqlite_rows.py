"""The lanes as rows: every statement of the SQLite queue, run inside somebody else's transaction.

A row is leased while ``leased_until`` lies ahead, to whoever holds its ``token``, which begins with
the holder's name; a lapsed lease is no lease. Times are seconds since the epoch, as the caller's
clock tells them; a row that was put in the future shows that the clock was set back, and is due at
once. Rows keep their ``seq`` for life, so what is given back stands where it stood.

``losses`` counts, since a row's last verb, the leases that ended with their process. A row that was
lost `ALONE_AFTER` times is leased in a batch of its own, one at a time by each holder, and from
there on only a death that the kernel told (`lapse`) counts: a lease whose time ran out may be that
of a process which was stopped, or of a file without locks, so it makes a row suspect, no more.
Leases that are given back count nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from consumer.model import DeadLetter, Failure, decode, encode
from consumer.ports import ALONE_AFTER, LaneDepth
from consumer.queues.body import shown

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    lane TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    put_at REAL NOT NULL,
    due_at REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1,
    failure BLOB,
    token TEXT,
    leased_until REAL NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS messages_by_lane ON messages (lane, seq);
CREATE INDEX IF NOT EXISTS messages_by_id ON messages (lane, id);
CREATE TABLE IF NOT EXISTS dead (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    lane TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    attempts INTEGER NOT NULL,
    failure BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS dead_by_id ON dead (lane, id);
CREATE TABLE IF NOT EXISTS holders (
    lane TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until REAL NOT NULL
) STRICT;
"""

Connection = sqlite3.Connection


@dataclass(frozen=True, slots=True)
class Row:
    """A leased row."""

    seq: int
    token: str
    body: bytes
    attempt: int
    failure: Failure | None
    losses: int = 0

    @property
    def alone(self) -> bool:
        return self.losses >= ALONE_AFTER


def complete(db: Connection) -> None:
    """Adds what files of earlier releases do not have."""
    columns = {name for _, name, *_ in db.execute("PRAGMA table_info(messages)")}
    if "losses" not in columns:
        db.execute("ALTER TABLE messages ADD COLUMN losses INTEGER NOT NULL DEFAULT 0")


def insert(db: Connection, lane: str, message_id: str, body: bytes, now: float) -> None:
    """Merges into a row of the same id that nobody has leased, which keeps its time: whoever asked
    it to wait is not asked earlier. What is leased may have been read already, so it gets a row
    beside it."""
    waiting = db.execute(
        "SELECT 1 FROM messages WHERE lane = ? AND id = ? AND leased_until <= ? LIMIT 1",
        (lane, message_id, now),
    )
    if waiting.fetchone() is None:
        db.execute(
            "INSERT INTO messages (lane, id, body, put_at, due_at) VALUES (?, ?, ?, ?, ?)",
            (lane, message_id, body, now, now),
        )


def due(db: Connection, lane: str, limit: int, now: float) -> int:
    """How many rows can be leased, counted up to ``limit``."""
    query = (
        "SELECT count(*) FROM (SELECT 1 FROM messages"
        " WHERE lane = ? AND (due_at <= ? OR put_at > ?) AND leased_until <= ? LIMIT ?)"
    )
    return int(db.execute(query, (lane, now, now, now, limit)).fetchone()[0])


def lease(
    db: Connection,
    lane: str,
    limit: int,
    *,
    token: str,
    now: float,
    until: float,
    most_losses: int | None = None,
) -> list[Row]:
    """Leases the oldest rows that are due and were not lost more often than that. A token that is
    still there is of a lease whose time ran out: that was lost, too."""
    found = db.execute(
        "SELECT seq, body, attempt, failure, losses + (token IS NOT NULL AND losses < :alone) AS l"
        " FROM messages WHERE lane = :lane AND (due_at <= :now OR put_at > :now)"
        " AND leased_until <= :now"
        " AND (:most IS NULL OR l <= :most) ORDER BY seq LIMIT :limit",
        {"lane": lane, "now": now, "limit": limit, "most": most_losses, "alone": ALONE_AFTER},
    ).fetchall()
    rows = [
        Row(seq, token, body, attempt, _failure(data), losses)
        for seq, body, attempt, data, losses in found
    ]
    db.executemany(
        "UPDATE messages SET token = ?, leased_until = ?, losses = ? WHERE seq = ?",
        [(token, until, row.losses, row.seq) for row in rows],
    )
    return rows


def next_losses(db: Connection, lane: str, now: float) -> int:
    """How often the oldest row that is due was lost."""
    found = db.execute(
        "SELECT losses + (token IS NOT NULL AND losses < ?) FROM messages"
        " WHERE lane = ? AND (due_at <= ? OR put_at > ?) AND leased_until <= ?"
        " ORDER BY seq LIMIT 1",
        (ALONE_AFTER, lane, now, now, now),
    ).fetchone()
    return int(found[0]) if found else 0


def is_leased(db: Connection, row: Row, now: float) -> bool:
    found = db.execute(
        "SELECT 1 FROM messages WHERE seq = ? AND token = ? AND leased_until > ?",
        (row.seq, row.token, now),
    )
    return found.fetchone() is not None


def hold(db: Connection, lane: str, *, holder: str, now: float, until: float) -> bool:
    """Becomes, or stays, the one consumer of an exclusive lane; False while another is."""
    taken = db.execute(
        "INSERT INTO holders (lane, holder, until) VALUES (:lane, :holder, :until)"
        " ON CONFLICT (lane) DO UPDATE SET holder = :holder, until = :until"
        " WHERE holder = :holder OR until <= :now",
        {"lane": lane, "holder": holder, "until": until, "now": now},
    )
    return taken.rowcount == 1


def renew(db: Connection, rows: Iterable[Row], *, holder: str, until: float) -> None:
    db.executemany(
        "UPDATE messages SET leased_until = ? WHERE seq = ? AND token = ?",
        [(until, row.seq, row.token) for row in rows],
    )
    db.execute("UPDATE holders SET until = ? WHERE holder = ?", (until, holder))


def give_back(db: Connection, rows: Iterable[Row]) -> None:
    db.executemany(
        "UPDATE messages SET token = NULL, leased_until = 0 WHERE seq = ? AND token = ?",
        [(row.seq, row.token) for row in rows],
    )


def leave(db: Connection, holder: str) -> None:
    db.execute("DELETE FROM holders WHERE holder = ?", (holder,))


def lapse(db: Connection, holder: str) -> None:
    """Ends everything that a dead holder had leased, and its place in exclusive lanes."""
    db.execute(
        "UPDATE messages SET token = NULL, leased_until = 0, losses = losses + 1"
        " WHERE token GLOB ?",
        (f"{holder}-*",),
    )
    leave(db, holder)


def remove(db: Connection, row: Row, now: float) -> None:
    db.execute(
        "DELETE FROM messages WHERE seq = ? AND token = ? AND leased_until > ?",
        (row.seq, row.token, now),
    )


def postpone(
    db: Connection, row: Row, *, now: float, after_s: float, failure: Failure, counted: bool
) -> None:
    db.execute(
        "UPDATE messages SET token = NULL, leased_until = 0, losses = 0,"
        " attempt = attempt + ?, put_at = min(put_at, ?), due_at = ?, failure = ?"
        " WHERE seq = ? AND token = ? AND leased_until > ?",
        (int(counted), now, now + after_s, encode(failure), row.seq, row.token, now),
    )


def bury(db: Connection, row: Row, *, now: float, failure: Failure) -> None:
    db.execute(
        "INSERT INTO dead (lane, id, body, attempts, failure)"
        " SELECT lane, ?, body, attempt, ? FROM messages"
        " WHERE seq = ? AND token = ? AND leased_until > ?",
        (shown(row.body).id, encode(failure), row.seq, row.token, now),
    )
    remove(db, row, now)


def dead(db: Connection, lane: str, limit: int) -> list[DeadLetter]:
    found = db.execute(
        "SELECT body, attempts, failure FROM dead WHERE lane = ? ORDER BY seq LIMIT ?",
        (lane, limit),
    )
    return [_letter(lane, *row) for row in found]


def exhume(
    db: Connection, lane: str, message_id: str, *, replay_at: float | None
) -> DeadLetter | None:
    """Takes the oldest dead letter of this id out, and back into its lane if a time is given."""
    found = db.execute(
        "SELECT seq, body, attempts, failure FROM dead WHERE lane = ? AND id = ?"
        " ORDER BY seq LIMIT 1",
        (lane, message_id),
    ).fetchone()
    if found is None:
        return None
    seq, body, attempts, failure = found
    if replay_at is not None:
        insert(db, lane, message_id, body, replay_at)
    db.execute("DELETE FROM dead WHERE seq = ?", (seq,))
    return _letter(lane, body, attempts, failure)


def depth(db: Connection, lane: str, now: float) -> LaneDepth:
    ready, leased, waiting, oldest = db.execute(
        "SELECT coalesce(sum(leased_until <= :now AND (due_at <= :now OR put_at > :now)), 0),"
        " coalesce(sum(leased_until > :now), 0),"
        " coalesce(sum(leased_until <= :now AND due_at > :now AND put_at <= :now), 0), min(put_at)"
        " FROM messages WHERE lane = :lane",
        {"now": now, "lane": lane},
    ).fetchone()
    buried = db.execute("SELECT count(*) FROM dead WHERE lane = ?", (lane,)).fetchone()[0]
    oldest_s = max(0.0, now - oldest) if oldest is not None else 0.0
    return LaneDepth(ready=ready, leased=leased, waiting=waiting, dead=buried, oldest_s=oldest_s)


def _failure(data: bytes | None) -> Failure | None:
    return decode(data, Failure) if data is not None else None


def _letter(lane: str, body: bytes, attempts: int, failure: bytes) -> DeadLetter:
    return DeadLetter(
        lane=lane, message=shown(body), attempts=attempts, failure=decode(failure, Failure)
    )
