"""A manifest's files by what they are, and where they go in a pulled folder; pure.

A path of a manifest is ``{tree}/[{label}/]{series}{suffix}`` or a folder of that series; the label
is there when the task has several, and never for images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from consumer.model import FileRef, Manifest
from handlers import layout
from handlers.pull.names import distinct, suffix_of
from handlers.pull.options import Options
from handlers.pull.select import Facts

DOCUMENT = "annotations.json"
CLASSES = ".classes.json"  # what the values of PNG pictures mean

Kind = Literal[
    "nifti", "instance", "png", "classes", "seg", "rtstruct", "mask", "geometry", "image", "volume"
]
_SEGMENTATIONS: tuple[tuple[str, Kind], ...] = (
    (".nii.gz", "nifti"),
    (".seg.dcm", "seg"),
    (".rtstruct.dcm", "rtstruct"),
    (".png", "png"),
    (CLASSES, "classes"),
)


@dataclass(frozen=True, slots=True)
class LakeFile:
    """``steps`` is the rest of its path: below tree and label folder."""

    ref: FileRef
    kind: Kind
    tree: str
    label: tuple[str, ...]  # the label's folder, if it has one
    steps: tuple[str, ...]

    @property
    def of(self) -> tuple[str | None, int]:
        """Whose mask it is: label and series."""
        return self.ref.label, self.ref.position


def sorted_out(manifest: Manifest, task: Facts) -> list[LakeFile]:
    """What the manifest names, but for the document and what no pull knows."""
    found = []
    for ref in manifest.files:
        tree, *steps = ref.path.split("/")
        label: tuple[str, ...] = ()
        several = len(task.labels) > 1 and ref.label is not None
        if several and steps[:1] == [layout.safe_name(ref.label or "")]:
            label, steps = (steps[0],), steps[1:]
        if (kind := _kind(tree, steps)) is not None:
            found.append(LakeFile(ref, kind, tree, label, tuple(steps)))
    return found


def _kind(tree: str, steps: Sequence[str]) -> Kind | None:
    if not steps:
        return None
    if tree == "segmentations":
        found = next((kind for end, kind in _SEGMENTATIONS if steps[-1].endswith(end)), None)
        return "instance" if found == "nifti" and len(steps) > 1 else found
    if tree == "images":
        return "volume" if len(steps) == 1 else "image"
    return {"masks": "mask", "geometry": "geometry"}.get(tree)  # type: ignore[return-value]


def local_paths(files: Sequence[LakeFile], folder: str, options: Options) -> list[str]:
    """Where each file goes: ``{tree}/{folder}/[{label}/]{series}..``. The label's folder is left
    out where only the ground truth's label is pulled."""
    inner = []
    numbers: dict[tuple[str, ...], int] = {}
    for file in files:
        label = () if options.only_truth else file.label
        steps = file.steps
        if options.paths == "id" and file.kind != "mask":
            steps = _lettered(file, numbers)
        inner.append((file.tree, folder, *label, *steps))
    return ["/".join(path) for path in distinct(inner)]


def _lettered(file: LakeFile, numbers: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """The series by its letter, its images by their number."""
    letters = layout.letters(file.ref.position)
    if len(file.steps) == 1:
        return (letters + suffix_of(file.steps[0]),)
    if file.kind != "image":
        return (letters, *file.steps[1:])
    series = (file.tree, letters)
    number = numbers[series] = numbers.get(series, -1) + 1
    return (letters, f"{number:06d}{suffix_of(file.steps[-1])}")
