"""Masks of one object each take the memory of a few volumes, however many objects there are."""

from __future__ import annotations

import tracemalloc

import numpy as np

from consumer.model import ExportRules, Label, Mask, Series
from handlers.conversion import Around
from handlers.formats.grid import Grid
from handlers.framed import convert_frames
from handlers.images import Place
from handlers.units import Unit
from tests.handlers.formats.frame_samples import png

SHAPE = (128, 128, 64)
AFFINE = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
OBJECTS = 12


def test_masks_of_many_objects_are_made_one_at_a_time() -> None:
    pictures, masks = {}, []
    for number in range(OBJECTS):
        picture = np.zeros(SHAPE[:2], np.bool_)
        picture[number : number + 9, 20:40] = True
        pictures[f"{number}"] = png(picture)
        masks.append(
            Mask(
                reference=f"{number}",
                kind="png",
                group="Axial",
                feature=f"object {number}",
                frame=1 + number,
                category="lesion",
            )
        )
    series = Series(name=None, masks=tuple(masks))
    label = Label(id="one", version="v1", series=(series,))
    unit = Unit(label, series, 0, "A", "", is_empty=False)
    around = Around(ExportRules(masks="binary"), Place(grid=Grid(SHAPE, AFFINE), shape=SHAPE))
    tracemalloc.start()
    try:
        made = convert_frames(pictures, unit, around)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(made.files) == OBJECTS
    assert peak < 5 * np.prod(SHAPE), f"{peak} bytes at the peak"
