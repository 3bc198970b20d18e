"""The HTTP face of a simulated Labelbox: GraphQL, export files, masks, legacy frames, images.

As with the vendor, everything but images and an export's presigned file wants the Authorization
header, and that file refuses it: a client that leaks its key to a storage host fails here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from consumer.demo import labelbox_images
from consumer.demo.clocks import dated
from consumer.demo.labelbox_export import ExportJob, Refused, piece_at
from consumer.demo.labelbox_faults import Fault
from consumer.demo.labelbox_graphql import UnknownField, operation_name, select, selection
from consumer.demo.labelbox_legacy import legacy_frames
from consumer.demo.labelbox_rows import GROUPS, SimulatedProject
from consumer.demo.labelbox_state import LabelboxState

Answer = Callable[[dict[str, Any]], dict[str, Any]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LabelboxServer:
    """Routes over a state; the state decides, this only speaks."""

    def __init__(self, state: LabelboxState) -> None:
        self.state = state
        self._operations: dict[str, tuple[str, Answer]] = {
            "exportDataRowsInProjectPyApi": ("export", self._export),
            "GetUserCreatedTasksPyApi": ("poll", self._created_tasks),
            "GetExportMetadataHeaderPyApi": ("export header", self._header),
            "GetExportFileFromOffsetPyApi": ("export offset", self._offset),
            "GetProjectPyApi": ("project", self._project),
            "GetUserPyApi": ("user", self._user),
            "CurrentUserPyApi": ("user", self._user),
        }

    def app(self) -> web.Application:
        app = web.Application()
        app.on_response_prepare.append(dated(self.state.date))
        app.add_routes(
            [
                web.post("/graphql", self.graphql),
                web.get("/export-files/{job}/{stream}/{offset}", self.export_file),
                web.get("/api/v1/projects/{p}/annotations/{feature}/index/{frame}/mask", self.mask),
                web.get("/api/v1/projects/{p}/composites/{composite}/mask", self.composite),
                web.get("/images/{row}/{name}", self.images),
                web.get("/masks/feature/{feature}/{frame}", self.mask),
                web.get("/v1/frames/{label}", self.frames),
            ]
        )
        return app

    async def graphql(self, request: web.Request) -> web.StreamResponse:
        if not self._authorized(request):
            return _error("AUTHENTICATION_ERROR", "Invalid API key", status=401)
        try:
            sent = json.loads(await request.read())
            name = operation_name(sent["query"])
            count, answer = self._operations[name or ""]
        except (ValueError, KeyError, TypeError):
            return _error("GRAPHQL_VALIDATION_FAILED", "Unknown operation", status=400)
        self.state.counters[count] += 1
        fault = self.state.faults.next(count)
        if fault is not None and fault.kind in ("failed-task", "stale", "line-lost"):
            self.state.faults.order("export job", fault)
        elif fault is not None and fault.kind not in ("null", "other"):
            return await _faulty(fault)
        try:
            wanted = selection(sent["query"])
            if fault is not None and fault.kind == "null":
                return web.json_response({"data": dict.fromkeys(wanted)})
            data = select(answer(sent.get("variables") or {}), wanted)
        except Refused as refused:
            return _error(refused.code, str(refused))
        except (UnknownField, KeyError, TypeError, ValueError) as wrong:
            return _error("GRAPHQL_VALIDATION_FAILED", str(wrong), status=400)
        body = json.dumps({"data": data}).encode()
        if fault is not None:
            body = fault.change(body)
        return web.Response(body=body, content_type="application/json")

    # operations

    def _export(self, variables: dict[str, Any]) -> dict[str, Any]:
        job = self.state.start_export(variables["input"])
        return {"exportDataRowsInProject": {"taskId": job.id, "isStreamable": True}}

    def _created_tasks(self, variables: dict[str, Any]) -> dict[str, Any]:
        if variables["param_1"] != self.state.user_id:
            return {"user": None}
        job = self.state.jobs.get(variables["param_0"])
        tasks = [] if job is None else [_task(job)]
        if job is not None and job.polls_left > 0:
            job.polls_left -= 1
        return {"user": {"createdTasks": tasks}}

    def _header(self, variables: dict[str, Any]) -> dict[str, Any]:
        lines = self._stream(variables)
        told = len(lines) + self.state.jobs[variables["where"]["id"]].lines_lost
        header = {"totalSize": sum(map(len, lines)), "totalLines": told} if lines else None
        return {"task": {"exportMetadataHeader": header}}

    def _offset(self, variables: dict[str, Any]) -> dict[str, Any]:
        offset = int(variables["offset"])
        found = piece_at(self._stream(variables), offset, self.state.chunk_bytes)
        if found is None:
            return {"task": {"exportFileFromOffset": None}}
        job, stream = variables["where"]["id"], variables["streamType"]
        base = self.state.file_base_url or self.state.base_url
        url = f"{base}/export-files/{job}/{stream}/{found.start}?signature=simulated"
        piece = {
            "offsets": {"start": found.start, "end": found.end},
            "lines": {"start": found.first_line, "end": found.last_line},
            "file": url,
        }
        return {"task": {"exportFileFromOffset": piece}}

    def _stream(self, variables: dict[str, Any]) -> list[bytes]:
        job = self.state.jobs.get(variables["where"]["id"])
        if job is None or job.status != "COMPLETE":
            raise Refused("RESOURCE_NOT_FOUND", "no such finished task")
        return job.stream(variables["streamType"])

    def _project(self, variables: dict[str, Any]) -> dict[str, Any]:
        project = self.state.projects.get(variables["param_0"])
        if project is None:
            raise Refused("RESOURCE_NOT_FOUND", "project not found")
        return {"project": self._project_fields(project)}

    def _project_fields(self, project: SimulatedProject) -> dict[str, Any]:
        made = _millis(project.created_at)
        rows = sum(row.project == project.id for row in self.state.rows.values())
        return {
            "id": project.id,
            "name": project.name,
            "description": "",
            "createdAt": made,
            "updatedAt": made,
            "lastActivityTime": made,
            "dataRowCount": rows,
            "setupComplete": made,
            "modelSetupComplete": None,
            "autoAuditNumberOfLabels": 1,
            "autoAuditPercentage": 1.0,
            "isBenchmarkEnabled": False,
            "isConsensusEnabled": False,
            "allowedMediaType": "DICOM",
            "editorTaskType": None,
            "uploadType": None,
        }

    def _user(self, variables: dict[str, Any]) -> dict[str, Any]:
        made = "2026-01-01T00:00:00.000Z"
        return {
            "user": {
                "id": self.state.user_id,
                "email": "owner@example.com",
                "name": "Owner",
                "nickname": "owner",
                "picture": "",
                "createdAt": made,
                "updatedAt": made,
                "lastLoginAt": made,
                "isViewer": False,
                "isExternalUser": False,
                "timezone": "UTC",
            }
        }

    # files

    async def export_file(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers or "signature" not in request.query:
            return web.Response(status=403, text="only one auth mechanism allowed")
        job = self.state.jobs.get(request.match_info["job"])
        offset = int(request.match_info["offset"])
        lines = job.stream(request.match_info["stream"]) if job else []
        found = piece_at(lines, offset, self.state.chunk_bytes)
        data = None if found is None else found.data
        return await self._bytes("export file GET", data, "application/json")

    async def mask(self, request: web.Request) -> web.StreamResponse:
        if not self._authorized(request):
            return web.Response(status=401)
        at = request.match_info
        frame = int(at["frame"]) if at["frame"].isdecimal() else -1
        return await self._bytes(
            "mask GET", self.state.masks.single(at["feature"], frame), "image/png"
        )

    async def composite(self, request: web.Request) -> web.StreamResponse:
        if not self._authorized(request):
            return web.Response(status=401)
        data = self.state.masks.composite(request.match_info["composite"])
        return await self._bytes("mask GET", data, "image/png")

    async def images(self, request: web.Request) -> web.StreamResponse:
        """Without a key: images lie in the customer's own storage."""
        row = self.state.rows.get(request.match_info["row"])
        data = await asyncio.to_thread(labelbox_images.served, row)
        return await self._bytes("images GET", data, "application/octet-stream")

    async def frames(self, request: web.Request) -> web.StreamResponse:
        if not self._authorized(request):
            return web.Response(status=401)
        label = self.state.find_label(request.match_info["label"])
        group = request.query.get("group", "").capitalize()
        data = None
        if label is not None and group in GROUPS:
            frames = legacy_frames(label, group, self.state.base_url)
            data = "\n".join(json.dumps(one, indent=2) for one in frames).encode()
        return await self._bytes("frames GET", data, "application/json")

    async def _bytes(self, count: str, data: bytes | None, kind: str) -> web.StreamResponse:
        self.state.counters[count] += 1
        fault = self.state.faults.next(count)
        if fault is not None and fault.kind == "truncated" and data is not None:
            return web.Response(body=data[: len(data) // 2], content_type=kind)
        if fault is not None and fault.kind == "other" and data is not None:
            return web.Response(body=fault.change(data), content_type=kind)
        if fault is not None:
            return await _faulty(fault)
        if data is None:
            return web.Response(status=404)
        return web.Response(body=data, content_type=kind)

    def _authorized(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.state.api_key}"


async def _faulty(fault: Fault) -> web.StreamResponse:
    if fault.kind == "hang":
        await asyncio.Event().wait()  # until the client goes away or the server stops
    if fault.kind == "graphql":
        return _error(fault.code, fault.message)
    if fault.kind == "rate-limit":
        return web.json_response({"message": "You have exceeded the rate limit of 1500 requests"})
    given = {"Retry-After": fault.retry_after, "Location": fault.location}
    headers = {name: value for name, value in given.items() if value is not None}
    return web.json_response({"message": fault.message}, status=fault.status, headers=headers)


def _error(code: str, message: str, *, status: int = 200) -> web.Response:
    error = {"message": message, "extensions": {"code": code}}
    return web.json_response({"errors": [error], "data": None}, status=status)


def _task(job: ExportJob) -> dict[str, Any]:
    made = _millis(job.created_at)
    return {
        "id": job.id,
        "name": "export",
        "type": "export-data-rows",
        "status": job.status,
        "completionPercentage": 0.0 if job.status == "IN_PROGRESS" else 100.0,
        "result": None,
        "errors": None,
        "metadata": {},
        "createdAt": made,
        "updatedAt": made,
    }


def _millis(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
