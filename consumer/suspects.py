"""What was handed out before and lost with the process that had it, apart from all the rest.

One message may kill whatever process handles it, and its neighbours of that moment are lost with
it. So what was lost once is handled in small groups; what was lost again, alone, while nothing else
of the lane is in work; and what was lost alone too often is buried. What counts as lost is the
queue's to tell (``Lease.losses``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from consumer.errors import Permanent
from consumer.ports import ALONE_AFTER, Lease

GROUP = 8
LOSSES_ALONE = 5  # then it is buried

KILLS = Permanent("handler-kills", "each process that handled it alone was never heard of again")


@dataclass(frozen=True, slots=True)
class Group:
    """What is handled together."""

    leases: Sequence[Lease]
    alone: bool = False


def groups(batch: Sequence[Lease]) -> list[Group]:
    """The batch's groups, the suspects last: whatever they do, the others are done by then."""
    trusted = [lease for lease in batch if not lease.losses]
    once = [lease for lease in batch if 0 < lease.losses < ALONE_AFTER]
    again = [lease for lease in batch if lease.losses >= ALONE_AFTER]
    return [
        *([Group(trusted)] if trusted else []),
        *(Group(once[start : start + GROUP]) for start in range(0, len(once), GROUP)),
        *(Group([lease], alone=True) for lease in again),
    ]


def kills(lease: Lease) -> bool:
    return lease.losses >= ALONE_AFTER + LOSSES_ALONE


class Room:
    """Many work in it together, or one alone; who wants to be alone is let in next."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._together = 0
        self._alone = False
        self._wanting = 0

    @contextlib.asynccontextmanager
    async def enter(self, *, alone: bool) -> AsyncIterator[None]:
        await (self._in_alone() if alone else self._in_together())
        try:
            yield
        finally:
            await self._out(alone=alone)

    async def _in_together(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone and not self._wanting)
            self._together += 1

    async def _in_alone(self) -> None:
        async with self._changed:
            self._wanting += 1
            try:
                await self._changed.wait_for(lambda: not self._alone and not self._together)
                self._alone = True
            finally:
                self._wanting -= 1
                self._changed.notify_all()

    async def _out(self, *, alone: bool) -> None:
        if alone:
            self._alone = False
        else:
            self._together -= 1
        async with self._changed:
            self._changed.notify_all()
