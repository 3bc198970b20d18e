"""Memory that is short is not the file's fault: what is refused stays refused, what waits does
not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest

from consumer.errors import Transient
from handlers.formats.dicom_files import read_header
from tests.handlers.formats.dicom_phantoms import Scan, series, write


class Short(io.BytesIO):
    """A file of which the n-th read finds no memory."""

    def __init__(self, data: bytes, left: int) -> None:
        super().__init__(data)
        self.left = left

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if self.left == 0:
            raise MemoryError
        return super().read(size)


class Place:
    """Where a file is, as far as it is opened there."""

    def __init__(self, file: Short) -> None:
        self.file = file

    def open(self, mode: str) -> Short:
        return self.file


def test_no_header_is_called_damaged_for_want_of_memory(tmp_path: Path) -> None:
    data = write(series(Scan(slices=1)), tmp_path)[0][1].read_bytes()
    reads = Short(data, 0)
    read_header("a.dcm", cast(Any, Place(reads)))
    assert -reads.left > 20
    for number in range(1, -reads.left + 1):
        with pytest.raises(Transient) as caught:
            read_header("a.dcm", cast(Any, Place(Short(data, number))))
        assert caught.value.reason == "image-unreadable"
