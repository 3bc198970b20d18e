"""The keys that shape files: ``[export]``, ``[classes]``, ``[privacy]`` and a source's views.

Whatever stands here enters the recipe, so that a task is exported anew when one of them changes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from consumer.model import ClassRule, ViewConvention
from consumer.settings_values import SecretValue, Section, When, split_names

Format = Literal["nifti", "png", "seg", "rtstruct"]
Masks = Literal["instance", "binary", "semantic"]

MAX_CLASS_VALUE = 2**16 - 1
MAX_CLASSES = 10_000


class ExportSection(Section):
    """What is exported, and how."""

    when: When = Field(default="always", description='"always", or "ground-truth" for nothing else')
    stages: Annotated[tuple[str, ...], BeforeValidator(split_names)] = Field(
        default=(), description="names of the stages to export; empty is all"
    )
    formats: Annotated[tuple[Format, ...], BeforeValidator(split_names)] = Field(
        default=("nifti",), min_length=1, description="of masks: nifti, png, seg, rtstruct"
    )
    masks: Masks = Field(
        default="instance",
        description='a value per "instance", "binary" (a file each), or "semantic" (per class)',
    )
    with_files: bool = Field(default=False, description="copy the tasks' images into the lake")
    dicom_to_nifti: bool = Field(
        default=False, description="each DICOM series as one NIfTI volume in the lake"
    )
    labelmap_seg: bool = Field(
        default=False, description="DICOM SEG as LABELMAP: smaller, but not every reader knows it"
    )
    pitch_tolerance: float = Field(
        default=0.05,
        ge=0,
        lt=0.5,
        description="of gaps between DICOM slices, as a fraction; beyond it a series is refused",
    )
    deletion_confirmed_after_s: float = Field(
        default=60.0,
        ge=0,
        description="between the two answers that must agree that a task is gone",
    )


class ExportOverride(Section):
    """What one source does otherwise than ``[export]``; what is left out is as there."""

    when: When | None = Field(default=None, description="as [export] when")
    stages: Annotated[tuple[str, ...] | None, BeforeValidator(split_names)] = Field(
        default=None, description="as [export] stages"
    )
    formats: Annotated[tuple[Format, ...] | None, BeforeValidator(split_names)] = Field(
        default=None, min_length=1, description="as [export] formats"
    )
    masks: Masks | None = Field(default=None, description="as [export] masks")
    with_files: bool | None = Field(default=None, description="as [export] with_files")
    dicom_to_nifti: bool | None = Field(default=None, description="as [export] dicom_to_nifti")
    labelmap_seg: bool | None = Field(default=None, description="as [export] labelmap_seg")
    pitch_tolerance: float | None = Field(
        default=None, ge=0, lt=0.5, description="as [export] pitch_tolerance"
    )
    deletion_confirmed_after_s: float | None = Field(
        default=None, ge=0, description="as [export] deletion_confirmed_after_s"
    )


class ClassSection(Section):
    """One class of objects, by its name at the platform."""

    value: int = Field(
        ge=1, le=MAX_CLASS_VALUE, strict=True, description="its voxel value in every task"
    )
    closed: bool = Field(default=False, description="its lines are outlines, and are filled")


def _long_form(given: Any) -> Any:
    """``liver = 1`` is short for ``liver = {value = 1}``."""
    if not isinstance(given, dict):
        return given
    return {
        name: one if isinstance(one, dict | ClassSection) else {"value": one}
        for name, one in given.items()
    }


ClassTable = Annotated[
    dict[str, ClassSection], BeforeValidator(_long_form), Field(max_length=MAX_CLASSES)
]


def class_rules(table: dict[str, ClassSection]) -> tuple[ClassRule, ...]:
    """In the order of names, so that the order of a file's lines changes no recipe."""
    return tuple(
        ClassRule(name=name, value=one.value, closed=one.closed)
        for name, one in sorted(table.items())
    )


class ViewSection(Section):
    """How the frames of one group lie in the volume."""

    frame_base: Literal[0, 1] = Field(default=1, description="the number of the first frame")
    flip_x: bool = Field(default=False, description="pictures are mirrored left to right")
    flip_y: bool = Field(default=False, description="pictures are upside down")
    flip_frame: bool = Field(default=False, description="frames count from the other end")

    def convention(self) -> ViewConvention:
        return ViewConvention(**self.model_dump())


class PrivacySection(Section):
    """What names people may not appear by."""

    paths: Literal["id", "name"] = Field(
        default="name",
        description='"id": files and folders are named by ids and letters alone',
    )
    emails: Literal["keep", "hash", "drop"] = Field(
        default="keep", description="people's addresses in annotations and log"
    )
    key: SecretValue | None = Field(
        default=None, description='env:NAME or file:PATH; with it emails = "hash" hashes'
    )
