"""A simulated Labelbox without I/O: projects, data rows, labels, workflow, and the webhooks sent.

Every verb changes one row, writes the workflow history as the vendor's export prints it (REJECT
is the sending back, REWORK the resubmission, APPROVE without a next task goes to Done), and
appends to ``outbox`` what the vendor would POST. With the default clock everything is repeatable:
the same verbs give the same ids, times and bytes.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from consumer.demo.clocks import Clock, TellsTime, TickingClock
from consumer.demo.labelbox_export import ExportJob, Refused, details, search
from consumer.demo.labelbox_faults import Fault, Faults
from consumer.demo.labelbox_legacy import export_legacy
from consumer.demo.labelbox_masks import Masks
from consumer.demo.labelbox_rows import (
    DONE,
    Drawing,
    Json,
    SimulatedLabel,
    SimulatedProject,
    SimulatedRow,
    Step,
    export_row,
)
from consumer.demo.labelbox_webhooks import Event, Webhook, WebhookStyle

LABELING = "Initial labeling task"
REWORK = "Rework (all rejected)"
ANNOTATOR = "annotator@example.com"
REVIEWER = "reviewer@example.com"

ticking_clock = TickingClock


class LabelboxState(TellsTime):
    """The platform's memory; ``base_url`` is where its server answers. ``moves_show`` says that a
    step of the workflow counts as a row's last activity, which nobody knows of the real one."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        seed: str = "groundwire",
        reviews: Sequence[str] = ("Initial review task",),
        legacy: bool = False,
        webhook_body: Literal["v1", "v2"] = "v2",
        webhook_sha256: bool = False,
        export_polls: int = 0,
        chunk_bytes: int = 1 << 20,
        moves_show: bool = True,
    ) -> None:
        self.base_url = "http://127.0.0.1"
        self.file_base_url: str | None = None  # where export files lie, when elsewhere
        self.final_newline = True  # of an export's file
        self.export_errors: list[bytes] = []  # lines that every job reports beside its rows
        self.api_key = f"simulated-labelbox-key-{seed}"
        self.webhook_secret = f"simulated-labelbox-secret-{seed}"
        self.style = WebhookStyle(webhook_body, webhook_sha256)
        self.reviews = tuple(reviews)
        self.legacy = legacy
        self.export_polls = export_polls
        self.moves_show = moves_show
        self._listed: dict[str, SimulatedRow] | None = None
        self.chunk_bytes = chunk_bytes
        self.counters: Counter[str] = Counter()
        self.faults = Faults()
        self.outbox: list[Webhook] = []
        self.projects: dict[str, SimulatedProject] = {}
        self.rows: dict[str, SimulatedRow] = {}
        self.jobs: dict[str, ExportJob] = {}
        self.masks = Masks()
        self._clock = clock or ticking_clock()
        self._seed = seed
        self._made = 0
        self.user_id = self._id()
        self.project_id = self.add_project("Simulated CT").id

    # projects and rows

    def add_project(self, name: str) -> SimulatedProject:
        stages = (LABELING, *self.reviews, REWORK)
        project = SimulatedProject(
            id=self._id(),
            name=name,
            dataset=self._id(),
            ontology=self._id(),
            batch=self._id(),
            queues={stage: self._id() for stage in stages},
            created_at=self._clock(),
        )
        self.projects[project.id] = project
        return project

    def create_row(
        self,
        global_key: str,
        row_data: str = "",
        *,
        project: str | None = None,
        by: str = ANNOTATOR,
        attachments: Iterable[Json] = (),
        metadata: Iterable[Json] = (),
        images: Mapping[str, bytes] | None = None,
    ) -> str:
        """Uploads a data row into a project's first task; returns its id. ``images`` (by name) are
        served by the simulator itself, several as one zip archive; ``row_data`` then says where.
        """
        now = self._clock()
        row = SimulatedRow(
            id=self._id(),
            project=project or self.project_id,
            global_key=global_key,
            row_data=row_data,
            created_at=now,
            created_by=by,
            active_at=now,
            stage=LABELING,
            attachments=list(attachments),
            metadata=list(metadata),
            images=dict(images or {}),
        )
        self.rows[row.id] = row
        self._step(row, "MOVE", by, previous=None, to=LABELING)
        return row.id

    def delete_row(self, row_id: str) -> None:
        """The vendor has no webhook for this: only the row's labels are told to be gone."""
        row = self.rows[row_id]
        for label in list(row.labels.values()):
            self._send("LABEL_DELETED", row, label=label)
        del self.rows[row_id]
        self.masks.forget(row_id)

    # labels

    def label(self, row_id: str, drawings: Iterable[Drawing], *, by: str = ANNOTATOR) -> str:
        """Saves this person's label of the row, new or again; returns the label's id."""
        return self._save(row_id, drawings, by, skipped=False)

    def skip_label(self, row_id: str, *, by: str = ANNOTATOR) -> str:
        """The person skips the row: a label with nothing in it."""
        return self._save(row_id, (), by, skipped=True)

    def _save(self, row_id: str, drawings: Iterable[Drawing], by: str, *, skipped: bool) -> str:
        row = self._change(row_id)
        now = self._clock()
        event: Event = "LABEL_UPDATED"
        label = next((one for one in row.labels.values() if one.created_by == by), None)
        if label is None:
            event = "LABEL_CREATED"
            label = SimulatedLabel(self._id(), by, now, now)
            row.labels[label.id] = label
        else:
            # The vendor prints whole seconds; a later save must show.
            label.updated_at = max(now, label.updated_at + timedelta(seconds=1))
        label.skipped = skipped
        label.drawings = tuple(
            replace(one, feature=one.feature or self._derived(label.id, one.group, one.name))
            for one in drawings
        )
        self.masks.keep(row.id, label.drawings)
        self._send(event, row, label=label)
        return label.id

    def delete_label(self, row_id: str, label_id: str) -> None:
        row = self._change(row_id)
        self._send("LABEL_DELETED", row, label=row.labels.pop(label_id))

    def review_label(
        self, row_id: str, label_id: str, *, approved: bool, by: str = REVIEWER
    ) -> None:
        """Judges one of several labels, without moving the row."""
        label = self._change(row_id).labels[label_id]
        label.reviews.append({"reviewed_by": by, "approved": approved})
        self._send("LABEL_UPDATED", self.rows[row_id], label=label)

    def make_benchmark(self, row_id: str, label_id: str) -> None:
        label = self._change(row_id).labels[label_id]
        label.benchmark = True
        self._send("LABEL_UPDATED", self.rows[row_id], label=label)

    # workflow

    def submit(self, row_id: str, *, by: str = ANNOTATOR) -> None:
        """The labeling task is done: on to the first review, or to Done when there is none."""
        self._step(self._moved(row_id), "MOVE", by, to=self._after(LABELING))

    def approve(self, row_id: str, *, by: str = REVIEWER) -> None:
        """On to the next review, or to Done."""
        row = self._moved(row_id)
        self._step(row, "APPROVE", by, to=self._after(row.stage))

    def reject(self, row_id: str, *, by: str = REVIEWER) -> None:
        """Sends the row back, from a review or from Done."""
        self._step(self._moved(row_id), "REJECT", by, to=REWORK)

    def rework(self, row_id: str, *, by: str = ANNOTATOR) -> None:
        """Resubmits a row that was sent back."""
        self._step(self._moved(row_id), "REWORK", by, to=self._after(LABELING))

    def move(self, row_id: str, stage: str, *, by: str = REVIEWER) -> None:
        """Moves the row to any task queue by hand."""
        self._step(self._moved(row_id), "MOVE", by, to=stage)

    def _moved(self, row_id: str) -> SimulatedRow:
        return self._change(row_id, shows=self.moves_show)

    def _after(self, stage: str) -> str:
        order = (LABELING, *self.reviews, DONE)
        return order[order.index(stage) + 1]

    def _step(
        self, row: SimulatedRow, action: str, by: str, *, to: str, previous: str | None = ""
    ) -> None:
        left = row.stage if previous == "" else previous
        queues = self.projects[row.project].queues
        if to != DONE and to not in queues:
            raise ValueError(f"no task queue {to!r}")
        step = Step(
            action=action,
            at=self._clock(),
            by=by,
            previous=left if left in queues else None,
            next=to if to in queues else None,
        )
        row.steps.append(step)
        row.stage = to
        if self.moves_show:
            row.active_at = step.at
        self._send("WORKFLOW_ACTION", row, step=step)

    # what the server asks

    def start_export(self, request: Json) -> ExportJob:
        """Raises Refused for an unknown project or filter."""
        filters, fault = request["filters"], self.faults.next("export job")
        project = self.projects.get(filters["projectId"])
        if project is None:
            raise Refused("RESOURCE_NOT_FOUND", "project not found")
        wanted = search(filters["searchQuery"]["query"])
        held = self.rows if self._listed is None or _names_ids(filters) else self._listed
        rows = [r for r in held.values() if r.project == project.id and wanted(r)]
        if fault is not None and fault.kind == "stale":
            rows = [row.before or row for row in rows]
        shown = details(request["params"])
        lines = [line for row in rows for line in self._lines(row, project, shown)]
        lost = lines and fault is not None and fault.kind == "line-lost"
        if lost:
            lines.pop()
        if lines and not self.final_newline:
            lines[-1] = lines[-1].rstrip()
        job = ExportJob(
            id=self._id(),
            created_at=self._clock(),
            lines=lines,
            polls_left=self.export_polls,
            failed=fault is not None and fault.kind == "failed-task",
            errors=list(self.export_errors),
            lines_lost=int(bool(lost)),
        )
        self.jobs[job.id] = job
        return job

    def hold_listing(self) -> None:
        """From now on a search that names no ids sees a replica that stands still: it lacks new
        rows, and shows deleted ones and old stages."""
        self._listed = copy.deepcopy(self.rows)

    def release_listing(self) -> None:
        self._listed = None

    def _lines(self, row: SimulatedRow, project: SimulatedProject, shown: Any) -> list[bytes]:
        if self.legacy:
            entries = list(export_legacy(row, project, self.base_url))
        else:
            entries = [export_row(row, project, self.base_url, shown)]
        return [json.dumps(one).encode() + b"\n" for one in entries]

    def find_label(self, label_id: str) -> SimulatedLabel | None:
        return next(
            (row.labels[label_id] for row in self.rows.values() if label_id in row.labels), None
        )

    # memory

    def _change(self, row_id: str, *, shows: bool = True) -> SimulatedRow:
        row = self.rows[row_id]
        row.before = None
        row.before = copy.deepcopy(row)
        now = self._clock()
        if shows:
            row.active_at = now
        return row

    def _send(
        self,
        event: Event,
        row: SimulatedRow,
        *,
        label: SimulatedLabel | None = None,
        step: Step | None = None,
    ) -> None:
        project = self.projects[row.project]
        self.outbox.append(
            self.style.webhook(
                event, self._id(), self.webhook_secret, row, project, self.base_url, label, step
            )
        )

    def _id(self) -> str:
        self._made += 1
        return self._derived(str(self._made))

    def _derived(self, *parts: str) -> str:
        text = "\0".join((self._seed, *parts)).encode()
        return "c" + hashlib.sha256(text).hexdigest()[:24]


def _names_ids(filters: Json) -> bool:
    return any(one.get("type") == "data_row_id" for one in filters["searchQuery"]["query"])


__all__ = ["DONE", "LABELING", "REWORK", "Fault", "LabelboxState", "ticking_clock"]
