"""Objects of any size, read piece by piece: into a file, or to compare them with one.

However large an object is, no more than one piece of it is in memory, and each piece is a request
of its own with a deadline of its own. All pieces are of one and the same object, by its tag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from consumer.errors import GroundwireError, Transient
from consumer.stores import local_files
from consumer.stores.local_files import Partial

PIECE_BYTES = 8 << 20
_TRIES = 3  # for an object that another writer swaps meanwhile

T = TypeVar("T")


class Changed(Exception):
    """The object is no longer the one whose tag was given, or is gone."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of an object: as many as a store gives at once, or as many as are left."""

    data: bytes
    tag: str
    size: int  # of the whole object


Ask = Callable[[int, str | None], Awaitable[Piece | None]]
"""The piece at an offset; the tag is None for the first. None when there is no object. Raises
``Changed`` when the tag is not the object's any more."""


class Run(Protocol):
    """Runs a blocking call in a thread."""

    async def __call__(self, call: Callable[[], Any], /) -> Any: ...


async def fetched(file: Path, ask: Ask, run: Run) -> str | None:
    """Replaces ``file`` by the object when it is complete; its SHA-256, None without an object."""
    return await _steady(partial(_fetched, file, ask, run))


async def same(file: Path, size: int, ask: Ask, run: Run) -> bool | None:
    """Whether the object's bytes are the file's; None when there is no object."""
    return await _steady(partial(_same, file, size, ask, run))


async def _steady(read: Callable[[], Awaitable[T]]) -> T:
    for _ in range(_TRIES):
        with suppress(Changed):
            return await read()
    raise Transient("store-busy", "an object changed again and again while it was read")


async def _fetched(file: Path, ask: Ask, run: Run) -> str | None:
    piece = await ask(0, None)
    if piece is None:
        return None
    made: Partial = await run(partial(Partial, file))
    try:
        await run(partial(made.keep, piece.data))
        while made.size < piece.size:
            piece = await _next(ask, made.size, piece.tag)
            await run(partial(made.keep, piece.data))
        digest: str = await run(made.finish)
        return digest
    finally:
        with suppress(GroundwireError):  # what went wrong before is what is told
            await asyncio.shield(run(made.discard))


async def _same(file: Path, size: int, ask: Ask, run: Run) -> bool | None:
    piece = await ask(0, None)
    if piece is None:
        return None
    offset = 0
    while piece.size == size:
        block = partial(local_files.block_at, file, offset, len(piece.data))
        if await run(block) != piece.data:
            return False
        offset += len(piece.data)
        if offset >= size:
            return True
        piece = await _next(ask, offset, piece.tag)
    return False


async def _next(ask: Ask, offset: int, tag: str) -> Piece:
    piece = await ask(offset, tag)
    if piece is None or not piece.data:
        raise Changed
    return piece
