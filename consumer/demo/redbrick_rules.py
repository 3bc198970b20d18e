"""How a simulated RedBrick task changes: stages, seats, labels, events, webhooks; no I/O.

Everything is deterministic: ids come from the seed and a counter, times from the clock given.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from consumer.demo import redbrick_events as events
from consumer.demo.clocks import TellsTime, TickingClock
from consumer.demo.redbrick_masks import mask_file
from consumer.demo.redbrick_records import (
    END,
    LABEL,
    OUTPUT,
    Drawing,
    Project,
    Seat,
    Task,
    TaskData,
    User,
)
from consumer.demo.redbrick_taxonomy import taxonomy

_NAMESPACE = uuid.UUID("6f1c2f0e-6f0b-5c1e-9a52-0d3a5be5a001")
REMEMBERED = 16  # older copies of a task, for stale answers

Paging = Literal["place", "activity", "key"]


class RedBrickRules(TellsTime):
    """An organisation with its projects and tasks.

    ``webhook_milliseconds`` and ``announce_transit`` (whether Failed_Review_n and Output, through
    which a task only passes, are announced) are what nobody knows of the real platform.
    ``upload_saves_labels`` says that the upload itself counts as a saved, empty version,
    ``moves_show`` that more than work on labels shows in a listing of what changed, ``paging`` what
    a listing's cursor stands for: a place in the order of creation, in the order of activity (the
    newest first), or a key.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] | None = None,
        seed: str = "demo",
        reviews: int = 1,
        consensus: bool = False,
        labels_in_files: bool = False,
        webhook_milliseconds: bool = True,
        announce_transit: bool = False,
        upload_saves_labels: bool = True,
        moves_show: bool = True,
        paging: Paging = "place",
    ) -> None:
        self._clock = clock or TickingClock()
        self._seed = seed
        self._made = 0
        self.webhook_milliseconds = webhook_milliseconds
        self.announce_transit = announce_transit
        self.upload_saves_labels = upload_saves_labels
        self.moves_show = moves_show
        self.paging = paging
        self.page_limit = 100
        self._listed: dict[str, dict[str, Task]] | None = None
        self.org_id = self._new_id()
        self.api_key = (uuid.uuid5(_NAMESPACE, f"{seed} key").hex * 2)[:43]
        self.users = {
            name: User(self._new_id(), f"{name}@hospital.example", name.capitalize(), "Example")
            for name in ("ada", "ben", "cleo", "dora")
        }
        self.projects: dict[str, Project] = {}
        self.files: dict[str, bytes] = {}
        self.outbox: list[dict[str, Any]] = []
        self.counters: Counter[str] = Counter()
        self.project_id = self.create_project(
            reviews=reviews, consensus=consensus, labels_in_files=labels_in_files
        )

    def create_project(
        self, name: str = "Abdomen CT", *, reviews: int = 1, consensus: bool = False,
        labels_in_files: bool = False,
    ) -> str:  # fmt: skip
        project_id, at = self._new_id(), self._now()
        self.projects[project_id] = Project(
            project_id=project_id,
            name=name,
            reviews=reviews,
            consensus=consensus,
            taxonomy=taxonomy(self.org_id, self._new_id(), at),
            created_at=at,
            labels_in_files=labels_in_files,
        )
        return project_id

    def task(self, task_id: str) -> Task:
        """Raises ``KeyError`` when no project holds it."""
        for project in self.projects.values():
            if task_id in project.tasks:
                return project.tasks[task_id]
        raise KeyError(task_id)

    def _about_to_change(self, task_id: str) -> Task:
        """The task, a copy of which is kept for stale answers."""
        task = self.task(task_id)
        self.projects[task.project_id].past[task_id].append(copy.deepcopy(task))
        return task

    def _verdict(self, task: Task, by: str, *, passed: bool, corrected: bool = False) -> None:
        self._seat(task, by).state = "COMPLETED"
        before, task.review_result = task.review_result, passed and not corrected
        task.events.append(
            events.changed(
                self._now(), task, self.users[by], task.seats[0],
                (before, task.review_result),
            )
        )  # fmt: skip
        self._leave(task, by, passed=passed)
        if not passed:
            task.cycle += 1
            task.consensus = []
            self._pass_through(task, "Failed_Review_1", by)
            self._enter(task, LABEL, by)
            return
        reviews = self.projects[task.project_id].review_stages
        later = reviews[reviews.index(task.stage) + 1 :] if task.stage in reviews else []
        self._enter(task, later[0] if later else END, by)

    def _leave(self, task: Task, by: str, *, passed: bool | None, to: str | None = None) -> None:
        task.events.append(
            events.left(self._new_id(), self._now(), task, self.users[by], passed=passed, to=to)
        )

    def _enter(self, task: Task, stage: str, by: str, *, score: float | None = None) -> None:
        if stage == END and task.stage != END:
            self._pass_through(task, OUTPUT, by)
        task.stage = stage
        task.seats = [Seat()]
        at = self._touch(task, shows=self.moves_show)
        task.events.append(events.entered(self._new_id(), at, task, score=score))
        self._announce("TASK_ENTERED_STAGE", task, by, stageName=stage)

    def _pass_through(self, task: Task, stage: str, by: str) -> None:
        if self.announce_transit:
            self._announce("TASK_ENTERED_STAGE", task, by, stageName=stage)

    def _seat(self, task: Task, by: str) -> Seat:
        """The person's seat; who has none sits down on a free one."""
        user = self.users[by]
        for seat in task.seats:
            if seat.user == user:
                return seat
        free = next((seat for seat in task.seats if seat.user is None), task.seats[0])
        with self._seats_change(task, by):
            free.user, free.state = user, "ASSIGNED"
        return free

    @contextmanager
    def _seats_change(self, task: Task, by: str) -> Iterator[None]:
        """Records what changes about who sits where, and with which status."""
        first, seated = copy.copy(task.seats[0]), events.seating(task)
        yield
        at, user = self._touch(task, shows=self.moves_show), self.users[by]
        if len(task.seats) > 1 or len(seated) > 1:
            task.events.append(events.consensus_changed(at, task, user, seated))
        else:
            task.events.append(events.changed(at, task, user, first))

    def _is_open_consensus(self, task: Task) -> bool:
        return task.stage == LABEL and len(task.seats) > 1

    def _store(
        self, task: Task, drawings: list[Drawing], extra: list[dict[str, Any]], user: User
    ) -> TaskData:
        td_id = self._new_id()
        folder = f"{self.org_id}/{task.project_id}/{task.task_id}/{td_id}"
        labels = [self._label(d.series_index, i) for d in drawings for i in d.instances] + extra
        masks = []
        for drawing in drawings:
            path = f"{folder}/{drawing.series_index}.nii.gz"
            self.files[path] = mask_file(drawing, task.series[drawing.series_index])
            masks.append((drawing.series_index, path))
        labels_path = None
        if self.projects[task.project_id].labels_in_files:
            labels_path = f"{folder}/labels.json"
            self.files[labels_path] = json.dumps(labels).encode()
        return TaskData(
            td_id, self._now(), user, task.stage, tuple(labels), tuple(masks), labels_path
        )

    def _label(self, series_index: int, instance: Any) -> dict[str, Any]:
        values = [
            {"attrid": attr_id, ("optionid" if type(value) is int else "value"): value}
            for attr_id, value in instance.attributes.items()
        ]
        return {
            "labelid": self._new_id(),
            "classid": instance.class_id,
            "attributes": values,
            "volumeindex": series_index,
            "dicom": {"instanceid": instance.id, "groupids": list(instance.group_ids) or None},
        }

    def _announce(self, event: str, task: Task, by: str, **about: str | None) -> None:
        seconds = self._clock().timestamp()
        stamp = int(seconds * 1000) if self.webhook_milliseconds else int(seconds)
        data = {
            "orgId": self.org_id,
            "projectId": task.project_id,
            "taskId": task.task_id,
            "updatedBy": self.users[by].user_id,
            **about,
        }
        item = {"event": event, "id": self._new_id(), "timestamp": stamp, "data": data}
        self.outbox.append({"version": "v1.0", "events": 1, "payload": [item]})

    def _touch(self, task: Task, *, shows: bool = True) -> str:
        task.updated_at = self._now()
        if shows or not task.active_at:
            task.active_at = task.updated_at
        return task.updated_at

    def hold_listing(self) -> None:
        """From now on listings come from a replica that stands still: they lack new tasks, and
        show deleted ones and old stages."""
        self._listed = {p.project_id: copy.deepcopy(p.tasks) for p in self.projects.values()}

    def release_listing(self) -> None:
        self._listed = None

    def listed(self, project: Project) -> list[Task]:
        """The tasks that a listing shows, in its order."""
        held = project.tasks if self._listed is None else self._listed.get(project.project_id, {})
        if self.paging == "activity":
            return sorted(held.values(), key=lambda task: task.updated_at, reverse=True)
        return list(held.values())

    def _now(self) -> str:
        return self._clock().astimezone(UTC).isoformat(timespec="microseconds")

    def _new_id(self) -> str:
        self._made += 1
        return str(uuid.uuid5(_NAMESPACE, f"{self._seed} {self._made}"))
