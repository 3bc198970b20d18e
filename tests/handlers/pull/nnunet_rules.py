"""nnU-Net v2's integrity rules for a raw data set, read with nibabel alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np


def check_nnunet(folder: Path) -> dict[str, Any]:
    """What nnU-Net's own integrity check asserts, and that affines are equal, which it only warns
    of."""
    told: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    assert {"labels", "channel_names", "numTraining", "file_ending"} <= told.keys()
    ending, labels = told["file_ending"], sorted(told["labels"].values())
    assert labels == list(range(len(labels)))
    assert told["labels"]["background"] == 0
    images = sorted(path.name for path in (folder / "imagesTr").iterdir())
    cases = {re.sub(r"_\d{4}" + re.escape(ending) + "$", "", name) for name in images}
    assert len(images) == len(cases) * len(told["channel_names"])
    assert len(cases) == told["numTraining"]
    assert {path.name for path in (folder / "labelsTr").iterdir()} == {
        f"{case}{ending}" for case in cases
    }
    for case in cases:
        check_case(folder, case, ending, labels)
    return told


def check_case(folder: Path, case: str, ending: str, labels: list[int]) -> None:
    image = nibabel.load(folder / "imagesTr" / f"{case}_0000{ending}")
    label = nibabel.load(folder / "labelsTr" / f"{case}{ending}")
    assert image.shape == label.shape
    assert len(image.shape) == 3
    assert np.array_equal(image.header.get_zooms(), label.header.get_zooms())
    assert np.array_equal(image.affine, label.affine)
    assert np.isfinite(np.asanyarray(image.dataobj)).all()
    assert set(np.unique(np.asanyarray(label.dataobj))) <= set(labels)
