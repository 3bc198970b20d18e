"""Pictures of a known volume as a platform would export them, under any convention: the words of
`ViewConvention` turned into loops over voxels, written without looking at how they are read."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.model import ExportRules, Mask, Series, ViewConvention
from handlers.formats.frames import Laid, volumes
from handlers.formats.grid import Grid

Volume = NDArray[np.bool_]
Files = dict[str, bytes]

DEFAULT = ViewConvention()
EVERY = [
    ViewConvention(frame_base=base, flip_x=x, flip_y=y, flip_frame=f)
    for base, x, y, f in product((0, 1), (False, True), (False, True), (False, True))
]
GROUPS = ("Axial", "Sagittal", "Coronal")


def png(picture: NDArray[np.generic]) -> bytes:
    """(row, column) flags, or (row, column, RGB)."""
    pixels = np.where(picture, 255, 0) if picture.dtype == np.bool_ else picture
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(volume: Volume, group: str, convention: ViewConvention) -> dict[int, Volume]:
    """(row, column) pictures by frame, of the frames where the object is."""
    ni, nj, nk = volume.shape
    made: dict[int, Volume] = {}
    for i, j, k in np.argwhere(volume):
        f, x, y, n, w, h = {
            "Axial": (k, i, j, nk, ni, nj),
            "Sagittal": (i, j, k, ni, nj, nk),
            "Coronal": (j, i, k, nj, ni, nk),
        }[group]
        frame = (n - 1 - f if convention.flip_frame else f) + convention.frame_base
        column = w - 1 - x if convention.flip_x else x
        row = h - 1 - y if convention.flip_y else y
        made.setdefault(int(frame), np.zeros((h, w), np.bool_))[row, column] = True
    return made


class Drawn:
    """A series whose masks are kept in memory."""

    def __init__(self) -> None:
        self.files: Files = {}
        self.masks: list[Mask] = []

    def add(
        self,
        feature: str,
        category: str | None,
        group: str,
        frames: Mapping[int, NDArray[np.generic]],
    ) -> None:
        for frame, picture in frames.items():
            reference = f"{feature}/{group}/{frame}"
            self.files[reference] = png(picture)
            self.mask(reference, feature, category, group, frame)

    def mask(
        self,
        reference: str,
        feature: str,
        category: str | None,
        group: str,
        frame: int,
        color: tuple[int, int, int] | None = None,
    ) -> None:
        self.masks.append(
            Mask(
                reference=reference,
                kind="png",
                group=group,
                feature=feature,
                frame=frame,
                category=category,
                color=color,
            )
        )

    @property
    def read(self) -> Callable[[Mask], bytes]:
        return lambda mask: self.files[mask.reference]

    def series(self) -> Series:
        return Series(name=None, masks=tuple(self.masks))

    def laid(self, place: Grid | Iterable[int], rules: ExportRules | None = None) -> list[Laid]:
        where = place if isinstance(place, Grid) else tuple(place)
        return list(volumes(self.series(), self.read, where, rules or ExportRules()))


def only(made: list[Laid]) -> Laid:
    (one,) = made
    return one


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> Volume:
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    inside: Volume = (i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2 <= radius**2
    return inside
