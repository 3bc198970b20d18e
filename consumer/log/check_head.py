"""Verifies what the log says of itself: checkpoint, head, public key, and an older checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.errors import GroundwireError
from consumer.log.finding import Findings
from consumer.log.head import Head, read_head, read_stage
from consumer.log.keys import CHECKPOINT, HEAD, LOG, VKEY
from consumer.log.merkle import EMPTY_ROOT
from consumer.log.note import BadNote, Checkpoint, Verifier, read_checkpoint
from consumer.log.read import read_edge
from consumer.log.tiles import grow
from consumer.ports import Store


@dataclass(frozen=True, slots=True)
class Claim:
    """The tree that the log claims to be, and the one that it must extend."""

    tree: Checkpoint
    older: Checkpoint | None = None
    stage: str | None = None  # of head


async def check_head(
    store: Store, findings: Findings, *, vkey: str | None, older: bytes | None
) -> Claim | None:
    """What is claimed, to be recomputed; None when there is nothing to go by.

    Raises `BadNote` when ``vkey`` or ``older``, which the caller gave, cannot be read.
    """
    given = Verifier.from_vkey(vkey) if vkey else None
    old = read_checkpoint(older) if older else None
    stored = await store.read(CHECKPOINT)  # before head, which may then only be newer
    head = await _head(store, findings)
    verifier = await _verifier(store, findings, given, head, published=stored is not None)
    tree = _tree(stored.data, findings, verifier) if stored else None
    if tree is None and head is not None:
        tree = await _unpublished(store, findings, head, missing=stored is None)
    if tree is None:
        findings.add(LOG, "there is no log here that could be checked")
        return None
    if head is not None and stored is not None:
        await _compare(store, findings, head, tree, stored.data)
    if old is not None and older is not None:
        _check_older(older, old, findings, verifier, tree)
    return Claim(tree, old, head.stage if head else None)


async def _head(store: Store, findings: Findings) -> Head | None:
    stored = await store.read(HEAD)
    if stored is None:
        findings.add(HEAD, "it is missing")
        return None
    try:
        return read_head(stored.data)
    except ValueError as error:
        findings.add(HEAD, f"it is not what a writer wrote ({error})")
        return None


async def _verifier(
    store: Store,
    findings: Findings,
    given: Verifier | None,
    head: Head | None,
    *,
    published: bool,
) -> Verifier | None:
    """The key given, else the one in the store; every place that names a key must agree."""
    stored = await store.read(VKEY)
    own: Verifier | None = None
    if stored is None and published:
        findings.add(VKEY, "it is missing")
    elif stored is not None:
        try:
            own = Verifier.from_vkey(stored.data.decode())
        except ValueError:
            findings.add(VKEY, "it is no verifier key")
        else:
            if stored.data != f"{own.vkey}\n".encode():
                findings.add(VKEY, "it is not what a writer wrote")
    verifier = given or own
    if verifier and own and own != verifier:
        findings.add(VKEY, "it is another key than the one you gave")
    if verifier and head and head.key != verifier.vkey:
        findings.add(HEAD, f"it was written with the key {head.key}")
    return verifier


def _tree(note: bytes, findings: Findings, verifier: Verifier | None) -> Checkpoint | None:
    """What the checkpoint claims, also if its signature is wrong: then places can be named."""
    try:
        tree = read_checkpoint(note)
        if verifier:
            read_checkpoint(note, verifier)
    except BadNote as error:
        findings.add(CHECKPOINT, str(error))
        try:
            return read_checkpoint(note)
        except BadNote:
            return None
    return tree


async def _unpublished(
    store: Store, findings: Findings, head: Head, *, missing: bool
) -> Checkpoint | None:
    """Without a readable checkpoint: the first batch may be committed and not yet published."""
    if missing and await store.read(head.stage) is not None:
        await _check_stage(store, findings, head, 0)
        return Checkpoint(head.tree.origin, 0, EMPTY_ROOT)
    if missing:
        findings.add(CHECKPOINT, "it is missing")
    return head.tree


async def _compare(
    store: Store, findings: Findings, head: Head, tree: Checkpoint, note: bytes
) -> None:
    if head.size < tree.size:
        findings.add(HEAD, f"it has {head.size} entries, the checkpoint {tree.size}")
    elif head.size == tree.size and head.checkpoint.encode() != note:
        findings.add(CHECKPOINT, "it is not the one that head holds")
    elif head.size > tree.size:
        await _check_stage(store, findings, head, tree.size)


async def _check_stage(store: Store, findings: Findings, head: Head, size: int) -> None:
    """Committed, not published: the stage must lead from the published tree to head's."""
    staged = await store.read(head.stage)
    if staged is None:
        current = await store.read(CHECKPOINT)  # a writer may just have published it
        if current is None or not _reaches(current.data, head.size):
            findings.add(head.stage, "head names this batch, and it is not there")
        return
    try:
        stage, entries = read_stage(head.stage, staged.data)
        edge, _ = grow(await read_edge(store, stage.start, size), entries)
        same = edge.root == head.tree.root and stage.start == size
    except (ValueError, GroundwireError) as error:
        findings.add(head.stage, f"it cannot be published ({error})")
        return
    if same:
        findings.note(f"{head.size - size} entries are committed and not published yet")
    else:
        findings.add(head.stage, "its entries do not lead from the checkpoint to head")


def _reaches(note: bytes, size: int) -> bool:
    try:
        return read_checkpoint(note).size >= size
    except BadNote:
        return False


def _check_older(
    older: bytes, old: Checkpoint, findings: Findings, verifier: Verifier | None, tree: Checkpoint
) -> None:
    place = "your checkpoint"
    try:
        if verifier:
            verifier.open(older)
    except BadNote as error:
        findings.add(place, str(error))
    if old.origin != tree.origin:
        findings.add(place, f"it is of {old.origin}, this log of {tree.origin}")
    if old.size > tree.size:
        findings.add(CHECKPOINT, f"the log has {tree.size} entries, your checkpoint {old.size}")
