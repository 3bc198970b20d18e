"""A label map as grey PNG pictures, one for each slice: a pixel's value is its label (ISO/IEC
15948). Rows are j, columns are i.

No pixel is scaled and none has a colour of its own: `class_map` says what values mean. Equal labels
give equal bytes: the writer is ours, rows are unfiltered, and the compression is isal's level 1, as
in our NIfTI files, because zlib's output differs between its versions. It is packed as a stream:
isal's compression in one call looks at memory that nobody has written, and of it its choice among
equal matches may depend.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from consumer.errors import Refused
from consumer.model import LabelCount
from handlers.formats.label_map import LabelMap

MAX_VALUE = 2**16 - 1  # a grey pixel has at most 16 bits

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0


def png_slices(label_map: LabelMap) -> Iterator[tuple[int, bytes]]:
    """(k, PNG) of every slice: of 8 bits where all labels of the map are below 256, else of 16.

    Raises ``Refused`` (``png-label-too-large``) before the first for a label above 65,535.
    """
    if label_map.array.dtype.itemsize > 2:
        raise Refused(
            "png-label-too-large",
            f"a label is {int(label_map.array.max())}; a PNG's largest is {MAX_VALUE}",
            shape=label_map.shape,
        )
    for k in range(label_map.shape[2]):
        yield k, grey_png(label_map.array[:, :, k].T)


def class_map(counts: Sequence[LabelCount]) -> dict[str, str | None]:
    """What each pixel value stands for, for a JSON beside the pictures; None where a value has no
    class of its own, as that of an overlap."""
    return {str(count.value): count.category for count in counts}


def grey_png(pixels: NDArray[Any]) -> bytes:
    """A PNG of (row, column) pixels, of uint8 or uint16."""
    height, width = pixels.shape
    size = pixels.dtype.itemsize
    rows = np.zeros((height, 1 + width * size), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = np.ascontiguousarray(pixels, f">u{size}").view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 8 * size, _GREY, 0, 0, 0)
    pack = isal_zlib.compressobj(level=1)
    data = pack.compress(rows.data) + pack.flush()
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
