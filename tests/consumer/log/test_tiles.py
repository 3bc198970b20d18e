"""Paths, bundles and growth, against the examples of the tlog-tiles specification."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.log.merkle import combine, leaf_hash
from consumer.log.tiles import (
    ENTRIES,
    Edge,
    Tile,
    completed,
    decode_bundle,
    encode_bundle,
    grow,
    parse_path,
    right_edge,
    width_at,
)


def test_an_index_is_written_in_groups_of_three_digits() -> None:
    assert Tile(0, 1234067).path == "tile/0/x001/x234/067"


def test_a_partial_bundle_names_its_width() -> None:
    assert Tile(ENTRIES, 5, 17).path == "tile/entries/005.p/17"


def test_the_specifications_tree_of_seventy_thousand() -> None:
    edge = {tile.level: (tile.index, tile.width) for tile in right_edge(70_000)}
    assert edge == {ENTRIES: (273, 112), 0: (273, 112), 1: (1, 17), 2: (0, 1)}


def test_a_tree_of_256_has_a_full_tile_and_one_of_width_one_above() -> None:
    assert width_at(0, 0, 256) == 256
    assert right_edge(256) == [Tile(1, 0, 1)]


@given(st.builds(Tile, st.integers(ENTRIES, 63), st.integers(0, 2**50), st.integers(1, 256)))
def test_every_path_reads_back(tile: Tile) -> None:
    assert parse_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/001",
        "tile/0/000.p/256",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/data/000",
        "tile/0/001/002",
        "tile/0/000 ",
    ],
)
def test_what_is_no_path_is_not_read_as_one(path: str) -> None:
    assert parse_path(path) is None


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_reads_back(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), len(entries)) == entries


def test_lengths_are_big_endian() -> None:
    assert encode_bundle([b"a" * 258])[:2] == b"\x01\x02"


def test_an_entry_of_65535_bytes_fits_and_one_more_does_not() -> None:
    assert decode_bundle(encode_bundle([b"x" * 65_535])) == [b"x" * 65_535]
    with pytest.raises(ValueError, match="does not fit"):
        encode_bundle([b"x" * 65_536])


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x02a", b"\x00\x01a\x00"])
def test_a_bundle_that_is_cut_short_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cut short"):
        decode_bundle(data)


def test_a_bundle_of_another_count_is_refused() -> None:
    with pytest.raises(ValueError, match="not 3"):
        decode_bundle(encode_bundle([b"a", b"b"]), 3)


def grown(portions: list[int]) -> tuple[Edge, dict[str, bytes]]:
    edge, objects, number = Edge(), dict[str, bytes](), 0
    for portion in portions:
        entries = [str(number + i).encode() for i in range(portion)]
        number += portion
        edge, made = grow(edge, entries)
        objects |= {tile.path: data for tile, data in made}
    return edge, objects


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=8))
def test_growth_in_any_portions_gives_the_same_tiles_and_root(portions: list[int]) -> None:
    edge, objects = grown(portions)
    size = sum(portions)
    whole, at_once = grown([size])
    assert edge == whole
    assert {path: objects[path] for path in at_once} == at_once
    if size:
        assert edge.root == combine([leaf_hash(str(i).encode()) for i in range(size)])
        assert edge.root == Edge(size, edge.levels).root


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_growth_makes_every_tile_that_the_specification_asks_for(portions: list[int]) -> None:
    _, objects = grown(portions)
    size = 0
    for portion in portions:
        size += portion
        assert {tile.path for tile in right_edge(size)} <= objects.keys()
    assert {tile.path for tile in completed(0, size)} <= objects.keys()
    for path, data in objects.items():
        tile = parse_path(path)
        assert tile is not None
        if tile.level >= 0:
            assert len(data) == 32 * tile.width


def test_a_tile_of_the_second_level_holds_the_roots_of_full_tiles() -> None:
    _, objects = grown([600])
    below = objects["tile/0/001"]
    hashes = [below[i : i + 32] for i in range(0, len(below), 32)]
    assert objects["tile/1/000.p/2"][32:] == combine(hashes)


def test_completed_names_what_became_full_between_two_sizes() -> None:
    assert completed(255, 256) == [Tile(ENTRIES, 0), Tile(0, 0)]
    assert completed(256, 511) == []
    assert Tile(1, 0) in completed(65_535, 65_536)
