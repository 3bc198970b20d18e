"""The receiver: ``POST /hooks/{source}`` is read, verified, parsed, put, answered.

A 202 leaves only after the queue has confirmed every event in every lane. Whose fault it is says
the answer: 4xx is the sender's, do not resend; 503 with ``Retry-After`` is ours, resend.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import ClientError, hdrs, web
from multidict import MultiMapping

from consumer.errors import GroundwireError, Rejected, Transient
from consumer.model import TaskEvent
from consumer.ports import Platform
from consumer.telemetry import UNKNOWN, Metrics, logger

RETRY_AFTER_S = 5
MAX_LOGGED_PATH = 100  # characters: whoever is refused chose them
MAX_LOGGED_IDS = 10
MAX_PROXIES = 10  # believed in a row

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request."""

    body_bytes: int = 1 << 20
    body_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """Answers webhooks. ``put`` returns when the events are durable, or raises within 5 s."""

    platforms: Mapping[str, Platform]
    put: Callable[[Sequence[TaskEvent]], Awaitable[None]]
    metrics: Metrics
    limits: Limits = Limits()
    trusted_proxies: Networks = ()

    def application(self) -> web.Application:
        """The application of the hook listener."""
        app = web.Application()
        app.router.add_route("*", "/hooks/{source}", self.answer, expect_handler=self._expect)
        app.router.add_route("*", "/{rest:.*}", self.answer, expect_handler=self._expect)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """202, or what the failure says."""
        try:
            platform = self._admit(request)
            body = await self._body(request)
            delivery = platform.verify(_joined(request.headers), _joined(request.query), body)
            events = platform.parse(delivery)
            if events:
                await self.put(events)
        except GroundwireError as error:
            return self._refuse(request, error)
        except Exception:  # a defect of ours: the sender keeps what we could not
            logger().exception("receiver crashed", path=request.path[:MAX_LOGGED_PATH])
            return self._refuse(request, Transient("internal-error"))
        self.metrics.accepted(platform.source, len(events))
        ids = [event.id for event in events[:MAX_LOGGED_IDS]]
        logger().info("accepted", source=platform.source, accepted=len(events), event_ids=ids)
        return web.json_response({"accepted": len(events)}, status=HTTPStatus.ACCEPTED)

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """``Expect: 100-continue`` asks before it sends the body: what is refused by its head is
        answered without asking for the body."""
        try:
            self._admit(request)
        except Rejected as error:
            return self._refuse(request, error)
        if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
            return self._refuse(request, Rejected(417, "unknown-expectation"))
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
        return None

    def _admit(self, request: web.Request) -> Platform:
        """What can be judged before the body is read."""
        platform = self.platforms.get(request.match_info.get("source", ""))
        if platform is None:
            raise Rejected(404, "unknown-source", "there is no such hook")
        if request.method != hdrs.METH_POST:
            raise Rejected(405, "wrong-method", "webhooks are POSTed")
        encodings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, ["identity"]))
        if encodings.strip().lower() not in ("", "identity"):
            raise Rejected(415, "content-encoding", "send the body as it is, not compressed")
        if (request.content_length or 0) > self.limits.body_bytes:
            raise self._too_large()
        return platform

    async def _body(self, request: web.Request) -> bytes:
        """The body, complete, within its limits of size and time."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > self.limits.body_bytes:
                        raise self._too_large()
        except TimeoutError as error:
            raise Rejected(408, "body-timeout", "the body did not come in time") from error
        except (ClientError, ConnectionError, web.RequestPayloadError) as error:
            raise Rejected(400, "body-broken", "the body broke off") from error
        return bytes(body)

    def _too_large(self) -> Rejected:
        return Rejected(413, "body-too-large", f"the limit is {self.limits.body_bytes} bytes")

    def _refuse(self, request: web.Request, error: GroundwireError) -> web.Response:
        """Counts, says in one log line and answers what went wrong; of the query nothing."""
        status = error.status if isinstance(error, Rejected) else HTTPStatus.SERVICE_UNAVAILABLE
        source = request.match_info.get("source", "")
        source = source if source in self.platforms else UNKNOWN
        self.metrics.refused(source, error.reason)
        logger().warning(
            "refused",
            source=source,
            reason=error.reason,
            detail=error.message,
            status=int(status),
            path=request.path[:MAX_LOGGED_PATH],
            remote=self._remote(request),
        )
        said = error.message if isinstance(error, Rejected) else "try again later"
        response = web.json_response({"error": error.reason, "message": said}, status=status)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            asked = error.after_s if isinstance(error, Transient) else None
            response.headers[hdrs.RETRY_AFTER] = str(max(1, int(asked or RETRY_AFTER_S)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers[hdrs.ALLOW] = hdrs.METH_POST
        if not request.content.is_eof():
            response.force_close()  # the rest of the body is nobody's
        return response

    def _remote(self, request: web.Request) -> str | None:
        """Who sent it: behind trusted proxies, the last address that is none of theirs."""
        hops = [
            hop.strip()
            for line in request.headers.getall(hdrs.X_FORWARDED_FOR, [])
            for hop in line.split(",")
        ]
        remote = request.remote
        for hop in hops[: -MAX_PROXIES - 1 : -1]:
            if not _within(remote, self.trusted_proxies) or not _address(hop):
                break
            remote = hop
        return remote


def _joined(values: MultiMapping[str]) -> dict[str, str]:
    """Names in lower case; what was sent twice is joined, so that no reader picks one of two."""
    joined: dict[str, str] = {}
    for name, value in values.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text or "")
    except ValueError:
        return None


def _within(text: str | None, networks: Networks) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in networks)
