"""The follower ``table``: the Delta table ``tables/revisions``, a row for each move of a pointer.

It is its own cursor: which entries are in it is the Delta transaction version of the handle that
commits (see `table_delta`), so whatever is repeated, each entry is in it once. Rows are gathered
and committed together, since each commit costs a file for each project.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from consumer.errors import Conflict, Permanent, Transient
from consumer.model import Manifest, Record, timestamp
from consumer.ports import Batch, Cursor, FollowPorts, LogEntry, Step
from handlers.table_compact import MANY, compact
from handlers.table_delta import RETENTION_H, Delta, Standing, TablePlace
from handlers.table_errors import Gone, Moved
from handlers.table_foreign import Foreign, since_ours
from handlers.table_manifests import Manifests
from handlers.table_rows import Row, move_of, row_of, table_of
from handlers.table_schema import TABLE
from handlers.table_upkeep import EVERY, checkpoint, is_due, vacuum

__all__ = ["Table", "TablePlace", "Tuning"]

TRIES = 5  # of a commit that others get ahead of
TOGETHER = 16  # manifests that are read at once
VACUUM_EVERY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Tuning:
    """When rows are committed, and how the table is kept up; counts, but where a unit is named."""

    rows: int = 1000  # in a commit, while more are to come
    cells: int = 10_000  # files and labels in a commit, whose making holds up other threads
    commit_every_s: float = 1.0  # at most so often once all there is is in
    upkeep_every: int = EVERY  # versions
    many: int = MANY  # small files of a partition, before they are joined
    retention_h: int = RETENTION_H


class Table:
    """Implements ``Follower``. ``place`` is asked in a thread, before each opening; ``run`` takes
    each step upon the table there. It lies in the ports' store."""

    name = "table"
    kinds = frozenset({"lake"})

    def __init__(
        self,
        ports: FollowPorts,
        place: Callable[[], TablePlace],
        tuning: Tuning | None = None,
        run: Callable[..., Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        self._ports = ports
        self._place = place
        self._tuning = tuning or Tuning()
        self._run = run
        self._manifests = Manifests(ports.store)
        self._begin("", None)

    def _begin(self, log: str, known: Standing | None) -> None:
        self._log = log
        self._delta = Delta(self._place, log, retention_h=self._tuning.retention_h)
        self._known = known
        self._upkept = known.version if known else 0
        self._pending: list[LogEntry] = []
        self._end = known.next if known else 0
        self._committed_at: datetime | None = None
        self._vacuumed_at: datetime | None = None

    async def start(self, cursor: Cursor) -> Cursor:
        """Where the table ends, whatever the cursor says; 0 when there is none."""
        log = await self._ports.log.identity()
        if not log:
            raise Transient("log-empty", "the log has no entry yet")
        self._begin(log, None)
        known = await self._look()
        size = await self._ports.log.size()
        if known and known.next > size:
            said = f"the table holds entries up to {known.next}, and the log has only {size}"
            raise Permanent("table-ahead", f"{said}: was the lake restored from a copy?")
        self._begin(log, known)
        self._vacuumed_at = _moment(cursor.state.get("vacuumed_at"))
        return Cursor(self._end, self._state)

    async def follow(self, batch: Batch) -> Step:
        self._pending += batch.entries
        self._end = batch.end
        while self._is_due(caught_up=batch.caught_up):
            await self._commit()
            await self._keep_up()
        if not self._pending:
            return Step(Cursor(self._end, self._state))
        done = self._known.next if self._known else 0
        wake_s = self._wait_s() if batch.caught_up else 0.0
        return Step(Cursor(done, self._state), wake_s)

    def _is_due(self, *, caught_up: bool) -> bool:
        if len(self._pending) >= self._tuning.rows:
            return True
        return bool(self._pending) and caught_up and self._wait_s() <= 0

    def _wait_s(self) -> float:
        """Until rows that are all there is may be committed."""
        if self._committed_at is None:
            return 0.0
        gone_s = (self._ports.clock() - self._committed_at).total_seconds()
        left_s = self._tuning.commit_every_s - gone_s
        return left_s if gone_s >= 0 else 0.0

    async def _commit(self) -> None:
        """The first of the pending entries. Raises ``Conflict`` when another follower was first."""
        rows = await self._rows()
        taken = len(rows)
        end = self._pending[taken].index if taken < len(self._pending) else self._end
        data = await self._run(table_of, rows)
        known = self._known or await self._create()
        self._known = await self._append(known, data, end)
        self._committed_at = self._ports.clock()
        del self._pending[:taken]

    async def _append(self, known: Standing, data: pa.Table, end: int) -> Standing:
        begin = self._known.next if self._known else 0
        for _ in range(TRIES):
            if known.next == end:  # another follower, or we, whose answer was lost
                return known
            if known.next != begin:
                raise Conflict(TABLE)
            try:
                appended: Standing = await self._run(self._delta.append, known, data, end)
                return appended
            except (Gone, Moved):
                seen = await self._look()
            if seen is None:
                said = "the table was removed while it was followed; it is built anew"
                raise Transient("table-removed", said)
            known = seen
        raise Transient("table-busy", "others kept committing to the table")

    async def _create(self) -> Standing:
        await self._run(self._delta.create)
        seen = await self._look()
        if seen is None:
            raise Transient("table-removed", "the table was removed as soon as it was made")
        return seen

    async def _rows(self) -> list[Row]:
        """Of as many pending entries as go into one commit. What cannot be read ends them; when it
        is the first, its error is raised."""
        rows: list[Row] = []
        cells = 0
        for at in range(0, min(len(self._pending), self._tuning.rows), TOGETHER):
            some = self._pending[at : min(at + TOGETHER, self._tuning.rows)]
            for made in await asyncio.gather(*map(self._row, some), return_exceptions=True):
                if isinstance(made, BaseException):
                    if rows and isinstance(made, Permanent):
                        return rows
                    raise made
                cells += len(made["files"] or ()) + len(made["labels"] or ())
                if rows and cells > self._tuning.cells:
                    return rows
                rows.append(made)
        return rows

    async def _row(self, entry: LogEntry) -> Row:
        move = move_of(entry, self._log)
        key, sha256 = move.move.manifest_key, move.move.manifest_sha256
        manifest: Manifest | None = None
        if key is not None and sha256 is not None:
            manifest = await self._manifests.read(key, sha256)
        return row_of(move, manifest)

    async def _look(self) -> Standing | None:
        """How the table stands; what others did is said. None when there is none."""
        seen: Standing | None = await self._run(self._delta.look)
        if seen is None:
            return None
        others = await since_ours(self._ports.store, seen.table, seen.version, self._delta.app_id)
        others.check(seen.rows)
        if others.foreign is not None:
            await self._say(others.foreign)
        return seen

    async def _say(self, foreign: Foreign) -> None:
        """Before a commit of ours lies above theirs, where nobody looks again; the id is the same
        however often they are seen."""
        await self._record(
            f"table:{foreign.table}:{foreign.first}",
            versions=[foreign.first, foreign.last],
            operations=list(foreign.operations),
        )

    async def _record(self, name: str, **fields: Any) -> None:
        fields = {"follower": self.name, "place": TABLE, **fields}
        await self._ports.queue.put([Record(id=name, kind="foreign", fields=fields)])

    async def _keep_up(self) -> None:
        """Compaction, checkpoint and, once a day, vacuum, when enough was committed."""
        known = self._known
        if known is None or not is_due(self._upkept, known.version, self._tuning.upkeep_every):
            return
        self._upkept = known.version
        many = self._tuning.many
        await compact(self._delta, known, self._ports.store, self._run, many=many)
        known = await self._see_upkeep(known)
        await self._run(checkpoint, self._delta, known)
        now = self._ports.clock()
        self._vacuumed_at = self._vacuumed_at or now
        if now - self._vacuumed_at >= VACUUM_EVERY:
            if not await self._run(vacuum, self._delta, known):
                await self._record(f"table-files:{known.table}", operations=["FILES"])
            self._vacuumed_at = now
            await self._see_upkeep(known)

    async def _see_upkeep(self, known: Standing) -> Standing:
        """Takes the versions that upkeep made as known; what else there is, the next commit meets
        and says."""
        seen = await self._look()
        if seen is None or seen.next != known.next:
            return known
        self._known = seen
        self._upkept = max(self._upkept, seen.version)
        return seen

    @property
    def _state(self) -> Mapping[str, Any]:
        return {"vacuumed_at": timestamp(self._vacuumed_at)} if self._vacuumed_at else {}


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found and found.tzinfo else None
