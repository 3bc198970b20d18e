"""Upkeep of the table: small files become larger ones, checkpoints make it quick to open, and what
compaction replaced is removed a week later.

All of it is commits and files of Delta's own: wherever it is killed, the table is whole, and the
next turn does what is left. It never runs beside a commit of this process.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress

from deltalake import DeltaTable

from handlers.table_delta import HOOKS, Delta, Standing, properties
from handlers.table_errors import Gone, Moved, ours
from handlers.table_schema import PARTITION

EVERY = 20  # versions between two turns
SMALL_BYTES = 16 << 20  # files below it are joined, up to it
MANY = 24  # small files in a partition
AT_ONCE = 8  # partitions that are compacted in one turn, those with the most files first

_OURS = re.compile(rf"{PARTITION}=[^/]+/[^/]+\.parquet")


def is_due(before: int, version: int, every: int = EVERY) -> bool:
    """Whether a turn's version lies after ``before`` and up to ``version``."""
    return version // every > before // every


def compact(delta: Delta, standing: Standing, *, many: int = MANY) -> None:
    """Joins the small files of partitions that have too many. Somebody else's commit at the same
    time only puts it off. Raises ``Transient`` and ``Permanent``, as all here does."""
    with suppress(Gone, Moved), ours("compacting"):
        table = _as_known(delta, standing)
        partitions = _crowded(table, many)
        if partitions:
            table.optimize.compact(
                partition_filters=[(PARTITION, "in", partitions)],
                target_size=SMALL_BYTES,
                commit_properties=properties(rows=standing.rows),
                post_commithook_properties=HOOKS,
            )


def checkpoint(delta: Delta, standing: Standing) -> None:
    """Makes the table as it stands quick to open; no commit."""
    with suppress(Gone, Moved), ours("tidying"):
        _as_known(delta, standing).create_checkpoint()


def vacuum(delta: Delta, standing: Standing) -> bool:
    """Removes what no version within the retention needs, and forgets what is older in Delta's own
    log; False when files lie there that are not of the table: then nothing is removed."""
    with suppress(Gone, Moved), ours("tidying"):
        table = _as_known(delta, standing)
        files = table.vacuum(dry_run=True, full=True)
        if not all(_OURS.fullmatch(file) for file in files):
            return False
        if files:
            table.vacuum(
                dry_run=False,
                full=True,
                commit_properties=properties(rows=standing.rows),
                post_commithook_properties=HOOKS,
            )
        table.cleanup_metadata()
    return True


def _as_known(delta: Delta, standing: Standing) -> DeltaTable:
    """Nobody's commit may come to lie below one of ours unseen. Raises `Gone` and `Moved`."""
    table = delta.open()
    if delta.standing(table, standing.rows) != standing:
        raise Moved
    return table


def _crowded(table: DeltaTable, many: int) -> list[str]:
    """The partitions with more than so many small files."""
    added = table.get_add_actions(flatten=True)
    sizes = added.column("size_bytes").to_pylist()
    keys = added.column(f"partition.{PARTITION}").to_pylist()
    small = Counter(key for key, size in zip(keys, sizes, strict=True) if size < SMALL_BYTES)
    return [key for key, count in small.most_common(AT_ONCE) if count > many]
