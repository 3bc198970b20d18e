"""The command ``reconcile``, or ``backfill``: what no webhook told is found by comparing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from consumer.cli_shared import (
    FAILED,
    MISCONFIGURED,
    NAMED,
    ConfigOption,
    do,
    end,
    err,
    escape,
    named,
    out,
    settings,
)

if TYPE_CHECKING:
    from consumer.app_sweep import Tally, Window, Wish
    from consumer.settings import Settings
    from consumer.sightings import Gap

_DATES = "YYYY-MM-DD, 'YYYY-MM-DD hh:mm:ss' or ISO 8601, UTC if unsaid"

SourceArgument = Annotated[
    str | None, typer.Argument(help="The source, by its name; all of them without it.")
]
ProjectOption = Annotated[str | None, typer.Option(help="Only this project, by its id.")]
FullOption = Annotated[
    bool, typer.Option("--full", help="All tasks, so that deleted ones are found, too.")
]
StaleOption = Annotated[
    bool,
    typer.Option("--stale", help="What older settings made; asks the lake, not the platform."),
]
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
AcceptOption = Annotated[
    bool,
    typer.Option("--accept-missing", help="Of --full: believe it that most tasks are deleted."),
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be queued.")]


def reconcile(
    source: SourceArgument = None,
    project: ProjectOption = None,
    full: FullOption = False,
    stale: StaleOption = False,
    since: SinceOption = None,
    until: UntilOption = None,
    label_created_since: LabelSinceOption = None,
    label_created_until: LabelUntilOption = None,
    accept_missing: AcceptOption = False,
    dry_run: DryOption = False,
    config: ConfigOption = None,
) -> None:
    """Compares the lake with what the platform holds, and queues every task that differs: what no
    webhook told. The first time it takes in whole projects, later what changed since the last
    time. It may be stopped at any time and goes on where it was. `groundwire run` and
    `groundwire work` do the same by themselves ([sweep] in the configuration), and export what it
    queued.

    Example: `groundwire reconcile labelbox-prod --dry-run`, then without `--dry-run`
    """
    from consumer import app_sweep as house

    window = house.Window(
        since=_moment("--since", since, end_of=False),
        until=_moment("--until", until, end_of=True),
        label_since=_moment("--label-created-since", label_created_since, end_of=False),
        label_until=_moment("--label-created-until", label_created_until, end_of=True),
    )
    wish = _wish(window, full=full, stale=stale, dry=dry_run)
    if accept_missing:
        if not full:
            end(MISCONFIGURED, "--accept-missing is of --full: only that finds missing tasks")
        wish = replace(wish, accept_missing=True)
    found = settings(config)
    if not do(_reconciling(found, source, project, wish)):
        raise typer.Exit(FAILED)


BACKFILL = """The same as `reconcile`, named after its first time, which takes in whole projects.

Example: `groundwire backfill labelbox-prod`
"""


def _wish(window: Window, *, full: bool, stale: bool, dry: bool) -> Wish:
    from consumer import app_sweep as house

    if full and (stale or not window.everything):
        other = "--stale" if stale else "a window"
        end(MISCONFIGURED, f"--full is of all tasks: leave {other} out")
    for names, start, last in (
        ("--since and --until", window.since, window.until),
        ("--label-created-since and -until", window.label_since, window.label_until),
    ):
        if start and last and start > last:
            end(MISCONFIGURED, f"{names}: the beginning is after the end")
    if full:
        return house.Wish("full", dry=dry)
    if stale:
        return house.Wish("stale", window, dry=dry)
    return house.Wish(None if window.everything else "window", window, dry=dry)


async def _reconciling(
    found: Settings, source: str | None, project: str | None, wish: Wish
) -> bool:
    """Whether all went well."""
    from consumer import app_sweep as house

    sources = house.chosen(found, source, project)
    well, queued, told = True, 0, False
    with _watch() as watch:
        async for name, tally in house.reconciled(
            found, sources, project=project, wish=wish, watch=watch
        ):
            _show(name, tally, dry=wish.dry)
            well = well and tally.failure is None
            queued += tally.queued
            told = True
    if not told:
        out.print("no project is known yet: name them in projects, or wait for a first webhook")
    if queued:
        out.print("`groundwire run` or `groundwire work export` exports what is queued")
    return well


def _show(source: str, tally: Tally, *, dry: bool) -> None:
    gaps = ", ".join(f"{count} {why}" for why, count in sorted(tally.gaps.items()))
    total = tally.gaps.total()
    queued = "nothing queued (dry run)" if dry else f"{tally.queued} queued"
    said = f"{source} {tally.project} ({tally.kind}): {tally.seen} seen, {total} to look at"
    out.print(escape(f"{said}{f' ({gaps})' if gaps else ''}, {queued}"))
    if dry and 0 < total <= NAMED:
        for why in sorted(tally.gaps):
            out.print(escape(f"  {why}: {named([task for w, task in tally.named if w == why])}"))
    if tally.failure is not None:
        from consumer.errors import Transient
        from consumer.redact import Redactor

        said = Redactor().text(tally.failure.message)
        err.print(escape(f"groundwire: {source} {tally.project}: not finished: {said}"))
        if isinstance(tally.failure, Transient):  # else there is something to mend first
            err.print("groundwire: the same command goes on with it")


class _Bar:
    """A progress bar of tasks, where a person looks; one line when it has to wait long."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("asking", total=None)
        self._said = ""

    def begins(self, project: str, kind: str) -> None:
        self._bar.reset(self._task, total=None, description=f"{project} ({kind})")

    def seen(self, count: int, total: int | None) -> None:
        self._said = ""
        self._bar.update(self._task, advance=count, total=total)

    def found(self, gaps: Sequence[Gap]) -> None:
        pass

    def waits(self, reason: str, waiting: int) -> None:
        if reason == self._said:
            return
        self._said = reason
        said = f"{waiting} events wait to be exported; is `groundwire work export` running?"
        why = said if waiting else f"tries again: {reason}"
        err.print(escape(f"groundwire: waits: {why}"))


@contextmanager
def _watch() -> Iterator[_Bar]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield _Bar(bar)


def _moment(name: str, text: str | None, *, end_of: bool) -> str | None:
    from consumer import app_sweep as house

    if text is None:
        return None
    try:
        return house.moment(text, end=end_of)
    except ValueError as error:
        end(MISCONFIGURED, f"{name}: {error}")
