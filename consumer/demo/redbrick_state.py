"""The verbs of the people of a simulated RedBrick: upload, label, review, move, delete; no I/O.

Each verb appends to `outbox` the JSON bodies that RedBrick would POST to a webhook: TASK_CREATED,
TASK_ENTERED_STAGE and TASK_DELETED, and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from consumer.demo import redbrick_events as events
from consumer.demo.clocks import TickingClock
from consumer.demo.redbrick_records import (
    END,
    INPUT,
    LABEL,
    Drawing,
    Seat,
    SeriesSpec,
    Task,
    TaskData,
)
from consumer.demo.redbrick_rules import REMEMBERED, RedBrickRules

__all__ = ["RedBrickState", "TickingClock"]


class RedBrickState(RedBrickRules):
    """An organisation whose people are called by their first names: ada, ben, cleo, dora."""

    def take_webhooks(self) -> list[dict[str, Any]]:
        """The bodies not taken yet, oldest first."""
        taken, self.outbox = self.outbox, []
        return taken

    def create_task(
        self,
        name: str | None,
        series: Sequence[SeriesSpec] = (SeriesSpec(),),
        *,
        project_id: str | None = None,
        by: str = "ada",
        priority: float | None = None,
        meta_data: dict[str, str] | None = None,
    ) -> str:
        """Upload a task; it goes on to the stage Label at once."""
        project = self.projects[project_id or self.project_id]
        task = Task(
            task_id=self._new_id(), dp_id=self._new_id(), project_id=project.project_id,
            name=name, series=tuple(series), created_at=self._now(), created_by=self.users[by],
            priority=priority, meta_data=meta_data, number=self._made,
        )  # fmt: skip
        project.tasks[task.task_id] = task
        project.past[task.task_id] = deque(maxlen=REMEMBERED)
        for spec in task.series:
            self.files.update({f"items/{item}": data for item, data in spec.contents.items()})
        if self.upload_saves_labels:
            task.latest = TaskData(self._new_id(), task.created_at, task.created_by, INPUT)
        task.events.append(events.created(self._new_id(), task.created_at, task))
        self._announce("TASK_CREATED", task, by, taskName=name)
        self._enter(task, LABEL, by)
        return task.task_id

    def assign(self, task_id: str, *names: str, by: str = "ada") -> None:
        """Seat one person, or several for a consensus; nobody to unassign."""
        task = self._about_to_change(task_id)
        with self._seats_change(task, by):
            task.seats = [Seat(self.users[name], "ASSIGNED") for name in names] or [Seat()]

    def save(
        self, task_id: str, drawings: Iterable[Drawing] | None = None, *, by: str = "ben",
        extra: Iterable[dict[str, Any]] = (),
    ) -> str:  # fmt: skip
        """Save a new version of the labels without submitting; ``extra`` are labels that are no
        segmentation, in RedBrick's own form. Without ``drawings`` every series gets one instance;
        an empty list is a version with nothing drawn. Returns the ``tdId``."""
        task = self._about_to_change(task_id)
        if drawings is None:
            drawings = [Drawing(index) for index in range(len(task.series))]
        seat = self._seat(task, by)
        data = self._store(task, list(drawings), list(extra), self.users[by])
        seat.data = data
        if not self._is_open_consensus(task):
            task.latest = data
        if seat.state != "IN_PROGRESS":
            with self._seats_change(task, by):
                seat.state = "IN_PROGRESS"
        self._touch(task)
        return data.td_id

    def submit(self, task_id: str, *, by: str = "ben") -> None:
        """Hand the labels in: the task goes on, in a consensus once every seat has done so."""
        task = self._about_to_change(task_id)
        seat = self._seat(task, by)
        seat.state = "COMPLETED"
        self._touch(task, shows=self.moves_show)
        if any(s.state != "COMPLETED" for s in task.seats):
            return
        if self._is_open_consensus(task):
            task.consensus = task.seats
            task.latest = task.seats[0].data
        self._leave(task, by, passed=None)
        following = (self.projects[task.project_id].review_stages or [END])[0]
        self._enter(task, following, by, score=0.9 if task.consensus else None)

    def label(
        self, task_id: str, drawings: Iterable[Drawing] | None = None, *, by: str = "ben",
        extra: Iterable[dict[str, Any]] = (),
    ) -> str:  # fmt: skip
        """Save and submit. On a ground-truth task this is an edit, and it stays where it is."""
        td_id = self.save(task_id, drawings, by=by, extra=extra)
        task = self.task(task_id)
        if task.stage == END:
            task.events.append(
                events.left(self._new_id(), self._now(), task, self.users[by], passed=None)
            )
            task.seats = [Seat()]
        else:
            self.submit(task_id, by=by)
        return td_id

    def approve(self, task_id: str, *, by: str = "cleo") -> None:
        """Accept in review: on to the next review, or to the ground truth."""
        task = self._about_to_change(task_id)
        self._verdict(task, by, passed=True)

    def correct(
        self, task_id: str, drawings: Iterable[Drawing] | None = None, *, by: str = "cleo"
    ) -> str:
        """Accept in review with corrections: a new version of the labels. Returns its ``tdId``."""
        td_id = self.save(task_id, drawings, by=by)
        self._verdict(self.task(task_id), by, passed=True, corrected=True)
        return td_id

    def reject(self, task_id: str, *, by: str = "cleo") -> None:
        """Send back from review to Label."""
        task = self._about_to_change(task_id)
        self._verdict(task, by, passed=False)

    def move(self, task_id: str, stage: str, *, by: str = "ada") -> None:
        """Put the task at another stage by hand, from wherever it is."""
        task = self._about_to_change(task_id)
        if stage == LABEL:
            task.consensus = []
        self._leave(task, by, passed=None, to=stage)
        self._enter(task, stage, by)

    def skip(self, task_id: str, *, by: str = "ben") -> None:
        """Skip the task: it stays at its stage. RedBrick announces nothing."""
        task = self._about_to_change(task_id)
        seat = self._seat(task, by)
        with self._seats_change(task, by):
            seat.state = "SKIPPED"

    def comment(self, task_id: str, text: str, *, by: str = "cleo") -> str:
        task = self._about_to_change(task_id)
        comment_id = self._new_id()
        author = self.users[by]
        task.events.append(events.comment(comment_id, self._touch(task), task, author, text))
        return comment_id

    def delete_comment(self, task_id: str, comment_id: str) -> None:
        task = self._about_to_change(task_id)
        task.events = [e for e in task.events if e.get("commentId") != comment_id]

    def delete(self, task_id: str, *, by: str = "ada") -> None:
        task = self._about_to_change(task_id)
        del self.projects[task.project_id].tasks[task_id]
        self._announce("TASK_DELETED", task, by, taskName=task.name)
