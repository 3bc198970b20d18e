"""What is accepted as a PNG mask and what is refused, with Pillow as the other writer."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from consumer.demo.phantom import grey_png
from consumer.errors import Permanent, Transient
from handlers.formats.png import PngInfo, check_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MASK = np.zeros((9, 13), np.uint8)
MASK[3:6, 2:11] = 255
ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def ihdr(
    width: int = 4, height: int = 4, depth: int = 8, colour: int = 0, interlace: int = 0
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def idat(raw: bytes = bytes(20)) -> bytes:
    return chunk(b"IDAT", zlib.compress(raw))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


END = chunk(b"IEND")


def refused(data: bytes, kind: type[Permanent] | type[Transient], **limits: int) -> str:
    with pytest.raises(kind) as caught:
        check_png(data, **limits)
    return caught.value.reason


def by_pillow(mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(MASK).convert(mode).save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "depth", "colour"),
    [("1", 1, 0), ("L", 8, 0), ("LA", 8, 4), ("RGB", 8, 2), ("RGBA", 8, 6), ("I;16", 16, 0)],
)
def test_pngs_of_another_writer_are_read(mode: str, depth: int, colour: int) -> None:
    assert check_png(by_pillow(mode)) == PngInfo(13, 9, depth, colour, interlaced=False)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_every_depth_are_read(bits: int) -> None:
    assert check_png(by_pillow("P", bits=bits)) == PngInfo(13, 9, bits, 3, interlaced=False)


def test_what_is_accepted_is_what_pillow_can_load() -> None:
    data = grey_png(MASK)
    check_png(data)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), MASK)


def test_text_and_other_extra_chunks_are_left_alone() -> None:
    extra = chunk(b"tEXt", b"Title\0mask")
    assert check_png(png(ihdr(), extra, idat(), extra, END)).width == 4


def test_image_data_may_be_in_many_chunks() -> None:
    packed = zlib.compress(bytes(20))
    pieces = [chunk(b"IDAT", packed[at : at + 1]) for at in range(len(packed))]
    assert check_png(png(ihdr(), *pieces, chunk(b"IDAT"), END)).height == 4


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([(1, 0, 1), (8, 2, 24), (16, 6, 64)])
)
def test_interlaced_images_have_the_rows_of_seven_passes(
    width: int, height: int, form: tuple[int, int, int]
) -> None:
    depth, colour, bits = form
    raw = b""
    for column, row, across, down in ADAM7:
        columns = len(range(column, width, across))
        raw += len(range(row, height, down)) * bytes(1 + (columns * bits + 7) // 8) * bool(columns)
    head = ihdr(width, height, depth, colour, interlace=1)
    assert check_png(png(head, idat(raw), END)).interlaced
    assert Image.open(io.BytesIO(png(head, idat(raw), END))).size == (width, height)
    assert refused(png(head, idat(raw[:-1]), END), Permanent) == "mask-not-png"
    assert refused(png(head, idat(raw + b"\0"), END), Permanent) == "mask-not-png"


def test_data_cut_anywhere_may_be_fetched_again() -> None:
    data = grey_png(MASK)
    for end in range(len(data)):
        assert refused(data[:end], Transient) == "mask-truncated"


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_flipped_bit_anywhere_is_noticed(data: st.DataObject) -> None:
    flipped = bytearray(grey_png(MASK))
    at = data.draw(st.integers(0, len(flipped) - 1))
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((Transient, Permanent)):
        check_png(bytes(flipped))


def test_a_wrong_checksum_may_be_fetched_again() -> None:
    data = bytearray(grey_png(MASK))
    data[-13] ^= 1  # the last byte of the image data's checksum
    assert refused(bytes(data), Transient) == "mask-damaged"


@pytest.mark.parametrize("data", [b"GIF89a", b"\xff\xd8\xff\xe0", b"<html>", b"\x89PNG\n\x1a\n.."])
def test_what_does_not_begin_as_a_png_is_refused(data: bytes) -> None:
    assert refused(data, Permanent) == "mask-not-png"


@pytest.mark.parametrize(
    "header",
    [
        ihdr(depth=3),
        ihdr(depth=16, colour=3),
        ihdr(depth=4, colour=2),
        ihdr(colour=1),
        ihdr(colour=7),
        ihdr(interlace=2),
        chunk(b"IHDR", bytes(12)),
        chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 1, 0, 0)),
        chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 1, 0)),
        idat(),
    ],
)
def test_a_header_that_no_png_may_have_is_refused(header: bytes) -> None:
    assert refused(png(header, idat(), END), Permanent) == "mask-not-png"


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, 0), (2**31, 1), (1, 40_000)])
def test_dimensions_out_of_bounds_are_refused(width: int, height: int) -> None:
    assert refused(png(ihdr(width, height), idat(), END), Permanent) == "mask-too-large"


def test_more_pixels_than_allowed_are_refused() -> None:
    data = grey_png(MASK)
    assert check_png(data, max_pixels=MASK.size).width == 13
    assert refused(data, Permanent, max_pixels=MASK.size - 1) == "mask-too-large"


PLTE = chunk(b"PLTE", bytes(6))


@pytest.mark.parametrize(
    "chunks",
    [
        (ihdr(), END),
        (ihdr(), idat(bytes(19)), END),
        (ihdr(), idat(bytes(21)), END),
        (ihdr(), idat(b"\x05" + bytes(19)), END),
        (ihdr(), chunk(b"IDAT", b"not zlib at all"), END),
        (ihdr(), chunk(b"IDAT", zlib.compress(bytes(20))[:-4]), END),
        (ihdr(), idat(), idat(), END),
        (ihdr(), idat(), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT"), END),
        (ihdr(), chunk(b"QQQQ"), idat(), END),
        (ihdr(), ihdr(), idat(), END),
        (ihdr(), chunk(b"1DAT"), idat(), END),
        (ihdr(), PLTE, idat(), END),
        (ihdr(colour=3), idat(), END),
        (ihdr(colour=3), idat(), PLTE, END),
        (ihdr(colour=3), PLTE, PLTE, idat(), END),
        (ihdr(colour=3), chunk(b"PLTE", bytes(7)), idat(), END),
        (ihdr(colour=3), chunk(b"PLTE"), idat(), END),
    ],
)
def test_whole_chunks_that_make_no_image_are_refused(chunks: tuple[bytes, ...]) -> None:
    assert refused(png(*chunks), Permanent) == "mask-not-png"


def test_bytes_after_the_end_are_refused() -> None:
    assert refused(grey_png(MASK) + b"PK", Permanent) == "mask-trailing-bytes"


def test_more_chunks_than_a_png_can_need_are_refused() -> None:
    data = png(ihdr(), chunk(b"tEXt") * 100_000, idat(), END)
    assert refused(data, Permanent) == "mask-too-large"


def test_a_bomb_is_not_unpacked() -> None:
    data = png(ihdr(), idat(bytes(256 << 20)), END)
    tracemalloc.start()
    try:
        reason = refused(data, Permanent)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason == "mask-not-png"
    assert taken < 4 << 20


def test_the_largest_image_is_checked_in_little_memory() -> None:
    rows = zlib.compress(bytes(8193) * 8192)
    data = png(ihdr(8192, 8192), chunk(b"IDAT", rows), END)
    tracemalloc.start()
    check_png(data)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 4 << 20
