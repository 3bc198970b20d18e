"""The admin listener's application: ``/healthz``, ``/readyz``, ``/metrics`` and ``/changes``.

Ready means that a 2xx can be kept, whatever the lake's state, and that the lanes which this process
works on are being worked on. With a token, whoever does not show it learns up or down, ready or
not, and nothing else; without one, so does whoever asks by another name than this machine's own: a
web page that has its own name point at loopback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from consumer.errors import GroundwireError
from consumer.limits import address_of
from consumer.model import LaneSpec
from consumer.ports import Queue
from consumer.signature import token_matches
from consumer.telemetry import Metrics

Check = Callable[[], Awaitable[None]]
Stream = Callable[[web.Request], Awaitable[web.StreamResponse]]
LogSize = tuple[int, float | None]  # entries, age of the newest in seconds
Note = Callable[[], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Admin:
    """What the admin listener can tell. ``checks`` raise, with the reason, when not ready;
    ``notes`` tell more about how it is ready; ``measure`` brings metrics up to date."""

    metrics: Metrics
    queue: Queue
    lanes: Sequence[LaneSpec]
    checks: Mapping[str, Check] = field(default_factory=dict)
    notes: Mapping[str, Note] = field(default_factory=dict)
    measure: Callable[[], None] = lambda: None
    log: Callable[[], LogSize] | None = None
    changes: Stream | None = None
    token: str | None = None
    look_s: float = 2.0  # for one look at a lane, so that a scrape is answered while it hangs
    ready_s: float = 3.0  # for one check

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/changes", self._changes, allow_head=False)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _ready(self, request: web.Request) -> web.Response:
        found = await asyncio.gather(
            *(_failure(check, self.ready_s) for check in self.checks.values())
        )
        reasons = {name: why for name, why in zip(self.checks, found, strict=True) if why}
        said: dict[str, object] = {"ready": not reasons}
        if self._admits(request):
            said |= {"reasons": reasons} if reasons else {}
            said |= {name: note() for name, note in self.notes.items()}
        return web.json_response(said, status=503 if reasons else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        self._admit(request)
        await asyncio.gather(*(self._look(lane) for lane in self.lanes))
        if self.log is not None:
            entries, age_s = self.log()
            self.metrics.log_state(entries, age_s)
        self.measure()
        return web.Response(
            body=self.metrics.render(),
            headers={hdrs.CONTENT_TYPE: "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        if self.changes is None:
            raise web.HTTPNotFound
        return await self.changes(request)

    async def _look(self, lane: LaneSpec) -> None:
        try:
            async with asyncio.timeout(self.look_s):
                self.metrics.lane_depth(lane.name, await self.queue.depth(lane))
        except (GroundwireError, TimeoutError):
            self.metrics.observed(f"queue-{lane.name}", ok=False)
        else:
            self.metrics.observed(f"queue-{lane.name}", ok=True)

    def _admit(self, request: web.Request) -> None:
        if not self._admits(request):
            raise web.HTTPUnauthorized(headers={hdrs.WWW_AUTHENTICATE: "Bearer"})

    def _admits(self, request: web.Request) -> bool:
        if self.token is None:  # loopback only: the settings see to it
            return _names_loopback(request.headers.get(hdrs.HOST, ""))
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        return scheme.lower() == "bearer" and token_matches(given.strip(), [self.token.encode()])


def _names_loopback(host: str) -> bool:
    """A browser sends the name in its URL, wherever that name leads (DNS rebinding)."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    address = address_of(name)
    return name == "localhost" or (address is not None and address.is_loopback)


async def _failure(check: Check, timeout_s: float) -> str | None:
    """Why a check fails; None when it does not."""
    try:
        async with asyncio.timeout(timeout_s):
            await check()
    except GroundwireError as error:
        return f"{error.reason}: {error.message}"
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    return None
