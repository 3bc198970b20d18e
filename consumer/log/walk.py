"""The changes of the lake that the log tells of, in their order, from any place on.

None is left out: an entry that cannot be understood ends the walk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgspec

from consumer.changes import TaskChange, change_of
from consumer.errors import Permanent, Rejected, Transient
from consumer.log.tiles import WIDTH
from consumer.ports import LogReader

Place = tuple[int, str | None]  # an index that was seen, and the log if it was named


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes a reader wants; no project means all. Projects go by id or by their name in
    the lake."""

    ground_truth: bool = False
    projects: frozenset[str] = frozenset()

    def includes(self, change: TaskChange) -> bool:
        if self.ground_truth and change.ground_truth is None:
            return False
        return not self.projects or bool(self.projects & {change.project, change.project_key})


async def begin(log: LogReader, after: Place | None) -> int:
    """The index of the first entry after a place. Raises ``Rejected`` (409, ``another-log``,
    ``index-ahead``)."""
    size = await log.size()
    if after is None:
        return 0
    index, named = after
    identity = await log.identity()
    if named is not None and identity and named != identity:
        raise Rejected(409, "another-log", f"the position is of another log; this is {identity}")
    if index >= size:
        said = f"the log has {size} entries: there is no index {index} yet"
        raise Rejected(409, "index-ahead", said)
    return index + 1


async def changes_between(log: LogReader, start: int, end: int) -> list[TaskChange]:
    """The changes that the entries ``start <= index < end`` tell of. Raises ``Permanent`` when one
    cannot be understood: none is left out."""
    identity = await log.identity()
    found = []
    for entry in await log.read(start, end):
        try:
            change = change_of(entry.index, entry.data, identity)
        except msgspec.ValidationError as error:
            said = f"entry {entry.index} tells of no change that this version knows: {error}"
            raise Permanent("log-damaged", said) from error
        if change is not None:
            found.append(change)
    return found


async def walk(
    log: LogReader,
    after: Place | None,
    wanted: Wanted,
    *,
    failed: Callable[[Transient], Awaitable[None]] | None = None,
    wait_s: float = 30.0,
) -> AsyncIterator[TaskChange]:
    """The changes after a place, without a server. With ``failed`` it goes on as the log grows, and
    hands over what may pass; without it, it ends where the log ends now."""
    at = await begin(log, after)
    size = await log.size()
    while failed or at < size:
        try:
            if failed:
                size = await log.wait(at, wait_s)
            end = stretch_end(at, size)
            found = await changes_between(log, at, end) if end > at else []
        except Transient as error:
            if failed is None:
                raise
            await failed(error)
            continue
        at = max(at, end)
        for change in found:
            if wanted.includes(change):
                yield change


def stretch_end(start: int, size: int) -> int:
    return min(size, (start // WIDTH + 1) * WIDTH)
