"""``log/head`` and the stage it names: what is committed, and what it takes to publish it. Pure.

The head alone says what the log is; whoever reads it, with or without the key, can publish it.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from consumer.log.keys import stage_key
from consumer.log.note import BadNote, Checkpoint, Signer, Verifier, read_checkpoint
from consumer.log.tiles import Edge, decode_bundle, encode_bundle
from consumer.model import FORMAT, canonical


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The committed state; ``size`` grows with every swap, so its bytes never recur.

    ``signature`` is the key's, over the canonical JSON of the other fields: no note's text, which
    ends in a newline, can stand for it.
    """

    size: int
    checkpoint: str  # the signed note
    key: str  # the verifier key of the writer
    stage: str  # the key of the batch that led here
    signature: str = ""
    format: int = FORMAT

    @property
    def tree(self) -> Checkpoint:
        return read_checkpoint(self.checkpoint.encode())

    @property
    def signed_text(self) -> str:
        return canonical(msgspec.structs.replace(self, signature="")).decode()

    @property
    def data(self) -> bytes:
        return canonical(self)


class Stage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch, and the tree it was made for; stored as one line of JSON and a bundle."""

    start: int  # the tree's size before
    count: int
    root: str  # the tree's root before, hex
    format: int = FORMAT


def sign_head(signer: Signer, origin: str, edge: Edge, stage: str) -> Head:
    note = signer.sign(Checkpoint(origin, edge.size, edge.root).text)
    head = Head(size=edge.size, checkpoint=note.decode(), key=signer.verifier.vkey, stage=stage)
    return msgspec.structs.replace(head, signature=signer.signature(head.signed_text))


def read_head(data: bytes) -> Head:
    """Raises ``ValueError`` for anything but what `Head.data` gives: one content, one spelling."""
    head = msgspec.json.decode(data, type=Head)
    tree = head.tree
    verifier = Verifier.from_vkey(head.key)
    verifier.open(head.checkpoint.encode())
    verifier.check(head.signed_text, head.signature)
    if head.data != data or head.format != FORMAT or tree.size != head.size:
        raise BadNote("head is not what a writer writes")
    return head


def write_stage(before: Edge, entries: list[bytes]) -> tuple[str, bytes]:
    """A batch's stage: its key, made of the hash, and its bytes."""
    header = Stage(start=before.size, count=len(entries), root=before.root.hex())
    data = canonical(header) + b"\n" + encode_bundle(entries)
    return stage_key(data), data


def read_stage(key: str, data: bytes) -> tuple[Stage, list[bytes]]:
    """Raises ``ValueError`` when the bytes are not those that the key is made of."""
    if stage_key(data) != key:
        raise BadNote("the stage's bytes do not have its hash")
    line, _, bundle = data.partition(b"\n")
    stage = msgspec.json.decode(line, type=Stage)
    return stage, decode_bundle(bundle, stage.count)
