"""The audit trail of tasks, from log entries alone, in the shape of RedBrick's report. Pure.

``[{"taskId", "currentStageName", "events": [{"eventType", "createdAt", ...}]}]``. What follows
depends on the event, as on the vendor's page: a creation has ``isGroundTruth`` and ``createdBy``,
an assignment ``assignee`` and ``stage``, the rest ``updatedBy`` and ``stage``; what nobody told is
left out. Tasks come in the order in which the log first tells of them, their events oldest first.

No event is left out. The vendor's own report drops a save that anything followed, and calls a move
out of the ground truth an edit of it; here the save stays, and the move is a move. Who assigned
somebody has no place in the vendor's shape: the log has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from consumer.model import EventType

Entry = Mapping[str, Any]
_Key = tuple[str, str, str]


class Report:
    """Takes entries one by one, in the log's order, and gives the tasks' rows."""

    def __init__(self, *, task: str | None = None, ground_truth: bool = False) -> None:
        self._task = task
        self._ground_truth = ground_truth
        self._events: dict[_Key, list[dict[str, Any]]] = {}
        self._newest: dict[_Key, tuple[str | None, bool]] = {}  # stage, ground truth

    def add(self, entry: Entry) -> None:
        """Entries of other kinds, and of other tasks than the one asked for, change nothing."""
        if entry["kind"] not in ("history", "lake") or self._task not in (None, entry["task"]):
            return
        key = (str(entry["source"]), str(entry["project"]), str(entry["task"]))
        events = self._events.setdefault(key, [])
        if entry["kind"] == "history":
            events.append(_event(entry))
        else:
            self._newest[key] = (entry["stage"], bool(entry["ground_truth"]))

    @property
    def seen(self) -> bool:
        """Whether the log tells of what was asked for at all."""
        return bool(self._events)

    def rows(self) -> list[dict[str, Any]]:
        """With ``ground_truth``, only tasks whose newest pointer move left them in it."""
        rows = []
        for key, events in self._events.items():
            stage, ground_truth = self._newest.get(key, (None, False))
            if ground_truth or not self._ground_truth:
                ordered = sorted(events, key=lambda event: str(event["createdAt"]))
                rows.append({"taskId": key[2], "currentStageName": stage, "events": ordered})
        return rows


def report(
    entries: Iterable[Entry], *, task: str | None = None, ground_truth: bool = False
) -> list[dict[str, Any]]:
    """The report over all entries of a log: of all tasks, of one, or of the ground truth."""
    collected = Report(task=task, ground_truth=ground_truth)
    for entry in entries:
        collected.add(entry)
    return collected.rows()


def _event(entry: Entry) -> dict[str, Any]:
    """One event; its fields stand in the order of the vendor's page."""
    kind, actor, assignee = entry["type"], entry.get("actor"), entry.get("assignee")
    event: dict[str, Any] = {"eventType": kind, "createdAt": entry["at"]}
    if kind == EventType.CREATED:
        event["isGroundTruth"] = bool(entry.get("ground_truth", False))
        return {**event, **_told(createdBy=actor)}
    stage = entry.get("stage")
    if kind == EventType.UNASSIGNED:
        return {**event, **_told(prevAssignee=assignee, stage=stage)}
    if assignee is not None:
        return {**event, **_told(assignee=assignee, stage=stage)}
    who = "createdBy" if kind == EventType.COMMENT_ADDED else "updatedBy"
    return {**event, **_told(**{who: actor}, stage=stage)}


def _told(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
