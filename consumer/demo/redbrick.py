"""A simulated RedBrick: an organisation with its verbs, its webhooks and its API on loopback.

It speaks the wire protocol so closely that the vendor's own Python SDK exports from it unmodified
(`tests/end_to_end/test_vendor_redbrick.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from consumer.demo.clocks import TickingClock
from consumer.demo.redbrick_faults import Fault, Faults, Kind, status
from consumer.demo.redbrick_phantom import phantom_drawing, phantom_series
from consumer.demo.redbrick_records import Drawing, Instance, SeriesSpec, User
from consumer.demo.redbrick_server import RedBrickServer
from consumer.demo.redbrick_state import RedBrickState

__all__ = [
    "Drawing",
    "Fault",
    "Faults",
    "Instance",
    "Kind",
    "SeriesSpec",
    "SimulatedRedBrick",
    "TickingClock",
    "User",
    "phantom_drawing",
    "phantom_series",
    "status",
]


class SimulatedRedBrick(RedBrickState):
    """The state machine with a server in front of it; see `RedBrickState` for the arguments."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.faults = Faults()

    def app(self) -> web.Application:
        return RedBrickServer(self, self.faults).app()

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """The base URL while the server runs: what ``api_url`` is for RedBrick."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            bound = runner.addresses[0][1]
            yield f"http://{host}:{bound}"
        finally:
            await runner.cleanup()
