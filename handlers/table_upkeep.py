"""Upkeep of the table: checkpoints make it quick to open, and what compaction replaced is removed a
week later.

Wherever it is killed, the table is whole, and the next turn does what is left. It never runs beside
a commit of this process.
"""

from __future__ import annotations

import re
from contextlib import suppress

from handlers.table_delta import HOOKS, Delta, Standing, properties
from handlers.table_errors import Gone, Moved, ours
from handlers.table_schema import PARTITION

EVERY = 20  # versions between two turns

_OURS = re.compile(rf"{PARTITION}=[^/]+/[^/]+\.parquet")


def is_due(before: int, version: int, every: int = EVERY) -> bool:
    """Whether a turn's version lies after ``before`` and up to ``version``."""
    return version // every > before // every


def checkpoint(delta: Delta, standing: Standing) -> None:
    """Makes the table as it stands quick to open; no commit. Somebody else's commit at the same
    time only puts it off. Raises ``Transient`` and ``Permanent``, as all here does."""
    with suppress(Gone, Moved), ours("tidying"):
        delta.open_as(standing).create_checkpoint()


def vacuum(delta: Delta, standing: Standing) -> bool:
    """Removes what no version within the retention needs, and forgets what is older in Delta's own
    log; False when files lie there that are not of the table: then nothing is removed."""
    with suppress(Gone, Moved), ours("tidying"):
        table = delta.open_as(standing)
        files = table.vacuum(dry_run=True, full=True)
        if not all(_OURS.fullmatch(file) for file in files):
            return False
        if files:
            table.vacuum(
                dry_run=False,
                full=True,
                commit_properties=properties("vacuum", None),
                post_commithook_properties=HOOKS,
            )
        table.cleanup_metadata()
    return True
