"""The Delta table: opened anew for each step, so that nothing is believed of an older look.

Invariant: a commit carries the rows of log entries ``next <= index < end`` and the transaction
version ``end``, is made on the very handle whose transaction version is ``next``, and only as the
version that follows that handle's. delta-rs neither refuses a transaction version that is there
already, nor stays below a foreign append: it would rebase ours on top. So it may not retry, and
whoever loses looks again. Everything here blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    write_deltalake,
)
from deltalake import Schema as DeltaSchema

from consumer.errors import Permanent, Transient
from handlers.table_errors import ANEW, Gone, Moved, ours
from handlers.table_foreign import OURS
from handlers.table_schema import FORMAT, PARTITION, SCHEMA, STATISTICS

HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
RETENTION_H = 7 * 24  # what compaction replaced is kept so long for those who read it
LOG_RETENTION_DAYS = 30  # older versions are forgotten, never rows


@dataclass(frozen=True, slots=True)
class TablePlace:
    """Where the table is, as delta-rs takes it; options may hold credentials."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the table stood when it was looked at: all rows of entries before ``next`` are in it;
    ``rows`` are all that there are, ours or not."""

    table: str  # its id: a table made anew is another
    version: int
    next: int
    rows: int


class Delta:
    """The table of the log ``log``; ``place`` is asked before each opening."""

    def __init__(
        self, place: Callable[[], TablePlace], log: str, *, retention_h: int = RETENTION_H
    ) -> None:
        self._place = place
        self._log = log
        self._retention_h = retention_h

    def look(self) -> Standing | None:
        """None when there is no table. Raises
        ``Transient``, and ``Permanent`` for a table that is not ours, or not as we made it."""
        try:
            table = self.open()
        except Gone:
            return None
        with ours("reading"):
            self._check(table)
            return self.standing(table, table.count())

    def create(self) -> None:
        """Makes the empty table. One that another process has just made is fine."""
        place = self._place()
        try:
            with ours("creating"):
                DeltaTable.create(
                    place.uri,
                    SCHEMA,
                    partition_by=[PARTITION],
                    name="revisions",
                    description="Groundwire: one row for each move of a task's pointer",
                    configuration=self._configuration,
                    storage_options=dict(place.options),
                    commit_properties=properties("create", 0),
                    post_commithook_properties=HOOKS,
                    raise_if_key_not_exists=False,
                )
        except Moved:
            return
        except Gone:
            said = "the table's place cannot be made: look at the folder above it"
            raise Transient("table-store", said) from None

    def append(self, known: Standing, rows: pa.Table, end: int) -> Standing:
        """The rows of entries ``known.next <= index < end``, in one commit.

        Raises `Gone`, and `Moved` when the table is no longer as known, or somebody else was first:
        look again. After any other error, too, the commit may have taken effect.
        """
        total = known.rows + rows.num_rows
        with ours("committing to"):
            table = self.open_as(known)
            write_deltalake(
                table,
                rows,
                mode="append",
                commit_properties=properties("append", total, [Transaction(self.app_id, end)]),
                post_commithook_properties=HOOKS,
            )
            return self.standing(table, total)

    def open(self) -> DeltaTable:
        """Raises `Gone`."""
        place = self._place()
        with ours("opening"):
            return DeltaTable(place.uri, storage_options=dict(place.options))

    def open_as(self, known: Standing) -> DeltaTable:
        """The table as it is known, so that no commit of ours comes to lie above one that nobody
        looked at. Raises `Gone` and `Moved`."""
        table = self.open()
        if self.standing(table, known.rows) != known:
            raise Moved
        return table

    @property
    def app_id(self) -> str:
        return f"groundwire {self._log}"

    @property
    def _configuration(self) -> dict[str, str | None]:
        return {
            "delta.appendOnly": "true",
            "delta.dataSkippingStatsColumns": ",".join(STATISTICS),
            "delta.deletedFileRetentionDuration": f"interval {self._retention_h} hours",
            "delta.logRetentionDuration": f"interval {LOG_RETENTION_DAYS} days",
            "groundwire.log": self._log,
            "groundwire.format": FORMAT,
        }

    def standing(self, table: DeltaTable, rows: int) -> Standing:
        done = table.transaction_version(self.app_id) or 0
        return Standing(str(table.metadata().id), table.version(), done, rows)

    def _check(self, table: DeltaTable) -> None:
        """Raises ``Permanent`` unless it is our table, as we made it."""
        metadata = table.metadata()
        log = metadata.configuration.get("groundwire.log")
        if log is None:
            said = f"at the table's place lies a Delta table that is not ours: {ANEW}"
            raise Permanent("table-not-ours", said)
        if log != self._log:
            said = f"the table is of the log {log}, not of {self._log}: {ANEW}"
            raise Permanent("table-of-another-log", said)
        if metadata.configuration.get("delta.appendOnly") != "true":
            said = "somebody made the table changeable: set its property delta.appendOnly to true"
            raise Permanent("table-not-append-only", said)
        if metadata.partition_columns != [PARTITION] or _shape(table.schema()) != _OUR_SHAPE:
            said = f"somebody changed the table's columns: {ANEW}"
            raise Permanent("table-schema-changed", said)


def properties(
    did: str, rows: int | None, transactions: list[Transaction] | None = None
) -> CommitProperties:
    """Of a commit of ours, which never goes on top of what was not looked at. ``rows`` is how many
    the table has then; None where delta-rs may put it on top of others all the same."""
    mark = {"did": did} if rows is None else {"did": did, "rows": rows}
    return CommitProperties(
        custom_metadata={OURS: mark},
        max_commit_retries=0,
        app_transactions=transactions,
    )


def _shape(schema: DeltaSchema) -> Any:
    """Names, types and nullability, without comments."""
    return _bare(json.loads(schema.to_json()))


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items() if key != "metadata"}
    return [_bare(inner) for inner in value] if isinstance(value, list) else value


_OUR_SHAPE = _shape(DeltaSchema.from_arrow(SCHEMA))
