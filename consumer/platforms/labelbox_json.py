"""Reading JSON of Labelbox's that may be of any shape: what is not there as expected is an error
with a reason, never something empty."""

from __future__ import annotations

from typing import Any

from consumer.errors import Permanent
from consumer.platforms.texts import without_queries

Json = dict[str, Any]


def child(value: Json, name: str) -> Json:
    """The object under a name. Raises ``Permanent`` (row-unreadable)."""
    found = value.get(name)
    if not isinstance(found, dict):
        raise unreadable("an object is missing in the data row")
    return found


def optional(value: Json, name: str) -> Json:
    """As `child`; empty where there is none, or null."""
    return {} if value.get(name) is None else child(value, name)


def unreadable(message: str) -> Permanent:
    return Permanent("row-unreadable", message)


def without_query(text: str) -> str:
    """A URL without what may be its signature; in other texts each URL loses its query."""
    if not text.startswith(("http://", "https://")):
        return without_queries(text)
    return text.partition("?")[0].partition("#")[0]
