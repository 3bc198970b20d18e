"""One object of a bucket under another name, made by the server. Runs in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.stores.limits import check_size
from consumer.stores.s3_calls import S3Calls, Unmet
from consumer.stores.s3_pieces import Place

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ABSENT = frozenset({"NoSuchKey", "404"})
_TOO_LARGE = "InvalidRequest"  # what S3 says of a source over 5 GiB, and of other things


def copied(calls: S3Calls, source: Place, target: str, max_bytes: int) -> str | None:
    """The new object's ETag; None when there is no source. Raises ``Transient``, and ``Permanent``
    (``object-too-large``) for what the server does not copy in one request."""

    def call(client: S3Client) -> str:
        answer = client.copy_object(
            Bucket=source.bucket,
            Key=target,
            CopySource={"Bucket": source.bucket, "Key": source.full},
        )
        bare = answer["CopyObjectResult"]["ETag"].strip('"')
        return f'"{bare}"'  # as S3 has it everywhere; SeaweedFS 4.48 leaves the quotes out here

    try:
        return calls.asked("CopyObject", call, where=source.where, unmet=_ABSENT | {_TOO_LARGE})
    except Unmet as error:
        if error.code in _ABSENT:
            return None
    size = _size(calls, source)
    if size is None:
        return None
    check_size(size, max_bytes)
    return calls.asked("CopyObject", call, where=source.where)


def _size(calls: S3Calls, source: Place) -> int | None:
    def call(client: S3Client) -> int:
        return client.head_object(Bucket=source.bucket, Key=source.full)["ContentLength"]

    try:
        return calls.asked("HeadObject", call, where=source.where, unmet=_ABSENT)
    except Unmet:
        return None
