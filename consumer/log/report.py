"""The audit trail of tasks, from log entries alone, in the shape of RedBrick's report. Pure.

``[{"taskId", "currentStageName", "events": [{"eventType", "createdAt", "isGroundTruth",
"createdBy" | "assignee", "stage"}]}]``: what an event does not have is left out. Tasks come in the
order in which the log first tells of them, their events oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Entry = Mapping[str, Any]
_Key = tuple[str, str, str]

# report's name, entry's name, in the report's order
_OPTIONAL = (("createdBy", "actor"), ("assignee", "assignee"), ("stage", "stage"))


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
    event = {
        "eventType": entry["type"],
        "createdAt": entry["at"],
        "isGroundTruth": bool(entry.get("ground_truth", False)),
    }
    for name, ours in _OPTIONAL:
        if entry.get(ours) is not None:
            event[name] = entry[ours]
    return event
