"""A phantom's CT as a series of a simulated RedBrick, with a mask of its organs on the same grid.

The files are the series' items and are presigned as masks are. The grid is told as the vendor's
headers do: for an axial DICOM series the columns run to the left and the rows to the back, so in
RAS their directions are negative.
"""

from __future__ import annotations

from dataclasses import replace

from consumer.demo.phantom import Phantom, ct_series, truth
from consumer.demo.redbrick_masks import nifti
from consumer.demo.redbrick_records import Drawing, Instance, SeriesSpec
from consumer.demo.redbrick_taxonomy import CATEGORIES


def phantom_series(phantom: Phantom, name: str | None = "ct", *, folder: str = "ct") -> SeriesSpec:
    """The series whose items are the phantom's DICOM files, in viewing order, under ``folder``."""
    files = ct_series(phantom)
    contents = {f"{folder}/{k + 1:04d}.dcm": data for k, data in enumerate(files)}
    return replace(phantom_grid(phantom), name=name, items=tuple(contents), contents=contents)


def phantom_grid(phantom: Phantom) -> SeriesSpec:
    """The phantom's grid alone."""
    x, y, z = phantom.origin
    return SeriesSpec(
        dimensions=phantom.shape,
        spacing=phantom.spacing,
        origin=(-x, -y, z),
        direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    )


def phantom_drawing(phantom: Phantom, series_index: int = 0) -> Drawing:
    """The phantom's organs as an annotator would draw them who makes no mistake: an instance for
    each, with the truth's value; the classes are the simulated project's, in turn."""
    instances = tuple(
        Instance(organ.value, number % len(CATEGORIES))
        for number, organ in enumerate(phantom.organs)
    )
    return Drawing(series_index, instances, nifti(truth(phantom), phantom_grid(phantom)))
