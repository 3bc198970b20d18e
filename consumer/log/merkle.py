"""RFC 6962 section 2.1: the Merkle tree's hashes, and the proofs that rest on them. Pure.

A list of hashes stands for consecutive, complete subtrees of one height, of which the last may be
incomplete; hashing neighbours and promoting an odd last one gives the RFC's tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()  # of the tree without entries

Subtree = Callable[[int, int], bytes]  # MTH(D[start:end]) of the entries start <= i < end


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def combine(hashes: Sequence[bytes]) -> bytes:
    """The root over one or more neighbours, of which only the last may be incomplete."""
    row = list(hashes)
    while len(row) > 1:
        odd = row[-1:] if len(row) % 2 else []
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)] + odd
    return row[0]


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """RFC 6962 section 2.1.1: the audit path of one entry, nearest sibling first."""
    _need(0 <= index < size, "the entry is not in the tree")
    return _path(index, 0, size, subtree)


def _path(index: int, start: int, end: int, subtree: Subtree) -> list[bytes]:
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(index, start, middle, subtree), subtree(middle, end)]
    return [*_path(index, middle, end, subtree), subtree(start, middle)]


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that a proof leads to: the entry is in the tree if it is the tree's root.

    Raises ``ValueError`` when the proof has the wrong length for this index and size.
    """
    _need(0 <= index < size, "the entry is not in the tree")
    position, last, current = index, size - 1, leaf
    for sibling in proof:
        _need(last > 0, "the proof is too long")
        if position % 2 or position == last:
            current = node_hash(sibling, current)
            while position % 2 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        position, last = position >> 1, last >> 1
    _need(last == 0, "the proof is too short")
    return current


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """RFC 6962 section 2.1.2: proves that the tree of ``old`` entries is a prefix of ``new``."""
    _need(0 < old <= new, "an empty tree, or a newer one, is nobody's prefix")
    return _prefix(old, 0, new, subtree, whole=True)


def _prefix(old: int, start: int, end: int, subtree: Subtree, *, whole: bool) -> list[bytes]:
    if old == end - start:
        return [] if whole else [subtree(start, end)]
    half = _split(end - start)
    middle = start + half
    if old <= half:
        return [*_prefix(old, start, middle, subtree, whole=whole), subtree(middle, end)]
    rest = _prefix(old - half, middle, end, subtree, whole=False)
    return [*rest, subtree(start, middle)]


def is_prefix(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a consistency proof holds (RFC 9162 section 2.1.4.2)."""
    if old == new:
        return old_root == new_root and not proof
    if not 0 < old < new or not proof:
        return False
    hashes = list(proof) if old & (old - 1) else [old_root, *proof]
    position, last = old - 1, new - 1
    while position % 2:
        position, last = position >> 1, last >> 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if position % 2 or position == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while position % 2 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << ((count - 1).bit_length() - 1)


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
