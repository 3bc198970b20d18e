"""What a revision is made of: a unit for each series of each label, and the names of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from consumer.model import ExportRules, FileRef, Label, Mask, Refusal, Series, TaskSnapshot, Volume
from handlers import layout
from handlers.pointers import is_framed

_LINES = ".json"
# What follows a series' name in the paths of its files.
_SUFFIX = re.compile(
    r"(/instance-\d+)?(/\d{6})?\.(nii\.gz|png|classes\.json|seg\.dcm|rtstruct\.dcm|json)"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """One series under one label; its files are made, or kept, together.

    ``name`` is the series' file name without a suffix, ``folder`` the label's part of a path.
    """

    label: Label
    series: Series
    position: int  # of the series among the label's
    name: str
    folder: str
    is_empty: bool  # ground truth in which nothing is drawn

    @property
    def is_framed(self) -> bool:
        return is_framed(self.series)

    def owns(self, made: FileRef | Volume | Refusal) -> bool:
        """Whether it was made for this unit: the name of a series may have become another's."""
        here = (self.label.id, self.position, self.series.name)
        return (made.label, made.position, made.series) == here

    def names(self, file: FileRef) -> bool:
        """Whether the unit would give the file the path that it has: the number of labels, or a
        series of the same name, may have come or gone."""
        if file.group is not None:
            return file.path == self._picture_path(file.group, file.feature, file.frame)
        for place in (self.mask_path(""), self.lines_path().removesuffix(_LINES)):
            if file.path.startswith(place) and _SUFFIX.fullmatch(file.path, len(place)):
                return True
        return False

    def mask_path(self, suffix: str) -> str:
        return f"segmentations/{self.folder}{self.name}{suffix}"

    def lines_path(self) -> str:
        return f"geometry/{self.folder}{self.name}{_LINES}"

    def picture_path(self, mask: Mask) -> str:
        """Of a frame's own picture, as the platform gave it."""
        return self._picture_path(mask.group, mask.feature, mask.frame)

    def _picture_path(self, group: str | None, feature: str | None, frame: int | None) -> str:
        named = "/".join(layout.safe_name(part or "") for part in (group, feature))
        number = f"{frame:06d}" if frame is not None else "all"
        return f"masks/{self.folder}{named}/{number}.png"


@dataclass(slots=True)
class Parts:
    """What a manifest holds of a unit, or of a series' images."""

    files: list[FileRef] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def units_of(snapshot: TaskSnapshot, rules: ExportRules) -> Iterator[Unit]:
    """In the order of labels and series. A series in which nothing is drawn is a unit only where
    the label is the ground truth."""
    several = len(snapshot.labels) > 1
    for label in snapshot.labels:
        folder = f"{layout.safe_name(label.id)}/" if several else ""
        is_truth = snapshot.ground_truth and snapshot.ground_truth_label == label.id
        names = series_names(label.series, rules)
        for position, (series, name) in enumerate(zip(label.series, names, strict=True)):
            drawn = bool(series.masks or series.polylines)
            if drawn or is_truth:
                yield Unit(label, series, position, name, folder, is_empty=not drawn)


def series_names(series: Sequence[Series], rules: ExportRules) -> list[str]:
    """File names: the platform's, or letters where paths are to tell nothing."""
    return layout.series_names([None if rules.paths == "id" else one.name for one in series])
