"""An HTTP proxy in front of one server, which loses answers on command, one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from enum import Enum, auto
from typing import Self


class Verdict(Enum):
    """What happens to a request."""

    PASS = auto()
    LOSE_REQUEST = auto()  # the connection breaks, the server hears nothing
    LOSE_ANSWER = auto()  # the server does it, then the connection breaks
    FAIL_BEFORE = auto()  # 503, the server hears nothing
    FAIL_AFTER = auto()  # the server does it, then 500
    BUSY_AFTER = auto()  # the server does it, then 503
    DAMAGE = auto()  # the last byte of the body arrives as another
    DAMAGE_ANSWER = auto()  # the last byte of the answer arrives as another
    GONE = auto()  # 404, as AWS answers a conditional write to an object that is not there
    RACE = auto()  # 409, as S3 says when two conditional writes meet
    INVALID = auto()  # 400, as S3 says of a copy that is too large for one request
    CUT_ANSWER = auto()  # the answer ends in the middle
    STALL = auto()  # taken, never answered, the server hears nothing
    STALL_AFTER = auto()  # the server does it, the answer never comes


_DOES = {
    Verdict.PASS,
    Verdict.LOSE_ANSWER,
    Verdict.FAIL_AFTER,
    Verdict.BUSY_AFTER,
    Verdict.CUT_ANSWER,
    Verdict.DAMAGE,
    Verdict.DAMAGE_ANSWER,
    Verdict.STALL_AFTER,
}
_STALLS = {Verdict.STALL, Verdict.STALL_AFTER}
_ANSWERS = {
    Verdict.FAIL_BEFORE: ("503 Service Unavailable", "ServiceUnavailable"),
    Verdict.FAIL_AFTER: ("500 Internal Server Error", "InternalError"),
    Verdict.BUSY_AFTER: ("503 Service Unavailable", "SlowDown"),
    Verdict.GONE: ("404 Not Found", "NoSuchKey"),
    Verdict.INVALID: ("400 Bad Request", "InvalidRequest"),
    Verdict.RACE: ("409 Conflict", "ConditionalRequestConflict"),
}


class HttpProxy:
    """Requests of each method get that method's verdicts in turn, and pass when there are none."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._verdicts: dict[str, deque[Verdict]] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[tuple[str, Verdict]] = []
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def plan(self, method: str, *verdicts: Verdict) -> None:
        """For the next requests of this method."""
        self._verdicts[method] = deque(verdicts)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request on each connection; the client is told to open another for the next."""
        head = await reader.readuntil(b"\r\n\r\n")
        method = head.split(b" ", 1)[0].decode()
        kept = [
            line
            for line in head.split(b"\r\n")
            if line and not line.lower().startswith((b"expect:", b"connection:"))
        ]
        if len(kept) < head.count(b"\r\n") - 1 and b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(_length(kept))
        verdicts = self._verdicts.get(method)
        verdict = verdicts.popleft() if verdicts else Verdict.PASS
        self.requests.append((method, verdict))
        if verdict is Verdict.DAMAGE:
            body = _damaged(body)
        answer = b""
        if verdict in _DOES:
            answer = await self._forward(
                b"\r\n".join([*kept, b"Connection: close", b"", b""]), body
            )
        if verdict in _STALLS:
            await asyncio.Event().wait()
        if verdict in _ANSWERS:
            answer = _error(*_ANSWERS[verdict])
        if verdict is Verdict.DAMAGE_ANSWER:
            answer = _damaged(answer)
        if verdict is Verdict.CUT_ANSWER:
            answer = answer[: answer.index(b"\r\n\r\n") + 4 + 1]
        if verdict not in (Verdict.LOSE_REQUEST, Verdict.LOSE_ANSWER):
            writer.write(answer)
            writer.close()
            await writer.wait_closed()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            writer.write(head + body)
            return await reader.read(-1)
        finally:
            writer.close()


def _damaged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _length(lines: list[bytes]) -> int:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _error(status: str, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
        f"Retry-After: 7\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
