"""Which pixels of a PNG are drawn, whatever its colour type and depth."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import Permanent, Refused
from handlers.formats.png import check_png
from handlers.formats.png_pixels import Pixels, drawn, drawn_in, read_pixels
from tests.handlers.formats.png_samples import CHANNELS, chunk, png_of

KINDS = [
    (colour, depth)
    for colour, depths in {
        0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)
    }.items()
    for depth in depths
]  # fmt: skip
RED, BLUE = (200, 0, 0), (0, 0, 9)


def read(data: bytes) -> Pixels:
    return read_pixels(data, check_png(data))


def samples_of(colour: int, depth: int, seed: int = 1, side: int = 13) -> np.ndarray[Any, Any]:
    """Half of the samples are zero; the rest often differ from it in their lowest bit only."""
    random = np.random.default_rng((seed, colour, depth))
    shape = (side, side + 4, CHANNELS[colour])
    values = random.choice([1, 2**depth - 1, 2**depth // 2], shape)
    return np.where(random.random(shape) < 0.5, 0, values)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_every_colour_type_and_depth_is_read(colour: int, depth: int, interlaced: bool) -> None:
    samples = samples_of(colour, depth)
    palette = bytes([0, 0, 0]) + bytes([7]) * 3 * (2**depth - 1) if colour == 3 else b""

    mask = drawn(read(png_of(samples, colour, depth, interlaced=interlaced, palette=palette)))

    expected = {
        0: samples[:, :, 0] != 0,
        2: samples.any(2),
        3: samples[:, :, 0] != 0,
        4: (samples != 0).all(2),
        6: samples[:, :, :3].any(2) & (samples[:, :, -1] != 0),
    }[colour]
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("filtered", range(5))
@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_sixteen_bits_are_kept_whatever_the_filter(colour: int, filtered: int) -> None:
    random = np.random.default_rng(colour)
    samples = random.integers(0, 2**16, (9, 11, CHANNELS[colour]))

    pixels = read(png_of(samples, colour, 16, filters=(filtered,)))

    channels = 3 if colour in (2, 6) else 1
    assert np.array_equal(pixels.colour, samples[:, :, :channels])


@pytest.mark.parametrize("side", [1, 2, 3, 5])
@pytest.mark.parametrize("depth", [8, 16])
def test_tiny_interlaced_pictures_are_read(depth: int, side: int) -> None:
    samples = samples_of(2, depth, side=side)

    pixels = read(png_of(samples, 2, depth, interlaced=True))

    assert np.array_equal(pixels.colour, samples)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_grey_that_trns_names_is_not_drawn(depth: int) -> None:
    samples = samples_of(0, depth) if depth > 1 else np.array([[[0], [1]]])
    clear = 2**depth - 1 if depth > 1 else 0

    data = png_of(samples, 0, depth, transparency=clear.to_bytes(2))

    expected = (samples[:, :, 0] != 0) & (samples[:, :, 0] != clear)
    assert np.array_equal(drawn(read(data)), expected)


def test_the_colour_that_trns_names_is_not_drawn() -> None:
    samples = np.array([[[0, 0, 0], RED, BLUE]])

    data = png_of(samples, 2, transparency=bytes([0, 200, 0, 0, 0, 0]))

    assert drawn(read(data)).tolist() == [[False, False, True]]


def test_a_palettes_index_stands_for_its_colour_and_transparency() -> None:
    index = np.array([[[0], [1], [2], [3]]])
    palette = bytes([*RED, 0, 0, 0, *BLUE, *RED])

    data = png_of(index, 3, palette=palette, transparency=bytes([255, 255, 0]))

    assert drawn(read(data)).tolist() == [[True, False, False, True]]


def test_an_index_beyond_the_palette_is_refused() -> None:
    with pytest.raises(Permanent, match="palette"):
        read(png_of(np.array([[[2]]]), 3, palette=bytes(6)))


def test_a_transparency_of_another_length_is_refused() -> None:
    with pytest.raises(Permanent, match="transparency"):
        read(png_of(np.array([[[2]]]), 0, transparency=bytes(6)))


def test_texts_in_the_picture_are_not_even_looked_at() -> None:
    bomb = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(1 << 22)))

    assert drawn(read(png_of(np.array([[[7]]]), 0, extra=bomb))).all()


def test_clear_background_in_a_colour_is_no_drawing() -> None:
    white = np.array([[[255, 255, 255, 0], [255, 255, 255, 255]]])

    assert drawn(read(png_of(white, 6))).tolist() == [[False, True]]


@pytest.mark.parametrize(
    "pixels",
    [
        [[255, 255, 255, 0], [255, 255, 255, 0]],  # a colour, but nowhere to be seen
        [[0, 0, 0, 0], [0, 0, 0, 255]],  # drawn in black
    ],
)
def test_a_picture_that_says_two_things_is_refused(pixels: list[list[int]]) -> None:
    with pytest.raises(Refused) as caught:
        drawn(read(png_of(np.array([pixels]), 6)))

    assert caught.value.reason == "picture-ambiguous"
    assert "of 2 are opaque" in caught.value.message


@pytest.mark.parametrize("alpha", [0, 255])
def test_an_empty_picture_is_empty(alpha: int) -> None:
    empty = np.array([[[0, alpha]] * 3])

    assert not drawn(read(png_of(empty, 4))).any()


# composites


@pytest.mark.parametrize("colour_type", [2, 3, 6])
def test_each_object_of_a_composite_has_exactly_its_colour(colour_type: int) -> None:
    palette = bytes([0, 0, 0, *RED, *BLUE])
    index = np.array([[0, 1, 2], [2, 2, 0]])
    colours = np.array([(0, 0, 0), RED, BLUE])[index]
    samples = {
        2: colours,
        3: index[:, :, None],
        6: np.concatenate([colours, np.full((2, 3, 1), 255)], axis=2),
    }[colour_type]

    data = png_of(samples, colour_type, palette=palette if colour_type == 3 else b"")
    masks = drawn_in(read(data), [RED, BLUE])

    assert np.array_equal(masks[RED], index == 1)
    assert np.array_equal(masks[BLUE], index == 2)


def test_a_composite_of_sixteen_bits_has_stretched_colours() -> None:
    samples = np.array([[[200 * 257, 0, 0], [0, 0, 0]]])

    assert drawn_in(read(png_of(samples, 2, 16)), [RED])[RED].tolist() == [[True, False]]


def test_sixteen_bits_that_are_nearly_a_colour_are_another_colour() -> None:
    with pytest.raises(Refused, match="no object claims"):
        drawn_in(read(png_of(np.array([[[200 * 257 + 1, 0, 0]]]), 2, 16)), [RED])


def test_a_grey_composite_is_keyed_by_grey() -> None:
    masks = drawn_in(read(png_of(np.array([[[5], [6], [0]]]), 0)), [(5, 5, 5), (6, 6, 6)])

    assert masks[5, 5, 5].tolist() == [[True, False, False]]


def test_a_colour_that_nobody_claims_is_refused_with_its_pixels() -> None:
    samples = np.array([[RED, BLUE, BLUE, (0, 0, 0)]])

    with pytest.raises(Refused) as caught:
        drawn_in(read(png_of(samples, 2)), [RED])

    assert caught.value.reason == "composite-unclaimed-color"
    assert "(0, 0, 9) (2 pixels)" in caught.value.message


def test_of_many_unclaimed_colours_a_few_are_named() -> None:
    samples = np.arange(1, 22).reshape(1, 7, 3)

    with pytest.raises(Refused, match="and 2 more"):
        drawn_in(read(png_of(samples, 2)), [RED])


def test_a_claimed_colour_that_does_not_occur_is_empty() -> None:
    assert not drawn_in(read(png_of(np.array([[RED]]), 2)), [RED, BLUE])[BLUE].any()


def test_a_claimed_colour_that_is_transparent_is_not_drawn() -> None:
    samples = np.array([[[*RED, 255], [*RED, 0]]])

    assert drawn_in(read(png_of(samples, 6)), [RED])[RED].tolist() == [[True, False]]


def test_black_cannot_be_claimed() -> None:
    with pytest.raises(Refused, match="black"):
        drawn_in(read(png_of(np.array([[RED]]), 2)), [RED, (0, 0, 0)])


@given(st.sampled_from(KINDS), st.booleans(), st.integers(0, 99), st.integers(1, 20))
def test_what_is_opaque_and_coloured_is_drawn_or_refused(
    kind: tuple[int, int], interlaced: bool, seed: int, side: int
) -> None:
    colour, depth = kind
    samples = samples_of(colour, depth, seed, side)
    palette = bytes([0, 0, 0]) + bytes([7]) * 3 * (2**depth - 1) if colour == 3 else b""
    pixels = read(png_of(samples, colour, depth, interlaced=interlaced, palette=palette))

    try:
        mask = drawn(pixels)
    except Refused:
        mask = np.zeros(samples.shape[:2], bool)

    colours = samples[:, :, :-1] if colour in (4, 6) else samples
    opaque = samples[:, :, -1] != 0 if colour in (4, 6) else True
    assert np.array_equal(mask, colours.any(2) & opaque)
