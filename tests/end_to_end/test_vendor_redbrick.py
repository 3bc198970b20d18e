"""RedBrick's own SDK, unmodified, exports from the simulated RedBrick what the simulator holds.

The SDK runs under its own Python: the one that GROUNDWIRE_SDK_PYTHON_REDBRICK names, else one in
``.venv-redbrick-sdk`` at the project's root, made at the first run.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gzip
import json
import operator
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy
import pytest

from consumer.demo.redbrick import Drawing, Instance, SeriesSpec, SimulatedRedBrick
from consumer.demo.redbrick_masks import nifti
from consumer.download import Downloader
from consumer.model import JsonPath, TaskKey, TaskSnapshot
from consumer.platforms.redbrick import RedBrick
from consumer.platforms.redbrick_variants import Masks
from handlers.formats.label_map import LabelMap
from handlers.formats.nifti import read_label_map
from handlers.formats.variants import binary, semantic
from tests.end_to_end.vendor_redbrick_shapes import OTHER_SHAPES
from tests.loopback import LOOPBACK

_ROOT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).with_name("vendor_redbrick.py")
_SDK = "redbrick-sdk==2.35.4"

pytestmark = [pytest.mark.vendor, pytest.mark.timeout(600)]  # the first run installs the SDK


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


async def exported(
    python: str, simulator: SimulatedRedBrick, folder: Path, masks: str = "instance"
) -> dict[str, Any]:
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
            masks,
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


async def built(simulator: SimulatedRedBrick, masks: Masks = "instance") -> dict[str, TaskSnapshot]:
    """What our own client makes of the same tasks, by task id."""
    downloader = Downloader(networks=LOOPBACK)
    async with simulator.serve() as url:
        platform = RedBrick(
            "redbrick",
            secrets=[b"token"],
            api_key=simulator.api_key,
            organization=simulator.org_id,
            downloader=downloader,
            api_url=url,
            masks=masks,
        )
        project = simulator.projects[simulator.project_id]
        keys = [
            TaskKey(source="redbrick", project=simulator.project_id, task=task)
            for task in project.tasks
        ]
        answers = await platform.fetch(keys)
        await platform.close()
        await downloader.close()
    return {key.task: answer for key, answer in answers.items() if isinstance(answer, TaskSnapshot)}


def unnamed(value: Any) -> Any:
    """The same with every file named alike, because their names are the export's to choose; a list
    of several is as long as it is."""
    if not isinstance(value, dict):
        return [unnamed(item) for item in value] if isinstance(value, list) else value
    kept = {key: unnamed(item) for key, item in value.items()}
    if "mask" in kept:
        kept["mask"] = "named"
    if isinstance(files := kept.get("segmentations"), list):
        kept["segmentations"] = ["named"] * len(files)
    elif files:
        kept["segmentations"] = "named"
    return kept


def filled(snapshot: TaskSnapshot, files: Mapping[str, bytes], masks: Masks) -> dict[str, Any]:
    """Our document with a name wherever the export writes one, by the masks that it would make."""
    document = copy.deepcopy(snapshot.document)

    def name(slot: JsonPath, value: Any) -> None:
        if slot:
            functools.reduce(operator.getitem, slot[:-1], cast(Any, document))[slot[-1]] = value

    for series in (series for label in snapshot.labels for series in label.series):
        for mask in series.masks:
            label_map = read_label_map(files[json.loads(mask.reference)[1]])
            drawn = [segment.value for segment, _ in binary(label_map, series.segments)]
            several = {"instance": "named", "semantic": ["named"], "binary": ["named"] * len(drawn)}
            name(series.slot, several[masks])
            for segment in series.segments:
                if masks != "binary" or segment.value in drawn:
                    name(segment.slot, "named")
    return document


@pytest.mark.parametrize("in_files", [False, True], ids=["labels inline", "labels in files"])
@pytest.mark.parametrize("consensus", [False, True], ids=["alone", "consensus"])
@pytest.mark.parametrize("masks", ["instance", "binary", "semantic"])
async def test_our_document_is_the_sdk_s_entry(
    sdk_python: str, tmp_path: Path, masks: Masks, *, consensus: bool, in_files: bool
) -> None:
    simulator = SimulatedRedBrick(reviews=2, consensus=consensus, labels_in_files=in_files)
    everyone = ["ben", "dora"] if consensus else ["ben"]
    final, second, first, open_, untouched = (
        simulator.create_task(
            f"study{n}",
            [SeriesSpec("ct", items=("b.dcm", "a.dcm"), meta_data={"kv": "120"}), SeriesSpec()],
            meta_data={"site": "two"},
            priority=0.0,
        )
        for n in range(5)
    )
    for task_id in (final, second, first, open_):
        simulator.assign(task_id, *everyone)
    for task_id in (final, second, first):
        for person in everyone:
            instances = (Instance(1, 0, attributes={0: 1, 1: "true"}), Instance(2, 1, (3,)))
            more = (*instances, Instance(4, 1))  # a second one of its class
            simulator.label(task_id, [Drawing(0, more)], by=person, extra=OTHER_SHAPES)
    simulator.save(open_, by="ben")
    simulator.skip(untouched)
    for task_id in (final, second, final):
        simulator.approve(task_id)
    ours = await built(simulator, masks)
    theirs = await exported(sdk_python, simulator, tmp_path, masks)
    assert [task.stage for task in ours.values()] == [
        "END", "Review_2", "Review_1", "Label", "Label",
    ]  # fmt: skip
    for task in theirs["tasks"]:
        assert filled(ours[task["taskId"]], simulator.files, masks) == unnamed(task)


def overlapping_masks(simulator: SimulatedRedBrick) -> str:
    """A task with instances that overlap within a class and across classes, in a mask of one byte
    and one of two, and with one that is drawn nowhere. Returns its id."""
    rng = numpy.random.default_rng(5)
    series = SeriesSpec("ct", dimensions=(9, 7, 5), origin=(-8.0, -7.5, 40.0))
    instances = (
        Instance(1, 2, (11, 12)),
        Instance(2, 0, (11,)),
        Instance(3, 2, (12, 13)),
        Instance(5, 1, (13,)),
        Instance(6, 1),  # drawn nowhere
    )
    drawn = rng.choice([0, 0, 1, 2, 3, 5, 11, 12, 13], series.dimensions)
    wide = numpy.where(drawn == 5, 300, drawn)
    few = tuple(Instance(300, 1, (13,)) if one.id == 5 else one for one in instances)
    task_id = simulator.create_task("study01", [series, replace(series, name="wide")])
    simulator.label(
        task_id,
        [
            Drawing(0, instances, nifti(drawn, series)),
            Drawing(1, few, nifti(wide, series)),
        ],
    )
    return task_id


def listed(mask: Mapping[str, Any]) -> tuple[Any, ...]:
    return mask["shape"], mask["voxels"]


def as_listed(label_map: LabelMap) -> tuple[Any, ...]:
    return list(label_map.shape), label_map.array.flatten(order="F").tolist()


@pytest.mark.parametrize("masks", ["binary", "semantic"])
async def test_our_masks_are_the_sdk_s_voxel_by_voxel(
    sdk_python: str, tmp_path: Path, masks: Masks
) -> None:
    simulator = SimulatedRedBrick()
    ours = {}
    task_id = overlapping_masks(simulator)
    theirs = await exported(sdk_python, simulator, tmp_path, masks)
    (label,) = (await built(simulator, masks))[task_id].labels
    for series in label.series:
        label_map = read_label_map(simulator.files[json.loads(series.masks[0].reference)[1]])
        stem = f"segmentations/study01/{series.name}"
        if masks == "semantic":
            ours[f"{stem}.nii.gz"] = as_listed(semantic(label_map, series.segments).label_map)
        for segment, mask in binary(label_map, series.segments) if masks == "binary" else ():
            ours[f"{stem}/instance-{segment.value}.nii.gz"] = as_listed(mask)
    made = "instance-" if masks == "binary" else ""  # the SDK leaves the source beside them
    assert ours == {p: listed(mask) for p, mask in theirs["masks"].items() if made in p}
    assert len(ours) == (8 if masks == "binary" else 2)
