"""An attacker who opens thousands of connections and asks nothing, half of something, or ever so
slowly: ``python -m tests.faults.fuzz_slow PORT SEED MANY``. Says how many, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
import sys
from collections.abc import Sequence

OPENERS = 20
PAUSE_S = 0.05  # of an opener, once all have been opened
OWN_FILES = 100  # of this process, besides
HEAD = b"POST /hooks/redbrick?token=%s HTTP/1.1\r\nHost: x\r\n"
SLOW = (
    (b"", b""),
    (b"POST /hooks/redb", b"r"),
    (HEAD % b"wrong" + b"X-Slow: ", b"a"),
    (HEAD % b"wrong" + b"Content-Length: 900000\r\n\r\n" + b"[" * 20_000, b"["),
    (HEAD % b"wrong" + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n[\r\n"),
    (HEAD % b"wrong" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 200) for n in range(90)), b"X: y"),
)


class _Dripping(asyncio.Protocol):
    """One connection that begins something, and goes on with it once a second."""

    def __init__(self, crowd: set[asyncio.Transport], begun: bytes, dripped: bytes) -> None:
        self._crowd, self._begun, self._dripped = crowd, begun, dripped
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._crowd.add(transport)
        transport.write(self._begun)
        self._later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.discard(self._transport)

    def _later(self) -> None:
        asyncio.get_running_loop().call_later(1.0, self._drip)

    def _drip(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._dripped)
            self._later()


class Slow:
    """Connections that are opened as fast as it goes; those that the other side closes come
    again."""

    def __init__(self, port: int, seed: int, many: int) -> None:
        self._port, self._many = port, many
        self._random = random.Random(seed)
        self._own = _own_addresses()
        self.open: set[asyncio.Transport] = set()
        self.opened = 0
        self.most = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(OPENERS):
                    group.create_task(self._keep_opening())
        finally:
            for transport in list(self.open):
                transport.abort()

    async def _keep_opening(self) -> None:
        room = min(self._many, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OWN_FILES)
        loop = asyncio.get_running_loop()
        while True:
            if len(self.open) >= room:
                await asyncio.sleep(PAUSE_S)
                continue
            if self.opened >= self._many:
                await asyncio.sleep(PAUSE_S)
            begun, dripped = self._random.choice(SLOW)
            with contextlib.suppress(OSError):
                await loop.create_connection(
                    lambda a=begun, b=dripped: _Dripping(self.open, a, b),
                    "127.0.0.1",
                    self._port,
                    local_addr=(self._random.choice(self._own), 0),
                )
                self.opened += 1
                self.most = max(self.most, len(self.open))


def _own_addresses() -> Sequence[str]:
    """Of other machines, as far as the other side can tell; all of 127/8 is loopback on Linux."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.2", 0))
        except OSError:
            return ["127.0.0.1"]
    return [f"127.0.1.{n}" for n in range(1, 51)]


async def _main(port: int, seed: int, many: int) -> None:
    slow = Slow(port, seed, many)
    running = asyncio.create_task(slow.run())
    while not running.done():
        sys.stdout.write(f"{slow.opened} {slow.most}\n")
        sys.stdout.flush()
        await asyncio.sleep(0.1)
    running.result()


if __name__ == "__main__":
    asyncio.run(_main(*map(int, sys.argv[1:])))
