"""The HTTP face of a simulated RedBrick: GraphQL in its odd encoding, and presigned files.

A body is base64(gzip(JSON)) with ``Content-Encoding-RB: gzip``, authenticated by the ``ApiKey``
header; files are opened by the signature in their URL's query and by nothing else, as on S3.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from consumer.demo.clocks import dated
from consumer.demo.redbrick_answers import AnswerError, Answers
from consumer.demo.redbrick_faults import Fault, Faults, Kind
from consumer.demo.redbrick_graphql import QueryError, parse, select
from consumer.demo.redbrick_records import Task
from consumer.demo.redbrick_state import RedBrickState

_MAX_BODY_BYTES = 4 << 20
_LIFETIME_S = 3600
FILE_GET = "file GET"  # counts every answered GET of a file; "mask GET" the masks among them


class RedBrickServer:
    """The routes over one state. ``released`` ends the answers that hang."""

    def __init__(self, state: RedBrickState, faults: Faults) -> None:
        self._state = state
        self._faults = faults
        self._key = hashlib.sha256(state.api_key.encode()).digest()
        self._released = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/graphql/", self._graphql)
        app.router.add_get("/files/{path:.+}", self._file)
        app.on_shutdown.append(self._release)
        app.on_response_prepare.append(dated(self._state.date))
        return app

    async def _release(self, app: web.Application) -> None:
        self._released.set()

    async def _graphql(self, request: web.Request) -> web.StreamResponse:
        if not hmac.compare_digest(
            request.headers.get("ApiKey", "").encode(), self._state.api_key.encode()
        ):
            return web.json_response({"message": "Unauthorized"}, status=401)
        try:
            asked = _decoded(await request.read(), request.headers)
            operation = parse(asked["query"])
        except (ValueError, KeyError, TypeError, QueryError) as error:
            return web.Response(status=400, text=f"Bad request: {type(error).__name__}")
        self._state.counters[operation.name] += 1
        fault = self._faults.take(operation.name)
        if fault is not None and (wrong := await self._wrong(request, fault)) is not None:
            return wrong
        answers = Answers(self._state, self._presigner(request), self._view(fault))
        variables = asked.get("variables") or {}
        try:
            data = select(answers.root(), operation.selection, variables)
        except QueryError as error:
            return web.json_response({"errors": [{"message": str(error)}]}, status=400)
        except AnswerError as error:
            return web.json_response({"errors": [{"message": str(error)}], "data": None})
        if fault is not None:
            _spoil_page(data, variables, fault)
        return await self._send(request, json.dumps({"data": data}).encode(), fault)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        counter = "mask GET" if path.endswith(".nii.gz") and "items/" not in path else "other GET"
        self._state.counters[FILE_GET] += 1
        self._state.counters[counter] += 1
        if "Authorization" in request.headers or "ApiKey" in request.headers:
            return web.Response(status=400, text="Only one auth mechanism allowed")
        expires = request.query.get("X-Amz-Expires", "")
        given = request.query.get("X-Amz-Signature", "")
        if not hmac.compare_digest(given.encode(), self._signature(path, expires).encode()):
            return web.Response(status=403, text="SignatureDoesNotMatch")
        if int(expires) < time.time():
            return web.Response(status=403, text="Request has expired")
        fault = self._faults.take(FILE_GET)
        if fault is not None and (wrong := await self._wrong(request, fault)) is not None:
            return wrong
        content = self._state.files.get(path)
        if content is None:
            return web.Response(status=404, text="NoSuchKey")
        return await self._send(request, content, fault)

    async def _wrong(self, request: web.Request, fault: Fault) -> web.StreamResponse | None:
        if fault.kind is Kind.HANG:
            await self._released.wait()
            return web.Response(status=503)
        if fault.kind is Kind.STATUS:
            return web.Response(status=fault.status, headers=fault.headers, text="fault")
        if fault.kind is Kind.GRAPHQL_ERROR:
            return web.json_response({"errors": [{"message": fault.message}], "data": None})
        return None

    async def _send(
        self, request: web.Request, body: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        content_type = "application/json" if request.method == "POST" else "binary/octet-stream"
        if fault is not None and fault.kind is Kind.OTHER:
            body = fault.change(body)
        if fault is not None and fault.kind is Kind.CUT:
            return web.Response(body=body[: len(body) // 2], content_type=content_type)
        if fault is None or fault.kind is not Kind.TRUNCATED:
            return web.Response(body=body, content_type=content_type)
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        response.content_type = content_type
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response

    def _view(self, fault: Fault | None) -> Any:
        def shown(task: Task) -> Task | None:
            if fault is None or fault.kind is not Kind.STALE:
                return task
            past = self._state.projects[task.project_id].past[task.task_id]
            return past[max(0, len(past) - fault.steps)] if past else task

        return shown

    def _presigner(self, request: web.Request) -> Any:
        def presigned(path: str) -> str:
            expires = str(int(time.time()) + _LIFETIME_S)
            query = {"X-Amz-Expires": expires, "X-Amz-Signature": self._signature(path, expires)}
            return f"{request.url.origin()}/files/{quote(path)}?{urlencode(query)}"

        return presigned

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()


def _spoil_page(data: dict[str, Any], variables: Mapping[str, Any], fault: Fault) -> None:
    page = data.get("tasksPaged") or {}
    if fault.kind is Kind.HALF_PAGE:
        page["entries"] = page["entries"][: len(page["entries"]) // 2]
    elif fault.kind is Kind.NO_CURSOR:
        page["cursor"] = None
    elif fault.kind is Kind.SAME_CURSOR:
        page["cursor"] = variables.get("after") or "0"


def _decoded(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Raises ``ValueError`` or ``TypeError`` when the body is not in RedBrick's encoding."""
    try:
        if headers.get("Content-Encoding-RB") == "gzip":
            body = gzip.decompress(base64.b64decode(body, validate=True))
        asked = json.loads(body)
    except (binascii.Error, OSError, EOFError, zlib.error) as error:
        raise ValueError("not base64 of gzip") from error
    if not isinstance(asked, dict):
        raise TypeError("not an object")
    return asked
