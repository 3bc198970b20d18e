"""From a committed head to published files: tiles and bundles, then the checkpoint, then tidying.

Everything here may be done by anybody, any number of times, at any later moment: tiles are created
once, the checkpoint never shrinks, and only what it covers is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from consumer.errors import Conflict, Transient
from consumer.log.head import Head, read_stage
from consumer.log.keys import CHECKPOINT, LOG, VKEY, tile_key
from consumer.log.note import BadNote, read_checkpoint
from consumer.log.read import damaged, read_edge
from consumer.log.tiles import Edge, Tile, completed, grow
from consumer.ports import Store

ATTEMPTS = 10
Made = Sequence[tuple[Tile, bytes]]


async def publish(
    store: Store, head: Head, start: int, made: Made, checkpoint_etag: str | None
) -> str:
    """Publishes the growth from ``start`` entries to ``head``; returns the checkpoint's tag.

    ``checkpoint_etag`` is the tag last seen; an old one costs a read. Raises ``Permanent`` when
    the store holds other tiles than the log's.
    """
    objects = [(tile_key(tile), data) for tile, data in made]
    if start == 0:
        objects.append((VKEY, f"{head.key}\n".encode()))
    await _together([_create(store, key, data) for key, data in objects])
    etag = await _raise_checkpoint(store, head, checkpoint_etag)
    await tidy(store, head, start)
    return etag


async def finish(
    store: Store, head: Head, staged: bytes, checkpoint_etag: str | None
) -> tuple[Edge, str]:
    """Publishes a head that somebody committed and did not publish, from the stage alone; returns
    its edge and the checkpoint's tag."""
    try:
        stage, entries = read_stage(head.stage, staged)
    except ValueError as error:
        raise damaged(head.stage, str(error)) from None
    before = await read_edge(store, stage.start, stage.start)
    edge, made = grow(before, entries)
    if before.root.hex() != stage.root or edge.root != head.tree.root or edge.size != head.size:
        raise damaged(head.stage, "its entries do not lead from the published tree to head's")
    return edge, await publish(store, head, stage.start, made, checkpoint_etag)


async def tidy(store: Store, head: Head, start: int) -> None:
    """Removes the partial tiles whose full ones are published, and last the stage: while the
    stage is there, this is to be done again."""
    for tile in completed(start, head.size):
        async for listed in store.list(LOG + tile.partials):
            await store.delete(listed.key)
    await store.delete(head.stage)


async def _raise_checkpoint(store: Store, head: Head, etag: str | None) -> str:
    note = head.checkpoint.encode()
    for _ in range(ATTEMPTS):
        try:
            return await store.swap(CHECKPOINT, note, if_match=etag)
        except Conflict:
            stored = await store.read(CHECKPOINT)
        if stored is not None and _size(stored.data) >= head.size:
            return stored.etag
        etag = stored.etag if stored else None
    raise Transient("log-contended", "Other writers move the log's checkpoint all the time.")


def _size(note: bytes) -> int:
    try:
        return read_checkpoint(note).size
    except BadNote as error:
        raise damaged(CHECKPOINT, str(error)) from None


async def _create(store: Store, key: str, data: bytes) -> None:
    try:
        await store.create(key, data)
    except Conflict:
        raise damaged(key, "it holds other bytes than the log's") from None


async def _together(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Waits for all, then raises the first failure: nothing goes on behind the caller's back."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
