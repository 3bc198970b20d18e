"""Files that are small and say to be, or become, enormous; tried in a process of bounded memory.

``python -m tests.faults.bomb_shop FOLDER [SEED..]`` prints one JSON line for each: its
name, what came of it, the seconds of CPU it took and the megabytes by which the process grew.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import resource
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from isal import isal_zlib
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from consumer.demo.phantom import Organ, Phantom, nifti_mask, truth
from consumer.errors import GroundwireError, Permanent
from consumer.platforms.archives import unpack
from handlers.formats.dicom import read_series
from handlers.formats.nifti import read_label_map
from handlers.formats.png import check_png
from handlers.formats.png_pixels import read_pixels
from tests.handlers.formats.dicom_phantoms import Scan, series, write
from tests.handlers.formats.png_samples import chunk, png_of

MEMORY_BYTES = 1 << 30  # more than this process had when it began
ZEROS = bytes(1 << 20)
_PNG = b"\x89PNG\r\n\x1a\n"

Bomb = Callable[[], object]


def zeros(megabytes: int, wbits: int = 31) -> bytes:
    """So many of zeros, as gzip (15: zlib, -15: deflate)."""
    pack = isal_zlib.compressobj(level=1, wbits=wbits)
    return b"".join([*(pack.compress(ZEROS) for _ in range(megabytes)), pack.flush()])


# PNG


def png(
    width: int, height: int, idat: bytes, *more: bytes, depth: int = 8, colour: int = 0
) -> Bomb:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = _PNG + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", idat) + chunk(b"IEND")
    return lambda: read_png(data)


def read_png(data: bytes) -> None:
    read_pixels(data, check_png(data))


def text_chunk(kind: bytes, megabytes: int) -> bytes:
    return chunk(kind, b"name\0\0" + zeros(megabytes, 15))


def png_bombs() -> Iterator[tuple[str, Bomb]]:
    small = zlib.compress(bytes(9 * 8), 9)
    packed = zeros(256, 15)
    yield "png-pixels", png(0xFFFF_FFFF, 0xFFFF_FFFF, small)
    yield "png-sides", png(1 << 15, 1 << 15, small, depth=16, colour=6)
    yield "png-more-data-than-pixels", png(8, 8, packed)
    yield "png-fewer-data-than-pixels", png(8192, 8192, small, depth=16, colour=6)
    kinds = (b"iCCP", b"zTXt", b"iTXt", b"eXIf")
    yield "png-texts", png(8, 8, small, *(text_chunk(kind, 64) for kind in kinds))
    frames = [
        chunk(b"acTL", struct.pack(">II", 0x7FFF_FFFF, 0)),
        *[chunk(b"fdAT", ZEROS[:99])] * 99,
    ]
    yield "png-animation", png(8, 8, small, *frames)
    yield "png-chunks", png(8, 8, small, chunk(b"teXt") * 200_000)
    data = _PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    yield "png-idats", lambda: read_png(data + chunk(b"IDAT") * 200_000 + chunk(b"IEND"))
    claimed = _PNG + struct.pack(">I4s", 0x7FFF_FFFF, b"IHDR") + bytes(64)
    yield "png-chunk-size", lambda: read_png(claimed)


# NIfTI


def nifti_header(**fields: tuple[str, int, object]) -> bytearray:
    header = bytearray(gzip.decompress(nifti_mask(np.zeros((4, 4, 4), np.uint8), np.eye(4))))[:352]
    for form, at, value in fields.values():
        struct.pack_into(form, header, at, *(value if isinstance(value, tuple) else (value,)))
    return header


def nifti_bombs() -> Iterator[tuple[str, Bomb]]:
    def reading(data: bytes) -> Bomb:
        return lambda: read_label_map(data)

    dims = ("<8h", 40, (3, 32767, 32767, 32767, 1, 1, 1, 1))
    yield "nifti-dims", reading(bytes(nifti_header(d=dims)))
    large = ("<8h", 40, (3, 32767, 24000, 1, 1, 1, 1, 1))
    yield "nifti-zeros", reading(gzip.compress(bytes(nifti_header(d=large)), 9) + zeros(900))
    yield (
        "nifti-after-the-end",
        reading(gzip.compress(bytes(nifti_header()) + bytes(64)) + zeros(99)),
    )
    yield "nifti-offset", reading(bytes(nifti_header(o=("<f", 108, 1e30))) + bytes(64))
    far = nifti_header(o=("<f", 108, 1e9))
    yield "nifti-offset-zeros", reading(gzip.compress(bytes(far), 9) + zeros(900))
    for name, value in (("nan", float("nan")), ("inf", float("inf")), ("minus", -1.0)):
        yield f"nifti-offset-{name}", reading(bytes(nifti_header(o=("<f", 108, value))) + bytes(64))
        rows = ("<12f", 280, (value,) * 12)
        placed = nifti_header(s=("<hh", 252, (0, 1)), r=rows)
        yield f"nifti-affine-{name}", reading(bytes(placed) + bytes(64))
    extended = nifti_header(o=("<f", 108, 352 + 16.0), e=("<4B", 348, (1, 0, 0, 0)))
    extension = struct.pack("<ii", 0x7FFF_FFF0, 6) + bytes(8)
    yield "nifti-extension", reading(bytes(extended) + extension + bytes(64))
    empty = gzip.compress(b"", mtime=0)
    yield "gzip-members", reading(gzip.compress(bytes(nifti_header())) + empty * 150_000)
    yield "gzip-nested", reading(gzip.compress(zeros(500), 1))
    yield "gzip-zeros", reading(zeros(1000))


# DICOM


def dicom_bombs(folder: Path) -> Iterator[tuple[str, Bomb]]:
    (_, path), *_ = write(series(Scan(slices=1)), folder)
    plain = path.read_bytes()
    start = plain.rindex(struct.pack("<HH", 8, 0x16))  # where the file's own elements begin

    def reading(name: str, data: bytes) -> Bomb:
        made = folder / f"{name}.dcm"
        made.write_bytes(data)
        return partial(convert, made)

    def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", group, number, vr, len(value)) + value

    def with_syntax(uid: UID, body: bytes) -> bytes:
        text = uid.encode() + (b"\0" if len(uid) % 2 else b"")
        meta = element(2, 16, b"UI", text)
        length = element(2, 0, b"UL", struct.pack("<I", len(meta)))
        return bytes(128) + b"DICM" + length + meta + body

    head = with_syntax(DeflatedExplicitVRLittleEndian, zeros(64, -15))
    yield "dicom-deflated", reading("deflated", head)
    for name, keyword, value in (("rows", 0x10, 65535), ("columns", 0x11, 65535)):
        at = plain.index(struct.pack("<HH2sH", 0x28, keyword, b"US", 2)) + 8
        wrong = plain[:at] + struct.pack("<H", value) + plain[at + 2 :]
        yield f"dicom-{name}", reading(name, wrong)
    pixels = plain.index(struct.pack("<HH", 0x7FE0, 0x10))
    count = struct.pack("<HH2sH", 0x28, 8, b"IS", 10) + b"2147483647"
    at = plain.index(struct.pack("<HH2sH", 0x28, 0x10, b"US", 2))
    yield "dicom-frames", reading("frames", plain[:at] + count + plain[at:])
    longest = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 0xFFFF_FFFE)
    yield "dicom-length", reading("length", plain[:pixels] + longest + bytes(99))
    deep = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFF_FFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFF_FFFF)
    nested = plain[:start] + (deep + item) * 100_000
    yield "dicom-depth", reading("depth", nested)
    wide = plain[:start] + deep
    yield "dicom-items", reading("items", wide + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 200_000)
    fragment = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    undefined = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFF_FFFF)
    body = plain[start:pixels]
    coded = with_syntax(JPEGBaseline8Bit, body + undefined + fragment * 1_100_000)
    yield "dicom-fragments", reading("fragments", coded)


# archives


class Room:
    """What the house's own budget does, for a gigabyte and a thousand files."""

    def __init__(self) -> None:
        self.bytes, self.files = 1 << 30, 1000

    def spend(self, size_bytes: int) -> None:
        self.bytes -= size_bytes
        if self.bytes < 0:
            raise Permanent("images-too-large")

    def add(self, files: int) -> None:
        self.files -= files
        if self.files < 0:
            raise Permanent("too-many-images")


def archive_bombs(folder: Path) -> Iterator[tuple[str, Bomb]]:
    def unpacking(name: str, data: bytes) -> Bomb:
        path = folder / f"{name}.zip"
        path.write_bytes(data)
        return lambda: unpack(path, Room())

    def packed(*entries: tuple[str, bytes]) -> bytearray:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
            for name, data in entries:
                made.writestr(name, data)
        return bytearray(out.getvalue())

    yield "zip-ratio", unpacking("ratio", bytes(packed(("a", bytes(200 << 20)))))
    yield "zip-count", unpacking("count", bytes(packed(*((str(n), b"") for n in range(5000)))))
    yield "zip-nested", unpacking("nested", bytes(packed(("a.zip", bytes(packed(("b", b"c")))))))
    lying = packed(("a", bytes(32 << 20)))
    at = lying.index(b"PK\x01\x02")
    struct.pack_into("<I", lying, at + 24, 10)
    yield "zip-size-lie", unpacking("lie", bytes(lying))
    many = packed(("a", bytes(1 << 20)))
    at, end = many.index(b"PK\x01\x02"), many.index(b"PK\x05\x06")
    entry = bytes(many[at:end])
    overlapping = many[:at] + entry * 900 + many[end:]
    tail = overlapping.index(b"PK\x05\x06")
    struct.pack_into("<HHI", overlapping, tail + 8, 900, 900, len(entry) * 900)
    yield "zip-overlapping", unpacking("overlapping", bytes(overlapping))
    huge = packed(("a", b"b"))
    tail = huge.index(b"PK\x05\x06")
    struct.pack_into("<HHII", huge, tail + 8, 65535, 65535, 0xFFFF_FFFE, 0)
    yield "zip-directory-lie", unpacking("directory", bytes(huge))
    wide = packed(("a", b"b"))
    at = wide.index(b"PK\x01\x02")
    struct.pack_into("<II", wide, at + 20, 0xFFFF_FFFF, 0xFFFF_FFFF)
    yield "zip-64-lie", unpacking("zip64", bytes(wide))


# mutations


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A few bytes are others, spans come twice, are lost, or become the largest of numbers."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at, size = rng.randrange(len(out) or 1), rng.choice([1, 2, 4, 8])
        match rng.randrange(5):
            case 0:
                out[at : at + size] = rng.randbytes(size)
            case 1:
                out[at : at + size] = b"\xff" * size
            case 2:
                out[at:at] = out[at : at + rng.randrange(1, 400)]
            case 3:
                del out[at : at + rng.randrange(1, 400)]
            case _:
                out[at : at + size] = rng.choice(
                    [b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(8)]
                )
    return bytes(out or b"\0")


def mutants(folder: Path, seed: int) -> Iterator[tuple[str, Bomb]]:
    rng = random.Random(seed)
    (folder / f"of-{seed}").mkdir()
    phantom = Phantom(seed=1, organs=(Organ("liver", 1, 60, (0.4, 0.4, 0.5), (0.2, 0.2, 0.3)),))
    nifti = gzip.decompress(nifti_mask(truth(phantom), phantom.affine))
    picture = png_of(np.ones((16, 16, 1), np.uint8), 0)
    image = write(series(Scan(slices=1)), folder / f"of-{seed}")[0][1].read_bytes()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", image)
        made.writestr("b/c", b"d")
    for n in range(25):
        header = gzip.compress(mutated(rng, nifti[:352]) + nifti[352:], 1)
        yield f"nifti-{seed}-{n}", partial(read_label_map, header)
        packed = mutated(rng, gzip.compress(nifti, 1))
        yield f"gzip-{seed}-{n}", partial(read_label_map, packed)
        yield f"png-{seed}-{n}", partial(read_png, mutated(rng, picture))
        path = folder / f"mutant-{seed}-{n}"
        for kind, whole in (("dcm", image), ("zip", out.getvalue())):
            path.with_suffix(f".{kind}").write_bytes(mutated(rng, whole))
        yield f"zip-{seed}-{n}", partial(unpack, path.with_suffix(".zip"), Room())
        yield f"dicom-{seed}-{n}", partial(convert, path.with_suffix(".dcm"))


def convert(path: Path) -> None:
    read_series([(path.name, path)]).write_nifti(io.BytesIO())


def tried(bomb: Bomb) -> str:
    try:
        bomb()
    except GroundwireError as error:
        return error.reason
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def main(folder: Path, seeds: list[int]) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    bombs = [one for seed in seeds for one in mutants(folder, seed)]
    if not seeds:
        bombs = [*png_bombs(), *nifti_bombs(), *dicom_bombs(folder), *archive_bombs(folder)]
    had = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (had + MEMORY_BYTES, had + MEMORY_BYTES))
    for name, bomb in bombs:
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        said = tried(bomb)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        took = time.process_time() - began
        sys.stdout.write(json.dumps([name, said, round(took, 3), grown >> 10]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(one) for one in sys.argv[2:]])
