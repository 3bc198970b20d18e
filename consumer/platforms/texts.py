"""Texts and times that outsiders chose, made fit for pointers, manifests and the log: pure.

What is short and printable stays as it is; whatever else somebody sends becomes something that can
be stored, is the same each time, and is as long as we allow.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from consumer.model import TaskSnapshot, decode, digest, encode, timestamp

MAX_TEXT = 200  # characters of a stage, an actor, an id: an entry of the log holds several
# Possessive, and matching with a query or without, so that no text makes the search slow.
_URL = re.compile(
    r"([a-z][a-z0-9+.-]{1,19}+://[^\s?\"'<>]*+)(?:\?[^\s\"'<>]*+)?", re.IGNORECASE | re.ASCII
)
_FIRST_YEAR = 1900  # earlier ones would not sort as text, and no platform's clock shows them


def short(value: object) -> str | None:
    """A text that may stand in a log entry; None for none. Two long texts stay two, by a hash.

    Raises ``TypeError`` for what is no text.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise TypeError("a text is something else")
    if len(value) <= MAX_TEXT and value.isprintable():
        return value
    mark = digest(value.encode("utf-8", "surrogatepass"))[:32]
    start = "".join(one if one.isprintable() else "\ufffd" for one in value[:100])
    return f"{start}~{mark}"


def sound(text: str) -> str:
    """The text with what is no Unicode (half of a surrogate pair, as cutting an emoji leaves it)
    replaced, so that it can be stored."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def without_queries(text: str) -> str:
    """The text with every URL in it cut before its query, which may be a signature."""
    return _URL.sub(r"\1", text) if "://" in text else text


def time_text(moment: datetime) -> str:
    """As `timestamp`; UTC where it says nothing. Raises ``ValueError`` and ``OverflowError``."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment.year < _FIRST_YEAR:
        raise ValueError("a time before all platforms")
    return timestamp(moment)


def checked(snapshot: TaskSnapshot) -> TaskSnapshot:
    """The same, proved to be of the types that it declares and storable: what a pointer or a
    manifest takes from it can be read again. Raises ``ValueError``."""
    try:
        decode(encode(msgspec.structs.replace(snapshot, document={}, taxonomy={})), TaskSnapshot)
    except (msgspec.MsgspecError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError("a task holds a value of another type") from error
    return snapshot
