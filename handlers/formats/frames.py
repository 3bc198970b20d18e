"""Labelbox's masks of single frames become label maps on the grid of their series.

Nothing is resized and nothing guessed: what does not fit the grid is refused with the numbers.
Where two groups show one object they must agree, or the volume is refused. Objects are laid in
the order given and the later wins where they overlap, which is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

from numpy.typing import NDArray

from consumer.errors import Permanent
from consumer.model import Agreement, ExportRules, LabelCount, Series, ViewConvention
from handlers.formats import convention_scores as scores
from handlers.formats.agreement import Comparison, Votes, check, disagreement
from handlers.formats.canvas import Canvas
from handlers.formats.drawings import Drawing, DrawnObject, Patch, Pictures, Read, objects_of
from handlers.formats.grid import Grid
from handlers.formats.label_map import Geometry, LabelMap, grid
from handlers.formats.values import assign_values
from handlers.formats.views import DEFAULT, Shape, plane_of

_UNIT = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))


@dataclass(frozen=True, slots=True)
class Laid:
    """A label map and how it came about.

    ``labels`` are all objects in the order laid, with the voxels that they kept: also those that
    kept none. ``overlaps`` counts voxels that more than one object claimed. ``empty`` counts
    drawings whose picture holds nothing of the object (a composite without its colour).
    ``assumed_views`` are groups whose convention is not configured. ``feature`` is the object
    that has the map for itself (masks = "binary").
    """

    label_map: LabelMap
    labels: tuple[LabelCount, ...]
    overlaps: int
    empty: int
    agreements: tuple[Agreement, ...]
    views: dict[str, ViewConvention]
    assumed_views: tuple[str, ...]
    feature: str | None = None


def volumes(
    series: Series, read: Read, place: Grid | Sequence[int], rules: ExportRules
) -> Iterator[Laid]:
    """One label map of all objects; with ``rules.masks`` "binary" one for each object, in order.

    ``read`` gives the PNG of a mask and is called for one mask at a time, for a few of them more
    than once. ``place`` is the grid, or only its shape where the geometry is not known: the label
    map is then of "pixdim" geometry. Beside one label map there is at most one byte per voxel.

    Everything is checked before the first map is given. Raises ``Refused`` (unknown-group,
    picture-wrong-size, frame-outside-volume, groups-disagree, picture-ambiguous,
    composite-unclaimed-color, composite-without-colors, feature-of-two-classes,
    mask-without-place, too-many-objects), and ``Transient`` or ``Permanent`` for a PNG that
    `check_png` does not accept or a line that `polygon.fill` does not.
    """
    work = _Work(series, read, place, rules)
    if rules.masks != "binary":
        yield work.lay(work.objects)
        return
    for one in work.objects if len(work.objects) > 1 else ():
        work.lay([one])
    for one in work.objects:
        yield work.lay([one], feature=one.feature)


class _Work:
    def __init__(
        self, series: Series, read: Read, place: Grid | Sequence[int], rules: ExportRules
    ) -> None:
        self.shape: Shape = place.shape if isinstance(place, Grid) else grid(place)
        self.affine = place.affine if isinstance(place, Grid) else _UNIT
        self.geometry: Geometry = "sform" if isinstance(place, Grid) else "pixdim"
        self.objects = objects_of(series, rules.classes)
        self.pictures = Pictures(self.objects, read, self.shape)
        groups = sorted({group for one in self.objects for group in one.groups})
        self.views = {group: rules.views.get(group, DEFAULT) for group in groups}
        if not all(view in scores.CONVENTIONS for view in self.views.values()):
            raise Permanent("view-unusable", "frames count from 0 or from 1")
        self.assumed = tuple(group for group in groups if group not in rules.views)
        categories = {one.feature: one.category for one in self.objects}
        self.values = assign_values(categories, rules.classes, rules.masks)

    def lay(self, objects: Sequence[DrawnObject], feature: str | None = None) -> Laid:
        canvas = Canvas(self.shape, [self.values[one.feature] for one in objects])
        agreements: list[Agreement] = []
        empty = 0
        for number, one in enumerate(objects):
            if len(one.groups) == 1:
                empty += self._lay_frames(canvas, number, one)
            else:
                empty += self._lay_votes(canvas, number, one, agreements)
        array, voxels, overlaps = canvas.finish()
        return Laid(
            label_map=LabelMap(array, self.affine, self.geometry),
            labels=tuple(
                LabelCount(
                    value=self.values[one.feature],
                    voxels=kept,
                    category=one.category,
                    feature=one.feature,
                )
                for one, kept in zip(objects, voxels, strict=True)
            ),
            overlaps=overlaps,
            empty=empty,
            agreements=tuple(agreements),
            views={g: v for g, v in self.views.items() if any(g in one.groups for one in objects)},
            assumed_views=tuple(g for g in self.assumed if any(g in one.groups for one in objects)),
            feature=feature,
        )

    def _lay_frames(self, canvas: Canvas, number: int, one: DrawnObject) -> int:
        empty = 0
        for drawing in one.drawings:
            patch = self.pictures.patch(drawing)
            empty += not patch.mask.size
            canvas.lay(number, partial(self._window, drawing, patch), patch.mask)
        return empty

    def _window(self, drawing: Drawing, patch: Patch, array: NDArray[Any]) -> NDArray[Any]:
        view = self.views[drawing.group]
        return plane_of(array, drawing.group, view, drawing.frame)[patch.place]

    def _lay_votes(
        self, canvas: Canvas, number: int, one: DrawnObject, agreements: list[Agreement]
    ) -> int:
        """An object in several groups: what any of them shows, if they agree."""
        votes, empty = Votes(canvas.marks), 0
        for drawing in one.drawings:
            patch = self.pictures.patch(drawing)
            empty += not patch.mask.size
            votes.add(drawing.group, self.views[drawing.group], drawing.frame, patch)
        for compared in votes.compare():
            agreement = check(one.feature, compared, self.shape)
            if not compared.equal:
                self._check_others(one, compared)
            agreements += [agreement] if agreement else []
        rows, columns, slices = votes.extent()
        for k in range(slices.start, slices.stop):
            canvas.lay(number, itemgetter((rows, columns, k)), votes.take(k))
        return empty

    def _check_others(self, one: DrawnObject, compared: Comparison) -> None:
        """Raises ``Refused`` (groups-disagree) where other conventions fit better than by chance:
        of a large object, one frame off costs less than LEAST_DICE allows."""
        a, b = (
            scores.sample(one, group, self.pictures.patch, self.shape) for group in compared.groups
        )
        ours = (self.views[a.group], self.views[b.group])
        better = scores.better_elsewhere(a, b, ours, self.shape)
        if better is not None:
            more = f"; other conventions would give Dice {better:.4f} on a sample, see calibrate"
            raise disagreement(one.feature, compared, self.shape, more)
