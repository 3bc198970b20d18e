"""A small file that becomes, or says to be, enormous is refused with its reason, in little time and
bounded memory; so is what is damaged in any way. Real limits: the process may not grow further.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.seeds import seeds

CPU_S = 15.0  # for one of them; a million empty DICOM items take most
ALL = {
    "png-pixels": "mask-too-large", "png-sides": "mask-too-large",
    "png-more-data-than-pixels": "mask-not-png", "png-fewer-data-than-pixels": "mask-not-png",
    "png-texts": "read", "png-animation": "read",  # never unpacked: a PNG's pixels are all we want
    "png-chunks": "mask-too-large", "png-idats": "mask-too-large",
    "png-chunk-size": "mask-truncated",
    "nifti-dims": "mask-too-large", "nifti-zeros": "mask-trailing-bytes",
    "nifti-after-the-end": "mask-trailing-bytes", "nifti-offset": "mask-bad-header",
    "nifti-offset-zeros": "mask-bad-header", "nifti-offset-nan": "mask-bad-header",
    "nifti-offset-inf": "mask-bad-header", "nifti-offset-minus": "mask-bad-header",
    "nifti-affine-nan": "mask-bad-geometry", "nifti-affine-inf": "mask-bad-geometry",
    "nifti-affine-minus": "mask-bad-geometry", "nifti-extension": "read",  # skipped by the offset
    "gzip-members": "mask-too-large", "gzip-nested": "mask-not-nifti",
    "gzip-zeros": "mask-not-nifti",
    "dicom-deflated": "dicom-header-too-large", "dicom-rows": "image-too-large",
    "dicom-columns": "image-too-large", "dicom-frames": "multi-frame-without-geometry",
    "dicom-length": "truncated-pixels", "dicom-depth": "dicom-damaged",
    "dicom-items": "dicom-header-too-large", "dicom-fragments": "undecodable-pixels",
    "zip-ratio": "archive-ratio", "zip-count": "too-many-images", "zip-nested": "images-nested",
    "zip-size-lie": "archive-unreadable", "zip-overlapping": "archive-ratio",
    "zip-directory-lie": "archive-unreadable", "zip-64-lie": "archive-ratio",
}  # fmt: skip


def shop(folder: Path, *numbers: int) -> list[tuple[str, str, float, int]]:
    """Name, what came of it, seconds of CPU, megabytes grown."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.bomb_shop", str(folder), *map(str, numbers)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.timeout(300)
def test_each_bomb_is_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    found = shop(tmp_path)
    assert {name: said for name, said, _, _ in found} == ALL
    assert max(took for _, _, took, _ in found) < CPU_S


@pytest.mark.timeout(300)
def test_what_is_damaged_at_random_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    """Reasons are slugs: no other exception leaves, lack of memory among them."""
    for first in range(0, len(seeds()), 100):
        folder = tmp_path / str(first)
        folder.mkdir()
        found = shop(folder, *seeds()[first : first + 100])
        wrong = [one for one in found if not re.fullmatch(r"[a-z0-9-]+", one[1])]
        assert wrong == []
        assert max(took for _, _, took, _ in found) < CPU_S
        assert len(found) == 5 * 25 * len(seeds()[first : first + 100])
