"""MONAI's decathlon data list (``monai.data.load_decathlon_datalist``); pure.

MONAI caches by path, so a path carries digits of the hash of what the file is made of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from handlers.pull.training import Case, image_job, label_job

INDEX = "dataset.json"


def add_jobs(cases: Sequence[Case], classes: Mapping[str, int]) -> None:
    for case in cases:
        image, label = _paths(case, classes)
        case.plan.jobs += [image_job(case, image), label_job(case, dict(classes), label)]


def index(cases: Sequence[Case], classes: Mapping[str, int], channel: str) -> bytes:
    """``dataset.json`` of the cases that are there."""
    pairs = [_paths(case, classes) for case in cases]
    told = {
        "tensorImageSize": "3D",
        "modality": {"0": channel},
        "labels": {"0": "background", **{str(value): name for name, value in classes.items()}},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [{"image": image, "label": label} for image, label in pairs],
        "test": [],
    }
    return json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"


def _paths(case: Case, classes: Mapping[str, int]) -> tuple[str, str]:
    label = label_job(case, dict(classes), "").origin
    return (
        f"imagesTr/{case.name}.{case.image.sha256[:12]}.nii.gz",
        f"labelsTr/{case.name}.{label[:12]}.nii.gz",
    )
