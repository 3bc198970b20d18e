"""The index's copy in the store, so that a new machine starts quickly: ``log/ids/<N>``. Pure.

Segment N holds what the index keeps of the ids of 16,384 consecutive entries. It is a function of
those entries alone, so it is written once; it names the root of their subtree, and one that does
not fit the log's tiles, or its own hash, is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from consumer.log.index import DIGEST_BYTES
from consumer.log.tiles import WIDTH
from consumer.model import FORMAT, canonical

SEGMENT = 64 * WIDTH  # entries


class _Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    number: int
    root: str  # of the subtree of its entries, hex
    sha256: str  # of what follows
    format: int = FORMAT


def encode_segment(number: int, root: bytes, digests: Sequence[bytes]) -> bytes:
    body = b"".join(digests)
    header = _Header(number=number, root=root.hex(), sha256=hashlib.sha256(body).hexdigest())
    return canonical(header) + b"\n" + body


def decode_segment(number: int, root: bytes, data: bytes) -> list[bytes] | None:
    """The digests in order; None when it is not the segment of these entries."""
    line, _, body = data.partition(b"\n")
    try:
        header = msgspec.json.decode(line, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    digests = [body[i : i + DIGEST_BYTES] for i in range(0, len(body), DIGEST_BYTES)]
    same = header.number == number and header.root == root.hex()
    whole = len(body) == SEGMENT * DIGEST_BYTES and encode_segment(number, root, digests) == data
    return digests if same and whole else None
