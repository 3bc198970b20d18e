"""A RedBrick webhook's body as task events: pure.

The body is ``{"version", "events": n, "payload": [{"event", "id", "timestamp", "data"}]}``. What
nobody knows of it is taken either way: timestamps in seconds, milliseconds or as text; the last
stage called END or Output.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from consumer.errors import Rejected
from consumer.model import Action, Delivery, TaskEvent, digest, identifier
from consumer.platforms.bodies import read_body
from consumer.platforms.redbrick_values import moment
from consumer.platforms.texts import MAX_TEXT, time_text

MAX_EVENTS = 10_000
_LATEST_S = 1e11  # the year 5138: what is later is in finer units
_ANY = "*"


def events_of(
    delivery: Delivery, *, organization: str, projects: Collection[str], final: Collection[str]
) -> list[TaskEvent]:
    """The task events of the body, of this organization and these projects (``*``: all).

    ``final`` are the names of ground-truth stages, in casefold. Raises ``Rejected`` (422).
    """
    body = read_body(delivery.body, _without_duplicates)
    payload = body.get("payload") if isinstance(body, dict) else None
    if not isinstance(payload, list):
        raise Rejected(422, "payload-missing", "payload is not a list")
    if len(payload) > MAX_EVENTS:
        raise Rejected(422, "too-many-events", f"more than {MAX_EVENTS} events")
    events = []
    body_sha256 = digest(delivery.body)  # once: hashing it for each event took half a minute
    for place, item in enumerate(payload):
        event = _event(item, place, delivery, body_sha256, final)
        if event is None or (item["data"].get("orgId") or organization) != organization:
            continue
        if _ANY in projects or event.project in projects:
            events.append(event)
    return events


def _event(
    item: Any, place: int, delivery: Delivery, body_sha256: str, final: Collection[str]
) -> TaskEvent | None:
    """None when the item is not about a task."""
    if not isinstance(item, dict) or (name := _text(item, "event")) is None:
        raise Rejected(422, "event-malformed", "an event without a name")
    if not name.startswith("TASK_"):
        return None
    if not isinstance(data := item.get("data"), dict):
        raise Rejected(422, "event-malformed", "an event without data")
    project, task = _text(data, "projectId"), _text(data, "taskId")
    if project is None or task is None:
        raise Rejected(422, "event-malformed", "an event without projectId or taskId")
    stage = _text(data, "stageName") if name == "TASK_ENTERED_STAGE" else None
    given_id, occurred_at = _text(item, "id"), _moment(item.get("timestamp"))
    told = [given_id or "", occurred_at or ""]
    if given_id is None and occurred_at is None:
        told += [delivery.received_at, str(place)]
    is_final = stage is not None and stage.casefold() in final
    return TaskEvent(
        id=identifier(delivery.source, name, project, task, stage or "", *told),
        source=delivery.source,
        project=project,
        task=task,
        action=_action(name, stage, is_final=is_final),
        received_at=delivery.received_at,
        body_sha256=body_sha256,
        final=is_final,
        stage=_shown_stage(stage, final),
        occurred_at=occurred_at,
        delivery_id=given_id,
    )


def _action(name: str, stage: str | None, *, is_final: bool) -> Action:
    """The webhook's hint at what happened; the authority is the fetched history."""
    if name == "TASK_CREATED":
        return Action.CREATE
    if name == "TASK_DELETED":
        return Action.DELETE
    if name != "TASK_ENTERED_STAGE":
        return Action.UPDATE
    if is_final:
        return Action.APPROVE
    return Action.REJECT if _is_feedback(stage) else Action.MOVE


def _shown_stage(stage: str | None, final: Collection[str]) -> str | None:
    """The stage as a fetched task shows it. A task only passes through the feedback stages, and
    through Output to END, so neither would ever be seen."""
    if stage is None or _is_feedback(stage):
        return None
    return "END" if stage.casefold() == "output" and "end" in final else stage


def _is_feedback(stage: str | None) -> bool:
    return (stage or "").casefold().startswith("failed_review")


def _moment(value: Any) -> str | None:
    """A timestamp in seconds, or a thousandth of them or less, or as ISO text; None for none."""
    try:
        if value is None:
            return None
        if isinstance(value, str) and len(value) <= MAX_TEXT:
            return moment(value)
        if isinstance(value, bool | str) or not math.isfinite(value):
            raise TypeError
        for unit in (1, 1e3, 1e6, 1e9):
            if abs(value) < _LATEST_S * unit:
                return time_text(datetime.fromtimestamp(value / unit, tz=UTC))
        raise ValueError
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise Rejected(422, "timestamp-malformed", "a timestamp that is none") from error


def _text(values: dict[str, Any], name: str) -> str | None:
    """A short printable text; None when it is left out."""
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable():
        return value
    raise Rejected(422, "event-malformed", f"{name} is not a short text")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON parsers differ in which of two equal keys counts, so none does."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Rejected(422, "duplicate-keys", "an object names a key twice")
    return found
