"""Answers that do not end, and answers that are none: each ends in time, in one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_network

import pytest

from consumer.download import Downloader
from consumer.errors import Permanent, Transient

HERE = "127.0.0.1"


def endless(start: bytes, again: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(again * (4096 // len(again) + 1))
            await writer.drain()

    return send


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (OK + b"X-A: ", b"a"), (OK, b"X-A: b\r\n"), (OK, b"Set-Cookie: a=b\r\n"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://h/", b"a"), (b"HTTP/1.1 200 ", b"O"),
        (b"", b"\x00"), (b"", b"\r\n"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <canary>\r\n\r\n"), (CHUNKED + b"5;", b"canary"),
        (CHUNKED, b"0"), (CHUNKED + b"f" * 18 + b"\r\n", b"a"), (CHUNKED + b"-1\r\n", b"a"),
        (CHUNKED, b"1;" + b"x" * 500 + b"\r\na\r\n"), (CHUNKED + b"0\r\n", b"X-A: b\r\n"),
        (OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\n", b"a"),
        (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (OK + b"Content-Length: -3\r\n\r\n", b"a"), (OK + b"\r\n", b"a"),
        (OK + b"Content-Length: 99999999999999999999999\r\n\r\n", b"a"),
    ],
)  # fmt: skip
async def test_an_answer_without_end_ends_in_time(start: bytes, again: bytes) -> None:
    send = endless(start, again)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await send(writer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HERE, 0)
    url = f"http://{HERE}:{server.sockets[0].getsockname()[1]}/?canary"
    downloader = Downloader(networks=[ip_network(f"{HERE}/32")], timeout_s=0.15, max_bytes=1 << 20)
    async with server:
        with pytest.raises((Transient, Permanent)) as raised:
            await downloader.get(url)
        await downloader.close()
    assert raised.value.reason.startswith("download-")
    assert "canary" not in raised.value.message
    assert len(raised.value.message) < 200
