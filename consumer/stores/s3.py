"""The lake in a bucket of any S3 server (``s3://bucket/prefix``), through boto3.

Invariant: a write is conditional, and its answer is never trusted when it is doubtful. After 412,
409, 5xx, a timeout or a broken connection the object is read: our bytes mean that the write took
effect, an unchanged ETag means that it may be tried again, anything else is a conflict. botocore's
own retries are off, because they turn a success whose answer was lost into a 412.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from consumer.errors import Conflict, Transient
from consumer.ports import Listed, Sleep, Stored
from consumer.stores import local_files, pieces, s3_errors
from consumer.stores.limits import (
    MAX_OBJECT_BYTES,
    MAX_UPLOAD_BYTES,
    check_key,
    check_prefix,
    check_size,
)
from consumer.stores.pieces import PIECE_BYTES, Piece
from consumer.stores.probe import probe
from consumer.stores.s3_calls import S3Calls, Unmet
from consumer.stores.s3_copy import copied
from consumer.stores.s3_pieces import Place, piece_of
from consumer.stores.s3_upload import PART_BYTES, SINGLE_BYTES, UNMET, S3Uploads, Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

_ABSENT = frozenset({"NoSuchKey"})


class S3Store:
    """Implements ``Store``. Credentials and region come by boto3's usual chain.

    A verb is tried at most ``attempts`` times with short jittered waits between, and never again
    once it has taken ``read_timeout_s``.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        threads: int = 4,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 20.0,
        deadline_s: float = 120.0,  # of one request, waiting for a thread included
        attempts: int = 4,
        page_size: int = 1000,
        max_object_bytes: int = MAX_OBJECT_BYTES,
        max_upload_bytes: int = MAX_UPLOAD_BYTES,
        single_bytes: int = SINGLE_BYTES,  # a larger file is uploaded in parts
        part_bytes: int = PART_BYTES,
        piece_bytes: int = PIECE_BYTES,  # of what is downloaded
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        check_prefix(self._prefix)
        self._calls = S3Calls(
            endpoint=endpoint,
            region=region,
            threads=threads,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            deadline_s=deadline_s,
            attempts=attempts,
            sleep=sleep,
            jitter=jitter,
        )
        self._uploads = S3Uploads(self._calls, single_bytes=single_bytes, part_bytes=part_bytes)
        self._piece_bytes = piece_bytes
        self._page_size = page_size
        self._max_object_bytes = max_object_bytes
        self._max_upload_bytes = max_upload_bytes
        host = urlsplit(endpoint).hostname if endpoint else None
        self._where = f"bucket {bucket} at {host}" if host else f"bucket {bucket}"

    async def read(self, key: str) -> Stored | None:
        return await self._calls.repeated(partial(self._get, self._full(key)))

    async def create(self, key: str, data: bytes) -> None:
        await self._write(key, data, None)

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        return await self._write(key, data, if_match)

    async def upload(self, key: str, file: Path) -> None:
        full = self._full(key)
        size = await self._calls.run(partial(local_files.size_of, file, self._max_upload_bytes))
        ask = partial(self._piece, full)
        target = Target(self._bucket, full, key, self._where, ask)
        await self._uploads.upload(target, file, size)

    async def download(self, key: str, file: Path) -> str | None:
        return await pieces.fetched(file, partial(self._piece, self._full(key)), self._calls.run)

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        """In the server's order. Folder markers, which consoles make, are left out."""
        check_prefix(prefix, prefix_bytes=len(self._prefix.encode()))
        token: str | None = None
        while True:
            page = await self._calls.repeated(partial(self._page, self._prefix + prefix, token))
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    key = item["Key"].removeprefix(self._prefix)
                    yield Listed(
                        key=key,
                        size=item["Size"],
                        modified=item["LastModified"],
                        version=item["ETag"],
                    )
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return

    async def copy(self, source: str, target: str) -> str | None:
        """By the server; asked again whatever became of the answer, since a repeat does no harm."""
        place = Place(self._bucket, self._full(source), self._where)
        call = partial(copied, self._calls, place, self._full(target), self._max_object_bytes)
        return await self._calls.repeated(call, patient=True)

    async def delete(self, key: str) -> None:
        await self._calls.repeated(partial(self._delete, self._full(key)))

    async def check(self) -> None:
        """Tries everything the lake needs. Raises with what is wrong and what to do."""
        await probe(self)

    def close(self) -> None:
        """Takes no further calls."""
        self._calls.close()

    async def _write(self, key: str, data: bytes, if_match: str | None) -> str:
        full = self._full(key)
        check_size(len(data), self._max_object_bytes)
        started = asyncio.get_running_loop().time()
        attempt = 0
        while True:
            attempt += 1
            etag, doubt = await self._put_or_doubt(full, data, if_match)
            if doubt is None:
                return etag
            found = await self.read(key)
            if found is not None and found.data == data:
                return found.etag
            if (found.etag if found else None) != if_match:
                raise Conflict(key)
            if not await self._calls.may_repeat(attempt, started):
                raise doubt

    async def _put_or_doubt(
        self, full: str, data: bytes, if_match: str | None
    ) -> tuple[str, Transient | None]:
        """The new ETag, or why it is not known whether the write took effect."""
        try:
            return await self._calls.run(partial(self._put, full, data, if_match)), None
        except Transient as error:
            if error.reason not in s3_errors.DOUBTFUL:
                raise
            return "", error

    async def _piece(self, full: str, offset: int, tag: str | None) -> Piece | None:
        place = Place(self._bucket, full, self._where, self._piece_bytes)
        return await self._calls.repeated(partial(piece_of, self._calls, place, offset, tag))

    def _full(self, key: str) -> str:
        check_key(key, prefix_bytes=len(self._prefix.encode()))
        return self._prefix + key

    # What follows runs in a thread of the store's own.

    def _get(self, full: str) -> Stored | None:
        def call(client: S3Client) -> Stored:
            answer = client.get_object(Bucket=self._bucket, Key=full)
            with closing(answer["Body"]) as body:  # its own `with` gives the bare stream
                check_size(answer["ContentLength"], self._max_object_bytes)
                return Stored(data=body.read(), etag=answer["ETag"])

        with suppress(Unmet):
            return self._calls.asked("GetObject", call, where=self._where, unmet=_ABSENT)
        return None

    def _put(self, full: str, data: bytes, if_match: str | None) -> str:
        """The new ETag. ``Transient`` (``store-busy``) when the condition was not met."""
        md5 = hashlib.md5(data, usedforsecurity=False).digest()

        def call(client: S3Client) -> str:
            put = partial(
                client.put_object,
                Bucket=self._bucket,
                Key=full,
                Body=data,
                ContentMD5=base64.b64encode(md5).decode(),
                ChecksumSHA256=base64.b64encode(hashlib.sha256(data).digest()).decode(),
            )
            answer = put(IfNoneMatch="*") if if_match is None else put(IfMatch=if_match)
            return answer["ETag"]

        try:
            return self._calls.asked("PutObject", call, where=self._where, unmet=UNMET)
        except Unmet:
            text = f"{self._where} kept refusing a conditional write"
            raise Transient("store-busy", text, shared=True) from None

    def _page(self, full: str, token: str | None) -> ListObjectsV2OutputTypeDef:
        def call(client: S3Client) -> ListObjectsV2OutputTypeDef:
            page = partial(
                client.list_objects_v2,
                Bucket=self._bucket,
                Prefix=full,
                MaxKeys=self._page_size,
            )
            return page() if token is None else page(ContinuationToken=token)

        return self._calls.asked("ListObjectsV2", call, where=self._where)

    def _delete(self, full: str) -> None:
        def call(client: S3Client) -> None:
            client.delete_object(Bucket=self._bucket, Key=full)

        with suppress(Unmet):
            self._calls.asked("DeleteObject", call, where=self._where, unmet=_ABSENT)
