"""The receiver: ``POST /hooks/{source}`` is read, verified, parsed, put, answered.

A 202 leaves only after the queue has confirmed every event in every lane. Whose fault it is says
the answer: 4xx is the sender's, do not resend; 503 with ``Retry-After`` is ours, resend. Of what a
stranger sends beyond his budget (`Failures`) only what is small is looked at: that costs no more
than refusing it, and nobody who floods us from the same address, or before the platform's first
webhook, keeps that out. Nothing of it stands in a log line.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import ParamSpec, TypeVar

from aiohttp import ClientError, hdrs, web
from multidict import MultiMapping

from consumer.crowd import Crowd
from consumer.errors import GroundwireError, Rejected, Transient
from consumer.limits import Failures, Sample, address_of, counted_as
from consumer.listener import GUEST
from consumer.model import TaskEvent
from consumer.ports import Platform
from consumer.replays import Replays
from consumer.telemetry import UNKNOWN, Metrics, logger

RETRY_AFTER_S = 5
PUT_S = 4.5  # all of one request's events together; the sender waits for 5 s
PUT_AT_ONCE = 256  # events: so many are made ready for the queue without a pause
INLINE_BYTES = 16 << 10  # a larger body is verified and parsed beside the loop
SMALL_BYTES = 64 << 10  # a body that is verified whatever the budgets say
MAX_LOGGED_IDS = 10
MAX_PROXIES = 10  # believed in a row

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
Over = tuple[str, int]  # a reason's slug, and the seconds to wait
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request."""

    body_bytes: int = 1 << 20
    body_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """Answers webhooks. ``put`` returns when the events are durable, or raises within 5 s.
    ``ready`` raises when what was put may be lost: then what is known to be queued is put again."""

    platforms: Mapping[str, Platform]
    put: Callable[[Sequence[TaskEvent]], Awaitable[None]]
    metrics: Metrics
    ready: Callable[[], Awaitable[None]] | None = None
    limits: Limits = Limits()
    trusted_proxies: Networks = ()
    failures: Failures = field(default_factory=Failures)
    replays: Replays = field(default_factory=Replays)
    crowd: Crowd | None = None  # of the listener, if it has one
    lines: Sample = field(default_factory=Sample)
    crashes: Sample = field(default_factory=Sample)
    _heavy: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    def application(self) -> web.Application:
        """The application of the hook listener."""
        app = web.Application()
        app.router.add_route("*", "/hooks/{source}", self.answer, expect_handler=self._expect)
        app.router.add_route("*", "/{rest:.*}", self.answer, expect_handler=self._expect)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """202, or what the failure says."""
        try:
            platform, over = self._admit(request)
            body = await self._body(request, over)
            events = await self._events(platform, request, body, over)
            repeated = len(events) - await self._keep(events)
        except GroundwireError as error:
            return self._refuse(request, error)
        except Exception:  # a defect of ours: the sender keeps what we could not
            if (left_out := self.crashes.take()) is not None:
                logger().exception("receiver crashed", left_out=left_out)
            return self._refuse(request, Transient("internal-error"))
        self.metrics.accepted(platform.source, len(events), repeated)
        ids = [event.id for event in events[:MAX_LOGGED_IDS]]
        logger().info(
            "accepted",
            source=platform.source,
            accepted=len(events),
            repeated=repeated,
            event_ids=ids,
        )
        return web.json_response({"accepted": len(events)}, status=HTTPStatus.ACCEPTED)

    def malformed(self, reason: str, status: int, remote: str | None) -> None:
        """The listener refused what is no request."""
        self.failures.refused(counted_as(remote), UNKNOWN)
        self._say(UNKNOWN, Rejected(status, reason), remote)

    async def _events(
        self, platform: Platform, request: web.Request, body: bytes, over: Over | None
    ) -> list[TaskEvent]:
        """What the body tells, once it is known to be the platform's."""
        headers, query = _joined(request.headers), _joined(request.query)
        try:
            delivery = await self._beside(body, platform.verify, headers, query, body)
        except Rejected:
            if over:
                raise _Flood(*over) from None
            raise
        self.failures.good(counted_as(self._remote(request)))
        if self.crowd is not None and (guest := request.get(GUEST)) is not None:
            self.crowd.verified(guest)
        return await self._beside(body, platform.parse, delivery)

    async def _beside(
        self, body: bytes, judge: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Large bodies are judged in a thread, so that the loop goes on; one at a time, so that it
        waits for one thread at most."""
        if len(body) <= INLINE_BYTES:
            return judge(*args, **kwargs)
        async with self._heavy:
            return await asyncio.to_thread(judge, *args, **kwargs)

    async def _keep(self, events: Sequence[TaskEvent]) -> int:
        """How many were put: those that are not known to be durable already. What was put before a
        failure is known when the sender comes again."""
        try:
            async with asyncio.timeout(PUT_S):
                fresh = await self._fresh(events)
                for start in range(0, len(fresh), PUT_AT_ONCE):
                    part = fresh[start : start + PUT_AT_ONCE]
                    await self.put(part)
                    self.replays.queued(part)
        except TimeoutError as error:
            raise Transient("queue-timeout", "the queue did not confirm in time") from error
        except GroundwireError as error:
            if error.reason != "queue-timeout":  # whatever is slow may come to its end next time
                self.replays.forget()
            raise
        return len(fresh)

    async def _fresh(self, events: Sequence[TaskEvent]) -> list[TaskEvent]:
        fresh = self.replays.fresh(events)
        if self.ready is not None and len(fresh) < len(events):
            await self.ready()
        return fresh

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """``Expect: 100-continue`` asks before it sends the body: what is refused by its head is
        answered without asking for the body."""
        try:
            self._admit(request)
            if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
                raise Rejected(417, "unknown-expectation")
        except Rejected as error:
            response = self._refuse(request, error)
            response.force_close()  # the listener has not seen that it was asked
            return response
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
        return None

    def _admit(self, request: web.Request) -> tuple[Platform, Over | None]:
        """What can be judged before the body is read; with what the sender is told if he is over
        his budget and does not prove to be the platform (no exception: kept, it would keep all)."""
        platform = self.platforms.get(request.match_info.get("source", ""))
        source = platform.source if platform else UNKNOWN
        over = self.failures.over(counted_as(self._remote(request)), source)
        if over and (platform is None or (request.content_length or 0) > SMALL_BYTES):
            raise _Flood(*over)
        if platform is None:
            raise Rejected(404, "unknown-source", "there is no such hook")
        if request.method != hdrs.METH_POST:
            raise Rejected(405, "wrong-method", "webhooks are POSTed")
        encodings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, ["identity"]))
        if encodings.strip().lower() not in ("", "identity"):
            raise Rejected(415, "content-encoding", "send the body as it is, not compressed")
        if (request.content_length or 0) > self.limits.body_bytes:
            raise self._too_large()
        return platform, over

    async def _body(self, request: web.Request, over: Over | None) -> bytes:
        """The body, complete, within its limits of size and time."""
        body = bytearray()
        most = min(SMALL_BYTES, self.limits.body_bytes) if over else self.limits.body_bytes
        crowded = False
        try:
            async with asyncio.timeout(self.limits.body_timeout_s) as deadline:

                def refuse() -> None:
                    nonlocal crowded
                    crowded = True
                    deadline.reschedule(0)

                with _refusable(request, refuse):
                    while chunk := await request.content.readany():
                        body += chunk
                        if len(body) > most:
                            raise _Flood(*over) if over else self._too_large()
        except TimeoutError as error:
            if crowded:
                raise Transient("memory-crowded", "too many bodies are incomplete") from error
            raise Rejected(408, "body-timeout", "the body did not come in time") from error
        except (ClientError, ConnectionError, RuntimeError, web.RequestPayloadError) as error:
            if isinstance(error, RuntimeError) and request.transport is not None:
                raise  # aiohttp raises one when the connection went before it was read
            raise Rejected(400, "body-broken", "the body broke off") from error
        return bytes(body)

    def _too_large(self) -> Rejected:
        return Rejected(413, "body-too-large", f"the limit is {self.limits.body_bytes} bytes")

    def _refuse(self, request: web.Request, error: GroundwireError) -> web.Response:
        """Counts, says in one log line and answers what went wrong; of the request nothing."""
        source = request.match_info.get("source", "")
        source = source if source in self.platforms else UNKNOWN
        remote = self._remote(request)
        if isinstance(error, Rejected) and not isinstance(error, _Flood):
            self.failures.refused(counted_as(remote), source)
        status = self._say(source, error, remote)
        said = error.message if isinstance(error, Rejected) else "try again later"
        response = web.json_response({"error": error.reason, "message": said}, status=status)
        if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            asked = error.after_s if isinstance(error, Transient | _Flood) else None
            response.headers[hdrs.RETRY_AFTER] = str(max(1, int(asked or RETRY_AFTER_S)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers[hdrs.ALLOW] = hdrs.METH_POST
        if not request.content.is_eof():
            response.force_close()  # the rest of the body is nobody's
        return response

    def _say(self, source: str, error: GroundwireError, remote: str | None) -> int:
        """The status; every refusal is counted, of a flood of them only some become lines."""
        status = error.status if isinstance(error, Rejected) else HTTPStatus.SERVICE_UNAVAILABLE
        self.metrics.refused(source, error.reason)
        if (left_out := self.lines.take()) is not None:
            logger().warning(
                "refused",
                source=source,
                reason=error.reason,
                detail=error.message,
                status=int(status),
                remote=remote,
                **({"left_out": left_out} if left_out else {}),
            )
        return int(status)

    def _remote(self, request: web.Request) -> str | None:
        """Who sent it: behind trusted proxies, the last address that is none of theirs."""
        hops = [
            hop.strip()
            for line in request.headers.getall(hdrs.X_FORWARDED_FOR, [])
            for hop in line.split(",")
        ]
        remote = address_of(request.remote)
        for text in hops[: -MAX_PROXIES - 1 : -1]:
            hop = address_of(text) or address_of(_without_port(text))
            if remote is None or hop is None or not _within(remote, self.trusted_proxies):
                break
            remote = hop
        return str(remote) if remote else None


class _Flood(Rejected):
    """Too much of what came from there, or for this source, was refused."""

    def __init__(self, reason: str, after_s: int) -> None:
        super().__init__(429, reason, "too many requests were refused; come again later")
        self.after_s = after_s


@contextmanager
def _refusable(request: web.Request, refuse: Callable[[], None]) -> Iterator[None]:
    """While its body comes, the crowd may have it refused."""
    guest = request.get(GUEST)
    if guest is not None:
        guest.refuse = refuse
    try:
        yield
    finally:
        if guest is not None:
            guest.refuse = None


def _without_port(hop: str) -> str:
    """``192.0.2.1:80`` and ``[2001:db8::1]:80``, as some proxies write."""
    return hop[1:].partition("]")[0] if hop.startswith("[") else hop.rpartition(":")[0]


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


def _joined(values: MultiMapping[str]) -> dict[str, str]:
    """Names in lower case; what was sent twice is joined, so that no reader picks one of two."""
    joined: dict[str, str] = {}
    for name, value in values.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined
