"""Programs that nobody here wrote, which read what we write."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK
from highdicom.seg import Segmentation
from numpy.typing import NDArray

from handlers.formats.grid import Grid

DCMQI = Path(sys.executable).with_name("segimage2itkimage")
RAS = np.diag([-1.0, -1.0, 1.0])


def by_plastimatch(
    rtstruct: bytes, folder: Path, *, images: Path | None = None, grid: Grid | None = None
) -> dict[str, NDArray[np.bool_]]:
    """The regions by name, (i, j, k), on the grid that plastimatch finds in a folder of images or
    is told."""
    path, out = folder / "rtstruct.dcm", folder / "regions"
    path.write_bytes(rtstruct)
    if grid is None:
        onto = ["--referenced-ct", str(images)]
    else:
        onto = ["--fixed", str(_write_empty(grid, folder / "grid.nrrd"))]
    prefix = ["--output-prefix", str(out), "--prefix-format", "nrrd"]
    _run("plastimatch", "convert", "--input", str(path), *onto, *prefix)
    return {
        found.stem: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(found))).transpose(2, 1, 0)
        > 0
        for found in out.glob("*.nrrd")
    }


def by_dcmqi(seg: bytes, folder: Path, grid: Grid) -> dict[int, NDArray[Any]]:
    """By the number in each file's name (BINARY: of the segment), its voxels laid into the grid.
    Fails where a voxel lies further than a tenth of one from a place in the grid."""
    path, out = folder / "seg.dcm", folder / "segments"
    path.write_bytes(seg)
    out.mkdir()
    options = ["--inputDICOM", str(path), "--outputDirectory", str(out), "--prefix", "p"]
    _run(str(DCMQI), *options, "-t", "nii")
    return {
        int(found.name.removesuffix(".nii.gz").split("-")[1]): _laid(
            np.asanyarray((image := nibabel.load(found)).dataobj), image.affine, grid
        )
        for found in out.glob("*.nii.gz")
    }


def by_highdicom(seg: bytes, grid: Grid) -> NDArray[Any]:
    """The segment number of each voxel, laid into the grid."""
    dataset = pydicom.dcmread(io.BytesIO(seg))
    volume = Segmentation.from_dataset(dataset).get_volume(combine_segments=True)
    return _laid(volume.array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine, grid)


def _laid(values: NDArray[Any], affine: NDArray[np.float64], grid: Grid) -> NDArray[Any]:
    """Values on another grid, whose affine is to RAS, at the same places of this one."""
    where = np.argwhere(values)
    to_grid = np.linalg.inv(np.asarray(grid.affine)) @ affine
    places = where @ to_grid[:3, :3].T + to_grid[:3, 3]
    voxels = np.rint(places).astype(int)
    assert np.abs(places - voxels).max(initial=0) < 0.1
    laid = np.zeros(grid.shape, values.dtype)
    laid[tuple(voxels.T)] = values[tuple(where.T)]
    return laid


def _write_empty(grid: Grid, path: Path) -> Path:
    image = SimpleITK.Image(*grid.shape, SimpleITK.sitkUInt8)
    axes = RAS @ np.asarray(grid.affine)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    image.SetOrigin((RAS @ np.asarray(grid.affine)[:3, 3]).tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
