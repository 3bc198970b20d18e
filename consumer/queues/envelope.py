"""A message as it travels through RabbitMQ: a CloudEvent in binary mode, and our own headers.

The body is the message's JSON and nothing else, so a retry changes headers only and bytes that
nobody can read stay as they came. CloudEvents attributes are AMQP headers named ``cloudEvents:*``
(AMQP binding for CloudEvents 1.0.2, 3.1); ``cloudEvents:time`` is when the message was put.
Headers are read tolerantly: what is absent or wrong gets its default, never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from consumer.model import Failure, Message, Record, digest, timestamp
from consumer.queues.body import to_bytes

Headers = dict[str, str | int]

CONTENT_TYPE = "application/json"
MAX_FAILURE_CHARS = 1000  # a message's headers must fit into one frame

_ATTEMPT = "groundwire-attempt"
_REASON = "groundwire-failure-reason"
_FAILURE = "groundwire-failure-message"
_FAILED_AT = "groundwire-failure-at"
_LOST = "groundwire-lost"
MAX_LOST = 32  # names that are read


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message's bytes with what the lane knows of it."""

    body: bytes
    message_id: str
    type: str
    source: str
    put_at: datetime
    attempt: int = 1
    failure: Failure | None = None
    lost: tuple[str, ...] = ()  # who found, one after the other, that it had been lost

    def headers(self) -> Headers:
        headers: Headers = {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": self.message_id,
            "cloudEvents:type": self.type,
            "cloudEvents:source": self.source,
            "cloudEvents:time": timestamp(self.put_at),
            _ATTEMPT: self.attempt,
        }
        if self.lost:
            headers[_LOST] = " ".join(self.lost)
        if self.failure:
            headers[_REASON] = self.failure.reason
            headers[_FAILURE] = self.failure.message[:MAX_FAILURE_CHARS]
            headers[_FAILED_AT] = self.failure.at
        return headers

    def failed(self, failure: Failure) -> Envelope:
        """The same for the dead letters."""
        return replace(self, failure=failure)

    def again(self, failure: Failure, *, counted: bool) -> Envelope:
        """The same for its next try."""
        return replace(self, failure=failure, attempt=self.attempt + counted, lost=())

    def found(self, finder: str) -> Envelope:
        """The same after ``finder`` was given it and saw that somebody had had it before."""
        return replace(self, lost=(*self.lost, finder))

    def anew(self, now: datetime) -> Envelope:
        """The same with its attempts forgotten."""
        return replace(self, failure=None, attempt=1, put_at=now, lost=())


def wrap(message: Message, now: datetime) -> Envelope:
    """A message put for the first time. Raises ``Permanent`` when it is too large."""
    source = "" if isinstance(message, Record) else message.source
    return Envelope(
        body=to_bytes(message),
        message_id=message.id,
        type=f"groundwire.{message.__struct_config__.tag}",
        source=f"/groundwire/{source}",
        put_at=now,
    )


def unwrap(
    body: bytes, message_id: str | None, headers: Mapping[str, Any], now: datetime
) -> Envelope:
    """What came from the broker, whatever it is."""
    return Envelope(
        body=body,
        message_id=message_id or digest(body)[:32],
        type=_text(headers, "cloudEvents:type", "unknown"),
        source=_text(headers, "cloudEvents:source", "/"),
        put_at=_time(headers.get("cloudEvents:time"), now),
        attempt=_attempt(headers.get(_ATTEMPT)),
        failure=_failure(headers),
        lost=tuple(_text(headers, _LOST, "").split()[:MAX_LOST]),
    )


def _text(headers: Mapping[str, Any], name: str, default: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) else default


def _attempt(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1


def _time(value: object, default: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else default
    except ValueError:
        return default
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _failure(headers: Mapping[str, Any]) -> Failure | None:
    reason = headers.get(_REASON)
    if not isinstance(reason, str):
        return None
    return Failure(
        reason=reason, message=_text(headers, _FAILURE, ""), at=_text(headers, _FAILED_AT, "")
    )
