"""Where a log stands, for a writer: what is committed, made published if a crash left it so.

Reading and finishing are one path: there is no other recovery.
"""

from __future__ import annotations

from dataclasses import dataclass

from consumer.errors import Permanent
from consumer.log.head import Head, read_head, read_stage
from consumer.log.keys import CHECKPOINT, HEAD, VKEY, tile_key
from consumer.log.merkle import leaf_hash
from consumer.log.note import BadNote, Verifier, read_checkpoint
from consumer.log.publish import ATTEMPTS, finish, tidy
from consumer.log.read import damaged, parse_entry, read_bundle, read_edge
from consumer.log.tiles import ENTRIES, WIDTH, Edge, Tile
from consumer.ports import Store, Stored


@dataclass(frozen=True, slots=True)
class Place:
    """The committed tree's edge, its newest entry's time, and the tags that the next swaps need.

    Out of date as soon as somebody else swaps head.
    """

    edge: Edge
    head_etag: str | None = None
    checkpoint_etag: str | None = None
    logged_at: str = ""


async def owner(store: Store) -> str | None:
    """The verifier key of the log in a store; None when there is no log, so that one may be made.

    Raises ``Permanent`` when the log is damaged.
    """
    stored = await store.read(HEAD)
    if stored is not None:
        return _head(stored).key
    if await store.read(CHECKPOINT) is not None:
        raise damaged(HEAD, "it is missing although the log has a checkpoint")
    vkey = await store.read(VKEY)
    return vkey.data.decode("utf-8", "replace").strip() if vkey else None


async def locate(store: Store, verifier: Verifier, origin: str) -> Place:
    """The log's place, everything up to it published.

    Raises ``Permanent`` when the log has another key or origin, or is damaged.
    """
    for _ in range(ATTEMPTS):
        place = await _look(store, verifier, origin)
        if place is not None:
            return place
    raise damaged(HEAD, "the stage that it names is gone, and its batch is not published")


async def _look(store: Store, verifier: Verifier, origin: str) -> Place | None:
    """None when another writer went on between two reads."""
    checkpoint = await store.read(CHECKPOINT)  # before head: then it cannot be ahead of it
    stored = await store.read(HEAD)
    if stored is None:
        key = await owner(store)
        if key is not None and key != verifier.vkey:
            raise _other_key(key, verifier)
        return Place(Edge())
    head = _head(stored)
    if head.key != verifier.vkey:
        raise _other_key(head.key, verifier)
    if head.tree.origin != origin:
        message = f"The log's origin is {head.tree.origin}; set [log] origin to it."
        raise Permanent("log-origin", message)
    return await _settle(store, head, stored.etag, checkpoint)


async def _settle(store: Store, head: Head, etag: str, checkpoint: Stored | None) -> Place | None:
    staged = await store.read(head.stage)
    size = _size(checkpoint)
    if size > head.size:
        raise damaged(HEAD, "it is behind the log's checkpoint")
    if size < head.size:
        if staged is None:
            return None
        before = checkpoint.etag if checkpoint else None
        edge, tag = await finish(store, head, staged.data, before)
    else:
        assert checkpoint is not None  # noqa: S101 - head.size > 0
        if checkpoint.data != head.checkpoint.encode():
            raise damaged(CHECKPOINT, "it is not the one that head holds")
        edge, tag = await _published_edge(store, head), checkpoint.etag
        if staged is not None:
            await tidy(store, head, _start(head, staged))
    return Place(edge, etag, tag, await _newest_time(store, edge))


async def _published_edge(store: Store, head: Head) -> Edge:
    edge = await read_edge(store, head.size, head.size)
    if edge.root != head.tree.root:
        raise damaged("log/tile/", "the tiles do not give the checkpoint's root")
    leaves = edge.levels[0] if edge.levels else ()
    if tuple(leaf_hash(entry) for entry in edge.entries) != leaves:
        bundle = Tile(ENTRIES, edge.size // WIDTH, len(leaves))
        raise damaged(tile_key(bundle), "its entries do not have the tile's hashes")
    return edge


async def _newest_time(store: Store, edge: Edge) -> str:
    index = edge.size - 1
    raw = edge.entries or await read_bundle(store, index // WIDTH, edge.size)
    return str(parse_entry(index, raw[-1]).get("logged_at", ""))


def _head(stored: Stored) -> Head:
    try:
        return read_head(stored.data)
    except ValueError as error:
        raise damaged(HEAD, str(error)) from None


def _size(checkpoint: Stored | None) -> int:
    try:
        return read_checkpoint(checkpoint.data).size if checkpoint else 0
    except BadNote as error:
        raise damaged(CHECKPOINT, str(error)) from None


def _start(head: Head, staged: Stored) -> int:
    try:
        return read_stage(head.stage, staged.data)[0].start
    except ValueError as error:
        raise damaged(head.stage, str(error)) from None


def _other_key(key: str, verifier: Verifier) -> Permanent:
    message = (
        f"The log in this lake belongs to the key {key}; this writer has {verifier.vkey}. "
        "Set [log] key to that key's file, or [lake] to another place: no key is made over a log."
    )
    return Permanent("log-key", message)
