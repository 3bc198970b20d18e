"""Exports a project with RedBrick's own SDK and prints, as JSON, what it got.

Run by a Python that has ``redbrick-sdk`` installed, which ours has not:
``python vendor_redbrick.py URL API_KEY ORG_ID PROJECT_ID DESTINATION [MASKS]``; the URL must
contain ``localhost``, or the SDK rewrites it; MASKS is instance, binary or semantic. Prints
``{"tasks": [...], "ground_truth": [task ids], "events": [...], "masks": {path: {"shape", "affine",
"voxels", "dtype"}}}`` where ``voxels`` are the values in Fortran order and paths are relative to
``DESTINATION``.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

os.environ["REDBRICK_DISABLE_VERSION_CHECK"] = "1"
os.environ["REDBRICK_SDK_LOG_LEVEL"] = str(logging.WARNING)


def main(
    url: str,
    api_key: str,
    org_id: str,
    project_id: str,
    destination: str,
    masks: str = "instance",
) -> None:
    import redbrick

    project = redbrick.get_project(org_id, project_id, api_key, url)
    tasks = list(
        project.export.export_tasks(
            binary_mask=masks == "binary",
            semantic_mask=masks == "semantic",
            destination=destination,
        )
    )
    ground_truth = project.export.export_tasks(
        only_ground_truth=True, without_masks=True, without_json=True, destination=destination
    )
    events = project.export.get_task_events(only_ground_truth=False)
    sys.stdout.write(
        json.dumps(
            {
                "tasks": [_relative(task, destination) for task in tasks],
                "ground_truth": [task["taskId"] for task in ground_truth],
                "events": list(events),
                "masks": _masks(Path(destination)),
            }
        )
    )


def _relative(value: Any, destination: str) -> Any:
    if isinstance(value, dict):
        return {key: _relative(item, destination) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, destination) for item in value]
    if isinstance(value, str) and value.startswith(destination):
        return os.path.relpath(value, destination)
    return value


def _masks(destination: Path) -> dict[str, Any]:
    import nibabel
    import numpy

    found = {}
    for path in sorted(destination.rglob("*.nii.gz")):
        image = nibabel.load(path)
        voxels = numpy.asanyarray(image.dataobj)
        found[path.relative_to(destination).as_posix()] = {
            "shape": list(voxels.shape),
            "affine": image.affine.tolist(),
            "dtype": str(voxels.dtype),
            "voxels": voxels.flatten(order="F").tolist(),
        }
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
