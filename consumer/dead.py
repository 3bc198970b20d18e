"""The dead letters for a person: to see, to replay or to drop, with a reason that is logged first.

The reason is free text, so it lies in an erasable note; the log entry holds the note's hash.
"""

from __future__ import annotations

import getpass
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from consumer.errors import Permanent
from consumer.model import FORMAT, DeadLetter, LaneSpec, Record, canonical, digest, identifier
from consumer.model import timestamp as text_of
from consumer.ports import DeadLetters, Queue, Store

MAX_REASON = 2000  # characters
MAX_WHO = 200  # characters: it stands in an entry of the log
MAX_LISTED = 10_000

Verb = Literal["replayed", "dropped"]


class Letterbox(Queue, DeadLetters, Protocol):
    """A queue whose dead letters can be handled."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who does it, and why, in his own words."""

    name: str
    reason: str


def whoami() -> str:
    """``login@host`` of whoever runs the command."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


async def letters(
    queue: DeadLetters, lanes: Sequence[LaneSpec], *, limit: int = MAX_LISTED
) -> list[DeadLetter]:
    """The oldest dead letters of each lane, at most ``limit`` of each."""
    found: list[DeadLetter] = []
    for lane in lanes:
        found += await queue.dead(lane, limit=min(limit, MAX_LISTED))
    return found


async def find(
    queue: DeadLetters, lanes: Sequence[LaneSpec], ids: Sequence[str]
) -> list[DeadLetter]:
    """The dead letters with these ids, or ids that begin so. Raises ``Permanent`` for one that
    fits none, or several messages."""
    held = await letters(queue, lanes)
    found: list[DeadLetter] = []
    for wanted in ids:
        fits = [letter for letter in held if letter.message.id == wanted] or [
            letter for letter in held if letter.message.id.startswith(wanted)
        ]
        if not fits:
            raise Permanent("no-dead-letter", f"there is no dead letter {wanted}")
        if len({letter.message.id for letter in fits}) > 1:
            raise Permanent("ambiguous", f"several dead letters begin with {wanted}; write more")
        found += fits
    return found


async def settle(
    queue: Letterbox,
    store: Store,
    lanes: Sequence[LaneSpec],
    chosen: Sequence[DeadLetter],
    *,
    verb: Verb,
    person: Person,
    note_key: Callable[[str], str],
    clock: Callable[[], datetime],
) -> list[DeadLetter]:
    """Replays or drops the chosen ones; returns those that were still there.

    ``note_key`` gives a note's key from its hash. The note is durable before the record, the record
    before the dead letter leaves: a crash repeats, and never hides who did what.
    """
    note = await keep_reason(person, store, note_key)
    by_name = {lane.name: lane for lane in lanes}
    done: list[DeadLetter] = []
    for letter in chosen:
        await queue.put([_record(letter, verb, person.name, note, text_of(clock()))])
        act = queue.replay if verb == "replayed" else queue.drop
        settled = await act(by_name[letter.lane], letter.message.id)
        if settled is not None:
            done.append(settled)
    return done


async def keep_reason(person: Person, store: Store, note_key: Callable[[str], str]) -> str:
    """What he says, in an erasable note that is durable on return; the note's hash, for the log.
    Raises ``Permanent`` (``no-reason``, ``no-name``)."""
    _check(person)
    note = canonical({"format": FORMAT, "salt": secrets.token_hex(16), "text": person.reason})
    await store.create(note_key(digest(note)), note)
    return digest(note)


def _check(person: Person) -> None:
    """What he says must fit the log, or what he does would not stand there."""
    try:
        person.reason.encode()
    except UnicodeEncodeError as error:
        raise Permanent("no-reason", "the reason is not Unicode text") from error
    if not person.reason.strip() or len(person.reason) > MAX_REASON:
        raise Permanent("no-reason", f"give a reason of 1 to {MAX_REASON} characters")
    name = person.name
    if not name.strip() or len(name) > MAX_WHO or not name.isprintable():
        raise Permanent("no-name", f"say who does it in 1 to {MAX_WHO} printable characters")


def _record(letter: DeadLetter, verb: Verb, who: str, note: str, at: str) -> Record:
    fields: dict[str, object] = {
        "lane": letter.lane,
        "message": letter.message.id,
        "reason": letter.failure.reason,
        "attempts": letter.attempts,
        "who": who,
        "reason_note": note,
        "at": at,
    }
    if not isinstance(letter.message, Record):
        fields |= {
            "source": letter.message.source,
            "project": letter.message.project,
            "task": letter.message.task,
        }
    return Record(id=identifier(letter.lane, letter.message.id, at, note), kind=verb, fields=fields)
