"""The commands ``snapshot``: the ground truth of one moment, kept for ever."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from consumer.cli_shared import (
    FAILED,
    MISCONFIGURED,
    ConfigOption,
    LakeOption,
    do,
    end,
    err,
    escape,
    lake_settings,
    named,
    out,
    progress_bar,
    settings,
    show_pulled,
)

if TYPE_CHECKING:
    from consumer.app_snapshot import Options, Snapshot, Summary, Wish
    from consumer.settings import Settings

snapshot = typer.Typer(
    help="The ground truth of one moment, written down for ever and pinned to the log.",
    no_args_is_help=True,
)


class Layout(StrEnum):
    REDBRICK = "redbrick"
    NNUNET = "nnunet"
    MONAI = "monai"


class Format(StrEnum):
    NIFTI = "nifti"
    PNG = "png"
    SEG = "seg"
    RTSTRUCT = "rtstruct"


class Paths(StrEnum):
    NAME = "name"
    ID = "id"


WhichArgument = Annotated[
    str, typer.Argument(metavar="NAME|ID", help="Its name (the newest), NAME/ID, or an id's start.")
]


@snapshot.command()
def create(
    name: Annotated[str, typer.Argument(help="a-z, 0-9, - and _")] = "ground-truth",
    project: Annotated[
        list[str] | None, typer.Option(help="Only this one, by its id; may be repeated.")
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="Only tasks in which it is drawn; may be repeated."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="So many entries of the log, or a change's id."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Writes down the ground truth as it is now, or was at a size of the log: which tasks, which
    files, which part of the split. The same ground truth and selection has the same id, and making
    it again changes nothing.

    Example: `groundwire snapshot create lungs --class nodule`
    """
    from consumer import app_snapshot as house

    asked = house.Asked(name, tuple(project or ()), tuple(class_ or ()), at)
    made = do(house.created(settings(config), asked))
    said = "stored" if made.is_new else "was there already, and is left as it is"
    out.print(escape(f"{made.name} {made.id}: {said}"), style="green")
    out.print(escape(f"{made.tasks} task(s); log size {made.size}, root {made.root}"))
    out.print(escape(f"{made.key} sha256 {made.sha256}"))


@snapshot.command("list")
def list_(lake: LakeOption = None, config: ConfigOption = None) -> None:
    """The snapshots in the lake, the newest last.

    Example: `groundwire snapshot list`
    """
    from consumer import app_snapshot as house

    snapshots, wrong = do(house.listed(lake_settings(config, lake)))
    for problem in wrong:
        err.print(escape(f"groundwire: {problem.message} ({problem.reason})"))
    if not snapshots:
        out.print("there is no snapshot yet: groundwire snapshot create")
    for one, logged in snapshots:
        said = f"{one.name}  {one.id}  size {one.size}  {one.tasks} task(s)"
        out.print(escape(f"{said}  {logged or 'not in the log yet'}"))
    if wrong:
        raise typer.Exit(FAILED)


@snapshot.command()
def show(
    which: WhichArgument,
    png: Annotated[
        Path | None, typer.Option("--png", help="Where the picture goes; NAME-ID.png without it.")
    ] = None,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """What a snapshot holds: tasks, series and voxels of each class in each part, and a picture of
    it (PNG).

    Example: `groundwire snapshot show lungs --png lungs.png`
    """
    from consumer import app_snapshot as house

    found = do(house.shown(lake_settings(config, lake), which))
    _describe(found)
    file = png or Path(f"{found.name}-{found.id}.png")
    try:
        file.write_bytes(house.picture(found))
    except OSError as error:
        end(FAILED, f"{file} cannot be written: {error.strerror}")
    out.print(escape(f"picture: {file}"))


@snapshot.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="As for show.")],
    b: Annotated[str, typer.Argument(metavar="B", help="As for show.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, complete.")] = False,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """Which tasks B has and A has not, has in another revision, or has no longer.

    Example: `groundwire snapshot diff lungs/1042-3f7a1c9e5b20 lungs`
    """
    import msgspec

    from consumer import app_snapshot as house
    from consumer.redact import json_text

    found = do(house.differed(lake_settings(config, lake), a, b))
    if as_json:
        text = json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False)
        sys.stdout.write(json_text(text) + "\n")
        return
    for what, tasks in (
        ("added", found.added),
        ("changed", found.changed),
        ("removed", found.removed),
    ):
        if tasks:
            shown = named([f"{one.project}/{one.name}" for one in tasks])
            out.print(escape(f"{what} {len(tasks)}: {shown}"))
    counts = f"{len(found.added)} added, {len(found.changed)} changed, {len(found.removed)} removed"
    parted = f", {found.parted} in another part" if found.parted else ""
    out.print(escape(f"{found.a} to {found.b}: {counts}, {found.unchanged} unchanged{parted}"))


@snapshot.command()
def pull(
    which: WhichArgument,
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where its folder goes; here without it.")
    ] = Path(),
    layout: Annotated[Layout | None, typer.Option(help="Of the folder.")] = None,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Of the masks, converted here if need be.")
    ] = None,
    with_files: Annotated[bool, typer.Option("--with-files", help="The images, too.")] = False,
    dicom_to_nifti: Annotated[
        bool, typer.Option("--dicom-to-nifti", help="The images as NIfTI.")
    ] = False,
    paths: Annotated[
        Paths | None, typer.Option(help="Folders by the tasks' names, or by their ids.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="What dataset.json calls the images: CT, MR, ..")
    ] = None,
    clear_cache: Annotated[
        bool, typer.Option("--clear-cache", help="Fetch everything anew.")
    ] = False,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """Rebuilds the data set in DIR/NAME-ID, byte for byte, whatever became of its tasks since; in
    the layouts of `groundwire pull`, and of the ground truth's labels only. A training set of
    several projects is one; otherwise each project has a folder in it.

    Example: `groundwire snapshot pull lungs --layout nnunet --channel CT`
    """
    from consumer import app_snapshot as house

    options = _options(
        layout=layout.value if layout else None,
        format=format_.value if format_ else None,
        with_files=with_files,
        dicom_to_nifti=dicom_to_nifti,
        paths=paths.value if paths else None,
        channel=channel,
    )
    wish = house.Wish(which, directory, options, clear_cache)
    done = do(_pulling(lake_settings(config, lake), wish))
    for folder, summary in done.items():
        out.print(escape(f"into {folder}"))
        show_pulled(summary)
    if any(summary.problems for summary in done.values()):
        raise typer.Exit(FAILED)


async def _pulling(found: Settings, wish: Wish) -> dict[Path, Summary]:
    from consumer import app_snapshot as house

    with progress_bar() as bar:
        made, done = await house.pulled(found, wish, bar)
    out.print(escape(f"snapshot {made.name} {made.id}: {made.tasks} task(s)"))
    return done


def _options(**given: Any) -> Options | None:
    """None when those of the last time are meant."""
    from consumer import app_snapshot as house

    said = {name: value for name, value in given.items() if value not in (None, False)}
    options = house.Options(**said)
    if wrong := house.mistakes(options):
        end(MISCONFIGURED, *wrong)
    return options if said else None


def _describe(found: Snapshot) -> None:
    described, counts = found.described, found.described.counts
    out.print(escape(f"{found.name} {found.id}: {found.tasks} task(s), {counts.series} series"))
    out.print(escape(f"log {found.log}, size {found.size}, root {found.root}"))
    for what, chosen in (
        ("projects", described.selection.projects),
        ("classes", described.selection.classes),
    ):
        if chosen:
            out.print(escape(f"only {what} {', '.join(chosen)}"))
    for project, tasks in counts.projects.items():
        out.print(escape(f"project {project}: {tasks} task(s)"))
    shares = described.split.shares
    parts = sorted(shares, key=lambda part: (-shares[part], part))
    told = (f"{part} {counts.splits.get(part, 0)} ({shares[part]:.0%} wanted)" for part in parts)
    out.print(escape(f"split of tasks: {', '.join(told)}"))
    out.print(_table(found, parts))


def _table(found: Snapshot, parts: Sequence[str]) -> Table:
    table = Table("class", "part", box=None)
    for column in ("tasks", "series", "voxels"):
        table.add_column(column, justify="right")
    for name, of in found.described.counts.classes.items():
        for part in parts:
            if (one := of.get(part)) is not None:
                numbers = (str(one.tasks), str(one.series), str(one.voxels))
                table.add_row(escape(name), part, *numbers)
    return table
