"""What is to be done for a pull, as values: which files, made of what, named where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from consumer.model import FileRef, LabelCount, canonical, digest
from handlers.pull.current import Problem
from handlers.pull.select import Facts

VERSION = 1  # raised when the same sources would become other files

Affine = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Conversion:
    """How files are made of others. ``classes``: each voxel value becomes the class's; ``image``:
    nothing is changed, but the grid is checked. ``names`` are those of the series' images, which
    follow the label map among the sources."""

    kind: Literal["png", "seg", "rtstruct", "classes", "image"]
    segments: tuple[LabelCount, ...] = ()
    values: tuple[tuple[int, int], ...] = ()
    shape: tuple[int, ...] | None = None
    affine: Affine | None = None
    names: tuple[str, ...] = ()

    def origin(self, sources: Sequence[FileRef]) -> str:
        """Equal for equal outputs."""
        told = [self.kind, [one.sha256 for one in sources], list(self.values)]
        table = [[one.value, one.category, one.feature] for one in self.segments]
        grid = [list(self.shape or ()), [list(row) for row in self.affine or ()]]
        return digest(canonical([VERSION, *told, table, grid, list(self.names)]))


@dataclass(frozen=True, slots=True)
class Job:
    """Files of one task that are fetched, or made of what is fetched."""

    outputs: tuple[str, ...]
    sources: tuple[FileRef, ...]
    conversion: Conversion | None = None

    @property
    def origin(self) -> str:
        if self.conversion is None:
            return self.sources[0].sha256
        return self.conversion.origin(self.sources)

    @property
    def size(self) -> int:
        return sum(source.size for source in self.sources)


@dataclass(slots=True)
class TaskPlan:
    """``names`` says which paths stand for a file of the lake in the task's document; ``images``
    where the images of each series are. ``refused`` is what the lake does not hold; a task that
    ``lacks_masks`` is not pulled at all."""

    task: Facts
    folder: str
    document: FileRef | None = None
    jobs: list[Job] = field(default_factory=list)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    images: dict[int, list[str]] = field(default_factory=dict)
    refused: list[Problem] = field(default_factory=list)
    lacks_masks: bool = False

    def refuse(self, reason: str, message: str) -> None:
        self.refused.append(Problem(self.folder, reason, message))

    @property
    def outputs(self) -> list[str]:
        return [path for job in self.jobs for path in job.outputs]
