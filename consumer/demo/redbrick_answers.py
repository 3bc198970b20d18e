"""What a simulated RedBrick's GraphQL API shows of its state: one function for each root field.

Values are plain dicts with every field the vendor's SDK names; fields with arguments are
callables. `redbrick_graphql.select` takes from them what a query asks for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from consumer.demo.redbrick_events import person, scores
from consumer.demo.redbrick_records import (
    END,
    IMAGE_STORAGE,
    LABEL,
    REDBRICK_STORAGE,
    Project,
    Seat,
    SeriesSpec,
    Task,
    TaskData,
)
from consumer.demo.redbrick_state import RedBrickState
from consumer.demo.redbrick_taxonomy import interpolated

Arguments = Mapping[str, Any]
Presign = Callable[[str], str]  # a path in the storage -> a URL that opens it for a while
TaskView = Callable[[Task], Task | None]  # which copy of a task an answer shows
_URL = ("http://", "https://")  # an item that is open to all already


class AnswerError(Exception):
    """The API answers with this message under ``errors``, in a 200."""


class Answers:
    """The root fields of the API, over one state."""

    def __init__(self, state: RedBrickState, presign: Presign, view: TaskView) -> None:
        self._state = state
        self._presign = presign
        self._view = view

    def root(self) -> dict[str, Any]:
        return {
            "project": self._project,
            "stages": lambda arguments: _stages(self._held(arguments)),
            "taxonomy": self._taxonomy,
            "task": self._task,
            "tasksPaged": self._tasks_paged,
            "taskData": self._task_data,
            "presignItems": self._presign_items,
            "members": self._members,
            "me": {"userId": f"API:{self._state.org_id}"},
        }

    def _held(self, arguments: Arguments) -> Project:
        if arguments.get("orgId") != self._state.org_id:
            raise AnswerError("Organization not found")
        project = self._state.projects.get(str(arguments.get("projectId")))
        if project is None:
            raise AnswerError("Project not found")
        return project

    def _project(self, arguments: Arguments) -> dict[str, Any]:
        project = self._held(arguments)
        return {
            "orgId": self._state.org_id,
            "projectId": project.project_id,
            "name": project.name,
            "desc": None,
            "status": "CREATION_SUCCESS",
            "tdType": "DICOM_SEGMENTATION",
            "taxonomy": project.taxonomy,
            "projectUrl": f"https://app.redbrickai.com/{self._state.org_id}/{project.project_id}",
            "createdAt": project.created_at,
            "updatedAt": project.created_at,
            "consensusSettings": {"enabled": project.consensus},
            "workspace": None,
            "stages": _stages(project),
        }

    def _taxonomy(self, arguments: Arguments) -> dict[str, Any] | None:
        for project in self._state.projects.values():
            if arguments.get("name") in (None, project.taxonomy["name"]):
                return project.taxonomy
        return None

    def _members(self, arguments: Arguments) -> list[dict[str, Any]]:
        return [
            {
                "user": {
                    **(person(user) or {}),
                    "mfaSetup": True,
                    "lastSeen": None,
                    "updatedAt": None,
                    "idProvider": None,
                },
                "role": "MEMBER",
                "tags": [],
                "active": True,
                "lastSeen": None,
            }
            for user in self._state.users.values()
        ]

    def _task(self, arguments: Arguments) -> dict[str, Any] | None:
        project = self._held(arguments)
        task = project.tasks.get(str(arguments.get("taskId")))
        shown = self._view(task) if task is not None else None
        return self._entry(project, shown) if shown is not None else None

    def _task_data(self, arguments: Arguments) -> dict[str, Any] | None:
        project = self._held(arguments)
        task = project.tasks.get(str(arguments.get("taskId")))
        if task is None or arguments.get("tdId") not in (None, task.latest and task.latest.td_id):
            return None
        return self._data(project, task.latest)

    def _tasks_paged(self, arguments: Arguments) -> dict[str, Any]:
        """Pages by ``first`` and ``after``; ``first: 0`` counts. ``cacheTime`` keeps what was
        active since."""
        project = self._held(arguments)
        stage, since = arguments.get("stageName"), arguments.get("cacheTime")
        tasks = [t for t in self._state.listed(project) if stage in (None, t.stage)]
        if since is not None:
            moment = datetime.fromisoformat(since.replace("Z", "+00:00"))
            tasks = [t for t in tasks if datetime.fromisoformat(t.active_at) >= moment]
        first = arguments.get("first")
        limit = self._state.page_limit
        size = limit if first is None else min(int(first), limit)
        start = self._start(tasks, arguments.get("after"))
        page, end = tasks[start : start + size], start + size
        return {
            "entries": [self._entry(project, self._view(task) or task) for task in page],
            "cursor": self._cursor(page, end) if size > 0 and end < len(tasks) else None,
            "cacheTime": max((t.active_at for t in project.tasks.values()), default=None),
            "count": len(tasks),
        }

    def _start(self, tasks: Sequence[Task], after: str | None) -> int:
        """Where a page begins among the tasks."""
        if after is None or self._state.paging != "key":
            return int(after or 0)
        later = (place for place, task in enumerate(tasks) if _key(task) > after)
        return next(later, len(tasks))

    def _cursor(self, page: Sequence[Task], end: int) -> str:
        return _key(page[-1]) if self._state.paging == "key" else str(end)

    def _presign_items(self, arguments: Arguments) -> list[str | None]:
        items: Sequence[str | None] = arguments.get("items") or []
        folder = "items/" if arguments.get("storageId") == IMAGE_STORAGE else ""
        return [
            item if not item or item.startswith(_URL) else self._presign(folder + item)
            for item in items
        ]

    def _entry(self, project: Project, task: Task) -> dict[str, Any]:
        return {
            "taskId": task.task_id,
            "dpId": task.dp_id,
            "currentStageName": task.stage,
            "priority": task.priority,
            "createdAt": task.created_at,
            "updatedAt": task.updated_at,
            "currentStageSubTask": lambda arguments: self._sub_task(project, task),
            "datapoint": self._datapoint(task),
            "latestTaskData": self._data(project, task.latest),
            "genericEvents": task.events,
        }

    def _sub_task(self, project: Project, task: Task) -> dict[str, Any] | None:
        """In Label the seats' own versions; after a consensus was computed, who took part."""
        if task.stage == END and not task.consensus:
            return None
        first, *others = (self._seat(project, seat) for seat in task.seats)
        showing = task.stage in (END, *project.review_stages[:1])
        agreed = task.consensus if showing else []
        return {
            "__typename": "LabelingTask",
            **first,
            "subTasks": others if task.stage == LABEL else [],
            "overallConsensusScore": 0.9 if agreed else None,
            "consensusInfo": [
                {
                    "user": person(seat.user),
                    "taskData": self._data(project, seat.data),
                    "scores": scores(seat, task),
                }
                for seat in agreed
            ],
        }

    def _seat(self, project: Project, seat: Seat) -> dict[str, Any]:
        return {
            "state": seat.state,
            "assignedTo": person(seat.user),
            "taskData": self._data(project, seat.data),
        }

    def _data(self, project: Project, data: TaskData | None) -> dict[str, Any] | None:
        if data is None:
            return None
        labels = [interpolated(label, project.taxonomy) for label in data.labels]
        inline = None if data.labels_path else json.dumps(labels)
        return {
            "tdId": data.td_id,
            "createdAt": data.created_at,
            "createdByEntity": person(data.created_by),
            "labelsData": lambda arguments: inline,
            "labelsDataPath": lambda arguments: self._where(data.labels_path, arguments),
            "labelsStorage": {"storageId": REDBRICK_STORAGE},
            "labelsMap": lambda arguments: [
                {"seriesIndex": index, "imageIndex": None, "labelName": self._where(p, arguments)}
                for index, p in data.masks
            ],
        }

    def _where(self, path: str | None, arguments: Arguments) -> str | None:
        return self._presign(path) if path and arguments.get("presigned") else path

    def _datapoint(self, task: Task) -> dict[str, Any]:
        items = [item for series in task.series for item in series.items]

        def show(arguments: Arguments) -> list[str]:
            return [self._presign(f"items/{i}") if arguments.get("presigned") else i for i in items]

        return {
            "dpId": task.dp_id,
            "name": task.name,
            "items": show,
            "createdAt": task.created_at,
            "createdByEntity": person(task.created_by),
            "metaData": json.dumps(task.meta_data) if task.meta_data else None,
            "seriesInfo": _series_info(task.series),
            "heatMaps": None,
            "transforms": None,
            "centerline": None,
            "storageMethod": {"storageId": IMAGE_STORAGE},
            "attributes": None,
            "archived": False,
            "cohorts": [],
        }


def _key(task: Task) -> str:
    """What grows from each task to the next one created."""
    return f"{task.created_at} {task.number:09d}"


def _series_info(series: Sequence[SeriesSpec]) -> list[dict[str, Any]]:
    infos, start = [], 0
    for spec in series:
        headers = {
            "dimensions": spec.dimensions,
            "spacing": spec.spacing,
            "origin": spec.origin,
            "direction": spec.direction,
        }
        infos.append(
            {
                "name": spec.name,
                "itemsIndices": list(range(start, start + len(spec.items))),
                "dataType": "dicom",
                "metaData": json.dumps(dict(spec.meta_data)) if spec.meta_data else None,
                "imageHeaders": json.dumps(headers),
                "localToWorldTransform": None,
            }
        )
        start += len(spec.items)
    return infos


def _stages(project: Project) -> list[dict[str, Any]]:
    reviews = project.review_stages
    following = dict(zip(reviews, [*reviews[1:], "Output"], strict=True))
    stages = [_stage("Input", "labelset-input", "NextRouting", nextStageName=LABEL)]
    first = (reviews or ["Output"])[0]
    stages.append(_stage(LABEL, "manual-labeling", "NextRouting", nextStageName=first))
    for review in reviews:
        routing = {"passed": following[review], "failed": "Failed_Review_1"}
        stages.append(_stage(review, "expert-review", "BooleanRouting", **routing))
    if reviews:
        back = {"feedbackStageName": LABEL}
        stages.append(_stage("Failed_Review_1", "feedback", "FeedbackRouting", **back))
    stages.append(_stage("Output", "labelset-output", "NextRouting", nextStageName=END))
    return stages


def _stage(name: str, brick: str, routing: str, **to: str) -> dict[str, Any]:
    return {
        "stageName": name,
        "brickName": brick,
        "stageConfig": "{}",
        "routing": {"__typename": routing, **to},
    }
