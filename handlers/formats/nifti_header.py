"""The NIfTI header: what of NIfTI-1 and NIfTI-2 places label voxels, and the one that we write.

Fields and methods of placing are those of ``nifti1.h`` and ``nifti2.h`` (nifti.nimh.nih.gov).
What we write is computed with additions, products and square roots alone, so that it is the
same on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel import nifti1, nifti2

from consumer.errors import Permanent
from handlers.formats.label_map import Affine, Geometry, LabelMap, grid

OFFSET = 352  # of the voxels in a file of ours: a header, and four zeros for "no extension"
MAX_EXTENSIONS = 16 * 1024 * 1024

SIZES = {348: nifti1.header_dtype, 540: nifti2.header_dtype}
_MAGIC = {348: b"n+1", 540: b"n+2"}
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8",
    256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_CODES = {1: 2, 2: 512, 4: 768}  # by bytes, of unsigned labels
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # metre, micron; all else is read as millimetres
_AGREE = 1e-4  # how far a direction cosine may be off: 0.05 mm in half a metre
_LEAN = 0.01  # the most that an axis may lean and still be told, straightened, by a quaternion
_HALF_TURN = 1e-7  # below it the first part's square is 0: as the standard's own library reads
_HALF_TURN_NIBABEL = 3 * float(np.finfo(np.float32).eps)

Quaternion = tuple[float, float, float]  # the parts b, c, d; the first follows from them


@dataclass(frozen=True, slots=True)
class Header:
    """What a reader of label voxels needs; ``scaling`` is (slope, intercept) unless identity."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int  # of the first voxel, in bytes from the start of the file
    scaling: tuple[float, float] | None
    affine: Affine
    geometry: Geometry


def layout_of(start: bytes) -> np.dtype[Any] | None:
    """The header's layout in its byte order, by its first four bytes; None: not NIfTI."""
    for order in "<>":
        size = int(np.frombuffer(start, f"{order}i4", count=1)[0])
        if size in SIZES:
            return np.dtype(SIZES[size]).newbyteorder(order)  # type: ignore[arg-type]
    return None


def parse_header(block: bytes, layout: np.dtype[Any]) -> Header:
    """The header in ``block``, whole; raises ``Permanent`` for one that we cannot read rightly."""
    fields = np.frombuffer(block, layout, count=1)[0]
    if fields["magic"] != _MAGIC[layout.itemsize]:
        raise Permanent("mask-not-nifti", "not a single-file NIfTI")
    affine, geometry = _placing(fields)
    return Header(
        shape=_shape(fields),
        dtype=_dtype(fields, layout),
        offset=_offset(fields),
        scaling=_scaling(fields),
        affine=affine,
        geometry=geometry,
    )


def header_bytes(label_map: LabelMap) -> bytes:
    """The NIfTI-1 header (little endian) of a label map and its four extension bytes; see
    `volume_header`."""
    code = _CODES[label_map.array.dtype.itemsize]
    placed = label_map.geometry != "pixdim"
    return volume_header(label_map.shape, label_map.affine, code, placed=placed)


def volume_header(
    shape: tuple[int, int, int], affine: Affine, code: int, *, placed: bool = True, times: int = 1
) -> bytes:
    """The NIfTI-1 header (little endian) and its four extension bytes; ``code`` is the voxels'
    data type, ``times`` how many volumes follow one another, of which no duration is told.

    Both forms have code 1 (scanner), but what a quaternion of float32 cannot say - a sheared
    place, one a little off a half turn - is in the sform only; where axes lean by so little that
    no voxel moves by half its size, the qform has them straight. Unknown placing stays unknown
    (codes 0). All text is blank.
    """
    header = np.zeros((), np.dtype(nifti1.header_dtype).newbyteorder("<"))
    header["sizeof_hdr"] = 348
    header["magic"] = b"n+1"
    header["dim"] = (3 if times == 1 else 4, *shape, times, 1, 1, 1)
    header["datatype"] = code
    header["bitpix"] = 8 * np.dtype(_TYPES[code]).itemsize
    header["vox_offset"] = OFFSET
    header["scl_slope"] = 1
    header["xyzt_units"] = 2  # millimetres
    header["pixdim"][:4] = (1, *_spacing(affine))
    if times > 1:
        header["pixdim"][4] = 1
    if placed:
        _place(header, affine, shape)
    return header.tobytes() + bytes(4)


def data_type_code(dtype: np.dtype[Any]) -> int:
    """NIfTI's code of a voxel type; raises ``KeyError`` for one that we do not write."""
    return {np.dtype(name): code for code, name in _TYPES.items()}[dtype]


def _spacing(affine: Affine) -> tuple[float, float, float]:
    """Millimetres from voxel to voxel along i, j and k."""
    x, y, z = affine[:3]
    i, j, k = (math.sqrt(x[a] * x[a] + y[a] * y[a] + z[a] * z[a]) for a in range(3))
    return i, j, k


def _place(header: Any, affine: Affine, shape: tuple[int, int, int]) -> None:
    header["sform_code"] = 1
    for name, row in zip(("srow_x", "srow_y", "srow_z"), affine, strict=False):
        header[name] = row
    axes = [
        [row[axis] / length for row in affine[:3]] for axis, length in enumerate(_spacing(affine))
    ]
    quaternion, mirror = _quaternion(axes)
    if not _says(quaternion, mirror, axes):
        straight = _straightened(axes)
        if not _places_alike(axes, straight, _spacing(affine), shape):
            return
        axes = straight
        quaternion, mirror = _quaternion(axes)
        if not _says(quaternion, mirror, axes):
            return
    header["qform_code"] = 1
    header["pixdim"][0] = mirror
    names = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    for name, value in zip(names, (*quaternion, *(row[3] for row in affine)), strict=False):
        header[name] = value


def _straightened(axes: list[list[float]]) -> list[list[float]]:
    """The first axis as it is, the second turned in their plane, the third to their normal."""
    i, j, k = axes
    along = _dot(i, j)
    j = [b - along * a for a, b in zip(i, j, strict=True)]
    length = math.sqrt(_dot(j, j)) or 1.0
    j = [b / length for b in j]
    hand = _handedness([i, j, k])
    normal = [i[1] * j[2] - i[2] * j[1], i[2] * j[0] - i[0] * j[2], i[0] * j[1] - i[1] * j[0]]
    return [i, j, [hand * value for value in normal]]


def _places_alike(
    axes: list[list[float]],
    straight: list[list[float]],
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
) -> bool:
    """Whether axes that lean a little (scanners round positions) put the farthest voxel within
    half a voxel of where straight ones do. ITK reads no sform that leans without a qform."""
    away = 0.0
    for axis in range(3):
        lean = [a - b for a, b in zip(axes[axis], straight[axis], strict=True)]
        if _dot(lean, lean) > _LEAN * _LEAN:
            return False
        away += math.sqrt(_dot(lean, lean)) * spacing[axis] * (shape[axis] - 1)
    return away <= min(spacing) / 2


def _says(quaternion: Quaternion, mirror: float, axes: list[list[float]]) -> bool:
    """Whether every reader gets these axes from the quaternion, whatever it takes for a half
    turn; near one, float32 leaves too little of the first part."""
    for half_turn in (_HALF_TURN, _HALF_TURN_NIBABEL):
        rotation = _rotation(quaternion, half_turn)
        for row in range(3):
            said = (rotation[row][0], rotation[row][1], rotation[row][2] * mirror)
            if any(abs(said[axis] - axes[axis][row]) > _AGREE for axis in range(3)):
                return False
    return True


def _dot(a: list[float], b: list[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _handedness(axes: list[list[float]]) -> float:
    """1 for right-handed voxel axes, -1 for left-handed ones (``qfac``)."""
    (a, b, c), j, k = axes
    cross = [j[1] * k[2] - j[2] * k[1], j[2] * k[0] - j[0] * k[2], j[0] * k[1] - j[1] * k[0]]
    return 1.0 if _dot([a, b, c], cross) > 0 else -1.0


def _quaternion(axes: list[list[float]]) -> tuple[Quaternion, float]:
    """(b, c, d) as float32 of the rotation whose columns are the axes, and ``qfac``, by which the
    third is mirrored. The largest of the four parts is found first, so that nothing divides by
    little."""
    mirror = _handedness(axes)
    x, y = axes[0], axes[1]
    z = [mirror * value for value in axes[2]]
    squares = (
        1 + x[0] + y[1] + z[2],
        1 + x[0] - y[1] - z[2],
        1 - x[0] + y[1] - z[2],
        1 - x[0] - y[1] + z[2],
    )
    largest = squares.index(max(squares))
    root = math.sqrt(squares[largest])
    parts = (
        (root, (y[2] - z[1]) / root, (z[0] - x[2]) / root, (x[1] - y[0]) / root),
        ((y[2] - z[1]) / root, root, (x[1] + y[0]) / root, (z[0] + x[2]) / root),
        ((z[0] - x[2]) / root, (x[1] + y[0]) / root, root, (y[2] + z[1]) / root),
        ((x[1] - y[0]) / root, (z[0] + x[2]) / root, (y[2] + z[1]) / root, root),
    )[largest]
    sign = -0.5 if parts[0] < 0 else 0.5  # the file does not hold the first part: it is >= 0
    b, c, d = (float(np.float32(part * sign)) + 0.0 for part in parts[1:])
    return (b, c, d), mirror


def _shape(fields: Any) -> tuple[int, int, int]:
    dim = [int(size) for size in fields["dim"]]
    if not 1 <= dim[0] <= 7:
        raise Permanent("mask-not-nifti", "the header has no valid number of dimensions")
    return grid(dim[1 : dim[0] + 1])


def _dtype(fields: Any, layout: np.dtype[Any]) -> np.dtype[Any]:
    code = int(fields["datatype"])
    if code not in _TYPES:
        raise Permanent("mask-unsupported-type", f"NIfTI data type {code} holds no labels")
    order = layout["sizeof_hdr"].byteorder
    return np.dtype(_TYPES[code]).newbyteorder(order if order in "<>" else "=")


def _offset(fields: Any) -> int:
    least = int(fields["sizeof_hdr"]) + 4
    offset = float(fields["vox_offset"])
    if offset == 0:  # some writers leave it out
        return least
    if not least <= offset <= least + MAX_EXTENSIONS or offset != int(offset):
        raise Permanent("mask-bad-header", "the header's voxel offset is out of bounds")
    return int(offset)


def _scaling(fields: Any) -> tuple[float, float] | None:
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or (slope, intercept) == (1, 0):
        return None  # a slope of 0 says "not scaled"
    if not math.isfinite(intercept):
        raise Permanent("mask-bad-header", "the header scales voxels by no number")
    return slope, intercept


def _placing(fields: Any) -> tuple[Affine, Geometry]:
    """Methods 3, 2 and 1 of ``nifti1.h``, in this order, in millimetres."""
    rows: list[list[float]]
    geometry: Geometry
    if fields["sform_code"] > 0:
        geometry = "sform"
        rows = [[float(v) for v in fields[name]] for name in ("srow_x", "srow_y", "srow_z")]
    elif fields["qform_code"] > 0:
        geometry, rows = "qform", _from_quaternion(fields)
    else:
        geometry = "pixdim"
        sizes = _sizes(fields)
        rows = [[sizes[r] if r == c else 0.0 for c in range(4)] for r in range(3)]
    unit = _MILLIMETRES.get(int(fields["xyzt_units"]) & 7, 1.0)
    scaled = [tuple(value * unit for value in row) for row in rows]
    return (*scaled, (0.0, 0.0, 0.0, 1.0)), geometry


def _sizes(fields: Any) -> list[float]:
    """Voxel sizes along i, j, k; 1 along axes that the image does not have."""
    ndim = int(fields["dim"][0])
    return [abs(float(fields["pixdim"][a])) if a <= ndim else 1.0 for a in (1, 2, 3)]


def _from_quaternion(fields: Any) -> list[list[float]]:
    b, c, d = (float(fields[f"quatern_{part}"]) for part in "bcd")
    i, j, k = _sizes(fields)
    k = -k if fields["pixdim"][0] < 0 else k
    offset = (float(fields[f"qoffset_{axis}"]) for axis in "xyz")
    rotation = _rotation((b, c, d), _HALF_TURN)
    return [[x * i, y * j, z * k, at] for (x, y, z), at in zip(rotation, offset, strict=True)]


def _rotation(quaternion: Quaternion, half_turn: float) -> list[list[float]]:
    """The rows of the matrix; where the first part's square is under ``half_turn``, it is 0."""
    b, c, d = quaternion
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < half_turn:
        norm = math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / norm, c / norm, d / norm
    else:
        a = math.sqrt(rest)
    return [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
