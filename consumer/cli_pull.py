"""The command ``pull``: the lake's current state in a folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli_shared import (
    FAILED,
    MISCONFIGURED,
    ConfigOption,
    LakeOption,
    do,
    end,
    escape,
    out,
    progress_bar,
    show_pulled,
)

if TYPE_CHECKING:
    from consumer.app_pull import Asked, Options, Summary


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


_DATES = "YYYY-MM-DD, 'YYYY-MM-DD hh:mm:ss' or ISO 8601, UTC if unsaid"

ProjectArgument = Annotated[
    str | None, typer.Argument(help="Its id; not needed when the lake holds only one.")
]
DirectoryArgument = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help="Where its folder goes; here without it.")
]
TruthOption = Annotated[
    bool, typer.Option("--ground-truth", help="Only the ground truth, and its label.")
]
StageOption = Annotated[str | None, typer.Option(help="Only tasks at this stage.")]
SinceOption = Annotated[
    str | None, typer.Option(help=f"Only tasks active at that time or later: {_DATES}.")
]
UntilOption = Annotated[
    str | None, typer.Option(help="Only tasks not active later; a date includes that whole day.")
]
LabelSinceOption = Annotated[
    str | None, typer.Option(help="Only tasks with a label made at that time or later.")
]
LabelUntilOption = Annotated[
    str | None, typer.Option(help="Only tasks with a label made no later (both: the same label).")
]
FilesOption = Annotated[bool, typer.Option("--with-files", help="The images, too, into images/.")]
ToNiftiOption = Annotated[bool, typer.Option("--dicom-to-nifti", help="The images as NIfTI.")]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="Of the masks, converted here if need be.")
]
LayoutOption = Annotated[
    Layout | None, typer.Option(help="Of the folder; nnunet and monai are of the ground truth.")
]
PathsOption = Annotated[
    Paths | None, typer.Option(help="Folders by the tasks' names, or by their ids.")
]
ChannelOption = Annotated[
    str | None, typer.Option(help="What dataset.json calls the images: CT, MR, ..")
]
AllOption = Annotated[bool, typer.Option("--all", help="Forget the options of the last time.")]
ClearOption = Annotated[bool, typer.Option("--clear-cache", help="Fetch everything anew.")]
ModelRunOption = Annotated[str | None, typer.Option(help="Not supported.", hidden=True)]


def pull(
    project: ProjectArgument = None,
    directory: DirectoryArgument = None,
    ground_truth: TruthOption = False,
    stage: StageOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    label_created_since: LabelSinceOption = None,
    label_created_until: LabelUntilOption = None,
    with_files: FilesOption = False,
    dicom_to_nifti: ToNiftiOption = False,
    format_: FormatOption = None,
    layout: LayoutOption = None,
    paths: PathsOption = None,
    channel: ChannelOption = None,
    everything: AllOption = False,
    clear_cache: ClearOption = False,
    model_run: ModelRunOption = None,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """Makes a folder hold what the lake holds now: masks in segmentations/, and tasks.json or
    export.ndjson, which names them. Only what changed is fetched, and what was withdrawn is
    removed. In a pulled folder it needs no arguments: lake, project and options are remembered.
    The folder holds what the options select, and no more.

    Example: `groundwire pull --ground-truth`, then `groundwire pull` for what is new
    """
    from consumer import app_pull as house

    if model_run is not None:
        end(MISCONFIGURED, "--model-run: exports of model runs are not supported")
    options = _options(
        everything=everything,
        ground_truth=ground_truth,
        stage=stage,
        since=_moment("--since", since, end_of=False),
        until=_moment("--until", until, end_of=True),
        label_since=_moment("--label-created-since", label_created_since, end_of=False),
        label_until=_moment("--label-created-until", label_created_until, end_of=True),
        with_files=with_files,
        dicom_to_nifti=dicom_to_nifti,
        format=format_.value if format_ else None,
        layout=layout.value if layout else None,
        paths=paths.value if paths else None,
        channel=channel,
    )
    summary = do(_pulling(house.Asked(project, directory, options, lake, config, clear_cache)))
    show_pulled(summary)
    if summary.problems:
        raise typer.Exit(FAILED)


async def _pulling(asked: Asked) -> Summary:
    from consumer import app_pull as house

    store, wish = await house.wished(asked)
    told = house.spoken(wish.options)
    if told and asked.options is None:
        out.print(escape(f"as the last time: {told}"))
    out.print(escape(f"project {wish.project} into {wish.folder}"))
    with progress_bar() as bar:
        return await house.pulled(store, wish, bar)


def _options(*, everything: bool, **given: Any) -> Options | None:
    """The options as they were said; None when those of the last time are meant."""
    from consumer import app_pull as house

    said = {name: value for name, value in given.items() if value not in (None, False)}
    options = house.Options(**said)
    if wrong := house.mistakes(options):
        end(MISCONFIGURED, *wrong)
    return options if said or everything else None


def _moment(name: str, text: str | None, *, end_of: bool) -> str | None:
    from consumer import app_pull as house

    if text is None:
        return None
    try:
        return house.moment(text, end=end_of)
    except ValueError as error:
        end(MISCONFIGURED, f"{name}: {error}")
