"""What the commands share: options, the configuration, running, and how a command ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich import markup
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from consumer.redact import printable

if TYPE_CHECKING:
    from consumer.app import FullQueue
    from consumer.app_pull import Summary
    from consumer.settings import Settings

T = TypeVar("T")

FAILED, MISCONFIGURED = 1, 2  # exit codes
NAMED = 20  # tasks that a summary names of each kind


class Screen(Console):
    """A console that no text can command: whoever names a task must not move a reader's cursor."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text, lines=True), **how)


def escape(text: str) -> str:
    """A text that somebody else chose, as it stands: on one line, without markup."""
    return markup.escape(printable(text))


out = Screen(soft_wrap=True, highlight=False)
err = Screen(stderr=True, soft_wrap=True, highlight=False)


def _or_before(context: typer.Context, config: Path | None) -> Path | None:
    """``--config`` may stand before the command as well."""
    return config or context.find_root().obj


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration file; groundwire.toml here, if there is one.",
        envvar="GROUNDWIRE_CONFIG",
        callback=_or_before,
    ),
]
LakeOption = Annotated[
    str | None, typer.Option(help="The lake's URL; without it, the configured one.")
]
LaneOption = Annotated[str | None, typer.Option(help="Only this lane: export or audit.")]
ReasonOption = Annotated[
    str, typer.Option(help="Why, in your words; kept in a note that can be erased.")
]
ByOption = Annotated[str | None, typer.Option(help="Who does it; login@host without it.")]


def settings(config: Path | None) -> Settings:
    """The configuration; ends the command with every mistake of it."""
    from consumer.settings import load
    from consumer.telemetry import configure_logging

    found = _or_end(lambda: load(config))
    configure_logging(secrets=found.secrets(), level="WARNING")
    return found


def lake_settings(config: Path | None, lake: str | None) -> Settings:
    """Of the configuration, only where the lake is: needs no secret."""
    from consumer.settings import load_lake

    return _or_end(lambda: load_lake(config, lake))


def do(work: Coroutine[Any, Any, T]) -> T:
    """Runs it; ends the command with a sentence when it fails as it may."""
    return _or_end(lambda: asyncio.run(work))


def with_queue(found: Settings, work: Callable[[FullQueue], Awaitable[T]]) -> T:
    """Runs ``work`` with the open queue."""
    from consumer import app as house
    from consumer.serve import opened

    async def working() -> T:
        queue = house.make_queue(found)
        async with opened(queue):
            return await work(queue)

    return do(working())


def end(code: int, *sentences: str) -> NoReturn:
    """Ends the command, saying why on standard error."""
    for sentence in sentences:
        err.print(f"groundwire: {escape(sentence)}")
    raise typer.Exit(code)


def write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        end(FAILED, f"{path} cannot be written: {error.strerror}")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        end(FAILED, f"{path} cannot be read: {error.strerror}")


def _or_end(work: Callable[[], T]) -> T:
    from consumer.errors import GroundwireError
    from consumer.redact import Redactor
    from consumer.serve import Failed
    from consumer.settings import ConfigurationError

    try:
        return work()
    except ConfigurationError as error:
        end(MISCONFIGURED, *error.mistakes)
    except (GroundwireError, Failed) as error:
        end(FAILED, Redactor().text(str(error)))
    except OSError as error:
        end(FAILED, f"{error.filename or 'the system'}: {error.strerror or type(error).__name__}")
    except KeyboardInterrupt:
        end(130, "interrupted")


class Bar:
    """A progress bar of bytes, where a person looks."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("fetching", total=None)

    def begin(self, size: int) -> None:
        self._bar.update(self._task, total=size)

    def advance(self, size: int) -> None:
        self._bar.advance(self._task, size)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Of what is fetched from the lake."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield Bar(bar)


def show_pulled(summary: Summary) -> None:
    """What a pull did, and what went wrong."""
    for what, tasks in (
        ("added", summary.added),
        ("changed", summary.changed),
        ("removed", summary.removed),
    ):
        if tasks:
            out.print(escape(f"{what} {len(tasks)}: {named(tasks)}"))
    for place in summary.aside:
        err.print(escape(f"groundwire: a file that is not of this pull now lies at {place}"))
    if summary.undated:
        said = "left out, for the lake does not know the time that was asked for"
        err.print(escape(f"groundwire: {summary.undated} task(s) {said}"))
    for problem in summary.problems:
        err.print(escape(f"groundwire: {problem.task}: {problem.message} ({problem.reason})"))
    counts = (
        f"{len(summary.added)} added, {len(summary.changed)} changed, "
        f"{len(summary.removed)} removed, {summary.unchanged} unchanged; "
        f"{summary.files} file(s), {summary.size} bytes fetched"
    )
    out.print(escape(f"{summary.index}: {counts}"), style="red" if summary.problems else "green")


def named(tasks: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(tasks) - NAMED
    return ", ".join(tasks[:NAMED]) + (f" and {more} more" if more > 0 else "")
