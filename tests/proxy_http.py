"""An HTTP proxy in front of one server, which loses answers on command, one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
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
    CUT_HALF = auto()  # so does this one, but in the middle of its body
    BREAK_HALF = auto()  # and here the connection is reset there
    TEAR = auto()  # half of the body arrives, then the connection breaks
    NOT_MET = auto()  # 412, the server hears nothing
    SLOW_DOWN = auto()  # 503, as S3 says when it is asked too much
    SKEWED = auto()  # 403, as S3 says to a clock that is wrong
    DENIED = auto()  # 403
    ELSEWHERE = auto()  # 307, to another host
    MOVED = auto()  # 301, to another region
    NONSENSE = auto()  # 500, with a body that nobody understands
    WRONG_TAG = auto()  # the server does it, another ETag is told
    STALL = auto()  # taken, never answered, the server hears nothing
    STALL_AFTER = auto()  # the server does it, the answer never comes


_DOES = {
    Verdict.PASS,
    Verdict.LOSE_ANSWER,
    Verdict.FAIL_AFTER,
    Verdict.BUSY_AFTER,
    Verdict.CUT_ANSWER,
    Verdict.CUT_HALF,
    Verdict.BREAK_HALF,
    Verdict.WRONG_TAG,
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
    Verdict.NOT_MET: ("412 Precondition Failed", "PreconditionFailed"),
    Verdict.SLOW_DOWN: ("503 Slow Down", "SlowDown"),
    Verdict.SKEWED: ("403 Forbidden", "RequestTimeTooSkewed"),
    Verdict.DENIED: ("403 Forbidden", "AccessDenied"),
    Verdict.ELSEWHERE: ("307 Temporary Redirect", "TemporaryRedirect"),
    Verdict.MOVED: ("301 Moved Permanently", "PermanentRedirect"),
    Verdict.RACE: ("409 Conflict", "ConditionalRequestConflict"),
}


_TAG = re.compile(rb'(\r\nETag: )"[^"]*"', re.IGNORECASE)
_ELSEWHERE = "Location: http://elsewhere.invalid/\r\nx-amz-bucket-region: elsewhere-1\r\n"
_NONSENSE = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\n"
    b"Connection: close\r\nContent-Length: 12\r\n\r\n<Err\x00\xff]]></"
)


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

    def verdict(self, method: str) -> Verdict:
        """What happens to the next request of this method."""
        verdicts = self._verdicts.get(method)
        return verdicts.popleft() if verdicts else Verdict.PASS

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
        verdict = self.verdict(method)
        self.requests.append((method, verdict))
        answer = _changed(verdict, await self._answered(verdict, kept, body))
        if verdict not in (Verdict.LOSE_REQUEST, Verdict.LOSE_ANSWER, Verdict.TEAR):
            writer.write(answer)
            await writer.drain()
            if verdict is Verdict.BREAK_HALF:
                linger = struct.pack("ii", 1, 0)  # for no time: a close is a reset
                peer = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()
            await writer.wait_closed()

    async def _answered(self, verdict: Verdict, lines: list[bytes], body: bytes) -> bytes:
        """What the server says, if it hears of it, or what is said in its place."""
        if verdict is Verdict.TEAR:
            await self._tear(lines, body)
        if verdict is Verdict.DAMAGE:
            body = _damaged(body)
        answer = _NONSENSE if verdict is Verdict.NONSENSE else b""
        if verdict in _DOES:
            head = b"\r\n".join([*lines, b"Connection: close", b"", b""])
            answer = await self._forward(head, body)
        if verdict in _STALLS:
            await asyncio.Event().wait()
        return _error(*_ANSWERS[verdict]) if verdict in _ANSWERS else answer

    async def _tear(self, lines: list[bytes], body: bytes) -> None:
        """The server has half of it when the connection is reset, and answers as it likes."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        writer.write(b"\r\n".join([*lines, b"", b""]) + body[: len(body) // 2])
        await writer.drain()
        writer.transport.abort()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            writer.write(head + body)
            return await reader.read(-1)
        finally:
            writer.close()


def _changed(verdict: Verdict, answer: bytes) -> bytes:
    """The answer as it arrives."""
    if verdict is Verdict.WRONG_TAG:
        return _TAG.sub(rb'\1"00000000000000000000000000000000"', answer)
    if verdict is Verdict.DAMAGE_ANSWER:
        return _damaged(answer)
    body = answer.find(b"\r\n\r\n") + 4
    if verdict in (Verdict.CUT_HALF, Verdict.BREAK_HALF):
        return answer[: (body + len(answer)) // 2]
    if verdict is Verdict.CUT_ANSWER:
        return answer[: body + 1]
    return answer


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
        f"{_ELSEWHERE if status.startswith('30') else ''}"
        f"Retry-After: 7\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
