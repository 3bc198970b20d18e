"""RedBrick's own SDK, unmodified, exports from the simulated RedBrick what the simulator holds.

The SDK runs under its own Python: the one that GROUNDWIRE_SDK_PYTHON_REDBRICK names, else one in
``.venv-redbrick-sdk`` at the project's root, made at the first run.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy
import pytest

from consumer.demo.redbrick import Drawing, Instance, SeriesSpec, SimulatedRedBrick

_ROOT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).with_name("vendor_redbrick.py")
_SDK = "redbrick-sdk==2.35.4"

pytestmark = pytest.mark.timeout(600)  # the first run installs the SDK


@pytest.fixture(scope="session")
def sdk_python() -> str:
    named = os.environ.get("GROUNDWIRE_SDK_PYTHON_REDBRICK")
    if named:
        return named
    folder = _ROOT / ".venv-redbrick-sdk"
    python = folder / "bin" / "python"
    finished = folder / "installed"
    if not finished.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", _SDK], check=True)
        finished.write_text(_SDK)
    return str(python)


async def exported(python: str, simulator: SimulatedRedBrick, folder: Path) -> dict[str, Any]:
    """What the SDK got of the simulator's first project."""
    async with simulator.serve() as url:
        process = await asyncio.create_subprocess_exec(
            python,
            str(_SCRIPT),
            url.replace("127.0.0.1", "localhost"),
            simulator.api_key,
            simulator.org_id,
            simulator.project_id,
            str(folder),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": str(folder), "VIRTUAL_ENV": ""},
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    got: dict[str, Any] = json.loads(out)
    return got


def a_project_in_every_state() -> SimulatedRedBrick:
    simulator = SimulatedRedBrick(reviews=2)
    approved = simulator.create_task(
        "study01",
        [
            SeriesSpec("ct", items=("a.dcm", "b.dcm"), origin=(-8.0, -7.5, 40.0)),
            SeriesSpec(None, items=("c.dcm",), dimensions=(9, 7, 5)),
            SeriesSpec("ct", items=("d.dcm",), spacing=(0.7, 0.7, 5.0)),
        ],
        meta_data={"scanner": "two"},
        priority=0.25,
    )
    drawn = Instance(1, 0, attributes={0: 1, 1: "left lobe"})
    overlapping = Instance(2, 1, group_ids=(3,))
    simulator.label(approved, [Drawing(0, (drawn, overlapping)), Drawing(1), Drawing(2)])
    simulator.reject(approved)
    simulator.label(approved, [Drawing(0, (drawn, overlapping)), Drawing(1), Drawing(2)])
    simulator.approve(approved)
    simulator.comment(approved, "the lower pole is missing")
    simulator.correct(approved, [Drawing(0, (Instance(300, 2),)), Drawing(1)], by="dora")
    in_review = simulator.create_task("study02")
    simulator.label(in_review)
    skipped = simulator.create_task("study03")
    simulator.skip(skipped)
    simulator.create_task("study04")
    simulator.delete(simulator.create_task("study05"))
    return simulator


async def test_the_sdk_exports_every_task_at_its_stage(sdk_python: str, tmp_path: Path) -> None:
    simulator = a_project_in_every_state()
    got = await exported(sdk_python, simulator, tmp_path)
    tasks = simulator.projects[simulator.project_id].tasks.values()
    assert {(t["taskId"], t["name"], t["currentStageName"]) for t in got["tasks"]} == {
        (task.task_id, task.name, task.stage) for task in tasks
    }
    assert {t["labelsId"] for t in got["tasks"]} == {t.latest.td_id for t in tasks if t.latest}
    assert got["ground_truth"] == [task.task_id for task in tasks if task.stage == "END"]
    assert {t["name"]: t.get("status") for t in got["tasks"]}["study03"] == "SKIPPED"


async def test_the_sdk_exports_the_masks_voxel_by_voxel(sdk_python: str, tmp_path: Path) -> None:
    simulator = a_project_in_every_state()
    got = await exported(sdk_python, simulator, tmp_path)
    names = ["study01/ct", "study01/B", "study02/A"]
    assert sorted(got["masks"]) == sorted(f"segmentations/{name}.nii.gz" for name in names)
    held = {
        f"segmentations/{task.name}/{name}.nii.gz": simulator.files[path]
        for task in simulator.projects[simulator.project_id].tasks.values()
        if task.latest
        for (_, path), name in zip(
            task.latest.masks, ["ct", "B"] if task.name == "study01" else ["A"], strict=False
        )
    }
    for path, mask in got["masks"].items():
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(held[path]))
        voxels = numpy.asanyarray(image.dataobj)
        assert mask["shape"] == list(voxels.shape)
        assert mask["voxels"] == voxels.flatten(order="F").tolist()
        assert numpy.allclose(mask["affine"], image.affine)
        assert max(mask["voxels"]) == (300 if path.endswith("ct.nii.gz") else 1)


async def test_the_sdk_reports_who_did_what(sdk_python: str, tmp_path: Path) -> None:
    simulator = a_project_in_every_state()
    got = await exported(sdk_python, simulator, tmp_path)
    events = {task["taskName"]: task["events"] for task in got["events"]}
    told = [(e["eventType"], e.get("stage"), e.get("updatedBy")) for e in events["study01"]]
    judged = [t for t in told if t[0] not in ("TASK_CREATED", "TASK_ASSIGNED", "COMMENT_ADDED")]
    assert judged == [
        ("TASK_SUBMITTED", "Label", "ben@hospital.example"),
        ("TASK_REJECTED", "Review_1", "cleo@hospital.example"),
        ("TASK_SUBMITTED", "Label", "ben@hospital.example"),
        ("TASK_ACCEPTED", "Review_1", "cleo@hospital.example"),
        ("TASK_CORRECTED", "Review_2", "dora@hospital.example"),
    ]
    assert [e["eventType"] for e in events["study03"]] == [
        "TASK_CREATED",
        "TASK_ASSIGNED",
        "TASK_SKIPPED",
    ]


async def test_the_sdk_exports_a_consensus_with_labels_in_files(
    sdk_python: str, tmp_path: Path
) -> None:
    simulator = SimulatedRedBrick(consensus=True, labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.assign(task_id, "ben", "dora")
    simulator.label(task_id, [Drawing(0, (Instance(1, 1),))], by="ben")
    simulator.label(task_id, [Drawing(0, (Instance(1, 2),))], by="dora")
    simulator.approve(task_id)
    got = await exported(sdk_python, simulator, tmp_path)
    (task,) = got["tasks"]
    assert task["superTruth"]["labelsId"] == task["consensusTasks"][0]["labelsId"]
    categories = [t["series"][0]["segmentMap"]["1"]["category"] for t in task["consensusTasks"]]
    assert categories == ["lesion", "vessel"]
    assert [t["updatedBy"] for t in task["consensusTasks"]] == [
        "ben@hospital.example",
        "dora@hospital.example",
    ]
