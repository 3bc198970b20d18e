"""What happened to a RedBrick task, from its ``genericEvents``: pure.

Event types are derived as the vendor's report derives them. Two things are ours: every item keeps
an id of its own from immutable fields, and the actor is the ``updatedBy`` of the event where the
platform gives one (the report prefers whom the task was assigned to, who need not have done it).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consumer.errors import Permanent
from consumer.model import Action, EventType, HistoryItem, identifier
from consumer.platforms.redbrick_values import moment
from consumer.platforms.texts import short

MAX_EVENTS = 20_000  # of one task

Event = Mapping[str, Any]

_ACTIONS = {
    EventType.CREATED: Action.CREATE,
    EventType.SUBMITTED: Action.MOVE,
    EventType.ACCEPTED: Action.APPROVE,
    EventType.CORRECTED: Action.APPROVE,
    EventType.REJECTED: Action.REJECT,
    EventType.MOVED: Action.MOVE,
    EventType.SAVED: Action.UPDATE,
    EventType.GROUND_TRUTH_EDITED: Action.UPDATE,
}


@dataclass(slots=True)
class _Course:
    """What earlier events say about later ones."""

    stage: str | None = None
    assignee: str | None = None
    passed: bool = True  # the verdict as last changed: accepted after False is a correction
    sent_back: bool = False


def history_of(
    project: str, task: str, events: Sequence[Event], final: Collection[str]
) -> tuple[HistoryItem, ...]:
    """Oldest first. ``final`` are the names of ground-truth stages, in casefold.

    Raises ``KeyError``, ``TypeError`` or ``ValueError`` for events that are not what they should,
    ``Permanent`` for too many.
    """
    if len(events) > MAX_EVENTS:
        raise Permanent("history-too-long", f"more than {MAX_EVENTS} events of one task")
    course = _Course()
    items: list[HistoryItem] = []
    for place, event in enumerate(events):
        kind = event["__typename"]
        if kind == "TaskEvent":
            items += _task_event(project, task, event, course, _goal(events[place + 1 :]), final)
        elif kind == "TaskStateChanges":
            items += _state_change(project, task, event, course)
        elif kind == "Comment":
            items.append(_comment(project, task, event))
            course.stage = short(event.get("stageName")) or course.stage
    return tuple(sorted(items, key=lambda item: item.at))


def uploaded_versions(events: Sequence[Event]) -> frozenset[str]:
    """The ``tdId`` that the upload itself made: nobody has worked on it."""
    return frozenset(
        data["tdId"]
        for event in events
        if event.get("createEvent") and (data := event.get("taskData")) and data.get("tdId")
    )


def _task_event(
    project: str,
    task: str,
    event: Event,
    course: _Course,
    goal: str | None,
    final: Collection[str],
) -> Iterator[HistoryItem]:
    stage, ground_truth = course.stage, False
    kind: EventType | None = None
    if created := event.get("createEvent"):
        kind, ground_truth = EventType.CREATED, bool(created.get("isGroundTruth"))
        stage, course.stage = None, short(created.get("currentStageName"))
    elif entered := event.get("inputEvent"):
        if entered.get("overallConsensusScore") is not None:
            kind = EventType.CONSENSUS_COMPUTED
        course.stage = short(entered.get("currentStageName"))
    elif left := event.get("outputEvent"):
        stage = course.stage = short(left.get("currentStageName"))
        kind = _left(left, course)
    if kind is None:
        return
    action = _ACTIONS.get(kind)
    if kind is EventType.SUBMITTED and course.sent_back:
        action, course.sent_back = Action.REWORK, False
    course.sent_back |= kind is EventType.REJECTED
    yield HistoryItem(
        id=identifier("redbrick", project, task, "event", event["eventId"]),
        type=kind,
        at=moment(event["createdAt"]),
        actor=_actor(event, course),
        stage=stage,
        ground_truth=ground_truth,
        action=action,
        final=action is Action.APPROVE and (goal or "").casefold() in final,
    )


def _left(left: Event, course: _Course) -> EventType | None:
    name = str(left.get("currentStageName") or "").casefold()
    if name == "output" or name.startswith("failed_review"):
        return None  # a task only passes through: nothing was done there
    if name == "end":
        return EventType.MOVED if left.get("nextStageName") else EventType.GROUND_TRUTH_EDITED
    if left.get("nextStageName"):
        return EventType.MOVED
    if left.get("outputBool") is None:
        return EventType.SUBMITTED
    if not left["outputBool"]:
        return EventType.REJECTED
    return EventType.ACCEPTED if course.passed else EventType.CORRECTED


def _goal(later: Sequence[Event]) -> str | None:
    """The stage that the task entered next, beyond those that it only passes through."""
    for event in later:
        name = (event.get("inputEvent") or {}).get("currentStageName")
        if name and not name.casefold().startswith("failed_review"):
            return str(name)
    return None


def _actor(event: Event, course: _Course) -> str | None:
    done_by = short(event.get("updatedBy"))
    made_by = short((event.get("taskData") or {}).get("createdBy"))
    if event.get("createEvent"):
        return done_by or made_by
    if event.get("inputEvent"):
        return done_by
    return done_by or course.assignee or made_by


def _state_change(project: str, task: str, event: Event, course: _Course) -> Iterator[HistoryItem]:
    if event.get("reviewResultBefore") != event.get("reviewResultAfter"):
        course.passed = bool(event.get("reviewResultAfter"))
    before, after = (_user(event.get(f"assignedTo{when}Entity")) for when in ("Before", "After"))
    course.stage = short(event.get("stageNameAfter")) or course.stage
    course.assignee = after
    kind = _changed(event, before, after)
    if kind is None:
        return
    told = [event.get(name) for name in ("stageNameAfter", "statusBefore", "statusAfter")]
    seats = [*_listed(event, "consensusAssigneesAfter"), *_listed(event, "consensusStatusesAfter")]
    at = moment(event["createdAt"])
    yield HistoryItem(
        id=identifier(
            "redbrick", project, task, "state", kind, at, before or "", after or "",
            *(str(one or "") for one in told), *seats,
        ),
        type=kind,
        at=at,
        actor=short(event.get("updatedBy")),
        stage=course.stage,
        assignee=after or before,
        action=_ACTIONS.get(kind),
        workflow=False,
    )  # fmt: skip


def _changed(event: Event, before: str | None, after: str | None) -> EventType | None:
    if any(
        event.get(f"consensus{what}Before") != event.get(f"consensus{what}After")
        for what in ("Assignees", "Statuses")
    ):
        return EventType.CONSENSUS_EDITED
    if before != after:
        if after is None:
            return EventType.UNASSIGNED
        return EventType.REASSIGNED if before is not None else EventType.ASSIGNED
    was, now = event.get("statusBefore"), event.get("statusAfter")
    if was != now and now == "SKIPPED":
        return EventType.SKIPPED
    if now == "IN_PROGRESS" and was in ("SKIPPED", "ASSIGNED"):
        return EventType.SAVED
    return None


def _comment(project: str, task: str, event: Event) -> HistoryItem:
    return HistoryItem(
        id=identifier("redbrick", project, task, "comment", event["commentId"]),
        type=EventType.COMMENT_ADDED,
        at=moment(event["createdAt"]),
        actor=_user(event.get("createdBy")),
        stage=short(event.get("stageName")),
        workflow=False,
    )


def _user(entity: Event | None) -> str | None:
    return short((entity or {}).get("userId"))


def _listed(event: Event, name: str) -> list[str]:
    return [str(one) for one in event.get(name) or []]
