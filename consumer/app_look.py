"""What ``show`` and ``calibrate`` are composed of."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.app_adapters import (
    Close,
    Unlogged,
    make_platforms,
    make_queue,
    make_store,
    now,
    project_key,
)
from consumer.errors import Permanent
from consumer.model import TaskKey
from consumer.ports import Ports
from consumer.settings import Settings
from handlers import layout
from handlers.calibrate import calibrate
from handlers.formats.calibration import GroupScores
from handlers.show import Shown, find, show

__all__ = ["GroupScores", "Shown", "Wanted", "calibrated", "file_name", "shown"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be shown."""

    task: str
    project: str | None
    series: str | None
    label: str | None
    slices: int


async def shown(settings: Settings, wanted: Wanted) -> Shown:
    """Raises ``Transient`` and ``Permanent``."""
    store = make_store(settings)
    project, task = await find(store, wanted.task, wanted.project)
    return await show(
        store, project, task, series=wanted.series, label=wanted.label, slices=wanted.slices
    )


async def calibrated(
    settings: Settings, source: str, project: str | None, task: str
) -> tuple[GroupScores, ...]:
    """Raises ``Transient`` and ``Permanent``; ``Permanent`` (project-unknown) when the
    configuration names no single project and none is given."""
    projects = [one for one in settings.sources[source].projects if one != "*"]
    if project is None and len(projects) != 1:
        raise Permanent("project-unknown", "name the task's project with --project")
    closing: list[Close] = []
    ports = Ports(
        platforms=make_platforms(settings, closing),
        queue=make_queue(settings),
        store=make_store(settings),
        log=Unlogged(),
        rules=settings.rules(),
        project_key=project_key,
        clock=now,
        email_key=settings.email_key,
    )
    try:
        return await calibrate(
            TaskKey(source=source, project=project or projects[0], task=task), ports
        )
    finally:
        for close in closing:
            await close()


def file_name(task: str) -> str:
    return layout.safe_name(task)
