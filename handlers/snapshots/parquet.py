"""A snapshot's rows as Parquet, written a part at a time: equal rows give equal bytes with one
version of the library, so two files are compared by their rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from handlers.snapshots.rows import Row

ROWS_AT_ONCE = 4096  # of a row group

_TEXTS, _NUMBERS, _LENGTHS = pa.list_(pa.string()), pa.list_(pa.int64()), pa.list_(pa.float64())
_VOXELS = pa.struct(
    [
        ("value", pa.int64()),
        ("category", pa.string()),
        ("voxels", pa.int64()),
        ("feature", pa.string()),
        ("overlaps", _NUMBERS),
    ]
)
_IMAGE = pa.struct(
    [("path", pa.string()), ("key", pa.string()), ("sha256", pa.string()), ("size", pa.int64())]
)
_OTHERS = {
    "nameless": pa.bool_(),
    "sequence": pa.int64(),
    "labels": _TEXTS,
    "label_folder": pa.bool_(),
    "position": pa.int64(),
    "label_size": pa.int64(),
    "shape": _NUMBERS,
    "affine": pa.list_(_LENGTHS),
    "spacing_mm": _LENGTHS,
    "voxels": pa.list_(_VOXELS),
    "images": pa.list_(_IMAGE),
    "log_index": pa.int64(),
}
SCHEMA = pa.schema([(name, _OTHERS.get(name, pa.string())) for name in Row.__struct_fields__])


class ParquetFile:
    """Takes rows in order; `close` makes it whole."""

    def __init__(self, file: Path) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        while len(self._rows) >= ROWS_AT_ONCE:
            self._write(self._rows[:ROWS_AT_ONCE])
            del self._rows[:ROWS_AT_ONCE]

    def close(self) -> None:
        if self._rows:
            self._write(self._rows)
            self._rows = []
        self._writer.close()

    def _write(self, rows: Sequence[Row]) -> None:
        self._writer.write_table(pa.Table.from_pylist(msgspec.to_builtins(rows), SCHEMA))


def same_rows(one: Path, other: Path) -> bool:
    """Whether two files hold the same rows, whichever version of the library wrote them."""
    try:
        first, second = pq.ParquetFile(one), pq.ParquetFile(other)
        if not first.schema_arrow.equals(second.schema_arrow):
            return False
        if first.num_row_groups != second.num_row_groups:
            return False
        groups = range(first.num_row_groups)
        return all(first.read_row_group(n).equals(second.read_row_group(n)) for n in groups)
    except pa.ArrowInvalid:
        return False
