"""A CT series to compressed NIfTI, beside dcm2niix, which only copies it out (``-z n``), and beside
the time that packing the very same bytes takes alone; each in a process of its own."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from isal import isal_zlib
from pydicom.dataset import Dataset

from handlers.formats.dicom import read_series
from tests.bench.table import Candidate, Result
from tests.handlers.formats.dicom_phantoms import Scan, series, set_pixels, write

PEER, PACKING = "dcm2niix -z n", "isal alone, the same bytes"
OURS = "groundwire, read, convert and pack"


def run(*, quick: bool) -> Iterator[Result]:
    shape = (256, 256, 100) if quick else (512, 512, 300)
    samples: dict[str, list[float]] = {PEER: [], PACKING: [], OURS: []}
    peaks: dict[str, float] = {}
    hashes: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="groundwire-bench-") as name:
        folder = Path(name)
        _write_series(folder / "in", shape)
        for _ in range(3 if quick else 5):
            seconds, peak = _dcm2niix(folder)
            told = _child(folder)
            times = (seconds, float(told["packing"]), float(told["seconds"]))
            for who, sample in zip(samples, times, strict=True):
                samples[who].append(sample)
            peaks[PEER] = max(peaks.get(PEER, 0), peak)
            peaks[OURS] = max(peaks.get(OURS, 0), float(told["peak_mb"]))
            hashes.add(str(told["sha256"]))
    array_mb = 2 * np.prod(shape) / 1e6
    yield Result(
        f"A CT of {shape[0]} x {shape[1]} x {shape[2]} to NIfTI, arrays of {array_mb:.0f} MB",
        "seconds",
        [
            Candidate(who, samples[who], (f"{peaks[who]:.0f} MB" if who in peaks else "",))
            for who in samples
        ],
        columns=("peak memory",),
        remark=f"{len(hashes)} different result(s) in {len(samples[OURS])} runs; the aim: at most "
        "twice dcm2niix and isal's time in all, and 150 MB beside the array",
    )


def _dcm2niix(folder: Path) -> tuple[float, float]:
    """Seconds, and peak memory in MB."""
    program = str(Path(sys.executable).with_name("dcm2niix"))
    options = ["-z", "n", "-b", "n", "-w", "1", "-f", "theirs", "-o"]
    code = (
        "import json, resource, subprocess, sys, time\n"
        "began = time.perf_counter()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "seconds = time.perf_counter() - began\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([seconds, peak * 1024 / 1e6]))\n"
    )
    command = [sys.executable, "-c", code, program, *options, str(folder), str(folder / "in")]
    seconds, peak = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return float(seconds), float(peak)


def _child(folder: Path) -> dict[str, float | str]:
    command = [sys.executable, "-m", "tests.bench.volumes", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, float | str] = json.loads(done.stdout)
    return told


def _measure(folder: Path) -> dict[str, float | str]:
    files = [(path.name, path) for path in sorted((folder / "in").iterdir())]
    target = folder / "ours.nii.gz"
    began = time.perf_counter()
    with target.open("wb") as out:
        read_series(files).write_nifti(out)
    seconds = time.perf_counter() - began
    peak = _peak_mb()
    packed = target.read_bytes()
    voxels = gzip.decompress(packed)
    began = time.perf_counter()
    pack = isal_zlib.compressobj(level=1, wbits=31)
    len(pack.compress(voxels) + pack.flush())
    return {
        "seconds": seconds,
        "packing": time.perf_counter() - began,
        "peak_mb": peak,
        "sha256": hashlib.sha256(packed).hexdigest(),
    }


def _peak_mb() -> float:
    """Of this program alone; what ``getrusage`` tells has the parent's in it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def _write_series(folder: Path, shape: tuple[int, int, int]) -> None:
    """Tissue with the noise of a scanner in air, and headers as long as a scanner's."""
    scan = Scan(
        *shape, bits_stored=12, signed=False, least=0, largest=4095, rescale=(1, -1024), pitch=1
    )
    random = np.random.default_rng(1)
    x, y = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    for k, dataset in enumerate(series(scan)):
        body = (x / 0.7) ** 2 + (y / (0.5 + 0.1 * np.sin(k / 30))) ** 2 < 1
        values = np.where(body, 1064, 24) + random.normal(0, 15, shape[:2])
        set_pixels(dataset, values.clip(0, 4095).astype("<u2"))
        _lengthen(dataset)
        write([dataset], folder)[0][1].rename(folder / f"slice-{k:04}.dcm")


def _lengthen(dataset: Dataset) -> None:
    dataset.add_new(0x00190010, "LO", "GROUNDWIRE BENCH")
    for number in range(0x1000, 0x1050):
        dataset.add_new(0x00190000 + number, "DS", "1.25")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(Path(sys.argv[1]))))
