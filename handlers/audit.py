"""The handler ``audit``: receipts, what sweeps found, outcomes and records become log entries.

They are appended in order. Entries keep the vocabulary's names; what they hold is ids, hashes,
slugs, stages and times.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from consumer.errors import Permanent
from consumer.model import (
    Action,
    HistoryItem,
    Message,
    Outcome,
    Record,
    TaskEvent,
)
from consumer.ports import Ports, Result, Work
from handlers import lanes

LANE = lanes.AUDIT

Entry = Mapping[str, Any]

_OWN = frozenset({"id", "kind", "format", "logged_at"})  # what a record's fields may not be
_ONE_S_OWN = frozenset({"bad-entry", "entry-too-large"})  # failures of an entry, not of the log


async def handle(batch: Sequence[Work], ports: Ports) -> AsyncIterator[tuple[Work, Result]]:
    """Appends the whole batch at once, then gives its results in order.

    A failure of the log is raised: nothing has a result then, and all is tried again in place.
    Only an entry that no log could hold is its own message's ``Permanent``.
    """
    try:
        await ports.log.append([entry for work in batch for entry in entries_of(work.message)])
    except Permanent as error:
        if error.reason not in _ONE_S_OWN:
            raise
        if len(batch) == 1:
            yield batch[0], error
            return
        for work in batch:  # the culprit is found by standing alone
            async for result in handle([work], ports):
                yield result
        return
    for work in batch:
        yield work, None


def entries_of(message: Message) -> list[Entry]:
    """The log entries of a message, in order. Raises ``Permanent`` for a record that would write
    over an entry's own fields."""
    if isinstance(message, TaskEvent):
        swept = message.action is Action.SWEEP
        return [_swept(message) if swept else _receipt(message)]
    if isinstance(message, Outcome):
        return [*(_history(message, item) for item in message.history), _lake(message)]
    return [_record(message)]


def _receipt(event: TaskEvent) -> Entry:
    return {**_plain(event), "id": f"receipt:{event.id}", "kind": "receipt"}


def _swept(event: TaskEvent) -> Entry:
    """No webhook came: a sweep found the task, and why."""
    named = ("source", "project", "task", "run", "gap", "stage", "received_at")
    found = {name: getattr(event, name) for name in named}
    told = {name: value for name, value in found.items() if value is not None}
    return {**told, "id": f"swept:{event.id}", "kind": "swept"}


def _history(outcome: Outcome, item: HistoryItem) -> Entry:
    """An approval names what it approved: the labels and the revision fetched with it."""
    approved = item.action is Action.APPROVE
    return {
        **_plain(item),
        **_task(outcome),
        "id": f"history:{item.id}",
        "kind": "history",
        "history_id": item.id,
        "ground_truth": item.ground_truth,
        **({"label_version": outcome.move.label_version} if approved else {}),
        **({"revision": outcome.move.revision} if approved else {}),
    }


def _lake(outcome: Outcome) -> Entry:
    return {
        **_plain(outcome.move),
        **_task(outcome),
        "id": f"lake:{outcome.id}",
        "kind": "lake",
        "caused_by": list(outcome.caused_by),
    }


def _record(record: Record) -> Entry:
    taken = _OWN.intersection(record.fields)
    if taken:
        raise Permanent("bad-entry", f"A record cannot have the fields {', '.join(sorted(taken))}.")
    return {**record.fields, "id": f"{record.kind}:{record.id}", "kind": record.kind}


def _task(outcome: Outcome) -> Entry:
    return {"source": outcome.source, "project": outcome.project, "task": outcome.task}


def _plain(value: TaskEvent | HistoryItem | Outcome | object) -> dict[str, Any]:
    """A value's own fields, without the tag that tells messages apart in a queue."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    if isinstance(value, TaskEvent):
        fields.pop("type")
    return fields
