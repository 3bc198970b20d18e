"""What others did to the table since our last commit, read from the commits in Delta's own log (the
Delta protocol's "Delta Log Entries" and "Actions").

Appends and upkeep are tolerated and said; a commit that takes rows out, or that claims to be ours,
is not. The lake's store reads them: ``DeltaTable.history`` numbers commits wrongly when there are
newer ones, and keeps every other thread waiting for its answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from consumer.errors import Permanent
from consumer.ports import Store
from handlers.table_errors import ANEW
from handlers.table_schema import TABLE

OURS = "groundwire"  # in the commit information of each commit of ours
LOOK_BACK = 1000  # foreign commits that are looked at

Action = Mapping[str, Any]

_NAME = re.compile(r"[A-Z][A-Z ]{0,39}")


@dataclass(frozen=True, slots=True)
class Foreign:
    """Commits of somebody else: their versions, and what they say they did."""

    table: str
    first: int
    last: int
    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SinceOurs:
    """What lies above our newest commit; ``rows`` there were at that (None when it is not found any
    more), and ``appended`` says that others meant to add some since."""

    foreign: Foreign | None
    rows: int | None
    appended: bool

    def check(self, rows: int) -> None:
        """Raises ``Permanent`` unless that many rows are what there may be."""
        if self.rows is None or rows == self.rows or (rows > self.rows and self.appended):
            return
        did, slug = ("lost", "missing") if rows < self.rows else ("doubled", "doubled")
        said = f"the table has {rows} rows, and {self.rows} at our last commit: somebody {did} some"
        raise Permanent(f"table-rows-{slug}", f"{said}; {ANEW}")


async def since_ours(store: Store, table: str, last: int, app_id: str) -> SinceOurs:
    """Up to the version ``last``. Raises ``Transient``, and ``Permanent`` (``table-changed``,
    ``table-damaged``)."""
    first = last
    operations = set()
    rows, appended = None, False
    for version in range(last, max(-1, last - LOOK_BACK), -1):
        stored = await store.read(f"{TABLE}/_delta_log/{version:020d}.json")
        if stored is None:
            break
        actions = list(_actions(stored.data))
        mark = _our_mark(actions)
        if mark is not None and "rows" in mark:
            rows = int(mark["rows"])
            break
        if mark is not None:
            continue
        _tolerate(version, actions, app_id)
        appended = appended or any(_changes(one.get("add")) for one in actions)
        operations.add(_operation(actions))
        first = version
    if not operations:
        return SinceOurs(None, rows, appended)
    return SinceOurs(Foreign(table, first, last, tuple(sorted(operations))), rows, appended)


def _changes(file: Mapping[str, Any] | None) -> bool:
    return file is not None and bool(file.get("dataChange", True))


def _actions(data: bytes) -> Iterator[Action]:
    """One in each line. Raises ``Permanent`` (``table-damaged``)."""
    for line in data.splitlines():
        try:
            action = msgspec.json.decode(line) if line.strip() else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            said = f"a commit in the table's own log cannot be read: {ANEW}"
            raise Permanent("table-damaged", said) from error
        if isinstance(action, dict):
            yield action


def _our_mark(actions: list[Action]) -> Mapping[str, Any] | None:
    """What a commit of ours says of itself; None for somebody else's."""
    for action in actions:
        mark = (action.get("commitInfo") or {}).get(OURS)
        if isinstance(mark, dict) and isinstance(mark.get("rows", 0), int):
            return mark
    return None


def _tolerate(version: int, actions: list[Action], app_id: str) -> None:
    takes = any(_changes(one.get("remove")) for one in actions)
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
