"""Small files of the table become larger ones, in a commit of our own.

delta-rs compacts too, but commits on top of whatever there is by then: two compactions at the same
time, both done, leave every row twice. Ours replaces files in the version that follows the one it
looked at, or not at all; what it made is then garbage, which vacuum finds.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from deltalake.transaction import AddAction, RemoveAction

from consumer.errors import Permanent
from consumer.model import timestamp
from consumer.ports import Store
from handlers.table_delta import HOOKS, Delta, Standing, properties
from handlers.table_errors import ANEW, Gone, Moved, ours
from handlers.table_schema import PARTITION, SCHEMA, STATISTICS, TABLE

SMALL_BYTES = 8 << 20  # files below half of it are joined, up to it
MANY = 24  # small files in a partition
AT_ONCE = 8  # partitions in one commit, those with the most files first
MAX_FILES = 500  # that become one

_IN_FILES = pa.schema([field for field in SCHEMA if field.name != PARTITION])
_PLAIN = re.compile(r"[A-Za-z0-9._~=/%-]+")  # keys that everybody writes in one way in Delta's log

Run = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Small:
    """Files of one partition that are to become one; keys are relative to the table."""

    partition: str
    keys: tuple[str, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """What they became, and its statistics as Delta has them."""

    small: Small
    key: str
    size: int
    stats: str


async def compact(
    delta: Delta, standing: Standing, store: Store, run: Run, *, many: int = MANY
) -> None:
    """Somebody else's commit at the same time only puts it off. ``run`` takes each step that
    blocks. Raises ``Transient`` and ``Permanent``."""
    with suppress(Gone, Moved):
        found: Sequence[Small] = await run(crowded, delta, standing, many)
        made = [await _join(small, store, run) for small in found]
        if made:
            await run(replaced, delta, standing, made)


def crowded(delta: Delta, standing: Standing, many: int = MANY) -> Sequence[Small]:
    """What to join: of the partitions with more than ``many`` small files. Raises `Gone` and
    `Moved`."""
    with ours("reading"):
        added = delta.open_as(standing).get_add_actions(flatten=True)
        paths = added.column("path").to_pylist()
        sizes = added.column("size_bytes").to_pylist()
        partitions = added.column(f"partition.{PARTITION}").to_pylist()
    small: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for path, size, partition in zip(paths, sizes, partitions, strict=True):
        key = unquote(path)
        if partition and size < SMALL_BYTES // 2 and _is_plain(key, path):
            small[partition].append((size, key))
    worst = sorted(small, key=lambda one: -len(small[one]))[:AT_ONCE]
    return [_chosen(one, sorted(small[one])) for one in worst if len(small[one]) > many]


def joined(parts: Sequence[bytes]) -> tuple[bytes, str]:
    """One Parquet file with the rows of all, in the log's order, and its statistics."""
    try:
        tables = [pa.parquet.ParquetFile(pa.BufferReader(part)).read() for part in parts]
        whole = pa.concat_tables(tables, promote_options="default")
        rows = whole.select(_IN_FILES.names).cast(_IN_FILES).sort_by("log_index")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        said = f"a file of the table cannot be read: {ANEW}"
        raise Permanent("table-damaged", said) from error
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(rows, sink, compression="zstd", store_schema=False)
    return sink.getvalue().to_pybytes(), _stats(rows)


def replaced(delta: Delta, standing: Standing, made: Sequence[Joined]) -> None:
    """Commits that the joined files stand for the small ones; no row is changed by it. Raises
    `Gone` and `Moved`."""
    now = int(time.time() * 1000)
    with ours("compacting"):
        table = delta.open_as(standing)
        table.create_write_transaction(
            [action for one in made for action in _actions(one, now)],
            mode="append",
            schema=SCHEMA,
            partition_by=[PARTITION],
            commit_properties=properties("compact", standing.rows),
            post_commithook_properties=HOOKS,
        )


async def _join(small: Small, store: Store, run: Run) -> Joined:
    parts = []
    for key in small.keys:
        stored = await store.read(f"{TABLE}/{key}")
        if stored is None:
            raise Permanent("table-damaged", f"a file of the table is gone: {ANEW}")
        parts.append(stored.data)
    data, stats = await run(joined, parts)
    folder = small.keys[0].rpartition("/")[0]
    key = f"{folder}/joined-{uuid4()}.parquet"
    await store.create(f"{TABLE}/{key}", data)
    return Joined(small, key, len(data), stats)


def _is_plain(key: str, path: str) -> bool:
    """Whether the path that delta-rs will write for the key is this one: a removal by another
    spelling removes nothing."""
    return bool(_PLAIN.fullmatch(key)) and key.replace("%", "%25") == path


def _chosen(partition: str, files: Sequence[tuple[int, str]]) -> Small:
    """The smallest first."""
    chosen: list[tuple[int, str]] = []
    total = 0
    for size, key in files[:MAX_FILES]:
        total += size
        if total > SMALL_BYTES:
            break
        chosen.append((size, key))
    return Small(partition, tuple(key for _, key in chosen), tuple(size for size, _ in chosen))


def _actions(one: Joined, now_ms: int) -> list[AddAction | RemoveAction]:
    values: dict[str, str | None] = {PARTITION: one.small.partition}
    add = AddAction(
        path=one.key,
        size=one.size,
        partition_values=values,
        modification_time=now_ms,
        data_change=False,
        stats=one.stats,
    )
    files = zip(one.small.keys, one.small.sizes, strict=True)
    return [add, *(RemoveAction(key, False, now_ms, size, values) for key, size in files)]


def _stats(rows: pa.Table) -> str:
    """Per-file statistics (the Delta protocol's section of that name)."""
    least: dict[str, Any] = {}
    most: dict[str, Any] = {}
    for name in STATISTICS:
        bounds = pa.compute.min_max(rows[name]).as_py()
        if bounds["min"] is not None:
            least[name], most[name] = _plain(bounds["min"]), _plain(bounds["max"])
    nulls = {name: rows[name].null_count for name in STATISTICS}
    return json.dumps(
        {"numRecords": rows.num_rows, "minValues": least, "maxValues": most, "nullCount": nulls}
    )


def _plain(value: Any) -> Any:
    return timestamp(value) if isinstance(value, datetime) else value
