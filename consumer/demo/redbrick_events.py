"""The `genericEvents` of a simulated task: what RedBrick's own report is derived from.

Three shapes: `TaskEvent` (created, entered a stage, left a stage), `TaskStateChanges` (who is
assigned, which status) and `Comment`. Every field that the vendor's queries name is present.
"""

from __future__ import annotations

from typing import Any

from consumer.demo.redbrick_records import Seat, Task, TaskData, User


def person(user: User | None) -> dict[str, Any] | None:
    """A user as the API shows one inside other things."""
    if user is None:
        return None
    return {
        "userId": user.user_id,
        "email": user.email,
        "givenName": user.given_name,
        "familyName": user.family_name,
    }


def created(event_id: str, at: str, task: Task) -> dict[str, Any]:
    event = _task_event(event_id, at, task.latest, task.created_by)
    event["createEvent"] = {
        "currentStageName": task.stage,
        "isGroundTruth": False,
        "priority": task.priority,
    }
    return event


def entered(event_id: str, at: str, task: Task, *, score: float | None = None) -> dict[str, Any]:
    """The task is now at its stage; ``score`` (0 to 1) when that closed a consensus."""
    event = _task_event(event_id, at, task.latest, None)
    event["inputEvent"] = {
        "currentStageName": task.stage,
        "overallConsensusScore": score,
        "priority": task.priority,
        "consensusInfo": None if score is None else [_agreement(s, task) for s in task.consensus],
    }
    return event


def left(
    event_id: str, at: str, task: Task, by: User, *, passed: bool | None, to: str | None = None
) -> dict[str, Any]:
    """The task leaves its stage: ``passed`` is a review's verdict, ``to`` a manual move's goal."""
    event = _task_event(event_id, at, task.latest, by)
    event["outputEvent"] = {
        "currentStageName": task.stage,
        "cycleCount": task.cycle,
        "outputBool": passed,
        "nextStageName": to,
        "timeSpentMs": 60_000,
        "extraData": None,
        "multiLabels": None,
    }
    return event


def changed(
    at: str,
    task: Task,
    by: User,
    before: Seat,
    verdicts: tuple[bool | None, bool | None] = (None, None),
) -> dict[str, Any]:
    """A change of assignment or status of the task's first seat, or of the review's verdict from
    the first to the second of ``verdicts``."""
    seat = task.seats[0]
    return {
        "__typename": "TaskStateChanges",
        "stageName": task.stage,
        "assignedAtAfter": at if seat.user else None,
        "createdAt": at,
        "updatedBy": by.user_id,
        "statusBefore": before.state,
        "statusAfter": seat.state,
        "assignedToBeforeEntity": person(before.user),
        "assignedToAfterEntity": person(seat.user),
        "consensusAssigneesBefore": None,
        "consensusAssigneesAfter": None,
        "consensusStatusesBefore": None,
        "consensusStatusesAfter": None,
        "reviewResultBefore": verdicts[0],
        "reviewResultAfter": verdicts[1],
    }


def consensus_changed(
    at: str, task: Task, by: User, before: list[tuple[str | None, str]]
) -> dict[str, Any]:
    """A change of who annotates a consensus task; ``before`` as `seating` gave it."""
    after = seating(task)
    event = changed(at, task, by, task.seats[0])
    event["consensusAssigneesBefore"] = [user for user, _ in before]
    event["consensusStatusesBefore"] = [status for _, status in before]
    event["consensusAssigneesAfter"] = [user for user, _ in after]
    event["consensusStatusesAfter"] = [status for _, status in after]
    return event


def seating(task: Task) -> list[tuple[str | None, str]]:
    return [(seat.user.user_id if seat.user else None, seat.state) for seat in task.seats]


def comment(comment_id: str, at: str, task: Task, by: User, text: str) -> dict[str, Any]:
    return {
        "__typename": "Comment",
        "commentId": comment_id,
        "taskData": {"tdId": task.latest.td_id} if task.latest else None,
        "createdBy": person(by),
        "textVal": text,
        "createdAt": at,
        "stageName": task.stage,
        "issueComment": False,
        "issueResolved": None,
        "labelEntityLabelId": None,
        "replies": [],
        "pin": None,
    }


def scores(seat: Seat, task: Task) -> list[dict[str, Any]]:
    """A seat's agreement with every other: the simulator does not compute it, it is 0.9."""
    return [{"user": person(o.user), "score": 0.9} for o in task.consensus if o is not seat]


def _task_event(event_id: str, at: str, data: TaskData | None, by: User | None) -> dict[str, Any]:
    return {
        "__typename": "TaskEvent",
        "eventId": event_id,
        "createdAt": at,
        "updatedBy": by.user_id if by else None,
        "createEvent": None,
        "inputEvent": None,
        "outputEvent": None,
        "taskData": data
        and {"tdId": data.td_id, "stageName": data.stage, "createdBy": data.created_by.user_id},
    }


def _agreement(seat: Seat, task: Task) -> dict[str, Any]:
    return {
        "user": person(seat.user),
        "taskData": {"tdId": seat.data.td_id} if seat.data else None,
        "scores": scores(seat, task),
    }
