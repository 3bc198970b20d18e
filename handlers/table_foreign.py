"""What others did to the table since our last commit, read from the commits in Delta's own log (the
Delta protocol's "Delta Log Entries" and "Actions").

Appends and upkeep are tolerated and said; a commit that takes rows out, or that claims to be ours,
is not. ``DeltaTable.history`` would not do: it numbers commits wrongly when there are newer ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable

from consumer.errors import Permanent
from handlers.table_errors import ANEW

OURS = "groundwire"  # in the commit information of each commit of ours
LOOK_BACK = 1000  # foreign commits that are looked at
MAX_COMMIT_BYTES = 64 << 20

Action = Mapping[str, Any]
ReadCommit = Callable[[int], bytes | None]  # by version; None for what was cleaned up

_NAME = re.compile(r"[A-Z][A-Z ]{0,39}")


@dataclass(frozen=True, slots=True)
class Foreign:
    """Commits of somebody else: their versions, and what they say they did."""

    table: str
    first: int
    last: int
    operations: tuple[str, ...]


def since_ours(
    table: DeltaTable, read: ReadCommit, app_id: str
) -> tuple[Foreign | None, int | None]:
    """What lies above our newest commit, and how many rows of ours there were at it (None when it
    is not found any more). Raises ``Permanent`` (``table-changed``)."""
    last = first = table.version()
    operations = set()
    rows = None
    for version in range(last, max(-1, last - LOOK_BACK), -1):
        data = read(version)
        if data is None:
            break
        actions = list(_actions(data))
        if (rows := _our_rows(actions)) is not None:
            break
        _tolerate(version, actions, app_id)
        operations.add(_operation(actions))
        first = version
    if not operations:
        return None, rows
    return Foreign(str(table.metadata().id), first, last, tuple(sorted(operations))), rows


def _actions(data: bytes) -> Iterator[Action]:
    if len(data) > MAX_COMMIT_BYTES:
        said = f"a commit in the table's log has over {MAX_COMMIT_BYTES} bytes"
        raise Permanent("table-changed", f"{said}: {ANEW}")
    for line in data.splitlines():
        action = json.loads(line) if line.strip() else None
        if isinstance(action, dict):
            yield action


def _our_rows(actions: list[Action]) -> int | None:
    for action in actions:
        mark = (action.get("commitInfo") or {}).get(OURS)
        if isinstance(mark, dict) and isinstance(mark.get("rows"), int):
            return int(mark["rows"])
    return None


def _tolerate(version: int, actions: list[Action], app_id: str) -> None:
    takes = any(one["remove"].get("dataChange", True) for one in actions if one.get("remove"))
    claims = any((one.get("txn") or {}).get("appId") == app_id for one in actions)
    if takes or claims:
        did = "took rows out" if takes else "claims to be ours"
        said = f"version {version} of the table is somebody else's and {did}: {ANEW}"
        raise Permanent("table-changed", said)


def _operation(actions: list[Action]) -> str:
    """A slug; never what a stranger wrote as it is."""
    said = [one["commitInfo"].get("operation") for one in actions if one.get("commitInfo")]
    name = str(said[0]) if said else ""
    return name if _NAME.fullmatch(name) else "UNKNOWN"
