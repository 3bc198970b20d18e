"""A load of HTTP requests over kept-alive connections, as lean as Python does it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Load:
    """Each request's latency in seconds, and how long all of them took."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last is whole."""

    def __init__(self, requests: deque[bytes], load: Load) -> None:
        self._requests = requests
        self._load = load
        self._answer = b""
        self._began = 0.0
        self._transport: asyncio.WriteTransport
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._load.latencies.append(time.perf_counter() - self._began)
        if not head.startswith(b"HTTP/1.1 202"):
            self._fail(head.partition(b"\r\n")[0].decode(errors="replace"))
            return
        self._answer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection lost: {exc}")

    def _send(self) -> None:
        if not self._requests:
            self.done.set_result(None)
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(self._requests.popleft())

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"the server answered {why}"))


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0] or 0)


async def send(port: int, requests: Sequence[bytes], *, connections: int) -> Load:
    """Sends every request once; raises ``RuntimeError`` for any answer but 202."""
    load, left = Load(), deque(requests)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = await asyncio.gather(
        *(
            loop.create_connection(lambda: _Connection(left, load), "127.0.0.1", port)
            for _ in range(connections)
        )
    )
    async with asyncio.timeout(120):
        await asyncio.gather(*(connection.done for _, connection in made))
    load.seconds = time.perf_counter() - began
    return load
