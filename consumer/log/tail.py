"""The log as its followers read it: how long it is now, and entries from any index on.

Whoever waits, waits for one poll of the checkpoint that all share; an append in this process wakes
them at once. Full bundles never change, so the newest of them are kept in memory.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from consumer.errors import Permanent
from consumer.log.merkle import EMPTY_ROOT, leaf_hash
from consumer.log.read import damaged, parse_entry, published, read_bundle, read_edge
from consumer.log.tiles import WIDTH
from consumer.ports import LogEntry, Store

BUNDLES = 32  # kept: some 8,000 entries
BUNDLE_BYTES = 16 << 20  # kept, all together; any one fits
MARK = 12  # hex digits of the first entry's hash


class LogTail:
    """Implements ``LogReader``."""

    def __init__(self, store: Store, *, poll_s: float = 0.25) -> None:
        self._store = store
        self._poll_s = poll_s
        self._woken = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._size = 0
        self._origin = ""
        self._mark = ""
        self._bundles: OrderedDict[int, list[bytes]] = OrderedDict()
        self._newest: tuple[int, int, list[bytes]] = (0, 0, [])  # a partial one: number and size

    def wake(self) -> None:
        """The log of this process has grown."""
        self._woken.set()

    async def identity(self) -> str:
        if not self._mark:
            if await self.size() == 0:
                return ""
            first = (await self._bundle(0))[0]
            self._mark = leaf_hash(first).hex()[:MARK]
        return f"{self._origin}~{self._mark}"

    async def size(self) -> int:
        """Asked of the store. Raises ``Permanent`` (``log-shrunk``) when it is shorter than it was:
        then this is another log, or an old copy of it."""
        known = self._size  # while this look is under way, a later one may be back already
        checkpoint = await published(self._store)
        size = checkpoint.size if checkpoint else 0
        if size < known:
            said = f"The log has {size} entries and had {known}: is its disk mounted?"
            raise Permanent("log-shrunk", said)
        if checkpoint is not None:
            self._origin = checkpoint.origin
        self._size = max(self._size, size)
        return self._size

    async def wait(self, beyond: int, timeout_s: float) -> int:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._size <= beyond and (left := deadline - loop.time()) > 0:
            await self._next_look(left)
        return self._size

    async def _next_look(self, at_most_s: float) -> None:
        """One look at the checkpoint for all who wait; who waits no longer leaves it to the
        others."""
        polling = self._polling
        if polling is None or polling.done():
            polling = self._polling = asyncio.create_task(self._look())
            polling.add_done_callback(_heard)
        await asyncio.wait({polling}, timeout=at_most_s)
        if polling.done():
            polling.result()

    async def _look(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_s):
                await self._woken.wait()
        self._woken.clear()
        await self.size()

    async def read(self, start: int, end: int) -> Sequence[LogEntry]:
        if end > self._size:
            await self.size()
        end = min(end, self._size)
        found: list[LogEntry] = []
        for number in range(start // WIDTH, -(-end // WIDTH)):
            first = number * WIDTH
            for index, raw in enumerate(await self._bundle(number), first):
                if start <= index < end:
                    found.append(LogEntry(index, parse_entry(index, raw)))
        return found

    async def root(self, size: int) -> str:
        if size > self._size and size > await self.size():
            raise Permanent("log-index-ahead", f"the log has no {size} entries yet")
        if size == 0:
            return base64.b64encode(EMPTY_ROOT).decode()
        edge = await read_edge(self._store, size, self._size)
        return base64.b64encode(edge.root).decode()

    async def _bundle(self, number: int) -> list[bytes]:
        kept = self._bundles.get(number)
        if kept is not None:
            self._bundles.move_to_end(number)
            return kept
        size = self._size
        if self._newest[:2] == (number, size):
            return self._newest[2]
        found = await read_bundle(self._store, number, size)
        if not found:
            raise damaged(f"bundle {number}", "it is empty")
        if (number + 1) * WIDTH <= size:
            self._bundles[number] = found
            self._trim()
        else:
            self._newest = (number, size, found)
        return found

    def _trim(self) -> None:
        weight = sum(len(raw) for bundle in self._bundles.values() for raw in bundle)
        while len(self._bundles) > BUNDLES or weight > BUNDLE_BYTES:
            _, gone = self._bundles.popitem(last=False)
            weight -= sum(map(len, gone))


def _heard(look: asyncio.Task[None]) -> None:
    """A look that failed when nobody waited any more: the next one says so again."""
    if not look.cancelled():
        look.exception()
