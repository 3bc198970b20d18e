"""A CloudEvent 1.0 in structured JSON mode: attributes and data in one body.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md, sections 2 to 3.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

from msgspec import Struct

from consumer.model import encode

CONTENT_TYPE = "application/cloudevents+json"


class CloudEvent(Struct, frozen=True, kw_only=True):
    """``id`` with ``source`` is one event for ever; ``time`` is in ``timestamp`` form."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str  # a URI reference
    type: str  # a reversed domain first
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: Any

    def body(self) -> bytes:
        """The same bytes each time."""
        return encode(self)


def reference(name: str) -> str:
    """A log's origin (no blanks, any other characters) as a URI reference: ``example.org/lake``.

    A colon is escaped, too, or what stands before it would be a scheme (RFC 3986, 4.2).
    """
    return quote(name, safe="/~")
