"""The follower ``relay``: each change of the ground truth as a CloudEvent on a topic exchange.

At least once and in the log's order: whatever was not confirmed is published again, from a place
at or before it, so the first arrivals of all events are in order and none is missing. Whoever must
not see one twice drops by ``message_id``, the log's index, or by the event's ``id``.

Routing keys are ``{platform}.{project}.{added|changed|removed}``. A dot would split a word, so in
a word whatever is none of A-Z a-z 0-9 - _ is ``%XX``, as in a URL (``a.b`` is ``a%2Eb``); a word
that would get too long ends in ``~`` and 128 bits of its SHA-256 instead. No two projects share a
word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from consumer.changes import TaskChange, TruthChange, change_of
from consumer.errors import Permanent
from consumer.model import digest
from consumer.ports import Batch, Cursor, FollowPorts, LogEntry, Step
from handlers.cloud_event import CONTENT_TYPE, CloudEvent, reference

AT_ONCE = 256  # events that are confirmed together
PLATFORM_CHARS = 64  # of a routing key's first word; AMQP has 255 bytes for all three
PROJECT_CHARS = 180
EVENT_TYPE = "io.groundwire.ground-truth"

_MARK = 32  # hex digits
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_CUT_ESCAPE = re.compile(r"%[0-9A-F]?$")


@dataclass(frozen=True, slots=True)
class Publication:
    """A message for an exchange."""

    routing_key: str  # at most 255 bytes
    message_id: str
    content_type: str
    body: bytes


class Exchange(Protocol):
    """A topic exchange: what is bound to it gets a copy, and with nothing bound nobody does."""

    async def ready(self) -> None:
        """Returns when the exchange can be published to; made or only checked, as configured.

        Raises ``Permanent`` when a person must act (it is missing, it is of another kind, the
        user may not), ``Transient`` otherwise."""

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Returns when the broker has confirmed all of them, sent in their order, durable in each
        queue that they went to.

        Raises as ``ready`` within its deadline (5 s) otherwise; some may then be out, so a repeat
        duplicates."""


class Relay:
    """Implements ``Follower``."""

    name = "relay"
    kinds = frozenset({"lake"})

    def __init__(self, ports: FollowPorts, exchange: Exchange) -> None:
        self._ports = ports
        self._exchange = exchange
        self._log = ""

    async def start(self, cursor: Cursor) -> Cursor:
        """An exchange that is not there is told now, not with the first change in some weeks."""
        self._log = await self._ports.log.identity()
        await self._exchange.ready()
        return cursor

    async def follow(self, batch: Batch) -> Step:
        publications = list(self._publications(batch.entries))
        for first in range(0, len(publications), AT_ONCE):
            await self._exchange.publish(publications[first : first + AT_ONCE])
        return Step(Cursor(batch.end))

    def _publications(self, entries: Sequence[LogEntry]) -> Iterator[Publication]:
        for entry in entries:
            change = self._change(entry)
            if change is not None and change.ground_truth is not None:
                yield _publication(change, change.ground_truth, self._log)

    def _change(self, entry: LogEntry) -> TaskChange | None:
        try:
            return change_of(entry.index, entry.data, self._log)
        except msgspec.ValidationError as error:
            said = f"entry {entry.index} tells of no change that this version knows"
            raise Permanent("log-damaged", said) from error


def routing_key(platform: str, project_key: str, change: TruthChange) -> str:
    """At most 253 bytes, and always three words."""
    words = _word(platform, PLATFORM_CHARS), _word(project_key, PROJECT_CHARS), change
    return ".".join(words)


def _publication(change: TaskChange, what: TruthChange, log: str) -> Publication:
    event = CloudEvent(
        id=change.id,
        source=reference(log.rpartition("~")[0]),
        type=f"{EVENT_TYPE}.{what}",
        subject=f"{change.project}/{change.task}",
        time=change.at,
        data=change,
    )
    return Publication(
        routing_key=routing_key(change.platform, change.project_key, what),
        message_id=str(change.index),
        content_type=CONTENT_TYPE,
        body=event.body(),
    )


def _word(name: str, max_chars: int) -> str:
    """One word of a routing key; two names have the same only if they are equal."""
    raw = name.encode("utf-8", "surrogatepass")
    word = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], raw).decode("ascii")
    if len(word) <= max_chars:
        return word
    rest = _CUT_ESCAPE.sub("", word[: max_chars - _MARK - 1])
    return f"{rest}~{digest(raw)[:_MARK]}"
