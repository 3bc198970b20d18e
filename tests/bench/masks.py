"""A mask on its way into the lake: read, checked, written; beside nibabel, which checks nothing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np

from consumer.model import Segment
from handlers.formats import nifti
from tests.bench.table import Candidate, Result

LABELS = 8


def run(*, quick: bool) -> Iterator[Result]:
    shape = (256, 256, 100) if quick else (512, 512, 300)
    with tempfile.TemporaryDirectory(prefix="groundwire-bench-") as name:
        source, target = Path(name) / "source.nii.gz", Path(name) / "target.nii.gz"
        _write_phantom(source, shape)
        segments = [Segment(value=n, category=f"organ {n}") for n in range(1, LABELS + 1)]

        def ours() -> None:
            label_map = nifti.read_label_map(source.read_bytes())
            nifti.check_label_map(label_map, segments, shape)
            target.write_bytes(nifti.write_label_map(label_map))

        def theirs() -> None:
            image = nibabel.load(source)
            voxels = np.asanyarray(image.dataobj)
            nibabel.save(nibabel.Nifti1Image(voxels, image.affine), target)

        doers: dict[str, Callable[[], None]] = {
            "nibabel, load and save": theirs,
            "groundwire, read, check and write": ours,
        }
        samples: dict[str, list[float]] = {who: [] for who in doers}
        sizes: dict[str, int] = {}
        for _ in range(3 if quick else 7):
            for who, do in doers.items():
                began = time.perf_counter()
                do()
                samples[who].append(time.perf_counter() - began)
                sizes[who] = target.stat().st_size
    yield Result(
        f"A label map of {shape[0]} x {shape[1]} x {shape[2]}, {LABELS} labels, rewritten",
        "seconds",
        [Candidate(who, samples[who], (f"{sizes[who] / 1e6:.2f} MB",)) for who in doers],
        columns=("written",),
    )


def _write_phantom(path: Path, shape: tuple[int, int, int]) -> None:
    """Ellipsoids side by side, as organs are: long runs, rough edges."""
    random = np.random.default_rng(1)
    voxels = np.zeros(shape, np.uint8)
    grid = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for value in range(1, LABELS + 1):
        centre = random.uniform(0.25, 0.75, 3) * shape
        radius = random.uniform(0.08, 0.2, 3) * shape
        distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True))
        voxels[distance + random.uniform(0, 0.1, shape) < 1] = value
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([0.7, 0.7, 1.0, 1.0])), path)
