"""The voxels of a NIfTI image on disk, for the eye."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from consumer.errors import Refused
from handlers.formats.label_map import MAX_VOXELS


def read_voxels(file: Path, shape: tuple[int, int, int]) -> NDArray[Any]:
    """(i, j, k), of several times the first. Raises ``Refused`` when it is no such image, or
    of another shape than ``shape``."""
    try:
        image: Any = nibabel.load(file)
        if image.shape[:3] != shape or int(np.prod(image.shape)) > MAX_VOXELS:
            raise Refused("image-other-shape", f"the image has {image.shape} voxels, not {shape}")
        voxels = image.dataobj[..., 0] if len(image.shape) == 4 else image.dataobj
        array: NDArray[Any] = np.asanyarray(voxels)
    except (ImageFileError, OSError, ValueError, EOFError, AttributeError) as error:
        raise Refused("image-unreadable", "the image is no NIfTI volume") from error
    if array.dtype.kind not in "iuf" or array.shape != shape:
        raise Refused("image-unreadable", "the image holds no single number for each voxel")
    return array
