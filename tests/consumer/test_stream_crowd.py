"""Many readers of one stream: those who take nothing delay nobody, cost little, and are let go."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from structlog.testing import capture_logs

from consumer.client import changes
from consumer.ports import Stored
from tests.consumer.streams import Served, mixed, move, moves, reading, served, truths, until
from tests.fakes_store import FakeStore

ENTRIES = mixed(6_000, seed=9)


@asynccontextmanager
async def stalled(
    place: Served, count: int = 1, query: str = ""
) -> AsyncIterator[list[socket.socket]]:
    """Readers that ask and then take nothing."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    await until(lambda: place.readers() == 0)
    try:
        for _ in range(count):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            sockets.append(one)
            await loop.sock_connect(one, ("127.0.0.1", place.port))
            ask = f"GET /changes{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await loop.sock_sendall(one, ask.encode())
        await until(lambda: place.readers() == count)
        yield sockets
    finally:
        for one in sockets:
            one.close()


@dataclass
class GatedStore(FakeStore):
    """Holds up who reads entries, but for the first of them, until its gate is open."""

    gate: asyncio.Event | None = None
    held: int = 0

    async def read(self, key: str) -> Stored | None:
        if self.gate is not None and "entries" in key and not key.endswith("/entries/000"):
            self.held += 1
            await self.gate.wait()
        return await super().read(key)


async def first_after(place: Served, index: int) -> int:
    async with reading(place, f"?after={index}") as reader:
        return (await reader.indices(1))[0]


async def read_to(url: str, wanted: list[int]) -> list[int]:
    came: list[int] = []
    async with aclosing(changes(url)) as stream:
        async for change in stream:
            came.append(change.index)
            if len(came) == len(wanted):
                return came
    raise AssertionError("the stream never ends")


async def timed(place: Served, readers: int) -> float:
    wanted = truths(ENTRIES)
    began = time.monotonic()
    for came in await asyncio.gather(*(read_to(place.url, wanted) for _ in range(readers))):
        assert came == wanted
    return time.monotonic() - began


async def test_twenty_read_on_while_others_take_nothing() -> None:
    async with served(*ENTRIES) as place:
        await timed(place, 20)  # what is read first is read from the store
        alone_s = await timed(place, 20)
        async with stalled(place, 20):
            beside_s = await timed(place, 20)
    assert beside_s < 3 * alone_s + 1


async def test_whoever_reads_hears_at_once_of_what_is_new_while_others_take_nothing() -> None:
    size = len(ENTRIES)
    async with (
        served(*ENTRIES) as place,
        stalled(place, 20),
        reading(place, f"?after={size - 1}") as reader,
    ):
        for number in range(size, size + 20):
            began = time.monotonic()
            await place.append(move(number))
            assert await reader.indices(1) == [number]
            assert time.monotonic() - began < 1


async def test_a_hundred_read_the_same_log() -> None:
    async with served(*ENTRIES[:1500], max_readers=100) as place:
        wanted = truths(ENTRIES[:1500])
        found = await asyncio.gather(*(read_to(place.url, wanted) for _ in range(100)))
    assert all(came == wanted for came in found)


async def test_readers_at_many_places_whose_reads_end_at_once_disturb_nothing() -> None:
    entries = mixed(30 * 256, seed=4)
    store = GatedStore()
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: wrong.append(what))
    async with served(*entries, store=store) as place:
        store.gate = asyncio.Event()
        starts = range(256, len(entries), 256)
        asked = asyncio.gather(*(first_after(place, start - 1) for start in starts))
        await until(lambda: store.held == len(starts))
        store.gate.set()
        assert await asked == [next(m for m in moves(entries) if m >= one) for one in starts]
    assert wrong == []


async def test_readers_that_take_nothing_cost_little_memory() -> None:
    async with served(*ENTRIES, max_readers=200) as place:
        await timed(place, 1)
        gc.collect()
        tracemalloc.start()
        try:
            async with stalled(place, 60):
                await timed(place, 1)  # by now all are written to as far as they let
                grown = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    waiting = 500 * len(moves(ENTRIES))  # bytes of one reader, if they were kept for it
    assert grown < 60 * waiting / 4


async def test_a_reader_that_takes_nothing_is_let_go() -> None:
    with capture_logs() as lines:
        async with served(*ENTRIES, stalled_s=0.4) as place, stalled(place) as (one,):
            await until(lambda: place.readers() == 0)
            assert await _ended(one)
    assert [line["reason"] for line in lines if line["event"] == "reader let go"] == ["stalled"]


async def test_a_reader_that_takes_little_but_takes_is_not_let_go() -> None:
    loop = asyncio.get_running_loop()
    async with served(*ENTRIES, stalled_s=1.0) as place, stalled(place) as (one,):
        until_s = loop.time() + 2.5
        while loop.time() < until_s:
            assert await loop.sock_recv(one, 20_000)
            await asyncio.sleep(0.02)
        assert place.readers() == 1


async def test_a_reader_with_nothing_to_take_is_not_let_go() -> None:
    async with (
        served(move(0), stalled_s=0.1, heartbeat_s=60) as place,
        reading(place, "?after=0") as reader,
    ):
        await asyncio.sleep(0.5)
        await place.append(move(1))
        assert await reader.indices(1) == [1]


async def test_the_stop_does_not_wait_for_readers_that_take_nothing() -> None:
    async with served(*ENTRIES) as place, stalled(place, 5):
        began = time.monotonic()
        await place.stop()
        assert time.monotonic() - began < 4
        await place.start()


async def _ended(one: socket.socket) -> bool:
    """Whether what the kernel still holds is the last that comes."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while await loop.sock_recv(one, 65_536):
                pass
    return True
