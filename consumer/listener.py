"""A TCP listener for one aiohttp application, with the limits that aiohttp itself does not set.

A connection that has not asked anything within ``header_timeout_s`` is closed; headers are bounded;
bodies arrive as they were sent, never unpacked. What is no HTTP is refused in one log line, and
nothing of it is repeated to anybody: it may hold a token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from consumer.telemetry import logger

MAX_LINE_BYTES = 8190  # of the request line, and of one header
MAX_HEADERS = 100
KEEP_ALIVE_S = 75.0  # longer than the proxies' usual 60
LINGER_S = 2.0  # reading on after a refusal, so that the sender sees the answer


class Listener:
    """Serves ``app``; made anew for each start. ``cancels``: what was asked by somebody who has
    gone is not worked on any more."""

    def __init__(
        self, app: web.Application, *, header_timeout_s: float, stop_s: float, cancels: bool = False
    ) -> None:
        self._header_timeout_s = header_timeout_s
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
        self._server = await loop.create_server(self._connection, host, port, backlog=512)
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
        connection = _Connection(server, loop=loop, **self._options)
        self._waiting[connection] = loop.call_later(
            self._header_timeout_s, self._silent, connection
        )
        return connection

    def _silent(self, connection: RequestHandler) -> None:
        """Nothing complete was asked in time."""
        self._waiting.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()

    @web.middleware
    async def _asked(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        timer = self._waiting.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()
        return await handler(request)


async def _unnamed(_: web.Request, response: web.StreamResponse) -> None:
    """Nobody needs to know our libraries' versions."""
    response.headers["Server"] = "groundwire"


class _Connection(RequestHandler):
    """Says in one line, without what was sent, that something was no request."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        reason = "request-too-long" if isinstance(exc, LineTooLong) else "request-malformed"
        logger().warning("refused", reason=reason, status=status, remote=request.remote)
        said = {"error": reason, "message": "this is no HTTP request, or one beyond our limits"}
        response = web.json_response(said, status=status)
        response.force_close()
        return response
