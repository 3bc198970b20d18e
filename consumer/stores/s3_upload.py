"""An object made once from a file of any size: in one request, or in parts that appear together.

Invariant: a part lies in memory only while it is sent, at most two of them at once; nobody sees an
object before its parts are joined, which is conditional (``If-None-Match``); an upload that does
not end in an object is aborted, so that its parts cost nothing. What a killed process leaves is
removed by the bucket's own rule (``AbortIncompleteMultipartUpload``).

S3 joins conditionally as one step. SeaweedFS 4.48 refuses the join where there is an object, but of
joins at the very same moment more than one may succeed (12 on 8 keys, by 64 writers): so the
object is looked at before and after, and who lost meets a ``Conflict``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from consumer.errors import Conflict, GroundwireError, Transient
from consumer.stores import pieces, s3_errors
from consumer.stores.local_files import block_at, explained
from consumer.stores.pieces import Ask
from consumer.stores.s3_calls import S3Calls, Unmet

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

T = TypeVar("T")

SINGLE_BYTES = 64 << 20  # up to here one request is enough
PART_BYTES = 16 << 20
PARTS_AT_ONCE = 2  # of all uploads of a store together
MAX_PARTS = 10_000  # of one upload: the limit of S3
_BLOCK = 1 << 20

UNMET = frozenset({"NoSuchKey", "PreconditionFailed", "ConditionalRequestConflict"})
_GONE = frozenset({"NoSuchUpload", "404", "NoSuchKey"})


@dataclass(frozen=True, slots=True)
class Target:
    """Where the object is to be; ``ask`` reads what is there, piece by piece."""

    bucket: str
    full: str
    key: str  # as the store's callers know it
    where: str
    ask: Ask


class S3Uploads:
    """Uploads of one store."""

    def __init__(
        self, calls: S3Calls, *, single_bytes: int = SINGLE_BYTES, part_bytes: int = PART_BYTES
    ) -> None:
        self._calls = calls
        self._single_bytes = single_bytes
        self._part_bytes = part_bytes
        self._gate = asyncio.Semaphore(PARTS_AT_ONCE)

    async def upload(self, target: Target, file: Path, size: int) -> None:
        """Returns when the object is there with the file's bytes. Raises ``Conflict``."""
        if size <= self._single_bytes:
            await self._once(target, file, size, partial(self._whole, target, file))
        elif not await self._there(target, file, size):
            await self._in_parts(target, file, size)

    async def _whole(self, target: Target, file: Path) -> None:
        async with self._gate:
            await self._calls.run(partial(self._put, target, file))

    async def _once(
        self, target: Target, file: Path, size: int, write: Callable[[], Awaitable[None]]
    ) -> None:
        """A conditional write, whose answer is not trusted when it is doubtful."""
        started, attempt = asyncio.get_running_loop().time(), 0
        while True:
            attempt += 1
            try:
                return await write()
            except Transient as error:
                if error.reason not in s3_errors.DOUBTFUL:
                    raise
                if await self._there(target, file, size):
                    return None
                if not await self._calls.may_repeat(attempt, started):
                    raise

    async def _there(self, target: Target, file: Path, size: int) -> bool:
        """Whether the object is there already. Raises ``Conflict`` when it is another."""
        same = await pieces.same(file, size, target.ask, self._calls.run)
        if same is False:
            raise Conflict(target.key)
        return same is True

    async def _in_parts(self, target: Target, file: Path, size: int) -> None:
        async with self._begun(target) as (upload, joined):
            parts = await self._sent(target, upload, file, size)
            tags: list[str] = []

            async def join() -> None:
                call = partial(self._join, target, upload, parts)
                tags.append(await self._calls.run(call))
                joined.set()

            await self._once(target, file, size, join)
            if tags and await self._calls.repeated(partial(self._tag, target)) != tags[-1]:
                await self._there(target, file, size)

    @asynccontextmanager
    async def _begun(self, target: Target) -> AsyncIterator[tuple[str, asyncio.Event]]:
        """An upload's id, and what says that it ended in the object; else it is aborted."""
        upload = await self._calls.repeated(partial(self._begin, target))
        joined = asyncio.Event()
        try:
            yield upload, joined
        finally:
            if not joined.is_set():
                with suppress(GroundwireError):  # what went wrong before is what is told
                    abort = partial(self._abort, target, upload)
                    await asyncio.shield(self._calls.repeated(abort))

    async def _sent(
        self, target: Target, upload: str, file: Path, size: int
    ) -> list[CompletedPartTypeDef]:
        """All parts, in order. After a failure no further part is begun, and those under way are
        waited for: a part that arrives after the abort would stay."""
        spans = _spans(size, self._part_bytes)
        sent: list[CompletedPartTypeDef] = []
        failed = asyncio.Event()

        async def some() -> None:
            for number, offset, length in spans:
                if failed.is_set():
                    return
                part = partial(self._part, target, upload, file, number, offset, length)
                try:
                    async with self._gate:
                        sent.append(await self._calls.repeated(part, patient=True))
                except BaseException:
                    failed.set()
                    raise

        results = await asyncio.gather(
            *(some() for _ in range(PARTS_AT_ONCE)), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return sorted(sent, key=lambda part: part["PartNumber"])

    # What follows runs in a thread.

    def _put(self, target: Target, file: Path) -> None:
        md5, sha256 = _checksums(file)

        def call(client: S3Client) -> None:
            with explained():
                opened = file.open("rb")
            with opened as body:
                client.put_object(
                    Bucket=target.bucket,
                    Key=target.full,
                    Body=body,
                    ContentMD5=md5,
                    ChecksumSHA256=sha256,
                    IfNoneMatch="*",
                )

        self._conditional("PutObject", call, target)

    def _begin(self, target: Target) -> str:
        def call(client: S3Client) -> str:
            answer = client.create_multipart_upload(
                Bucket=target.bucket, Key=target.full, ChecksumAlgorithm="SHA256"
            )
            return answer["UploadId"]

        return self._calls.asked("CreateMultipartUpload", call, where=target.where)

    def _part(
        self, target: Target, upload: str, file: Path, number: int, offset: int, length: int
    ) -> CompletedPartTypeDef:
        data = block_at(file, offset, length)
        sha256 = _base64(hashlib.sha256(data).digest())

        def call(client: S3Client) -> CompletedPartTypeDef:
            answer = client.upload_part(
                Bucket=target.bucket,
                Key=target.full,
                UploadId=upload,
                PartNumber=number,
                Body=data,
                ContentMD5=_base64(hashlib.md5(data, usedforsecurity=False).digest()),
                ChecksumSHA256=sha256,
            )
            return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": sha256}

        return self._calls.asked("UploadPart", call, where=target.where)

    def _join(self, target: Target, upload: str, parts: list[CompletedPartTypeDef]) -> str:
        """The object's tag."""

        def call(client: S3Client) -> str:
            answer = client.complete_multipart_upload(
                Bucket=target.bucket,
                Key=target.full,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
            return answer["ETag"]

        return self._conditional("CompleteMultipartUpload", call, target)

    def _conditional(self, operation: str, call: Callable[[S3Client], T], target: Target) -> T:
        try:
            return self._calls.asked(
                operation, call, where=target.where, unmet=UNMET | {"NoSuchUpload"}
            )
        except Unmet:
            text = f"{target.where} kept refusing a conditional write"
            raise Transient("store-busy", text, shared=True) from None

    def _tag(self, target: Target) -> str | None:
        def call(client: S3Client) -> str:
            return client.head_object(Bucket=target.bucket, Key=target.full)["ETag"]

        with suppress(Unmet):
            return self._calls.asked("HeadObject", call, where=target.where, unmet=_GONE)
        return None

    def _abort(self, target: Target, upload: str) -> None:
        def call(client: S3Client) -> None:
            client.abort_multipart_upload(Bucket=target.bucket, Key=target.full, UploadId=upload)

        with suppress(Unmet):
            self._calls.asked("AbortMultipartUpload", call, where=target.where, unmet=_GONE)


def _spans(size: int, part_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Number (from 1), offset and length of each part; no more parts than S3 takes."""
    length = max(part_bytes, -(-size // MAX_PARTS))
    for number, offset in enumerate(range(0, size, length), 1):
        yield number, offset, min(length, size - offset)


def _checksums(file: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of the whole file, in base64."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with explained(), file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            md5.update(block)
            sha256.update(block)
    return _base64(md5.digest()), _base64(sha256.digest())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
