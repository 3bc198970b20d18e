"""nnU-Net v2's raw data set: ``imagesTr``, ``labelsTr``, ``dataset.json`` (its documentation,
dataset_format.md); pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from handlers.pull.training import Case, image_job, label_job

INDEX = "dataset.json"
BACKGROUND = "background"


def add_jobs(cases: Sequence[Case], classes: Mapping[str, int]) -> None:
    for case in cases:
        image, label = _paths(case)
        case.plan.jobs += [image_job(case, image), label_job(case, dict(classes), label)]


def index(cases: Sequence[Case], classes: Mapping[str, int], channel: str) -> bytes:
    """``dataset.json`` of the cases that are there."""
    labels = {BACKGROUND: 0}
    for name, value in classes.items():
        labels[name if name != BACKGROUND else f"{name} (class)"] = value
    told = {
        "channel_names": {"0": channel},
        "labels": labels,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    return json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"


def _paths(case: Case) -> tuple[str, str]:
    return f"imagesTr/{case.name}_0000.nii.gz", f"labelsTr/{case.name}.nii.gz"
