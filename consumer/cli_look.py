"""Commands with which a person looks: ``show`` a task's masks, ``calibrate`` a source's views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from consumer.cli_shared import (
    FAILED,
    MISCONFIGURED,
    ConfigOption,
    LakeOption,
    do,
    end,
    escape,
    lake_settings,
    out,
    settings,
)

if TYPE_CHECKING:
    from consumer.app_look import GroupScores

ROWS = 4  # of a group's table, unless more are best

ProjectOption = Annotated[
    str | None, typer.Option(help="The project's id; needed when it is not clear.")
]


def show(
    task: Annotated[str, typer.Argument(help="The task, by its id or its name.")],
    project: ProjectOption = None,
    series: Annotated[str | None, typer.Option(help="Of several series, this one.")] = None,
    label: Annotated[str | None, typer.Option(help="Of several labels, this one's id.")] = None,
    slices: Annotated[int, typer.Option(min=1, max=30, help="At most so many.")] = 12,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG; TASK.png here without it.")
    ] = None,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """Draws the slices of a task's mask over its image into one PNG, so that a person can look.

    Example: `groundwire show CT-0001 -o look.png`
    """
    from consumer import app_look as house

    wanted = house.Wanted(task, project=project, series=series, label=label, slices=slices)
    shown = do(house.shown(lake_settings(config, lake), wanted))
    file = output or Path(f"{house.file_name(task)}.png")
    try:
        file.write_bytes(shown.png)
    except OSError as error:
        end(FAILED, f"{file} cannot be written: {error.strerror}")
    out.print(escape(f"{file}: {shown.about}"))


def calibrate(
    source: Annotated[str, typer.Argument(help="The source, by its name.")],
    task: Annotated[str, typer.Argument(help="A task with an object drawn in several groups.")],
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Scores every way in which the frames of Axial, Sagittal and Coronal may lie in the volume, by
    how well the groups agree, and prints the lines for the configuration. Changes nothing.

    Example: `groundwire calibrate labelbox clx0a1b2c3 --project clp9z8y7`
    """
    from consumer import app_look as house

    found = settings(config)
    if source not in found.sources:
        end(MISCONFIGURED, f"no [sources.{source}] is configured")
    groups = do(house.calibrated(found, source, project, task))
    for group in groups:
        out.print(_table(group))
        if group.why:
            out.print(escape(group.why), style="yellow")
    _print_lines(source, groups)


def _table(group: GroupScores) -> Table:
    table = Table(title=group.group, title_justify="left")
    for column in ("frame_base", "flip_x", "flip_y", "flip_frame", "Dice", ""):
        table.add_column(column, justify="right")
    best = sum(row.status == "best" for row in group.rows)
    for row in group.rows[: max(ROWS, best)]:
        one = row.convention
        table.add_row(
            str(one.frame_base),
            *(str(flip).lower() for flip in (one.flip_x, one.flip_y, one.flip_frame)),
            "" if row.dice is None else f"{row.dice:.4f}",
            row.status,
        )
    return table


def _print_lines(source: str, groups: tuple[GroupScores, ...]) -> None:
    decided = [group for group in groups if group.decided is not None]
    if not decided:
        end(FAILED, "nothing could be decided; try a task with one object drawn in several groups")
    for group in decided:
        one = group.decided
        if one is None:
            continue
        out.print()
        out.print(escape(f"[sources.{source}.views.{group.group}]"))
        out.print(f"frame_base = {one.frame_base}")
        for name in ("flip_x", "flip_y", "flip_frame"):
            out.print(f"{name} = {str(getattr(one, name)).lower()}")
