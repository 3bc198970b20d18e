"""The legacy export of a simulated Labelbox: an entry per label, its frames behind a URL.

The shape is that of the second half of the vendor's page "Export DICOM annotations".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from consumer.demo.labelbox_rows import (
    GROUPS,
    Drawing,
    Json,
    SimulatedLabel,
    SimulatedProject,
    SimulatedRow,
    drawn_on,
    frames_of,
    line_of,
    row_data_of,
)


def export_legacy(row: SimulatedRow, project: SimulatedProject, base: str) -> Iterator[Json]:
    """The row's entries of a legacy export: one per label; one without label when there is none."""
    for label in row.labels.values():
        yield _legacy_entry(label, row, project, base)
    if not row.labels:
        yield {"ID": None, "Label": {}, **_legacy_row(row, project, base)}


def _legacy_entry(
    label: SimulatedLabel, row: SimulatedRow, project: SimulatedProject, base: str
) -> Json:
    groups = [
        {
            "name": group.lower(),
            "objects": [],
            "classifications": [],
            "relationships": [],
            "frames": f"{base}/v1/frames/{label.id}?group={group.lower()}",
        }
        for group in GROUPS
        if frames_of(label, group)
    ]
    return {
        "ID": label.id,
        **_legacy_row(row, project, base),
        "Label": {"objects": [], "classifications": [], "relationships": [], "groups": groups},
        "Created By": label.created_by,
        "Created At": _millis(label.created_at),
        "Updated At": _millis(label.updated_at),
        "Seconds to Label": 1,
        "Agreement": -1,
        "Benchmark Agreement": -1,
        "Benchmark ID": label.id if label.benchmark else None,
        "Reviews": list(label.reviews),
        "Has Open Issues": 0,
        "Skipped": label.skipped,
    }


def _legacy_row(row: SimulatedRow, project: SimulatedProject, base: str) -> Json:
    history = [
        {
            "actorId": step.by,
            "action": step.action,
            "createdAt": _millis(step.at),
            **{
                f"{side}Task{part}": value
                for side, name in (("previous", step.previous), ("next", step.next))
                if name is not None
                for part, value in (("Id", project.queues[name]), ("Name", name))
            },
        }
        for step in reversed(row.steps)
    ]
    return {
        "DataRow ID": row.id,
        "Labeled Data": row_data_of(row, base),
        "Project Name": project.name,
        "External ID": row.global_key,
        "Dataset Name": "simulated",
        "DataRow Workflow Info": {"taskName": row.stage, "Workflow History": history},
    }


def legacy_frames(label: SimulatedLabel, group: str, base: str) -> Iterator[Json]:
    """The entries behind a legacy ``frames`` URL, one per frame."""
    for frame in frames_of(label, group):
        yield {
            "frameNumber": frame,
            "classifications": [],
            "objects": [_legacy_object(one, base) for one in drawn_on(label, group, frame)],
            "relationships": [],
        }


def _legacy_object(drawing: Drawing, base: str) -> Json:
    out: Json = {
        "featureId": drawing.feature,
        "schemaId": "ckzohkul206400z976bjrguy3",
        "title": drawing.name,
        "value": drawing.name.lower().replace(" ", "_"),
        "color": "#1CE6FF",
        "keyframe": True,
        "classifications": [],
    }
    if drawing.color is not None:
        raise ValueError("legacy exports know no composites")
    if drawing.png is None:
        out["line"] = line_of(drawing)
    else:
        out["instanceURI"] = f"{base}/masks/feature/{drawing.feature}/{drawing.frame}"
    return out


def _millis(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
