"""The Merkle tree against the published vectors of Certificate Transparency, and its proofs."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.log.merkle import (
    EMPTY_ROOT,
    combine,
    consistency_proof,
    inclusion_proof,
    is_prefix,
    leaf_hash,
    root_from_inclusion,
)

INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
LEAVES = [leaf_hash(data) for data in INPUTS]


def subtree(start: int, end: int) -> bytes:
    return combine(LEAVES[start:end])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_published_vectors(size: int) -> None:
    assert combine(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert sha256().digest() == EMPTY_ROOT


def test_the_published_consistency_proof_from_two_to_five() -> None:
    assert [part.hex() for part in consistency_proof(2, 5, subtree)] == [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ]


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_every_inclusion_proof_leads_to_the_root(place: tuple[int, int]) -> None:
    index, size = place
    proof = inclusion_proof(index, size, subtree)
    assert root_from_inclusion(index, size, LEAVES[index], proof) == subtree(0, size)


def test_an_inclusion_proof_of_another_entry_leads_elsewhere() -> None:
    proof = inclusion_proof(2, 7, subtree)
    assert root_from_inclusion(3, 7, LEAVES[2], proof) != subtree(0, 7)


@pytest.mark.parametrize("cut", [0, 1])
def test_an_inclusion_proof_of_the_wrong_length_is_refused(cut: int) -> None:
    proof = inclusion_proof(2, 7, subtree)
    wrong = proof[:-1] if cut else [*proof, LEAVES[0]]
    with pytest.raises(ValueError, match="too"):
        root_from_inclusion(2, 7, LEAVES[2], wrong)


@settings(max_examples=200)
@given(st.data())
def test_every_consistency_proof_holds_and_no_altered_one(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 8))
    old = data.draw(st.integers(1, new))
    proof = consistency_proof(old, new, subtree)
    assert is_prefix(old, subtree(0, old), new, subtree(0, new), proof)
    assert not is_prefix(old, LEAVES[7 if old == 1 else 0], new, subtree(0, new), proof)
    assert not is_prefix(old, subtree(0, old), new, leaf_hash(b"other"), proof)
    assert not is_prefix(old, subtree(0, old), new, subtree(0, new), [*proof, LEAVES[0]])
    if proof:
        assert not is_prefix(old, subtree(0, old), new, subtree(0, new), proof[:-1])
