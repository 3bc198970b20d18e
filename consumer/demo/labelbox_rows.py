"""What a simulated Labelbox remembers of a data row, and how its exports print it.

The shape is that of the vendor's page "Export DICOM annotations", a data row per line. Pure
functions; the six details are left out unless they are asked for, as the vendor does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

GROUPS = ("Axial", "Sagittal", "Coronal")
DONE = "Done"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One object on one frame of one group: a mask (PNG bytes) or an open polyline (pixels).

    The same ``feature`` may be seen on several frames and groups. With a ``color`` the PNG is a
    composite: the object is its pixels of that colour, and other drawings may have the same PNG.
    """

    group: str
    frame: int
    name: str
    png: bytes | None = None
    line: tuple[tuple[float, float], ...] = ()
    feature: str | None = None  # made up by the simulator when absent
    color: tuple[int, int, int] | None = None


@dataclass(slots=True)
class SimulatedLabel:
    id: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    drawings: tuple[Drawing, ...] = ()
    skipped: bool = False
    benchmark: bool = False
    reviews: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a row's workflow history."""

    action: str
    at: datetime
    by: str
    previous: str | None
    next: str | None


@dataclass(slots=True)
class SimulatedRow:
    id: str
    project: str
    global_key: str
    row_data: str
    created_at: datetime
    created_by: str
    active_at: datetime
    stage: str
    labels: dict[str, SimulatedLabel] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)  # oldest first
    attachments: list[Json] = field(default_factory=list)
    metadata: list[Json] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)  # what the simulator serves, by name
    before: SimulatedRow | None = None  # as it was until the last change: what a replica serves


@dataclass(frozen=True, slots=True)
class SimulatedProject:
    id: str
    name: str
    dataset: str
    ontology: str
    batch: str
    queues: dict[str, str]  # task queue name -> id
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Details:
    """The six ``params`` of an export."""

    attachments: bool = True
    metadata_fields: bool = True
    data_row_details: bool = True
    project_details: bool = True
    label_details: bool = True
    performance_details: bool = True


def export_row(row: SimulatedRow, project: SimulatedProject, base: str, details: Details) -> Json:
    """One line of the current export."""
    where = row_data_of(row, base)
    data_row: Json = {"id": row.id, "global_key": row.global_key, "row_data": where}
    if details.data_row_details:
        data_row["details"] = {
            "dataset_id": project.dataset,
            "created_at": row.created_at.date().isoformat(),
            "updated_at": row.created_at.date().isoformat(),
            "created_by": row.created_by,
        }
    out: Json = {"data_row": data_row, "media_attributes": {"mime_type": "application/dicom"}}
    if details.attachments:
        out["attachments"] = [dict(one) for one in row.attachments]
    if details.metadata_fields:
        out["metadata_fields"] = [dict(one) for one in row.metadata]
    labels = [_label(one, row, base, details) for one in row.labels.values()]
    entry: Json = {"project_name": project.name, "labels": labels}
    if details.project_details:
        entry["project_details"] = _project_details(row, project)
    out["projects"] = {project.id: entry}
    return out


def row_data_of(row: SimulatedRow, base: str) -> str:
    """Where the row's images lie: one is a file, several are an archive of them."""
    if not row.images:
        return row.row_data
    name = "series.zip" if len(row.images) > 1 else quote(next(iter(row.images)))
    return f"{base}/images/{row.id}/{name}"


def _project_details(row: SimulatedRow, project: SimulatedProject) -> Json:
    return {
        "ontology_id": project.ontology,
        "batch_id": project.batch,
        "priority": 5,
        "consensus_expected_label_count": max(1, len(row.labels)),
        "workflow_history": [_step(step, project) for step in reversed(row.steps)],
    }


def _step(step: Step, project: SimulatedProject) -> Json:
    out: Json = {"action": step.action, "created_at": _micros(step.at), "created_by": step.by}
    for side, name in (("previous", step.previous), ("next", step.next)):
        if name is not None:
            out[f"{side}_task_name"] = name
            out[f"{side}_task_id"] = project.queues[name]
    return out


def _label(label: SimulatedLabel, row: SimulatedRow, base: str, details: Details) -> Json:
    out: Json = {"label_kind": "DICOM", "version": "1.0.0", "id": label.id}
    if details.label_details:
        out["label_details"] = {
            "created_at": _seconds(label.created_at),
            "updated_at": _seconds(label.updated_at),
            "created_by": label.created_by,
            "reviews": list(label.reviews),
        }
        if label.benchmark:
            out["label_details"]["is_benchmark_reference"] = True
    if details.performance_details:
        out["performance_details"] = {
            "seconds_to_create": 22,
            "seconds_to_review": 0,
            "skipped": label.skipped,
        }
    out["annotations"] = _annotations(label, row, base)
    return out


def _annotations(label: SimulatedLabel, row: SimulatedRow, base: str) -> Json:
    features = sorted({one.feature or "" for one in label.drawings})
    return {
        "groups": {
            group: {
                "name": group,
                "classifications": [],
                "frames": {
                    str(frame): {
                        "objects": {
                            one.feature: _object(one, row, base)
                            for one in drawn_on(label, group, frame)
                        },
                        "classifications": [],
                    }
                    for frame in frames_of(label, group)
                },
            }
            for group in GROUPS
        },
        "segments": {
            group: {
                feature: _runs(frames)
                for feature in features
                if (frames := frames_of(label, group, feature))
            }
            for group in GROUPS
        },
        "classifications": [],
        "key_frame_feature_map": {
            feature: {
                group: {str(frame): True for frame in frames_of(label, group, feature)}
                for group in GROUPS
            }
            for feature in features
        },
    }


def _object(drawing: Drawing, row: SimulatedRow, base: str) -> Json:
    out: Json = {
        "feature_id": drawing.feature,
        "name": drawing.name,
        "annotation_kind": "DICOMPolyline" if drawing.png is None else "DICOMSegmentationMask",
        "classifications": [],
    }
    if drawing.png is None:
        out["line"] = line_of(drawing)
    elif drawing.color is not None:
        path = f"projects/{row.project}/composites/{composite_id(drawing)}/mask"
        out["composite_mask"] = {"url": f"{base}/api/v1/{path}", "color_rgb": [*drawing.color]}
    else:
        path = f"projects/{row.project}/annotations/{drawing.feature}/index/{drawing.frame}/mask"
        out["mask"] = {"url": f"{base}/api/v1/{path}"}
    return out


def composite_id(drawing: Drawing) -> str:
    """The same for all objects of one picture, and another for any other frame's."""
    place = f"{drawing.group} {drawing.frame} ".encode()
    return "c" + hashlib.sha256(place + (drawing.png or b"")).hexdigest()[:24]


def line_of(drawing: Drawing) -> list[Json]:
    return [{"x": x, "y": y} for x, y in drawing.line]


def drawn_on(label: SimulatedLabel, group: str, frame: int) -> list[Drawing]:
    return [one for one in label.drawings if (one.group, one.frame) == (group, frame)]


def frames_of(label: SimulatedLabel, group: str, feature: str | None = None) -> list[int]:
    return sorted(
        {
            one.frame
            for one in label.drawings
            if one.group == group and feature in (None, one.feature)
        }
    )


def _runs(frames: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for frame in frames:
        if runs and runs[-1][1] == frame - 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    return runs


def _seconds(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat()


def _micros(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
