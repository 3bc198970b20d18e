"""What delta-rs needs to reach a bucket, resolved as boto3 resolves it.

delta-rs brings its own client with its own, smaller chain of credentials; operators expect boto3's
(profiles, roles, SSO). So boto3 resolves, and delta-rs is told. Roles expire: ask before each use.
"""

from __future__ import annotations

import re
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3.session
from botocore import exceptions as botocore_errors

from consumer.stores import s3_errors

if TYPE_CHECKING:
    from botocore.credentials import Credentials

_TIMEOUT_S, _CONNECT_TIMEOUT_S, _RETRY_S, _RETRIES = 30, 5, 60, 4
_USUAL = re.compile(r"s3(?:\.[a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?")
_ANYWHERE = ("", "aws-global")  # what boto3 calls the region that nobody named


class DeltaOptions:
    """The storage options of one bucket; safe in threads."""

    def __init__(
        self, bucket: str, *, endpoint: str | None = None, region: str | None = None
    ) -> None:
        self._bucket = bucket
        self._endpoint = endpoint
        self._region = region
        self._resolving = Lock()
        self._place: dict[str, str] | None = None
        self._credentials: Credentials | None = None

    def __call__(self) -> dict[str, str]:
        """With credentials that are valid now; boto3 refreshes them where they expire. Blocks.

        Raises ``Transient`` (``store-credentials``, ``store-refused``).
        """
        with self._resolving:
            try:
                if self._place is None or self._credentials is None:
                    self._place = self._resolve()
                return {**self._place, **_keys(self._credentials)}
            except botocore_errors.BotoCoreError:
                raise s3_errors.unanswered("store-credentials", self._where) from None
            except ValueError:
                raise s3_errors.unanswered("store-refused", self._where) from None

    def _resolve(self) -> dict[str, str]:
        session = boto3.session.Session()
        client = session.client("s3", endpoint_url=self._endpoint, region_name=self._region)
        self._credentials = session.get_credentials()
        region, endpoint = client.meta.region_name, client.meta.endpoint_url
        client.close()
        options = {
            "aws_region": "us-east-1" if region in _ANYWHERE else region,
            "aws_conditional_put": "etag",  # a version is written once, by whoever is first
            "timeout": f"{_TIMEOUT_S}s",
            "connect_timeout": f"{_CONNECT_TIMEOUT_S}s",
            "max_retries": str(_RETRIES),
            "retry_timeout": f"{_RETRY_S}s",
        }
        return options | ({} if _is_usual(endpoint) else _other_server(endpoint))

    @property
    def _where(self) -> str:
        return f"bucket {self._bucket}"


def _keys(credentials: Credentials | None) -> dict[str, str]:
    if credentials is None:
        raise botocore_errors.NoCredentialsError
    frozen = credentials.get_frozen_credentials()
    if not frozen.access_key or not frozen.secret_key:
        raise botocore_errors.NoCredentialsError
    keys = {"aws_access_key_id": frozen.access_key, "aws_secret_access_key": frozen.secret_key}
    return keys | ({"aws_session_token": frozen.token} if frozen.token else {})


def _is_usual(endpoint: str) -> bool:
    """Whether delta-rs finds it by the region alone; not so private, FIPS or dual-stack ones."""
    return _USUAL.fullmatch(urlsplit(endpoint).hostname or "") is not None


def _other_server(endpoint: str) -> dict[str, str]:
    return {
        "aws_endpoint_url": endpoint,
        "aws_virtual_hosted_style_request": "false",
        "aws_allow_http": "true" if endpoint.startswith("http://") else "false",
    }
