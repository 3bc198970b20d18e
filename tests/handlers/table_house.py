"""A lake with its log, the table that follows it, and readers of the table that are not ours."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import duckdb
import polars
import pyarrow as pa

from consumer.model import Record
from consumer.ports import Batch, Cursor, FollowPorts, Ports, Step, Store, Stored
from handlers.table import Table, TablePlace, Tuning
from handlers.table_schema import TABLE
from tests.fakes_platform import SOURCE
from tests.fakes_store import FakeStore
from tests.handlers.lake_house import LakeHouse

AT_ONCE = Tuning(commit_every_s=0.0)

Rows = list[dict[str, Any]]


class WithTable(FakeStore):
    """A lake in memory whose table lies in a real place: ``files``, by their names within it."""

    def __init__(self, lake: FakeStore, files: Files) -> None:
        super().__init__()
        self._lake = lake
        self._files = files

    async def read(self, key: str) -> Stored | None:
        inside = key.removeprefix(f"{TABLE}/")
        return await (self._lake.read(key) if inside == key else self._files.read(inside))

    async def create(self, key: str, data: bytes) -> None:
        inside = key.removeprefix(f"{TABLE}/")
        await (self._lake.create(key, data) if inside == key else self._files.create(inside, data))


class Files(Protocol):
    """What a store has, of which the table's files need two verbs."""

    async def read(self, key: str) -> Stored | None: ...

    async def create(self, key: str, data: bytes) -> None: ...


@dataclass(frozen=True)
class Folder:
    """Implements ``Files``; nothing else is in the folder."""

    place: Path

    async def read(self, key: str) -> Stored | None:
        file = self.place / key
        return Stored(file.read_bytes(), "") if file.exists() else None

    async def create(self, key: str, data: bytes) -> None:
        (self.place / key).write_bytes(data)


@dataclass
class TableHouse(LakeHouse):
    """`table` makes a follower of the table at ``place``; another place, or tuning, if given."""

    kind: str = "redbrick"
    place: Path = field(default_factory=Path)

    @property
    def ports(self) -> Ports:
        return replace(super().ports, kinds={SOURCE: self.kind})

    def table(self, place: Path | None = None, tuning: Tuning = AT_ONCE, **ports: Any) -> Table:
        where = place or self.place
        named = TablePlace(str(where))
        return Table(self.table_ports(where, **ports), lambda: named, tuning)

    def table_ports(self, place: Path, store: Store | None = None) -> FollowPorts:
        """With another store than that of this lake and its table, such as one that fails."""
        return replace(self.follow_ports(), store=store or WithTable(self.store, Folder(place)))

    async def up_to_date(self, **options: Any) -> Rows:
        """A new follower takes in all there is; the table's rows, as DuckDB reads them."""
        await self.catch_up(self.table(**options))
        return by_duckdb(options.get("place") or self.place)

    async def moves(self, count: int, *, task: str = "task-1") -> None:
        """So many moves of one task, each an entry ``lake``."""
        for number in range(count):
            await self.see(task, stage=f"stage {await self.tail.size()}-{number}")

    async def records(self) -> list[Record]:
        """What followers put into the queue and is not in the log yet."""
        return [one for one in await self._waiting() if isinstance(one, Record)]


@asynccontextmanager
async def table_house(place: Path, **settings: Any) -> AsyncIterator[TableHouse]:
    house = TableHouse(place=place, **settings)
    try:
        yield house
    finally:
        await house.close()


async def feed(house: LakeHouse, table: Table, position: int) -> tuple[Step, int]:
    """One batch with all that is new since ``position``; the step, and the new position."""
    size = await house.tail.size()
    entries = [one for one in await house.tail.read(position, size) if one.data["kind"] == "lake"]
    return await table.follow(Batch(entries, position, size, size)), size


async def begun(table: Table) -> int:
    return (await table.start(Cursor())).next


def by_duckdb(place: Path, version: int | None = None) -> Rows:
    """The table by DuckDB, from the list of files that Delta's own log gives: read here from its
    JSON and checkpoints as the protocol describes them, without delta-rs."""
    files = _files(place / "_delta_log", version)
    if not files:
        return []
    with duckdb.connect() as engine:
        paths = {str(place / unquote(path)): key for path, key in files.items()}
        engine.register(
            "parts", pa.table({"file": list(paths), "project_key": list(paths.values())})
        )
        found = engine.sql(
            "SELECT parts.project_key, rows.* EXCLUDE (filename) FROM "
            "read_parquet(?, hive_partitioning = false, filename = true) AS rows "
            "JOIN parts ON parts.file = rows.filename",
            params=[list(paths)],
        ).to_arrow_table()
    return in_order(found.to_pylist())


def by_polars(place: Path) -> Rows:
    return in_order(polars.scan_delta(str(place)).collect().to_dicts())


def in_order(rows: Iterable[dict[str, Any]]) -> Rows:
    return sorted(
        (dict(sorted(row.items())) for row in rows),
        key=lambda row: (row["log_index"] is None, row["log_index"]),
    )


def indices(rows: Rows) -> list[int]:
    return [row["log_index"] for row in rows]


def versions(place: Path) -> list[int]:
    """Of the commits whose JSON is there."""
    return sorted(int(file.stem) for file in (place / "_delta_log").glob("*.json"))


def commits(place: Path) -> list[dict[str, Any]]:
    """What each commit says of itself, oldest first."""
    found = []
    for number in versions(place):
        for line in (place / "_delta_log" / f"{number:020d}.json").read_text().splitlines():
            found += [json.loads(line)["commitInfo"]] if "commitInfo" in json.loads(line) else []
    return found


def did(place: Path) -> list[str]:
    """What each commit is, oldest first; ours say more than Delta's word for it."""
    told = commits(place)
    return [one.get("groundwire", {}).get("did") or one["operation"] for one in told]


def checkpoints(place: Path) -> list[int]:
    found = (place / "_delta_log").glob("*.checkpoint.parquet")
    return sorted(int(file.name.partition(".")[0]) for file in found)


def _files(log: Path, version: int | None) -> dict[str, str]:
    """The paths of the files at a version, with their partition."""
    last = max(versions(log.parent)) if version is None else version
    begins = [number for number in checkpoints(log.parent) if number <= last]
    files: dict[str, str] = {}
    if begins:
        rows = duckdb.read_parquet(str(log / f"{begins[-1]:020d}.checkpoint.parquet"))
        for (add,) in rows.project('"add"').fetchall():
            if add is not None:
                files[add["path"]] = _of_map(add["partitionValues"])["project_key"]
    for number in range(begins[-1] + 1 if begins else 0, last + 1):
        for line in (log / f"{number:020d}.json").read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                files[action["add"]["path"]] = action["add"]["partitionValues"]["project_key"]
            if "remove" in action:
                files.pop(action["remove"]["path"], None)
    return files


def _of_map(value: Any) -> dict[str, str]:
    """DuckDB gives a map as a dictionary, or (older) as its two lists."""
    return dict(zip(value["key"], value["value"], strict=True)) if "key" in value else value


def fenced(text: str, heading: str) -> list[str]:
    """The Python blocks below a heading of a Markdown text, up to the next heading of its level."""
    level = re.match(r"#+", heading)
    assert level is not None
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading}"
    section = re.split(rf"^#{{1,{len(level[0])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
