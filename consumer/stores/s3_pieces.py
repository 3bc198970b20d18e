"""One piece of an object in a bucket, as one request. Runs in a thread."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from consumer.errors import Transient
from consumer.stores.pieces import PIECE_BYTES, Changed, Piece
from consumer.stores.s3_calls import S3Calls, Unmet

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

_ABSENT = frozenset({"NoSuchKey"})
_MOVED = frozenset({"PreconditionFailed", "InvalidRange"})


def piece_of(
    calls: S3Calls,
    bucket: str,
    full: str,
    where: str,
    offset: int,
    tag: str | None,
    setting: str = "`lake`",
) -> Piece | None:
    """The piece at an offset, of the object with this tag (None: the first, of any); None when
    there is no object. Raises ``Changed``, ``Transient`` and ``Permanent``.

    The first asks for the whole object and stops reading at its end: what fits into one piece is
    then checked against the checksum that S3 keeps for the whole.
    """

    def call(client: S3Client) -> Piece:
        if tag is None:
            answer = client.get_object(Bucket=bucket, Key=full)
        else:
            span = f"bytes={offset}-{offset + PIECE_BYTES - 1}"
            answer = client.get_object(Bucket=bucket, Key=full, Range=span, IfMatch=tag)
        with closing(answer["Body"]) as body:  # its own `with` gives the bare stream
            size = answer["ContentLength"] if tag is None else _whole_size(answer, offset, where)
            wanted = min(PIECE_BYTES, size - offset)
            data = body.read() if wanted == answer["ContentLength"] else body.read(wanted)
        if len(data) != wanted:
            raise Transient("store-disconnected", f"{where} broke off its answer", shared=True)
        return Piece(data=data, tag=answer["ETag"], size=size)

    try:
        unmet = _ABSENT | _MOVED
        return calls.asked("GetObject", call, where=where, unmet=unmet, setting=setting)
    except Unmet as error:
        if error.code in _MOVED:
            raise Changed from None
        return None


def _whole_size(answer: GetObjectOutputTypeDef, offset: int, where: str) -> int:
    """Of ``Content-Range: bytes 16-31/1000`` (RFC 9110, 14.4)."""
    unit, _, rest = answer.get("ContentRange", "").partition(" ")
    span, _, size = rest.partition("/")
    if unit != "bytes" or span.partition("-")[0] != str(offset) or not size.isdecimal():
        raise Transient("store-failed", f"{where} answers another range than was asked for")
    return int(size)
