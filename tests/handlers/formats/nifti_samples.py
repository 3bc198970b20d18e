"""NIfTI files made field by field with `struct`, so that no library decides what a test sends."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {
    "u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024,
    "u8": 1280,
}  # fmt: skip
SFORM = ((-0.75, 0.0, 0.0, 90.5), (0.0, -0.75, 0.0, 126.25), (0.0, 0.0, 2.5, -72.0))
LABELS = np.zeros((7, 5, 4), np.uint8)
LABELS[2:5, 1:4, 1:3] = 1
LABELS[6, 4, 3] = 2


@dataclass(frozen=True)
class Sample:
    """A file that is right unless a field says otherwise; ``dim`` is what the header claims."""

    voxels: NDArray[Any] = field(default_factory=lambda: LABELS)
    dtype: str = "u1"
    order: str = "<"
    version: int = 1
    extension: bytes = b""
    dim: tuple[int, ...] | None = None
    code: int | None = None
    scaling: tuple[float, float] = (0.0, 0.0)
    pixdim: tuple[float, ...] = (1.0, 0.75, 0.75, 2.5)
    sform: tuple[tuple[float, ...], ...] | None = SFORM
    qform: tuple[float, ...] | None = None  # quaternion b, c, d, then offset x, y, z
    units: int = 2
    text: bytes = b""
    magic: bytes | None = None
    offset: float | None = None

    def nii(self) -> bytes:
        body = self.voxels.astype(self.order + self.dtype).tobytes(order="F")
        return self._header() + self._extension() + body

    def gz(self, level: int = 6, mtime: float = 1.0) -> bytes:
        return gzip.compress(self.nii(), level, mtime=mtime)

    def _header(self) -> bytes:
        size = 348 if self.version == 1 else 540
        offset = size + len(self._extension()) if self.offset is None else self.offset
        dim = self.dim or (self.voxels.ndim, *self.voxels.shape)
        dim = (*dim, *(1,) * (8 - len(dim)))
        pixdim = (*self.pixdim, *(0.0,) * (8 - len(self.pixdim)))
        code = CODES[self.dtype] if self.code is None else self.code
        bits = 8 * np.dtype(self.dtype).itemsize
        turn = self.qform or (0.0,) * 6
        rows = [value for row in self.sform or ((0.0,) * 4,) * 3 for value in row]
        forms = (int(self.qform is not None), int(self.sform is not None))
        if self.version == 1:
            return struct.pack(
                self.order + "i36x8h14x2h2x8f3f3xB24x80s24s2h18f16s4s",
                *(348, *dim, code, bits, *pixdim, float(offset), *self.scaling, self.units),
                *(self.text, self.text[:24], *forms, *turn, *rows),
                *(self.text[:16], self.magic or b"n+1\0"),
            )
        return struct.pack(
            self.order + "i8s2h8q3d8dq2d4d2q80s24s2i18d3i16sB15x",
            *(540, self.magic or b"n+2\0\r\n\x1a\n", code, bits, *dim, 0, 0, 0, *pixdim),
            *(int(offset), *self.scaling, 0, 0, 0, 0, 0, 0, self.text, self.text[:24], *forms),
            *(*turn, *rows, 0, self.units, 0, self.text[:16], 0),
        )

    def _extension(self) -> bytes:
        if not self.extension:
            return bytes(4)
        size = (8 + len(self.extension) + 15) // 16 * 16
        head = struct.pack(self.order + "ii", size, 6)
        return b"\1\0\0\0" + head + self.extension.ljust(size - 8, b"\0")
