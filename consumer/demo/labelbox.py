"""A simulated Labelbox that the vendor's own Python SDK can export from, unmodified."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from consumer.demo.labelbox_faults import Fault
from consumer.demo.labelbox_rows import DONE, GROUPS, Drawing
from consumer.demo.labelbox_server import LabelboxServer
from consumer.demo.labelbox_state import LABELING, REWORK, LabelboxState, ticking_clock
from consumer.demo.labelbox_webhooks import Webhook


class SimulatedLabelbox(LabelboxState):
    """The state machine together with its server."""

    def app(self) -> web.Application:
        return LabelboxServer(self).app()

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serves until the block ends; gives the base URL (GraphQL is at ``{base}/graphql``)."""
        runner = web.AppRunner(self.app(), shutdown_timeout=0.2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            bound = runner.addresses[0][1]
            self.base_url = f"http://{host}:{bound}"
            yield self.base_url
        finally:
            await runner.cleanup()


__all__ = [
    "DONE",
    "GROUPS",
    "LABELING",
    "REWORK",
    "Drawing",
    "Fault",
    "SimulatedLabelbox",
    "Webhook",
    "ticking_clock",
]
