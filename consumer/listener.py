"""A TCP listener for one aiohttp application, with the limits that aiohttp itself does not set.

A connection that has not asked anything within ``header_timeout_s`` is closed, as is one that does
not read its answers; heads and what is asked ahead are bounded, and in a `Crowd` so are connections
and the memory of all of them; bodies arrive as they were sent, never unpacked. What is no HTTP is
refused in one log line, and nothing of it is repeated to anybody: it may hold a token.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from consumer.crowd import Crowd, Guest
from consumer.limits import counted_as
from consumer.telemetry import logger

MAX_LINE_BYTES = 8190  # of the request line, and of one header
MAX_HEADERS = 100
MAX_HEAD_BYTES = 32 << 10
MAX_AHEAD = 4  # requests that are sent before the first is answered
KEEP_ALIVE_S = 75.0  # longer than the proxies' usual 60
LINGER_S = 2.0  # reading on after a refusal, so that the sender sees the answer
UNREAD_S = 10.0  # how long an answer may wait for its reader
UNREAD_BYTES = 16 << 10  # of answers that wait
ACCEPTED_AT_ONCE = 32  # connections, before anything else has its turn
BACKLOG = 1024  # connections that the system keeps for us
RESERVED_FILES = 64 + ACCEPTED_AT_ONCE  # for the broker, the lake, files

GUEST = web.RequestKey("guest", Guest)

Malformed = Callable[[str, int, str | None], None]  # reason, status, remote
Closed = Callable[[str], None]  # reason


def room_for(connections: int) -> int:
    """How many of them fit; lets the process open as many files as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # where "unlimited" is more than the system has
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fit = connections if soft == resource.RLIM_INFINITY else max(10, soft - RESERVED_FILES)
    if fit < connections:
        logger().warning("fewer connections", wanted=connections, fit=fit, open_files=soft)
    return min(fit, connections)


def _say_malformed(reason: str, status: int, remote: str | None) -> None:
    logger().warning("refused", reason=reason, status=status, remote=remote)


class Listener:
    """Serves ``app``; made anew for each start. ``cancels``: what was asked by somebody who has
    gone is not worked on any more. ``malformed`` is told what was no request, ``closed`` why a
    connection was ended."""

    def __init__(
        self,
        app: web.Application,
        *,
        header_timeout_s: float,
        stop_s: float,
        cancels: bool = False,
        crowd: Crowd | None = None,
        unread_s: float | None = None,
        malformed: Malformed = _say_malformed,
        closed: Closed = lambda _reason: None,
    ) -> None:
        self._header_timeout_s = header_timeout_s
        self.unread_s = unread_s
        self.crowd = crowd
        self.malformed = malformed
        self.closed = closed
        self._waiting: dict[object, asyncio.TimerHandle] = {}
        app.middlewares.insert(0, self._asked)
        app.on_response_prepare.append(_unnamed)
        self._options: dict[str, Any] = {
            "access_log": None,
            "logger": logging.getLogger("groundwire.http"),
            "auto_decompress": False,
            "keepalive_timeout": KEEP_ALIVE_S,
            "lingering_time": LINGER_S,
            "max_line_size": MAX_LINE_BYTES,
            "max_field_size": MAX_LINE_BYTES,
            "max_headers": MAX_HEADERS,
        }
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            shutdown_timeout=stop_s,
            handler_cancellation=cancels,
            **self._options,
        )
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens, and returns the port (``port`` 0 is any). Raises ``OSError``."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        # asyncio takes as many connections in one go as its backlog says, hence two of them.
        self._server = await loop.create_server(
            self._connection, host, port, backlog=ACCEPTED_AT_ONCE
        )
        for listening in self._server.sockets:
            with listening.dup() as same:
                same.listen(BACKLOG)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Takes no more connections, lets the open requests finish, closes what is left."""
        if self._server is not None:
            self._server.close()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        await self._runner.cleanup()

    def _connection(self) -> RequestHandler:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the listener was not started")
        loop = asyncio.get_running_loop()
        connection = _Connection(self, server, loop=loop, **self._options)
        self._waiting[connection] = loop.call_later(
            self._header_timeout_s, self._silent, connection
        )
        return connection

    def _silent(self, connection: _Connection) -> None:
        """Nothing complete was asked in time."""
        if self._waiting.pop(connection, None) is not None:
            connection.end("asked-nothing")

    def gone(self, connection: _Connection) -> None:
        timer = self._waiting.pop(connection, None)
        if timer is not None:
            timer.cancel()

    @web.middleware
    async def _asked(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        connection = request.protocol
        if not isinstance(connection, _Connection):
            raise TypeError("a connection of another listener")
        self.gone(connection)
        guest = connection.guest
        if guest is not None and self.crowd is not None:
            request[GUEST] = guest
            self.crowd.asking(guest)
        try:
            if sum(len(name) + len(value) for name, value in request.raw_headers) > MAX_HEAD_BYTES:
                return connection.too_long(request)
            return await handler(request)
        finally:
            connection.answered += 1
            if guest is not None and self.crowd is not None:
                self.crowd.answered(guest)


async def _unnamed(_: web.Request, response: web.StreamResponse) -> None:
    """Nobody needs to know our libraries' versions."""
    response.headers["Server"] = "groundwire"


def _nothing() -> None:
    """What ending one that has gone comes to."""


class _Connection(RequestHandler):
    """Counts what comes, and says in one line, without what was sent, that something was no
    request."""

    __slots__ = ("_head_bytes", "_listener", "_stalled", "answered", "guest")

    def __init__(self, listener: Listener, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._listener = listener
        self._head_bytes = 0  # of a head that is incomplete
        self._stalled: asyncio.TimerHandle | None = None
        self.answered = 0
        self.guest: Guest | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._listener.unread_s is not None and self.transport is not None:
            self.transport.set_write_buffer_limits(UNREAD_BYTES)
        if (crowd := self._listener.crowd) is not None:
            name = transport.get_extra_info("peername")
            peer = counted_as(str(name[0])) if name else ""
            self.guest, goes = crowd.enter(peer, self._let_go)
            if goes is not None:
                goes.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leaves no cycle, so that it is freed at once; thousands that wait to be collected would
        hold up everything."""
        self._listener.gone(self)
        self._read_on()
        if self.guest is not None and self._listener.crowd is not None:
            self._listener.crowd.leave(self.guest)
            self.guest.close = _nothing
        if (ended := self.transport) is not None and hasattr(ended, "_read_ready_cb"):
            ended._read_ready_cb = _nothing  # by which asyncio's transport keeps itself
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if not data:  # what came before is looked at again
            return
        if self._request_count != before:
            self._head_bytes = 0
        elif self._request_count == self.answered:
            self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES or self._request_count - self.answered > MAX_AHEAD:
            self._listener.malformed("request-too-long", 431, self._remote())
            self.end("sent-too-much")
            return
        if self.guest is not None and self._listener.crowd is not None:
            for one in self._listener.crowd.received(self.guest, len(data)):
                (one.refuse or one.close)()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._listener.unread_s is not None:
            self._stalled = self._loop.call_later(self._listener.unread_s, self.end, "read-nothing")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()

    def end(self, reason: str) -> None:
        """At once, without an answer."""
        if self.transport is not None:
            self._listener.closed(reason)
            self.transport.abort()

    def too_long(self, request: web.BaseRequest) -> web.Response:
        """The answer to a request that is none, or one with too much of a head."""
        return self._refusal(request, "request-too-long", 431)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):  # who asked has gone; aiohttp would log all of it
            return self._refusal(request, "connection-broken", 400)
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        reason = "request-too-long" if isinstance(exc, LineTooLong) else "request-malformed"
        return self._refusal(request, reason, status)

    def _refusal(self, request: web.BaseRequest, reason: str, status: int) -> web.Response:
        self._listener.malformed(reason, status, request.remote)
        said = {"error": reason, "message": "this is no HTTP request, or one beyond our limits"}
        response = web.json_response(said, status=status)
        response.force_close()
        return response

    def _let_go(self) -> None:
        self.end("too-crowded")

    def _read_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _remote(self) -> str | None:
        name = self.transport.get_extra_info("peername") if self.transport else None
        return str(name[0]) if name else None
