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
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import boto3.session
from botocore import exceptions as botocore_errors
from botocore.config import Config
from botocore.parsers import ResponseParserError

from consumer.errors import Conflict, Transient
from consumer.ports import Listed, Sleep, Stored
from consumer.stores import s3_errors
from consumer.stores.limits import MAX_OBJECT_BYTES, check_key, check_prefix, check_size
from consumer.stores.probe import probe
from consumer.stores.threads import Threads

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

T = TypeVar("T")

_ABSENT = frozenset({"NoSuchKey"})
_UNMET = _ABSENT | {"PreconditionFailed", "ConditionalRequestConflict"}
_UNANSWERED: tuple[tuple[str, tuple[type[Exception], ...]], ...] = (  # the first that fits
    (
        "store-credentials",
        (
            botocore_errors.NoCredentialsError,
            botocore_errors.PartialCredentialsError,
            botocore_errors.CredentialRetrievalError,
            botocore_errors.MetadataRetrievalError,
            botocore_errors.ProfileNotFound,
            botocore_errors.SSOError,
            botocore_errors.TokenRetrievalError,
        ),
    ),
    ("store-timeout", (botocore_errors.ReadTimeoutError,)),
    ("store-tls", (botocore_errors.SSLError,)),
    ("store-unreachable", (botocore_errors.ConnectionError,)),
    ("store-refused", (botocore_errors.ParamValidationError, ValueError)),
    (
        "store-disconnected",
        (botocore_errors.HTTPClientError, botocore_errors.IncompleteReadError, OSError),
    ),
    ("store-failed", (botocore_errors.BotoCoreError, ResponseParserError)),
)
_ANY_UNANSWERED = tuple(kind for _, kinds in _UNANSWERED for kind in kinds)


class _Unmet(Exception):
    """The server says that the object, or what the condition asks for, is not there."""


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
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        check_prefix(self._prefix)
        self._endpoint = endpoint
        self._region = region
        self._config = Config(
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=threads,
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation="when_required",  # ours are sent instead
            s3={"addressing_style": "path"} if endpoint else None,
        )
        self._threads = Threads(threads, deadline_s=deadline_s)
        self._patience_s = read_timeout_s
        self._attempts = attempts
        self._page_size = page_size
        self._max_object_bytes = max_object_bytes
        self._sleep = sleep
        self._jitter = jitter
        self._made: S3Client | None = None
        self._making = Lock()
        host = urlsplit(endpoint).hostname if endpoint else None
        self._where = f"bucket {bucket} at {host}" if host else f"bucket {bucket}"

    async def read(self, key: str) -> Stored | None:
        return await self._repeated(partial(self._get, self._full(key)))

    async def create(self, key: str, data: bytes) -> None:
        await self._write(key, data, None)

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        return await self._write(key, data, if_match)

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        """In the server's order. Folder markers, which consoles make, are left out."""
        check_prefix(prefix, prefix_bytes=len(self._prefix.encode()))
        token: str | None = None
        while True:
            page = await self._repeated(partial(self._page, self._prefix + prefix, token))
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    key = item["Key"].removeprefix(self._prefix)
                    yield Listed(key=key, size=item["Size"], modified=item["LastModified"])
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return

    async def delete(self, key: str) -> None:
        await self._repeated(partial(self._delete, self._full(key)))

    async def check(self) -> None:
        """Tries everything the lake needs. Raises with what is wrong and what to do."""
        await probe(self)

    def close(self) -> None:
        """Takes no further calls."""
        self._threads.close()

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
            if not await self._may_repeat(attempt, started):
                raise doubt

    async def _put_or_doubt(
        self, full: str, data: bytes, if_match: str | None
    ) -> tuple[str, Transient | None]:
        """The new ETag, or why it is not known whether the write took effect."""
        try:
            return await self._threads.run(partial(self._put, full, data, if_match)), None
        except Transient as error:
            if error.reason not in s3_errors.DOUBTFUL:
                raise
            return "", error

    async def _repeated(self, call: Callable[[], T]) -> T:
        started = asyncio.get_running_loop().time()
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._threads.run(call)
            except Transient as error:
                if error.reason not in s3_errors.BRIEF:
                    raise
                if not await self._may_repeat(attempt, started):
                    raise

    async def _may_repeat(self, attempt: int, started: float) -> bool:
        """Waits before another try, 50 ms and doubling, by half at random; False at the end."""
        if attempt >= self._attempts:
            return False
        if asyncio.get_running_loop().time() - started >= self._patience_s:
            return False
        await self._sleep(0.05 * 2 ** (attempt - 1) * (0.5 + self._jitter()))
        return True

    def _full(self, key: str) -> str:
        check_key(key, prefix_bytes=len(self._prefix.encode()))
        return self._prefix + key

    # What follows runs in a thread of the store's own.

    def _client(self) -> S3Client:
        with self._making:
            if self._made is None:
                session = boto3.session.Session()
                self._made = session.client(
                    "s3",
                    endpoint_url=self._endpoint,
                    region_name=self._region,
                    config=self._config,
                )
            return self._made

    def _get(self, full: str) -> Stored | None:
        def call(client: S3Client) -> Stored:
            answer = client.get_object(Bucket=self._bucket, Key=full)
            with closing(answer["Body"]) as body:  # its own `with` gives the bare stream
                check_size(answer["ContentLength"], self._max_object_bytes)
                return Stored(data=body.read(), etag=answer["ETag"])

        with suppress(_Unmet):
            return self._asked("GetObject", call, unmet=_ABSENT)
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
            return self._asked("PutObject", call, unmet=_UNMET)
        except _Unmet:
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

        return self._asked("ListObjectsV2", call)

    def _delete(self, full: str) -> None:
        def call(client: S3Client) -> None:
            client.delete_object(Bucket=self._bucket, Key=full)

        with suppress(_Unmet):
            self._asked("DeleteObject", call, unmet=_ABSENT)

    def _asked(
        self,
        operation: str,
        call: Callable[[S3Client], T],
        *,
        unmet: frozenset[str] = frozenset(),
    ) -> T:
        """What the call returns; ``_Unmet`` when the server answers one of ``unmet``.

        Raises ``Transient`` and ``Permanent`` without the vendor's texts, which may tell too much.
        """
        try:
            return call(self._client())
        except botocore_errors.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            meta = error.response["ResponseMetadata"]
            if code in unmet:
                raise _Unmet from None
            raise s3_errors.explain(
                code,
                meta["HTTPStatusCode"],
                operation=operation,
                where=self._where,
                after_s=_seconds(meta.get("HTTPHeaders", {}).get("retry-after", "")),
            ) from None
        except _ANY_UNANSWERED as error:
            reason = next(slug for slug, kinds in _UNANSWERED if isinstance(error, kinds))
            raise s3_errors.unanswered(reason, self._where) from None


def _seconds(retry_after: str) -> float | None:
    """``Retry-After`` in seconds, up to an hour; dates are not looked at."""
    return min(float(retry_after), 3600.0) if retry_after.isdecimal() else None
