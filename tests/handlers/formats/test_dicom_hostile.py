"""Damaged files end in a refusal, whatever was damaged; no other exception leaves."""

from __future__ import annotations

import io
import logging
import random
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.errors import Refused, Transient
from handlers.formats.dicom import read_series
from handlers.formats.dicom_codestream import MAX_FRAGMENTS
from tests.handlers.formats.dicom_phantoms import LOSSLESS, Scan, enhanced, series, write

ROUNDS = 60
ONE = Scan(slices=1)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """pydicom tells of each decoder that fails."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module", params=[*LOSSLESS, "enhanced"])
def image(request: pytest.FixtureRequest) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        plain = [enhanced(Scan(slices=3))] if request.param == "enhanced" else series(ONE)
        syntax = LOSSLESS.get(request.param, LOSSLESS["explicit"])
        return write(plain, Path(name), syntax)[0][1].read_bytes()


def outcome(data: bytes, folder: Path) -> str:
    path = folder / "damaged.dcm"
    path.write_bytes(data)
    try:
        read = read_series([("damaged.dcm", path)])
        read.write_nifti(io.BytesIO())
    except (Refused, Transient) as error:
        return error.reason
    return "converted"


@pytest.mark.filterwarnings("ignore")
def test_no_truncated_file_is_converted(image: bytes, tmp_path: Path) -> None:
    step = max(1, len(image) // ROUNDS)
    cuts = [len(image) - 1 - n * step for n in range(1, ROUNDS)]
    deflated = b"1.2.840.10008.1.2.1.99" in image
    outcomes = {outcome(image[:cut], tmp_path) for cut in cuts if not deflated or cut < 400}
    assert outcome(image, tmp_path) == "converted"
    assert "converted" not in outcomes


@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_leave_no_other_exception(image: bytes, tmp_path: Path) -> None:
    chance = random.Random(7)
    outcomes = set()
    for _ in range(ROUNDS):
        damaged = bytearray(image)
        for _ in range(chance.choice((1, 2, 8))):
            damaged[chance.randrange(132, len(damaged))] = chance.randrange(256)
        outcomes.add(outcome(bytes(damaged), tmp_path))
    assert len(outcomes) > 1


def with_codestream(folder: Path, syntax: str, change: tuple[bytes, int, bytes]) -> bytes:
    """The codestream's bytes changed that lie so far behind a marker."""
    data = bytearray(write(series(ONE), folder, LOSSLESS[syntax])[0][1].read_bytes())
    marker, offset, new = change
    at = data.rindex(marker) + offset
    data[at : at + len(new)] = new
    return bytes(data)


HUGE = struct.pack(">HH", 65535, 65535)
SIZES = {
    "JPEG-LS": (b"\xff\xf7", 5, HUGE),
    "JPEG lossless": (b"\xff\xc3", 5, HUGE),
    "JPEG 2000": (b"\xff\x4f\xff\x51", 8, struct.pack(">II", 2**31, 2**31)),
}


@pytest.mark.parametrize("syntax", SIZES)
def test_no_decoder_sees_a_codestream_of_another_size(syntax: str, tmp_path: Path) -> None:
    data = with_codestream(tmp_path, syntax, SIZES[syntax])
    (tmp_path / "image.dcm").write_bytes(data)
    with pytest.raises(Refused, match="the header has 34 x 40") as caught:
        read_series([("image.dcm", tmp_path / "image.dcm")]).write_nifti(io.BytesIO())
    assert caught.value.reason == "undecodable-pixels"


def test_no_decoder_sees_more_tiles_than_are_worth_a_slice(tmp_path: Path) -> None:
    scan = Scan(slices=1, columns=80, rows=60)
    data = write(series(scan), tmp_path, LOSSLESS["JPEG 2000"])[0][1].read_bytes()
    at = data.rindex(b"\xff\x4f\xff\x51") + 24
    tiles = struct.pack(">II", 1, 1)
    assert outcome(data[:at] + tiles + data[at + 8 :], tmp_path) == "undecodable-pixels"


def test_fragments_without_end_are_counted_no_further_than_their_limit(tmp_path: Path) -> None:
    data = write(series(ONE), tmp_path, LOSSLESS["RLE"])[0][1].read_bytes()
    at = data.rindex(b"\xfe\xff\xdd\xe0")
    fragment = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    endless = data[:at] + fragment * (MAX_FRAGMENTS + 1)
    assert outcome(endless, tmp_path) == "undecodable-pixels"
    assert outcome(data[:at] + fragment * 10, tmp_path) == "truncated-pixels"


def test_a_codestream_that_ends_before_its_end_is_not_made_up(tmp_path: Path) -> None:
    for syntax in ("JPEG-LS", "JPEG lossless", "JPEG 2000"):
        data = write(series(ONE), tmp_path / syntax, LOSSLESS[syntax])[0][1].read_bytes()
        end = data.rindex(b"\xff\xd9")
        assert outcome(data[:end] + b"\x01\x01" + data[end + 2 :], tmp_path) == "truncated-pixels"


def test_more_pixels_than_the_header_tells_of_are_refused(tmp_path: Path) -> None:
    dataset = series(ONE)[0]
    dataset.PixelData = dataset.PixelData * 2
    data = write([dataset], tmp_path)[0][1].read_bytes()
    assert outcome(data, tmp_path) == "undecodable-pixels"


def test_what_follows_pixels_that_are_too_few_is_not_taken_for_them(tmp_path: Path) -> None:
    dataset = series(ONE)[0]
    dataset.PixelData = dataset.PixelData[:-80]
    dataset.add_new(0xFFFCFFFC, "OB", bytes(400))  # padding behind the data set
    data = write([dataset], tmp_path)[0][1].read_bytes()
    assert outcome(data, tmp_path) == "truncated-pixels"


def test_a_little_padding_behind_the_pixels_is_left_alone(tmp_path: Path) -> None:
    dataset = series(ONE)[0]
    dataset.PixelData = dataset.PixelData + b"\0" * 80
    data = write([dataset], tmp_path)[0][1].read_bytes()
    assert outcome(data, tmp_path) == "converted"
