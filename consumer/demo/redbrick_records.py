"""What a simulated RedBrick organisation holds: people, projects, tasks and saved labels.

Plain data; the rules that change it are in `redbrick_state`, what the API shows of it in
`redbrick_answers`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REDBRICK_STORAGE = "22222222-2222-2222-2222-222222222222"  # the vendor's id of its own storage
IMAGE_STORAGE = "11111111-1111-1111-1111-111111111111"  # the vendor's id of public URLs
INPUT, LABEL, OUTPUT, END = "Input", "Label", "Output", "END"


@dataclass(frozen=True, slots=True)
class User:
    """A member of the organisation. Ids that start with ``API:`` or ``RB:`` are not people."""

    user_id: str
    email: str
    given_name: str
    family_name: str = ""


@dataclass(frozen=True, slots=True)
class SeriesSpec:
    """One image series of a task: ``dimensions`` are (columns, rows, slices), ``spacing`` in
    millimetres, ``origin`` and ``direction`` in RAS as the vendor's headers give them."""

    name: str | None = None
    items: tuple[str, ...] = ("image.nii.gz",)
    dimensions: tuple[int, int, int] = (16, 16, 8)
    spacing: tuple[float, float, float] = (1.0, 1.0, 2.5)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    meta_data: Mapping[str, str] | None = None
    contents: Mapping[str, bytes] = field(default_factory=dict)  # item -> bytes, where served


@dataclass(frozen=True, slots=True)
class Instance:
    """One segmented object: its voxel value, its class in the taxonomy, and the further voxel
    values at which it overlaps others."""

    id: int
    class_id: int = 0
    group_ids: tuple[int, ...] = ()
    attributes: Mapping[int, int | str | bool] = field(default_factory=dict)  # attrId -> value


@dataclass(frozen=True, slots=True)
class Drawing:
    """What an annotator drew on one series; without ``mask`` one is made from the instances."""

    series_index: int = 0
    instances: tuple[Instance, ...] = (Instance(1),)
    mask: bytes | None = None  # a gzipped NIfTI-1 file


@dataclass(frozen=True, slots=True)
class TaskData:
    """One saved version of the labels (RedBrick: task data, by ``tdId``)."""

    td_id: str
    created_at: str
    created_by: User
    stage: str
    labels: tuple[dict[str, Any], ...] = ()
    masks: tuple[tuple[int, str], ...] = ()  # (series index, path in the label storage)
    labels_path: str | None = None  # where the labels lie, when they are not inline


@dataclass(slots=True)
class Seat:
    """One person's part in the current stage: several of them make a consensus."""

    user: User | None = None
    state: str = "UNASSIGNED"
    data: TaskData | None = None


@dataclass(slots=True)
class Task:
    """A task as the platform holds it now."""

    task_id: str
    dp_id: str
    project_id: str
    name: str | None
    series: tuple[SeriesSpec, ...]
    created_at: str
    created_by: User
    stage: str = INPUT
    priority: float | None = None
    meta_data: dict[str, str] | None = None
    latest: TaskData | None = None
    seats: list[Seat] = field(default_factory=lambda: [Seat()])
    consensus: list[Seat] = field(default_factory=list)  # who took part, once it was computed
    events: list[dict[str, Any]] = field(default_factory=list)  # genericEvents, oldest first
    review_result: bool | None = None
    cycle: int = 0
    updated_at: str = ""
    active_at: str = ""  # what `cacheTime` is compared with
    number: int = 0  # of the task among all


@dataclass(slots=True)
class Project:
    """A project with its stages, taxonomy and tasks."""

    project_id: str
    name: str
    reviews: int
    consensus: bool
    taxonomy: dict[str, Any]
    created_at: str
    tasks: dict[str, Task] = field(default_factory=dict)
    past: dict[str, deque[Task]] = field(default_factory=dict)  # older copies, newest last
    labels_in_files: bool = False

    @property
    def review_stages(self) -> list[str]:
        return [f"Review_{n}" for n in range(1, self.reviews + 1)]

    @property
    def stage_names(self) -> list[str]:
        return [INPUT, LABEL, *self.review_stages, OUTPUT, END]
