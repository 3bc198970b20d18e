"""Labelbox's workflow history: what each entry means, and the stage it leads to. Pure.

REJECT is the sending-back, REWORK the resubmission; an APPROVE without a next task went to Done,
which is final. The id of an item is made of what never changes, so it is logged once for ever.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from consumer.errors import Permanent
from consumer.model import Action, EventType, HistoryItem, identifier
from consumer.platforms.texts import short, time_text

DONE = "Done"
MAX_STEPS = 10_000  # of one data row

_MEANING = {
    "MOVE": (EventType.SUBMITTED, Action.MOVE),
    "REWORK": (EventType.SUBMITTED, Action.REWORK),
    "APPROVE": (EventType.ACCEPTED, Action.APPROVE),
    "REJECT": (EventType.REJECTED, Action.REJECT),
}


def history_of(steps: object, project: str, row: str) -> tuple[HistoryItem, ...]:
    """The items of ``workflow_history``, oldest first. Raises ``Permanent`` (row-unreadable)."""
    items: list[HistoryItem] = []
    seen: dict[tuple[str, ...], int] = {}
    for step in _oldest_first(steps):
        action, at = _action(step), time_of(step.get("created_at"))
        fixed = (action, at, _task(step, "previous"), _task(step, "next"))
        seen[fixed] = seen.get(fixed, 0) + 1
        kind, meaning = _MEANING.get(action, (EventType.MOVED, None))
        if not items and action == "MOVE":
            kind, meaning = EventType.CREATED, Action.CREATE
        final = _is_final(step)
        items.append(
            HistoryItem(
                id=identifier("labelbox", project, row, *fixed, str(seen[fixed])),
                type=kind,
                at=at,
                actor=_optional(step, "created_by"),
                stage=_optional(step, "previous_task_name") or _optional(step, "next_task_name"),
                ground_truth=final,
                action=meaning,
                final=final,
            )
        )
    return tuple(items)


def newest_stage(steps: object) -> str | None:
    """The stage the newest entry leads to; None when there is no entry, or it does not say."""
    ordered = _oldest_first(steps)
    if not ordered:
        return None
    return DONE if _is_final(ordered[-1]) else _optional(ordered[-1], "next_task_name")


def leads_nowhere(steps: object) -> bool:
    """Whether the newest entry names no next task, as on the way to Done."""
    ordered = _oldest_first(steps)
    return bool(ordered) and not _task(ordered[-1], "next")


def time_of(text: object) -> str:
    """A time of Labelbox's (with or without fraction, Z or offset, or a date; UTC unless it says)
    as `timestamp`. Raises ``Permanent`` (row-unreadable)."""
    if isinstance(text, str) and len(text) <= 40:
        try:
            return time_text(datetime.fromisoformat(text))
        except (ValueError, OverflowError):
            pass
    raise Permanent("row-unreadable", "a time in the data row is not a time")


def _oldest_first(steps: object) -> list[dict[str, Any]]:
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise Permanent("row-unreadable", "workflow_history is not a list of objects")
    if len(steps) > MAX_STEPS:
        raise Permanent("row-unreadable", f"workflow_history has more than {MAX_STEPS} entries")
    ordered = steps[::-1]  # it comes newest first; equal times keep their order
    ordered.sort(key=lambda step: time_of(step.get("created_at")))
    return ordered


def _action(step: dict[str, Any]) -> str:
    action = _optional(step, "action")
    if action is None:
        raise Permanent("row-unreadable", "a history entry names no action")
    return action.upper()


def _is_final(step: dict[str, Any]) -> bool:
    return _action(step) == "APPROVE" and not _task(step, "next")


def _task(step: dict[str, Any], side: str) -> str:
    return _optional(step, f"{side}_task_id") or _optional(step, f"{side}_task_name") or ""


def _optional(step: dict[str, Any], name: str) -> str | None:
    value = step.get(name)
    if value is not None and not isinstance(value, str):
        raise Permanent("row-unreadable", "what a history entry names is no text")
    return short(value)
