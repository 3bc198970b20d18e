"""Does a store keep its promises here? Tries each verb on a throw-away key; used by ``check``."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from consumer.errors import Conflict, GroundwireError, Transient
from consumer.ports import Store

PREFIX = "groundwire-check/"


async def probe(store: Store) -> None:
    """Writes, reads, lists and deletes under a key that is nobody else's.

    Raises what the verbs raise, and ``Transient`` (``store-not-conditional``) when the store
    overwrites what it should have refused to.
    """
    key = f"{PREFIX}{uuid4().hex}"
    await store.create(key, b"1")
    try:
        await _create_is_once(store, key)
        await _swap_compares(store, key)
        await _is_listed(store, key)
    except GroundwireError:
        with suppress(GroundwireError):  # what is wrong is told, not what follows from it
            await store.delete(key)
        raise
    await store.delete(key)


async def _create_is_once(store: Store, key: str) -> None:
    try:
        await store.create(key, b"other bytes")
    except Conflict:
        return
    raise _not_conditional("If-None-Match")


async def _swap_compares(store: Store, key: str) -> None:
    found = await store.read(key)
    if found is None:
        raise Transient("store-stale", "an object just written cannot be read", shared=True)
    await store.swap(key, b"2", if_match=found.etag)
    try:
        await store.swap(key, b"3", if_match=found.etag)
    except Conflict:
        return
    raise _not_conditional("If-Match")


async def _is_listed(store: Store, key: str) -> None:
    if key not in [item.key async for item in store.list(PREFIX)]:
        raise Transient("store-stale", "an object just written is not listed", shared=True)


def _not_conditional(header: str) -> Transient:
    return Transient(
        "store-not-conditional",
        f"the store ignores conditional writes ({header}): two writers could overwrite each "
        "other. Use a server that enforces them, or switch that on in the one you have",
        shared=True,
    )
