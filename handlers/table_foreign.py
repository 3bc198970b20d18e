"""What others did to the table since our last commit, as its own log tells.

Appends and upkeep are tolerated and said; whatever can take rows out is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable

from consumer.errors import Permanent
from handlers.table_errors import ANEW

OURS = "groundwire"  # in the metadata of each commit of ours
LOOK_BACK = 1000  # foreign commits that are looked at

_TOLERATED = frozenset(
    {
        "WRITE", "STREAMING UPDATE", "OPTIMIZE", "VACUUM START", "VACUUM END", "COMPUTE STATS",
        "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "CHANGE COLUMN", "ADD COLUMN", "ADD COLUMNS",
        "SET TABLE PROPERTIES", "REORG", "CHECKPOINT",
    }
)  # fmt: skip
_APPENDS = frozenset({"WRITE", "STREAMING UPDATE"})
_NAME = re.compile(r"[A-Z][A-Z ]{0,39}")


@dataclass(frozen=True, slots=True)
class Foreign:
    """Commits of somebody else: their versions, and what they say they did."""

    table: str
    first: int
    last: int
    operations: tuple[str, ...]

    @property
    def appends(self) -> bool:
        return not _APPENDS.isdisjoint(self.operations)


def since_ours(table: DeltaTable) -> tuple[Foreign | None, int | None]:
    """What lies above our newest commit, and how many rows of ours there were at it (None when no
    commit of ours is found). Raises ``Permanent`` (``table-changed``)."""
    foreign: list[Mapping[str, Any]] = []
    rows = None
    for commit in _newest_first(table):
        mark = commit.get(OURS)
        if isinstance(mark, dict) and isinstance(mark.get("rows"), int):
            rows = mark["rows"]
            break
        foreign.append(commit)
    if not foreign:
        return None, rows
    for commit in foreign:
        _tolerate(commit)
    operations = tuple(sorted({_operation(commit) for commit in foreign}))
    versions = [int(commit["version"]) for commit in foreign]
    return Foreign(str(table.metadata().id), min(versions), max(versions), operations), rows


def _newest_first(table: DeltaTable) -> Sequence[Mapping[str, Any]]:
    """Mostly the newest commit is ours, and reading it is enough."""
    newest = table.history(1)
    if newest and OURS in newest[0]:
        return newest
    return table.history(LOOK_BACK)


def _tolerate(commit: Mapping[str, Any]) -> None:
    parameters = commit.get("operationParameters")
    mode = parameters.get("mode") if isinstance(parameters, dict) else None
    operation = _operation(commit)
    if operation in _TOLERATED and (operation != "WRITE" or mode in (None, "Append")):
        return
    said = f"version {commit['version']} of the table is somebody else's {operation}: {ANEW}"
    raise Permanent("table-changed", said)


def _operation(commit: Mapping[str, Any]) -> str:
    name = str(commit.get("operation", ""))
    return name if _NAME.fullmatch(name) else "UNKNOWN"
