"""Labelbox webhooks: is it theirs, and which data rows does it speak of. Pure.

The vendor documents no body for workflow webhooks, so ids are looked for in every place that its
label webhooks (v1: ``dataRow.id``, ``project.id``) and its export (v2: ``data_row.id``,
``projects.{id}``) put them. What happened is believed only after a fetch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from consumer.errors import Permanent, Rejected
from consumer.model import Action, Delivery, HistoryItem, TaskEvent, digest, identifier
from consumer.platforms.bodies import read_body
from consumer.platforms.labelbox_history import history_of, newest_stage, time_of
from consumer.platforms.texts import short
from consumer.signature import hmac_matches

MAX_ROWS = 1_000  # of one body
MAX_EVENTS = 10_000  # of one body: a row may be in several projects
MAX_DEPTH = 64  # of a body's nesting
MAX_ID = 128  # characters; the vendor's have 25

_KEPT_HEADERS = ("content-type", "x-labelbox-event", "x-labelbox-id")
_LABEL_TOPICS = frozenset({"LABEL_CREATED", "LABEL_UPDATED", "LABEL_DELETED"})
_WORKFLOW = {
    "WORKFLOW_ACTION": Action.MOVE,
    "MOVE": Action.MOVE,
    "APPROVE": Action.APPROVE,
    "REJECT": Action.REJECT,
    "REWORK": Action.REWORK,
}
_ROW_PLACES = (("data_row", "id"), ("dataRow", "id"), ("data_row_id",), ("dataRowId",))
_PROJECT_PLACES = (("project", "id"), ("project_id",), ("projectId",))
_MATTER = frozenset({place[0] for place in (*_ROW_PLACES, *_PROJECT_PLACES)} | {"projects", "id"})


def verified(
    source: str, headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes], now: str
) -> Delivery:
    """Raises ``Rejected`` (401) unless a signature header holds for a live secret.

    ``X-Hub-Signature-256`` decides where it is sent, so nobody can fall back to the weaker one.
    """
    given = headers.get("x-hub-signature-256") or headers.get("x-hub-signature")
    if not given:
        raise Rejected(401, "signature-missing")
    algorithm, _, hex_digest = given.partition("=")
    if algorithm == "sha256":
        good = hmac_matches(hex_digest, body, secrets, "sha256")
    else:
        good = algorithm == "sha1" and hmac_matches(hex_digest, body, secrets, "sha1")
    if not good:
        raise Rejected(401, "signature-wrong")
    kept = {name: short(headers.get(name)) or "" for name in _KEPT_HEADERS if name in headers}
    return Delivery(source=source, body=body, headers=kept, received_at=now)


def events(delivery: Delivery, projects: Sequence[str]) -> list[TaskEvent]:
    """The events of a delivery for the allowed projects (``*``: any). Raises ``Rejected`` (422)."""
    body = _read(delivery.body)
    entries = body if isinstance(body, list) else [body]
    if len(entries) > MAX_ROWS:
        raise Rejected(422, "too-many-rows", f"more than {MAX_ROWS} data rows in one body")
    found: dict[str, TaskEvent] = {}
    body_sha256 = digest(delivery.body)  # once: a body may tell of thousands of events
    for entry in entries:
        if not isinstance(entry, dict):
            raise Rejected(422, "not-an-object", "a webhook is a JSON object")
        for event in _events(delivery, body_sha256, entry):
            if "*" in projects or event.project in projects:
                found[event.id] = event
            if len(found) > MAX_EVENTS:
                raise Rejected(422, "too-many-events", f"more than {MAX_EVENTS} events in one body")
    return list(found.values())


def _events(delivery: Delivery, body_sha256: str, entry: dict[str, Any]) -> Iterator[TaskEvent]:
    name = delivery.headers.get("x-labelbox-event", "") or _text(entry, "event")
    topic = name.strip().upper()
    row = _id(entry, _ROW_PLACES)
    if row is None:
        if topic in _WORKFLOW or topic in _LABEL_TOPICS:
            raise Rejected(422, "no-data-row", "the body names no data row")
        return
    named = _project_ids(entry)
    if not named:
        raise Rejected(422, "no-project", "the body names no project")
    for project in named:
        yield _event(delivery, body_sha256, entry, topic, project, row)


def _event(
    delivery: Delivery, body: str, entry: dict[str, Any], topic: str, project: str, row: str
) -> TaskEvent:
    item, stage = _newest(entry, project, row)
    announces = topic in _WORKFLOW and item is not None
    action = _action(entry, topic, item)
    delivery_id = delivery.headers.get("x-labelbox-id") or None
    occurred = item.at if announces and item is not None else _occurred(entry)
    arrival = "" if delivery_id or occurred else delivery.received_at
    return TaskEvent(
        # With the body's hash: should the header name the hook and not the delivery, two events
        # still have two ids.
        id=identifier("labelbox", delivery.source, delivery_id or "", body, arrival, project, row),
        source=delivery.source,
        project=project,
        task=row,
        action=action,
        received_at=delivery.received_at,
        body_sha256=body,
        final=announces and item is not None and item.final,
        stage=stage if announces else None,
        history_id=item.id if announces and item is not None else None,
        occurred_at=occurred,
        delivery_id=delivery_id,
    )


def _action(entry: dict[str, Any], topic: str, item: HistoryItem | None) -> Action:
    if topic not in _WORKFLOW:
        return Action.UPDATE
    if item is not None and item.action is not None:
        return item.action
    return _WORKFLOW.get(_text(entry, "action").upper(), _WORKFLOW[topic])


def _newest(entry: dict[str, Any], project: str, row: str) -> tuple[HistoryItem | None, str | None]:
    """The newest history item that a v2 body shows, and the stage it entered."""
    steps: Any = entry
    for name in ("projects", project, "project_details", "workflow_history"):
        steps = steps.get(name) if isinstance(steps, dict) else None
    if not steps:
        return None, None
    try:
        items = history_of(steps, project, row)
        return items[-1], newest_stage(steps)
    except Permanent as error:
        raise Rejected(422, "bad-history", error.message) from error


def _occurred(entry: dict[str, Any]) -> str | None:
    for name in ("updatedAt", "createdAt", "updated_at", "created_at"):
        text = entry.get(name)
        if isinstance(text, str):
            try:
                return time_of(text)
            except Permanent:
                continue
    return None


def _project_ids(entry: dict[str, Any]) -> list[str]:
    one = _id(entry, _PROJECT_PLACES)
    if one is not None:
        return [one]
    several = entry.get("projects")
    return [_checked(name) for name in several] if isinstance(several, dict) else []


def _id(entry: dict[str, Any], places: Sequence[tuple[str, ...]]) -> str | None:
    for place in places:
        value: Any = entry
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            return _checked(value)
    return None


def _checked(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or not value.isprintable():
        raise Rejected(422, "bad-id", f"an id is a text of 1 to {MAX_ID} printable characters")
    return value


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _read(body: bytes) -> Any:
    value = read_body(body, _without_doubles)
    _check_depth(value)
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        if any(names.count(name) > 1 for name in _MATTER):
            raise Rejected(422, "duplicate-key", "a key that matters is given twice")
    return made


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = (
            [
                inner
                for one in level
                for inner in (one.values() if isinstance(one, dict) else one)
                if isinstance(inner, dict | list)
            ]
            if level and isinstance(level[0], dict | list)
            else []
        )
    if level:
        raise Rejected(422, "nested-too-deep", f"more than {MAX_DEPTH} levels")
