"""Labelbox's export jobs: started for chosen data rows, waited for, and read piece by piece.

A job that fails or does not end, a file that is not whole, and a line that cannot be read are
errors, never fewer rows. The presigned file is fetched without our key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from consumer.download import Downloader
from consumer.errors import Permanent, Transient
from consumer.platforms.labelbox_graphql import GraphQL, Json, child, count_of, text_of
from consumer.platforms.patience import patient, presigned
from consumer.ports import Sleep

T = TypeVar("T")

MAX_IDS = 2_000  # of one filter, by the vendor's limits page
MAX_LINE_BYTES = 64 << 20  # of one row, where rows go through a file
POLL_S = 2.0  # the vendor's SDK allows no less

PARAMS = {
    "attachments": "includeAttachments",
    "metadata_fields": "includeMetadata",
    "data_row_details": "includeDataRowDetails",
    "project_details": "includeProjectDetails",
    "label_details": "includeLabelDetails",
    "performance_details": "includePerformanceDetails",
}

_EXPORT = (
    "mutation exportDataRowsInProjectPyApi($input: ExportDataRowsInProjectInput!)"
    "{exportDataRowsInProject(input: $input){taskId isStreamable}}"
)
_POLL = (
    "query GetUserCreatedTasksPyApi($param_0: ID!, $param_1: ID!)"
    "{user(where: {id: $param_1}){createdTasks(where: {id: $param_0} skip: 0 first: 1)"
    "{id status}}}"
)
_HEADER = (
    "query GetExportMetadataHeaderPyApi($where: WhereUniqueIdInput, $streamType: TaskStreamType!)"
    "{task(where: $where){exportMetadataHeader(streamType: $streamType){totalSize totalLines}}}"
)
_OFFSET = (
    "query GetExportFileFromOffsetPyApi"
    "($where: WhereUniqueIdInput, $streamType: TaskStreamType!, $offset: UInt64!)"
    "{task(where: $where){exportFileFromOffset(streamType: $streamType, offset: $offset)"
    "{offsets {start end} lines {start end} file}}}"
)
_USER = "query GetUserPyApi{user{id}}"


class Exports:
    """Export jobs of one account. A ``patient`` one asks again what failed, for a while."""

    def __init__(
        self,
        graphql: GraphQL,
        downloader: Downloader,
        *,
        sleep: Sleep,
        timeout_s: float,
        max_bytes: int,
        max_line_bytes: int = MAX_LINE_BYTES,
        patient: bool = False,
    ) -> None:
        self._graphql = graphql
        self._downloader = downloader
        self._sleep = sleep
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._max_line_bytes = max_line_bytes
        self._patient = patient
        self._user: str | None = None

    async def run(self, project: str, row_ids: Sequence[str], details: Sequence[str]) -> str:
        """Runs one job for at most `MAX_IDS` data rows, with the named details; gives its id.

        Raises ``ProjectUnreadable`` or ``Transient``.
        """
        ids = {"ids": list(row_ids), "operator": "is", "type": "data_row_id"}
        return await self.search(project, [ids], details)

    async def search(self, project: str, query: Sequence[Json], details: Sequence[str]) -> str:
        """As `run`, for the rows that all filters of a search query name."""
        job = await self._call(lambda: self._start(project, query, details))
        waited = 0.0
        while (status := await self._call(lambda: self._status(job))) == "IN_PROGRESS":
            if waited >= self._timeout_s:
                raise Transient("export-timeout", "the export job does not end", shared=True)
            await self._sleep(POLL_S)
            waited += POLL_S
        if status != "COMPLETE":
            raise Transient("export-failed", "the platform's export job failed")
        return job

    async def reports_more(self, job: str, lines: int) -> bool:
        """Whether a finished job counts more lines than these, or reports errors beside them: then
        a row that is absent from it may be there all the same."""
        header = await self._header(job, "RESULT")
        if header is not None and count_of(header, "totalLines") > lines:
            return True
        return await self._header(job, "ERRORS") is not None

    async def now(self) -> str:
        """The platform's time by its own clock, from the smallest question that wants a key. Raises
        ``Transient``."""
        return await self._graphql.time(_USER)

    async def _start(self, project: str, query: Sequence[Json], details: Sequence[str]) -> str:
        asked: Json = {
            "taskName": "groundwire",
            "isStreamableReady": True,
            "filters": {"projectId": project, "searchQuery": {"scope": None, "query": list(query)}},
            "params": {
                **{theirs: ours in details for ours, theirs in PARAMS.items()},
                "mediaTypeOverride": None,
                "includeEmbeddings": False,
                "includeInterpolatedFrames": False,
            },
            "streamable": True,
        }
        data = await self._graphql.ask(_EXPORT, {"input": asked})
        return text_of(child(data, "exportDataRowsInProject"), "taskId")

    async def _status(self, job: str) -> str:
        if self._user is None:
            self._user = text_of(child(await self._graphql.ask(_USER, {}), "user"), "id")
        data = await self._graphql.ask(_POLL, {"param_0": job, "param_1": self._user})
        tasks = child(data, "user").get("createdTasks")
        if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], dict):
            raise Transient("export-failed", "the platform does not know its export job")
        return text_of(tasks[0], "status")

    async def _header(self, job: str, stream: str) -> Json | None:
        """The size of a job's stream; None when there is none."""
        asked = {"where": {"id": job}, "streamType": stream}
        data = await self._call(lambda: self._graphql.ask(_HEADER, asked))
        header = child(data, "task").get("exportMetadataHeader")
        return header if isinstance(header, dict) and count_of(header, "totalSize") > 0 else None

    async def rows(self, job: str) -> AsyncIterator[Json]:
        """The rows of a finished job. Raises ``Transient``, or ``Permanent`` (export-too-large)."""
        header = await self._header(job, "RESULT")
        total = 0 if header is None else count_of(header, "totalSize")
        if total > self._max_bytes:
            raise Permanent("export-too-large", f"{total} bytes; the limit is {self._max_bytes}")
        offset, rest = 0, b""
        while offset < total:
            end, piece = await self._piece(job, offset)
            offset = end + 1
            *whole, rest = (rest + piece).split(b"\n")
            for line in filter(None, whole):
                yield _row(line)
        if rest.strip():
            yield _row(rest)

    async def saved_rows(self, job: str, folder: Path) -> AsyncIterator[Json]:
        """As `rows`, for a job of any size: each piece goes through a file in ``folder``, so that
        one line is in memory. All lines that the job counts, and no errors beside them, or
        ``Transient``; ``Permanent`` for a line over the limit."""
        if await self._header(job, "ERRORS") is not None:
            raise Transient("export-incomplete", "the export reports errors beside its rows")
        header = await self._header(job, "RESULT")
        total = 0 if header is None else count_of(header, "totalSize")
        told = 0 if header is None else count_of(header, "totalLines")
        lines, offset = _Lines(self._max_line_bytes), 0
        while offset < total:
            path = folder / f"piece-{offset}"
            piece = await self._call(partial(self._save, job, offset, path))
            with path.open("rb") as file:
                file.seek(offset - piece.start)
                for line in lines.whole(file):
                    yield _row(line)
            path.unlink()
            offset = piece.end + 1
        if lines.rest.strip():
            lines.came += 1
            yield _row(lines.rest)
        if lines.came < told:
            raise Transient("export-incomplete", f"{lines.came} of {told} rows came")

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        return await (patient(call, self._sleep) if self._patient else call())

    async def _piece(self, job: str, offset: int) -> tuple[int, bytes]:
        """(last byte, bytes from ``offset`` on) of the piece that holds ``offset``."""

        async def fetch() -> tuple[_Piece, bytes]:
            piece = await self._place(job, offset)
            if piece.size > self._max_bytes:
                raise _senseless()
            with _all_the_same():
                return piece, await self._downloader.get(piece.url, max_bytes=piece.size)

        piece, data = await presigned(fetch)
        if len(data) != piece.size:
            raise _cut_off()
        return piece.end, data[offset - piece.start :]

    async def _save(self, job: str, offset: int, path: Path) -> _Piece:
        """The piece that holds ``offset``, in a new file."""

        async def fetch() -> tuple[_Piece, int]:
            piece = await self._place(job, offset)
            await asyncio.to_thread(path.unlink, missing_ok=True)
            with _all_the_same():
                _, size = await self._downloader.save(piece.url, path, max_bytes=piece.size)
            return piece, size

        piece, size = await presigned(fetch)
        if size != piece.size:
            raise _cut_off()
        return piece

    async def _place(self, job: str, offset: int) -> _Piece:
        where = {"where": {"id": job}, "streamType": "RESULT", "offset": str(offset)}
        info = child(child(await self._graphql.ask(_OFFSET, where), "task"), "exportFileFromOffset")
        offsets = child(info, "offsets")
        piece = _Piece(count_of(offsets, "start"), count_of(offsets, "end"), text_of(info, "file"))
        if not piece.start <= offset <= piece.end:
            raise _senseless()
        return piece


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where a piece of a job's file lies: its first and last byte, and the URL that opens it for a
    while."""

    start: int
    end: int
    url: str

    @property
    def size(self) -> int:
        return self.end - self.start + 1


@dataclass(slots=True)
class _Lines:
    """The lines of a job's file, which may begin in one piece and end in another."""

    max_bytes: int
    rest: bytes = b""
    came: int = 0

    def whole(self, file: BinaryIO) -> Iterator[bytes]:
        """Those that end in this piece. Raises ``Permanent`` for one that is too long."""
        while part := file.readline(self.max_bytes + 1 - len(self.rest)):
            self.rest += part
            if not part.endswith(b"\n"):
                if len(self.rest) > self.max_bytes:
                    raise Permanent("export-too-large", f"a row over {self.max_bytes} bytes")
                continue
            line, self.rest = self.rest.strip(), b""
            if line:
                self.came += 1
                yield line


@contextmanager
def _all_the_same() -> Iterator[None]:
    """A failure of a job's file is that of all its rows: asking for fewer would not help."""
    try:
        yield
    except Transient as error:
        after_s = error.after_s
        raise Transient(error.reason, error.message, after_s=after_s, shared=True) from error


def _senseless() -> Transient:
    return Transient("export-unreadable", "the export's offsets make no sense", shared=True)


def _cut_off() -> Transient:
    return Transient("export-truncated", "a piece of the export is not whole", shared=True)


def _row(line: bytes) -> Json:
    try:
        row = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise Transient("export-unreadable", "a line of the export is not a JSON object")
    return row


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), MAX_IDS):
        yield ids[start : start + MAX_IDS]
