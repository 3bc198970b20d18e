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
from functools import partial
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
from deltalake.fs import DeltaStorageHandler

from consumer.errors import Permanent, Transient
from handlers.table_errors import ANEW, Gone, Moved, ours
from handlers.table_foreign import MAX_COMMIT_BYTES, OURS, Foreign, since_ours
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
    """How the table stood when it was looked at: all rows of entries before ``next`` are in it,
    ``rows`` of them."""

    table: str  # its id: a table made anew is another
    version: int
    next: int
    rows: int


@dataclass(frozen=True, slots=True)
class Looked:
    """``foreign``: what others committed since our last commit, None when nothing."""

    standing: Standing
    foreign: Foreign | None


class Delta:
    """The table of the log ``log``; ``place`` is asked before each opening."""

    def __init__(
        self, place: Callable[[], TablePlace], log: str, *, retention_h: int = RETENTION_H
    ) -> None:
        self._place = place
        self._log = log
        self._retention_h = retention_h

    def look(self) -> Looked | None:
        """None when there is no table. Raises ``Transient``, and ``Permanent`` for a table that is
        not ours, not whole, or not as we made it."""
        place = self._place()
        try:
            table = _open(place)
        except Gone:
            return None
        with ours("reading"):
            self._check(table)
            foreign, rows = since_ours(table, partial(_read_commit, place), self.app_id)
            there = table.count()
        if rows is not None and there < rows:
            said = f"the table has {there} rows and had {rows} of ours: rows were taken out"
            raise Permanent("table-rows-missing", f"{said}; {ANEW}")
        return Looked(self.standing(table, there if rows is None else rows), foreign)

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
                    commit_properties=properties(rows=0),
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

        Raises `Moved` when the table is no longer as known, or somebody else was first: look
        again. After any other error, too, the commit may have taken effect.
        """
        try:
            table = self.open()
        except Gone:
            raise Moved from None
        total = known.rows + rows.num_rows
        with ours("committing to"):
            if self.standing(table, known.rows) != known:
                raise Moved
            write_deltalake(
                table,
                rows,
                mode="append",
                commit_properties=properties(
                    rows=total, transactions=[Transaction(self.app_id, end)]
                ),
                post_commithook_properties=HOOKS,
            )
            return self.standing(table, total)

    def open(self) -> DeltaTable:
        """Raises `Gone`."""
        return _open(self._place())

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


def _open(place: TablePlace) -> DeltaTable:
    with ours("opening"):
        return DeltaTable(place.uri, storage_options=dict(place.options))


def _read_commit(place: TablePlace, version: int) -> bytes | None:
    files = DeltaStorageHandler(place.uri, dict(place.options))
    try:
        with files.open_input_stream(f"_delta_log/{version:020d}.json") as stream:
            data: bytes = stream.read(MAX_COMMIT_BYTES + 1)
            return data
    except FileNotFoundError:
        return None


def properties(*, rows: int, transactions: list[Transaction] | None = None) -> CommitProperties:
    """Of a commit of ours, which never goes on top of what was not looked at."""
    return CommitProperties(
        custom_metadata={OURS: {"rows": rows}},
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
