"""One piece of an object in a bucket, as one request. Runs in a thread."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.errors import Transient
from consumer.stores.pieces import PIECE_BYTES, Changed, Piece
from consumer.stores.s3_calls import S3Calls, Unmet

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

_ABSENT = frozenset({"NoSuchKey"})
_MOVED = frozenset({"PreconditionFailed", "InvalidRange"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is; ``setting`` is what a person must correct where the bucket is wrong."""

    bucket: str
    full: str
    where: str
    piece_bytes: int = PIECE_BYTES
    setting: str = "`lake`"


def piece_of(calls: S3Calls, place: Place, offset: int, tag: str | None) -> Piece | None:
    """The piece at an offset, of the object with this tag (None: the first, of any); None when
    there is no object. Raises ``Changed``, ``Transient`` and ``Permanent``.

    The first asks for the whole object and stops reading at its end: what fits into one piece is
    then checked against the checksum that S3 keeps for the whole.
    """

    def call(client: S3Client) -> Piece:
        if tag is None:
            answer = client.get_object(Bucket=place.bucket, Key=place.full)
        else:
            answer = client.get_object(
                Bucket=place.bucket,
                Key=place.full,
                Range=f"bytes={offset}-{offset + place.piece_bytes - 1}",
                IfMatch=tag,
            )
        with closing(answer["Body"]) as body:  # its own `with` gives the bare stream
            size = (
                answer["ContentLength"] if tag is None else _whole_size(answer, offset, place.where)
            )
            wanted = min(place.piece_bytes, size - offset)
            data = body.read() if wanted == answer["ContentLength"] else body.read(wanted)
        if len(data) != wanted:
            raise Transient(
                "store-disconnected", f"{place.where} broke off its answer", shared=True
            )
        return Piece(data=data, tag=answer["ETag"], size=size)

    try:
        unmet = _ABSENT | _MOVED
        return calls.asked("GetObject", call, where=place.where, unmet=unmet, setting=place.setting)
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
