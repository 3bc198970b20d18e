"""A label map from single frames: 300 pictures of 512 x 512, in a process of its own, whose peak
memory is told beyond that of its array."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.model import ExportRules, Mask, Series
from handlers.formats.frames import volumes
from tests.bench.table import Candidate, Result

CASES = {
    "one object, axial": (1, ("Axial",)),
    "eight objects, axial": (8, ("Axial",)),
    "one object, in all three groups": (1, ("Axial", "Sagittal", "Coronal")),
}


def run(*, quick: bool) -> Iterator[Result]:
    shape = (256, 256, 100) if quick else (512, 512, 300)
    candidates = []
    for name in CASES:
        told = [_child(name, shape) for _ in range(2 if quick else 5)]
        beyond = max(one["peak_mb"] for one in told) - told[0]["array_mb"]
        candidates.append(
            Candidate(
                name,
                [one["seconds"] for one in told],
                (str(told[0]["pictures"]), f"{told[0]['array_mb']:.0f} MB", f"{beyond:.0f} MB"),
            )
        )
    yield Result(
        f"A label map of {shape[0]} x {shape[1]} x {shape[2]} from single frames",
        "seconds",
        candidates,
        columns=("pictures", "array", "peak beyond it"),
    )


def _child(name: str, shape: tuple[int, int, int]) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.frames", name, *map(str, shape)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _measure(name: str, shape: tuple[int, int, int]) -> dict[str, float]:
    count, groups = CASES[name]
    masks = tuple(
        Mask(
            reference=f"{n}/{group}/{frame}",
            kind="png",
            group=group,
            feature=str(n),
            frame=frame,
            category=str(n),
        )
        for n in range(count)
        for group in groups
        for frame in range(1, shape[{"Axial": 2, "Sagittal": 0, "Coronal": 1}[group]] + 1)
    )
    paint = _painter(shape, count)
    pictures = {mask.reference: paint(mask) for mask in masks}
    began = time.perf_counter()
    series = Series(name=None, masks=masks)
    (laid,) = volumes(series, lambda mask: pictures[mask.reference], shape, ExportRules())
    return {
        "seconds": time.perf_counter() - began,
        "pictures": len(masks),
        "array_mb": laid.label_map.array.nbytes / 1e6,
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    """Of this program alone: getrusage would begin with what its parent had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _painter(shape: tuple[int, int, int], count: int) -> Callable[[Mask], bytes]:
    """Ellipsoids side by side."""

    def picture(mask: Mask) -> bytes:
        number, frame = int(mask.feature or 0), (mask.frame or 0) - 1
        centre = ((number + 0.5) / count, 0.5, 0.5)
        axes = {"Axial": (0, 1, 2), "Sagittal": (1, 2, 0), "Coronal": (0, 2, 1)}[mask.group or ""]
        x, y, f = (
            (np.arange(shape[axis]) / shape[axis] - centre[axis])
            / (0.45 / count if axis == 0 else 0.45)
            for axis in axes
        )
        inside: NDArray[np.bool_] = x[None, :] ** 2 + y[:, None] ** 2 <= 1 - f[frame] ** 2
        buffer = io.BytesIO()
        Image.fromarray(inside).save(buffer, "PNG")
        return buffer.getvalue()

    return picture


if __name__ == "__main__":
    columns, rows, slices = map(int, sys.argv[2:])
    sys.stdout.write(json.dumps(_measure(sys.argv[1], (columns, rows, slices))))
