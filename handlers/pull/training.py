"""Cases for training: one image and one label map of classes, on one grid; pure.

A class has one value in the whole set: the classes in the order of their names, from 1 on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from consumer.errors import Permanent
from consumer.model import FileRef, Manifest, identifier
from handlers.pull.lake_files import LakeFile, sorted_out
from handlers.pull.masks import TO_NIFTI
from handlers.pull.names import folded
from handlers.pull.plan import Conversion, Job, TaskPlan
from handlers.pull.select import Facts

MAX_NAME = 150  # characters of a case's name

_ODD = re.compile(r"[^A-Za-z0-9_.~-]+")


@dataclass(frozen=True, slots=True)
class Case:
    """``name`` is its own in the whole set, on any file system."""

    plan: TaskPlan
    name: str
    image: FileRef
    label: FileRef


def cases_of(task: Facts, manifest: Manifest, plan: TaskPlan) -> list[Case]:
    """A case for each series with a label map; what cannot be one is told in the plan."""
    files = sorted_out(manifest, task)
    label = task.truth_label
    if label is None and len(task.labels) == 1:
        label = task.labels[0]
    if label is None:
        plan.lacks_masks = True
        plan.refuse("several-labels", "it has several labels, and none is the ground truth")
        return []
    found = []
    for mask in (file for file in files if file.ref.label == label):
        if mask.kind == "instance":
            said = 'the lake holds one mask per instance: set [export] masks = "instance"'
            plan.refuse("format-not-held", f"{mask.steps[0]}: {said}")
        elif mask.kind == "nifti" and (image := _image_of(mask, files, manifest, plan)):
            series = mask.steps[0].removesuffix(".nii.gz")
            name = _short(_ODD.sub("-", f"{plan.folder}_{series}"))
            if _is_plain(mask.ref, plan):
                found.append(Case(plan, name, image, mask.ref))
    plan.lacks_masks = not found
    if not found and not plan.refused:
        said = 'the lake holds no label map of it: set [export] formats = ["nifti"]'
        plan.refuse("format-not-held", said)
    return found


def _image_of(
    mask: LakeFile, files: Sequence[LakeFile], manifest: Manifest, plan: TaskPlan
) -> FileRef | None:
    """The series' image, on the very grid of the mask as far as the lake tells; else None, with
    the reason told."""
    position, name = mask.ref.position, mask.steps[0]
    refs = [file.ref for file in files if file.ref.position == position
            and (file.kind == "volume" or _is_volume(file))]  # fmt: skip
    if len(refs) != 1:
        told = [one.message for one in manifest.refused
                if one.position == position and one.what in ("image", "volume")]  # fmt: skip
        said = told[0] if told else f"the lake holds no one NIfTI image of it: {TO_NIFTI}"
        plan.refuse("images-not-held", f"{name}: {said}")
        return None
    image = refs[0]
    if mask.ref.geometry != "affine" or mask.ref.affine is None:
        plan.refuse("geometry-unknown", f"{name}: nobody knows where its voxels lie")
    elif image.shape is not None and image.shape != mask.ref.shape:
        grids = f"the image has {image.shape}, the label map {mask.ref.shape} voxels"
        plan.refuse("grid-differs", f"{name}: {grids}")
    elif image.affine is not None and image.affine != mask.ref.affine:
        plan.refuse("grid-differs", f"{name}: image and label map have different affines")
    else:
        return image
    return None


def _is_volume(file: LakeFile) -> bool:
    """An image that was NIfTI from the start; its header is looked at when it is here."""
    return file.kind == "image" and file.steps[-1].casefold().endswith(".nii.gz")


def _is_plain(label: FileRef, plan: TaskPlan) -> bool:
    """Whether every value is of one class."""
    nameless = [count for count in label.labels if count.category is None]
    if nameless:
        one = nameless[0]
        said = f"the value {one.value} ({one.voxels} voxels) is of no class, or of several"
        plan.refuse("class-unknown", f"{label.series or label.path}: {said}")
    return not nameless


def distinctly(cases: Sequence[Case]) -> list[Case]:
    """The cases with names that no two of them share."""
    met = Counter(folded(case.name) for case in cases)

    def named(case: Case) -> Case:
        if met[folded(case.name)] == 1:
            return case
        mark = identifier(case.plan.task.place, str(case.label.position))
        return Case(case.plan, f"{case.name}-{mark[:16]}", case.image, case.label)

    made = [named(case) for case in cases]
    if len({folded(case.name) for case in made}) < len(made):
        raise Permanent("path-collides", "two cases would have one name")
    return made


def _short(name: str) -> str:
    """With room for what a layout adds to it."""
    return name if len(name) <= MAX_NAME else f"{name[:100]}-{identifier(name)}"


def classes_of(cases: Sequence[Case]) -> dict[str, int]:
    """The value of each class that is drawn anywhere."""
    names = {count.category for case in cases for count in case.label.labels if count.category}
    return {name: number for number, name in enumerate(sorted(names), 1)}


def label_job(case: Case, classes: dict[str, int], output: str) -> Job:
    values = tuple((one.value, classes[one.category or ""]) for one in case.label.labels)
    shape, affine = case.label.shape, case.label.affine
    conversion = Conversion("classes", values=values, shape=shape, affine=affine)
    return Job((output,), (case.label,), conversion)


def image_job(case: Case, output: str) -> Job:
    shape, affine = case.label.shape, case.label.affine
    return Job((output,), (case.image,), Conversion("image", shape=shape, affine=affine))
