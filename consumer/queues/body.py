"""The bytes of a queued message: what may go in, and how what nobody can read is shown."""

from __future__ import annotations

import msgspec

from consumer.errors import Permanent
from consumer.model import Message, Record, decode_message, digest, encode, identifier

MAX_BYTES = 8 * 1024 * 1024  # half of what RabbitMQ 4.x takes by default
UNREADABLE = "unreadable-message"


def to_bytes(message: Message) -> bytes:
    """Raises ``Permanent`` for a message larger than 8 MiB: no later put would fit either."""
    body = encode(message)
    if len(body) > MAX_BYTES:
        raise Permanent("message-too-large", f"a message of {len(body)} bytes is over {MAX_BYTES}")
    return body


def readable(body: bytes) -> Message | None:
    """The message in these bytes; None when they are not one."""
    try:
        return decode_message(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def shown(body: bytes) -> Message:
    """How bytes appear among dead letters: as their message, or, when they are none, as a record
    with their hash and size. The bytes themselves stay in the queue, and a replay puts them back.
    """
    message = readable(body)
    if message is not None:
        return message
    sha256 = digest(body)
    return Record(
        id=identifier("unreadable", sha256),
        kind="unreadable",
        fields={"sha256": sha256, "size": len(body)},
    )
