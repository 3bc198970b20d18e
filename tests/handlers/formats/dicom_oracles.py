"""What independent programs make of a series, and whether it is what we make of it.

Converters store volumes in different orientations; they are compared after both are turned to the
nearest of RAS+, voxel by voxel and matrix element by matrix element.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dicom2nifti
import dicom2nifti.settings
import nibabel
import numpy as np
from dicom2nifti.exceptions import ConversionError, ConversionValidationError
from numpy.typing import NDArray

from handlers.formats.dicom import read_series

AFFINE_MM = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """A volume turned to the nearest of RAS+; ``raw`` is as it was stored."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    raw: nibabel.Nifti1Image


def ours(files: Sequence[tuple[str, Path]], **options: Any) -> Converted:
    out = io.BytesIO()
    read_series(files, **options).write_nifti(out)
    return _turned(nibabel.Nifti1Image.from_bytes(_unpacked(out.getvalue())))


def by_dcm2niix(folder: Path, out: Path) -> list[Converted]:
    """All volumes that it makes of the folder; none where it finds no image."""
    out.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("dcm2niix")
    options = ["-z", "n", "-b", "n", "-p", "n", "-f", "%s_%j", "-o"]
    command = [str(program), *options, str(out), str(folder)]
    subprocess.run(command, capture_output=True, check=False, timeout=60)
    return [_turned(nibabel.load(path)) for path in sorted(out.glob("*.nii"))]


def by_dicom2nifti(folder: Path, out: Path) -> Converted | None:
    """None where it refuses; its rule that a volume has four slices or more is switched off."""
    out.mkdir(parents=True, exist_ok=True)
    dicom2nifti.settings.disable_validate_slicecount()
    try:
        path = out / "volume.nii"
        dicom2nifti.dicom_series_to_nifti(folder, path, reorient_nifti=False)
    except (ConversionError, ConversionValidationError, AttributeError, KeyError, IndexError):
        return None
    return _turned(nibabel.load(path))


def same_voxels(one: Converted, other: Converted) -> bool:
    """Of one shape and, but for the rounding of a float32 slope, one value each."""
    if one.voxels.shape != other.voxels.shape:
        return False
    return bool(np.allclose(one.voxels, other.voxels, rtol=2e-6, atol=1e-6))


def same_place(one: Converted, other: Converted) -> bool:
    return bool(np.abs(one.affine - other.affine).max() <= AFFINE_MM)


def _turned(image: Any) -> Converted:
    canonical = nibabel.as_closest_canonical(image)
    voxels = np.asanyarray(canonical.dataobj)
    return Converted(voxels, np.asarray(canonical.affine, np.float64), image)


def _unpacked(data: bytes) -> bytes:
    return gzip.decompress(data)
