"""How an S3 server is asked: in threads, within deadlines, and with failures that are ours.

botocore's own retries are off, because they turn a success whose answer was lost into a 412.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import boto3.session
from botocore import exceptions as botocore_errors
from botocore.config import Config
from botocore.parsers import ResponseParserError
from urllib3 import exceptions as urllib3_errors

from consumer.errors import Transient
from consumer.ports import Sleep
from consumer.stores import s3_errors
from consumer.stores.threads import Threads

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

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
    # botocore reads the body of a listing or an error as it is, with urllib3's own errors.
    ("store-timeout", (botocore_errors.ReadTimeoutError, urllib3_errors.ReadTimeoutError)),
    ("store-tls", (botocore_errors.SSLError,)),
    ("store-unreachable", (botocore_errors.ConnectionError,)),
    ("store-refused", (botocore_errors.ParamValidationError, ValueError)),
    (
        "store-disconnected",
        (
            botocore_errors.HTTPClientError,
            botocore_errors.IncompleteReadError,
            urllib3_errors.HTTPError,
            OSError,
        ),
    ),
    ("store-failed", (botocore_errors.BotoCoreError, ResponseParserError)),
)
_ANY_UNANSWERED = tuple(kind for _, kinds in _UNANSWERED for kind in kinds)


class Unmet(Exception):
    """The server says that the object, or what the condition asks for, is not there."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class S3Calls:
    """Requests of one server, in ``threads`` threads. Credentials and region come by boto3's usual
    chain, when the first request is made."""

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        threads: int = 4,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 20.0,
        deadline_s: float = 120.0,  # of one request, waiting for a thread included
        attempts: int = 4,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
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
        self._sleep = sleep
        self._jitter = jitter
        self._made: S3Client | None = None
        self._making = Lock()

    def close(self) -> None:
        """Takes no further calls."""
        self._threads.close()

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises; it runs in a thread, once."""
        return await self._threads.run(call)

    async def repeated(self, call: Callable[[], T], *, patient: bool = False) -> T:
        """``run``, again after what may pass at once; ``patient``: after a timeout as well."""
        started = asyncio.get_running_loop().time()
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.run(call)
            except Transient as error:
                if error.reason not in (s3_errors.DOUBTFUL if patient else s3_errors.BRIEF):
                    raise
                if not await self.may_repeat(attempt, None if patient else started):
                    raise

    async def may_repeat(self, attempt: int, started: float | None) -> bool:
        """Waits before another try, 50 ms and doubling, by half at random; False at the end, which
        comes after so many attempts, or once a read's timeout has gone by since ``started``."""
        if attempt >= self._attempts:
            return False
        now = asyncio.get_running_loop().time()
        if started is not None and now - started >= self._patience_s:
            return False
        await self._sleep(0.05 * 2 ** (attempt - 1) * (0.5 + self._jitter()))
        return True

    # What follows runs in a thread.

    def asked(
        self,
        operation: str,
        call: Callable[[S3Client], T],
        *,
        where: str,
        unmet: frozenset[str] = frozenset(),
        setting: str = "`lake`",
    ) -> T:
        """What the call returns; ``Unmet`` when the server answers one of ``unmet``.

        Raises ``Transient`` and ``Permanent`` without the vendor's texts, which may tell too much;
        ``setting`` is what a person must correct where a bucket or an address is wrong.
        """
        try:
            return call(self._client())
        except botocore_errors.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            meta = error.response["ResponseMetadata"]
            if code in unmet:
                raise Unmet(code) from None
            raise s3_errors.explain(
                code,
                meta["HTTPStatusCode"],
                operation=operation,
                where=where,
                after_s=_seconds(meta.get("HTTPHeaders", {}).get("retry-after", "")),
                setting=setting,
            ) from None
        except _ANY_UNANSWERED as error:
            reason = next(slug for slug, kinds in _UNANSWERED if isinstance(error, kinds))
            raise s3_errors.unanswered(reason, where, setting=setting) from None

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


def _seconds(retry_after: str) -> float | None:
    """``Retry-After`` in seconds, up to an hour; dates are not looked at."""
    return min(float(retry_after), 3600.0) if retry_after.isdecimal() else None
