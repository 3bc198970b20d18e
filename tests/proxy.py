"""A TCP proxy that misbehaves on command: it resets connections, refuses or swallows them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Self

RESET = struct.pack("ii", 1, 0)  # linger for no time: a close is a reset


class Proxy:
    """Stands between a client and a server on loopback."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._swallows = False
        self._resetting: asyncio.Task[None] | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.heal()
        await self.refuse()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Resets every connection; new ones are let through."""
        for writer in self._writers:
            _reset(writer)

    async def refuse(self) -> None:
        """Like a server that is down: every connection is reset, new ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def listen(self) -> None:
        """The end of `refuse`, on the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def keep_cutting(self, rng: random.Random, shortest_s: float, longest_s: float) -> None:
        """From now on every connection is reset again and again, after times within the bounds."""

        async def cutting() -> None:
            while True:
                await asyncio.sleep(rng.uniform(shortest_s, longest_s))
                self.cut()

        assert self._resetting is None
        self._resetting = asyncio.create_task(cutting())

    async def heal(self) -> None:
        """Ends every misbehaviour."""
        if self._resetting is not None:
            self._resetting.cancel()
            await asyncio.gather(self._resetting, return_exceptions=True)
            self._resetting = None
        if self._swallows:
            self.restore()
        await self.listen()

    def swallow(self) -> None:
        """From now on nothing that either side says arrives, and nobody is told."""
        self._swallows = True

    def restore(self) -> None:
        """Ends the swallowing, and the connections that suffered it."""
        self._swallows = False
        self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:  # the server itself is down
            _reset(writer)
            return
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not self._swallows:
                    sink.write(data)
                    await sink.drain()
        sink.close()
        self._writers.discard(sink)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
