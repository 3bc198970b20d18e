"""The types of what RedBrick answers, as far as a task's stage, history and labels rest on them.

A GraphQL answer has every field that was selected, null where there is nothing: what lacks one, or
has another type there, is no answer. Otherwise half an answer would read as a task that nobody has
annotated. Whether a field may be null nobody knows, so each but ids and times may. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec


class _User(msgspec.Struct, rename="camel"):
    user_id: str


class _Created(msgspec.Struct, rename="camel"):
    current_stage_name: str | None
    is_ground_truth: bool | None


class _Entered(msgspec.Struct, rename="camel"):
    current_stage_name: str | None
    overall_consensus_score: float | None


class _Left(msgspec.Struct, rename="camel"):
    current_stage_name: str | None
    output_bool: bool | None
    next_stage_name: str | None


class _EventData(msgspec.Struct, rename="camel"):
    td_id: str | None
    created_by: str | None


class _Event(msgspec.Struct):
    kind: str = msgspec.field(name="__typename")


class _TaskEvent(msgspec.Struct, rename="camel"):
    event_id: str
    created_at: str
    updated_by: str | None
    create_event: _Created | None
    input_event: _Entered | None
    output_event: _Left | None
    task_data: _EventData | None


class _Comment(msgspec.Struct, rename="camel"):
    comment_id: str
    created_at: str
    stage_name: str | None
    created_by: _User | None


class _StateChange(msgspec.Struct, rename="camel"):
    stage_name_after: str | None
    created_at: str
    updated_by: str | None
    status_before: str | None
    status_after: str | None
    assigned_to_before_entity: _User | None
    assigned_to_after_entity: _User | None
    consensus_assignees_before: list[str | None] | None
    consensus_assignees_after: list[str | None] | None
    consensus_statuses_before: list[str | None] | None
    consensus_statuses_after: list[str | None] | None
    review_result_before: bool | str | None
    review_result_after: bool | str | None


class _Place(msgspec.Struct, rename="camel"):
    series_index: int | None
    image_index: int | None
    label_name: str | None


class _Storage(msgspec.Struct, rename="camel"):
    storage_id: str | None


class _Saved(msgspec.Struct, rename="camel"):
    td_id: str | None
    created_at: str | None


class _Labels(_Saved, rename="camel"):
    labels_data: str | None
    labels_data_path: str | None
    labels_storage: _Storage | None
    labels_map: list[_Place | None] | None


class _Seat(msgspec.Struct, rename="camel"):
    """One that is no labeling task has none of these."""

    state: str | None = None
    assigned_to: _User | None = None
    task_data: _Labels | None = None


class _Agreement(msgspec.Struct, rename="camel"):
    user: _User | None
    task_data: _Labels | None


class _SubTask(_Seat, rename="camel"):
    sub_tasks: list[_Seat] | None = None
    overall_consensus_score: float | None = None
    consensus_info: list[_Agreement] | None = None


class _Task(msgspec.Struct, rename="camel"):
    task_id: str
    current_stage_name: str
    current_stage_sub_task: _SubTask | None
    datapoint: dict[str, Any]
    latest_task_data: _Labels | None
    generic_events: list[dict[str, Any]] | None


class _Listed(msgspec.Struct, rename="camel"):
    current_stage_name: str
    latest_task_data: _Saved | None
    generic_events: list[dict[str, Any]] | None


class _Enabled(msgspec.Struct, rename="camel"):
    enabled: bool


class _StageOf(msgspec.Struct, rename="camel"):
    stage_name: str
    brick_name: str


class _Project(msgspec.Struct, rename="camel"):
    taxonomy: dict[str, Any]
    consensus_settings: _Enabled | None
    stages: list[_StageOf] | None


_EVENTS = {"TaskEvent": _TaskEvent, "Comment": _Comment, "TaskStateChanges": _StateChange}


def check_task(entry: Any, task: str) -> None:
    """The answer to the question for one task. Raises ``ValueError``."""
    if _of(entry, _Task).task_id != task:
        raise ValueError("the answer is another task's")
    _check_events(entry)


def check_listed(entry: Any) -> None:
    """An entry of a listing. Raises ``ValueError``."""
    _of(entry, _Listed)
    _check_events(entry)


def check_project(answer: Any) -> None:
    """Raises ``ValueError``."""
    _of(answer, _Project)


def _check_events(entry: Any) -> None:
    """Events of a kind that nobody knows may hold anything."""
    for event in entry["genericEvents"] or ():
        kind = event.get("__typename")
        _of(event, _EVENTS.get(kind, _Event) if isinstance(kind, str) else _Event)


def _of(value: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError("a field is lacking, or is of another type") from error
