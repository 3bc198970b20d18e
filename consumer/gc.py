"""Removes from the lake what nothing names: leftovers of crashes and lost races.

Only when the whole lake verifies, only what is old enough, never the log, never a note; and logged
before anything goes. A task that is found to name a leftover again gets it back; one that will only
after this has looked does not, so nothing should export meanwhile.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from consumer.errors import Permanent
from consumer.log.verify import verify
from consumer.model import Manifest, Pointer, Record, canonical, decode, digest, identifier
from consumer.model import timestamp as text_of
from consumer.ports import Clock, Listed, Queue, Store

LEAST = timedelta(hours=1)  # younger ones may be in the middle of an export

_AGE = re.compile(r"([1-9][0-9]{0,4})\s*([hdw])")
_UNIT = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class Collected:
    """What was found, and (unless it was a dry run) removed."""

    objects: tuple[Listed, ...]
    kept: tuple[str, ...] = ()  # named again meanwhile

    @property
    def size_bytes(self) -> int:
        return sum(one.size for one in self.objects)


def age(text: str) -> timedelta:
    """``12h``, ``7d`` or ``2w``. Raises ``Permanent``."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise Permanent("bad-age", "write an age such as 12h, 7d or 2w")
    given = int(match[1]) * _UNIT[match[2]]
    if given < LEAST:
        raise Permanent("bad-age", "what is younger than 1h may be in use")
    return given


async def find(store: Store, *, older_than: timedelta, now: datetime) -> tuple[Listed, ...]:
    """The objects that nothing names and that are old enough.

    Raises ``Permanent`` when log or lake do not verify: then nobody knows what is named.
    """
    found = await verify(store)
    if not found.ok:
        raise Permanent(
            "not-verified", f"{found.summary} Nothing was removed; run groundwire verify"
        )
    strays = {key for key in found.unreferenced if not key.startswith(("log/", "notes/"))}
    return tuple(
        [
            listed
            async for listed in store.list("")
            if listed.key in strays and now - listed.modified > older_than
        ]
    )


async def collect(
    store: Store, queue: Queue, objects: Sequence[Listed], *, who: str, clock: Clock
) -> Collected:
    """Removes what `find` found, after its record is durable."""
    if not objects:
        return Collected(())
    await queue.put([_record(objects, who, text_of(clock()))])
    by_task: dict[str, list[Listed]] = defaultdict(list)
    for one in objects:
        by_task["/".join(one.key.split("/")[:3])].append(one)
    kept: list[str] = []
    for task, its in by_task.items():
        kept += await _remove(store, f"{task}/current.json", its)
    return Collected(tuple(one for one in objects if one.key not in kept), tuple(kept))


async def _remove(store: Store, pointer: str, objects: Sequence[Listed]) -> list[str]:
    """The keys that were put back, because the task's pointer names them now. Until that is known,
    this machine's disk holds what was removed of the task."""
    with tempfile.TemporaryDirectory(prefix="groundwire-gc-") as folder:
        removed: dict[str, Path] = {}
        for number, one in enumerate(objects):
            file = Path(folder) / str(number)
            if await store.download(one.key, file) is not None:
                removed[one.key] = file
                await store.delete(one.key)
        named = await _named(store, pointer, removed)
        for key in named:
            await store.upload(key, removed[key])
    return named


async def _named(store: Store, pointer: str, removed: dict[str, Path]) -> list[str]:
    current = await store.read(pointer)
    if current is None:
        return []
    key = decode(current.data, Pointer).manifest
    if key is None:
        return []
    stored = await store.read(key)
    if stored is None and key not in removed:
        return []
    data = stored.data if stored else await asyncio.to_thread(removed[key].read_bytes)
    try:
        named = {key, *(file.key for file in decode(data, Manifest).files)}
    except msgspec.DecodeError:
        return []
    return [one for one in removed if one in named]


def _record(objects: Sequence[Listed], who: str, at: str) -> Record:
    keys = digest(canonical(sorted(one.key for one in objects)))
    fields = {
        "who": who,
        "at": at,
        "objects": len(objects),
        "size_bytes": sum(one.size for one in objects),
        "keys_sha256": keys,
    }
    return Record(id=identifier("collected", at, keys), kind="collected", fields=fields)
