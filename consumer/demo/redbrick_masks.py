"""NIfTI-1 label maps as RedBrick stores them: gzipped, voxel value = instance id.

Written with `struct` alone, so that what Groundwire reads was not written by the library it
reads with.
"""

from __future__ import annotations

import gzip
import struct

import numpy as np
from numpy.typing import NDArray

from consumer.demo.redbrick_records import Drawing, SeriesSpec

_UINT8, _UINT16 = (2, 8), (512, 16)  # NIfTI-1 datatype and bits per voxel


def mask_file(drawing: Drawing, series: SeriesSpec) -> bytes:
    """The drawing's own mask, or a ball for each instance, laid side by side along the columns."""
    return drawing.mask if drawing.mask is not None else nifti(_balls(drawing, series), series)


def nifti(voxels: NDArray[np.generic], series: SeriesSpec) -> bytes:
    """A gzipped single-file NIfTI-1 of (column, row, slice) voxels, placed by the series."""
    wide = int(voxels.max(initial=0)) > 255
    datatype, bits = _UINT16 if wide else _UINT8
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *voxels.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, datatype, bits)
    struct.pack_into("<8f", header, 76, 1.0, *series.spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352.0, 1.0, 0.0)
    struct.pack_into("<b", header, 123, 2)  # millimetres
    struct.pack_into("<2h", header, 252, 0, 1)  # no qform; sform: scanner
    for row in range(3):
        direction = series.direction[3 * row : 3 * row + 3]
        columns = [d * s for d, s in zip(direction, series.spacing, strict=True)]
        struct.pack_into("<4f", header, 280 + 16 * row, *columns, series.origin[row])
    struct.pack_into("<4s", header, 344, b"n+1\0")
    body = voxels.astype("<u2" if wide else "u1").tobytes(order="F")
    return gzip.compress(bytes(header) + body, compresslevel=1, mtime=0)


def _balls(drawing: Drawing, series: SeriesSpec) -> NDArray[np.uint16]:
    voxels = np.zeros(series.dimensions, dtype=np.uint16)
    values = [value for i in drawing.instances for value in (i.id, *i.group_ids)]
    grid = np.indices(series.dimensions)
    for place, value in enumerate(dict.fromkeys(values)):
        centre = [(place + 0.5) / len(set(values)), 0.5, 0.5]
        half = [0.5 / len(set(values)), 0.35, 0.35]
        distance = sum(
            ((grid[axis] + 0.5 - centre[axis] * size) / max(half[axis] * size, 0.75)) ** 2
            for axis, size in enumerate(series.dimensions)
        )
        voxels[distance <= 1.0] = value
    return voxels
