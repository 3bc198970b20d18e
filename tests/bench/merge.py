"""A mask of instances merged into one of classes: by RedBrick's own SDK, and by ours.

Both start from one file, in turns, and their results are compared voxel by voxel.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumer.model import Segment
from handlers.formats import nifti
from handlers.formats.label_map import LabelMap
from handlers.formats.variants import semantic
from tests.bench.exports import sdk_python
from tests.bench.table import Candidate, Result

INSTANCES, CLASSES = 116, 12
AFFINE = ((-0.7, 0.0, 0.0, 179.0), (0.0, -0.7, 0.0, 179.0), (0.0, 0.0, 1.0, 0.0), (0, 0, 0, 1.0))


@dataclass(slots=True)
class Way:
    """One program's seconds, in memory and from file to file."""

    name: str
    merges: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)


def run(*, quick: bool) -> Iterator[Result]:
    shape = (256, 256, 100) if quick else (512, 512, 300)
    with tempfile.TemporaryDirectory(prefix="groundwire-bench-") as name:
        source = Path(name) / "source.nii.gz"
        voxels = _organs(shape)
        source.write_bytes(nifti.write_label_map(LabelMap(voxels, AFFINE)))
        ways, remark = _measure(source, rounds=2 if quick else 3)
    title = f"{INSTANCES} instances merged into {CLASSES} classes, {' x '.join(map(str, shape))}"
    filled = f"{np.count_nonzero(voxels) / voxels.size:.0%} of the voxels are drawn. {remark}"
    for how, seconds in (("in memory", "merges"), ("from file to file", "files")):
        candidates = [Candidate(way.name, getattr(way, seconds)) for way in ways]
        yield Result(f"{title}, {how}", "seconds", candidates, remark=filled)


def _measure(source: Path, *, rounds: int) -> tuple[list[Way], str]:
    segments = [
        Segment(value=n, category=f"class {n % CLASSES}", category_value=1 + n % CLASSES)
        for n in range(1, INSTANCES + 1)
    ]
    ours, target = Way("groundwire"), source.with_name("ours.nii.gz")
    python = sdk_python()
    if python is None:
        for _ in range(rounds):
            _merge(source, target, segments, ours)
        return [ours], "The peer, RedBrick's SDK, is absent: see tests/end_to_end."
    theirs, theirs_target = Way("RedBrick's SDK"), source.with_name("theirs.nii.gz")
    labels = [
        {"dicom": {"instanceid": one.value}, "classid": (one.category_value or 0) - 1}
        for one in segments
    ]
    script = Path(__file__).with_name("vendor_merge.py")
    command = [python, str(script), str(source), str(theirs_target), json.dumps(labels)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sdk:
        assert sdk.stdin is not None
        assert sdk.stdout is not None
        for _ in range(rounds):
            sdk.stdin.write("go\n")
            sdk.stdin.flush()
            told = next(line for line in sdk.stdout if line.startswith("seconds "))
            merge, file = told.split()[1:]
            theirs.merges.append(float(merge))
            theirs.files.append(float(file))
            _merge(source, target, segments, ours)
        sdk.stdin.close()
    made = [nifti.read_label_map(path.read_bytes()).array for path in (theirs_target, target)]
    equal = "the same voxels" if np.array_equal(*made) else "DIFFERENT VOXELS"
    return [theirs, ours], f"Both give {equal}."


def _merge(source: Path, target: Path, segments: list[Segment], way: Way) -> None:
    began = time.perf_counter()
    label_map = nifti.read_label_map(source.read_bytes())
    read = time.perf_counter()
    made = semantic(label_map, segments)
    way.merges.append(time.perf_counter() - read)
    target.write_bytes(nifti.write_label_map(made.label_map))
    way.files.append(time.perf_counter() - began)


def _organs(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Ellipsoids all over a body, the later over the earlier, as in a scan with every organ
    segmented."""
    random = np.random.default_rng(1)
    voxels = np.zeros(shape, np.uint8, order="F")
    for value in range(1, INSTANCES + 1):
        centre = random.uniform(0.15, 0.85, 3) * shape
        radius = random.uniform(0.05, 0.11, 3) * shape
        low, high = np.maximum(centre - radius, 0), np.minimum(centre + radius + 1, shape)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        grid = np.ogrid[box]
        parts = zip(grid, centre, radius, strict=True)
        voxels[box][sum(((g - c) / r) ** 2 for g, c, r in parts) < 1] = value
    return voxels
