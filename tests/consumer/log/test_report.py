"""The audit trail has exactly the shape that RedBrick's own report has."""

from __future__ import annotations

from typing import Any

from consumer.log.report import report

TASK = {"source": "rb", "project": "p", "task": "t1"}


def history(number: int, kind: str, at: str, **fields: Any) -> dict[str, Any]:
    own = {"id": f"history:{number}", "kind": "history", "history_id": str(number)}
    return {**TASK, **own, "type": kind, "at": at, "ground_truth": False, **fields}


def lake(number: int, stage: str | None, *, ground_truth: bool, **fields: Any) -> dict[str, Any]:
    own = {"id": f"lake:{number}", "kind": "lake", "sequence": number}
    return {**TASK, **own, "stage": stage, "ground_truth": ground_truth, **fields}


CREATED = history(1, "TASK_CREATED", "2026-01-01T00:00:00.000000Z", actor="ann")
ASSIGNED = history(2, "TASK_ASSIGNED", "2026-01-01T00:01:00.000000Z", assignee="ben", stage="Label")


def test_the_report_is_the_one_of_the_vendors_page() -> None:
    assert report([CREATED, ASSIGNED, lake(1, "Label", ground_truth=False)]) == [
        {
            "taskId": "t1",
            "currentStageName": "Label",
            "events": [
                {
                    "eventType": "TASK_CREATED",
                    "createdAt": "2026-01-01T00:00:00.000000Z",
                    "isGroundTruth": False,
                    "createdBy": "ann",
                },
                {
                    "eventType": "TASK_ASSIGNED",
                    "createdAt": "2026-01-01T00:01:00.000000Z",
                    "assignee": "ben",
                    "stage": "Label",
                },
            ],
        }
    ]


def test_events_are_oldest_first_whenever_they_were_logged() -> None:
    (row,) = report([ASSIGNED, CREATED, lake(1, "Label", ground_truth=False)])
    assert [event["eventType"] for event in row["events"]] == ["TASK_CREATED", "TASK_ASSIGNED"]


def test_events_of_one_moment_keep_the_logs_order() -> None:
    first = history(5, "TASK_SUBMITTED", "2026-01-03T00:00:00.000000Z")
    second = history(4, "TASK_MOVED", "2026-01-03T00:00:00.000000Z")
    (row,) = report([first, second, lake(1, "Label", ground_truth=False)])
    assert [event["eventType"] for event in row["events"]] == ["TASK_SUBMITTED", "TASK_MOVED"]


def test_the_stage_is_that_of_the_newest_move() -> None:
    (row,) = report(
        [CREATED, lake(1, "Label", ground_truth=False), lake(2, "END", ground_truth=True)]
    )
    assert row["currentStageName"] == "END"


def test_ground_truth_only_leaves_out_a_task_that_was_sent_back() -> None:
    approved, sent_back = lake(1, "END", ground_truth=True), lake(2, "Label", ground_truth=False)
    assert [row["taskId"] for row in report([CREATED, approved], ground_truth=True)] == ["t1"]
    assert report([CREATED, approved, sent_back], ground_truth=True) == []


def test_one_task_can_be_asked_for() -> None:
    other = {**CREATED, "task": "t2"}
    rows = report([CREATED, other, lake(1, "Label", ground_truth=False)], task="t2")
    assert [row["taskId"] for row in rows] == ["t2"]


def test_equal_ids_of_two_projects_stay_two_tasks() -> None:
    rows = report([CREATED, {**CREATED, "project": "q"}])
    assert [len(row["events"]) for row in rows] == [1, 1]


def test_other_kinds_of_entries_are_passed_over() -> None:
    assert report([{"id": "started:1", "kind": "started"}, {**TASK, "kind": "receipt"}]) == []


def only_event(kind: str, **fields: Any) -> dict[str, Any]:
    (row,) = report([history(1, kind, "2026-01-01T00:00:00.000000Z", **fields)])
    (event,) = row["events"]
    event.pop("createdAt")
    return dict(event)


def test_fields_stand_in_the_order_of_the_vendors_page() -> None:
    (row,) = report([{**CREATED, "stage": "Label"}, ASSIGNED])
    created, assigned = row["events"]
    assert list(created) == ["eventType", "createdAt", "isGroundTruth", "createdBy"]
    assert list(assigned) == ["eventType", "createdAt", "assignee", "stage"]


def test_whoever_judged_is_who_updated_it() -> None:
    assert only_event("TASK_REJECTED", actor="cleo", stage="Review_1") == {
        "eventType": "TASK_REJECTED",
        "updatedBy": "cleo",
        "stage": "Review_1",
    }


def test_a_comment_was_created_by_somebody() -> None:
    event = only_event("COMMENT_ADDED", actor="cleo", stage="Review_1")
    assert event == {"eventType": "COMMENT_ADDED", "createdBy": "cleo", "stage": "Review_1"}


def test_whom_a_task_was_taken_from_is_the_assignee_before() -> None:
    event = only_event("TASK_UNASSIGNED", actor="adam", assignee="ben", stage="Label")
    assert event == {"eventType": "TASK_UNASSIGNED", "prevAssignee": "ben", "stage": "Label"}


def test_a_save_stays_whatever_followed_it() -> None:
    kinds = ["TASK_SAVED", "TASK_SUBMITTED", "TASK_MOVED"]
    told = [history(n, kind, f"2026-01-0{n}T00:00:00Z") for n, kind in enumerate(kinds, 1)]
    (row,) = report(told)
    assert [event["eventType"] for event in row["events"]] == kinds
