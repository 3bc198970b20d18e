"""The commands: each reads its options, calls what does the work, and prints. No logic."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from consumer import (
    cli_changes,
    cli_dead,
    cli_log,
    cli_look,
    cli_pull,
    cli_reconcile,
    cli_retrain,
    cli_snapshot,
)
from consumer.cli_shared import FAILED, MISCONFIGURED, ConfigOption, do, end, escape, out, settings

if TYPE_CHECKING:
    from consumer.settings import Settings
    from consumer.settings_values import Address

app = typer.Typer(
    name="groundwire",
    help=(
        "Turns the webhooks of an annotation platform into a ground-truth lake that is always "
        "current, with a log that strangers can check.\n\n"
        "Begin with `groundwire demo`. Then write a groundwire.toml "
        "(`groundwire check --defaults` prints one), try it with `groundwire check`, "
        "and start `groundwire run`."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The console script."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        from consumer.app import our_version

        sys.stdout.write(our_version() + "\n")
        raise typer.Exit


@app.callback()
def before(
    context: typer.Context,
    config: ConfigOption = None,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print it.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """What may stand before the command."""
    context.obj = config


@app.command()
def run(config: ConfigOption = None) -> None:
    """Everything in one process: receives webhooks, exports tasks, writes the log, and keeps up to
    date what follows it. The default for one machine; needs no server besides.

    Example: `groundwire run -c groundwire.toml`, then point the platform's webhook at
    `https://your.host/hooks/NAME`.
    """
    _serve(config, "run", hooks=True, lanes=["export", "audit"], follow=True)


@app.command()
def receive(config: ConfigOption = None) -> None:
    """Only receives webhooks and puts them into the queue; run as many as you like behind a load
    balancer, with RabbitMQ between them and the workers.

    Example: `groundwire receive -c groundwire.toml`
    """
    _serve(config, "receive", hooks=True, lanes=[])


@app.command()
def work(
    lane: Annotated[str | None, typer.Argument(help="export or audit; without it, both.")] = None,
    config: ConfigOption = None,
) -> None:
    """Only works on what is queued: on one lane, or on all. Any number may work on `export`; of
    those on `audit` one at a time is active.

    Example: `groundwire work export`
    """
    if lane not in (None, "export", "audit"):
        end(MISCONFIGURED, f"there is no lane {lane}: the lanes are export and audit")
    _serve(config, "work", hooks=False, lanes=[lane] if lane else ["export", "audit"])


@app.command()
def follow(
    name: Annotated[
        str | None,
        typer.Argument(help="mirror, table, relay or retrain; without it, all that are on."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Only keeps up to date what follows the log: mirror, table, relay, retraining. One that was
    switched on later begins with the log's first entry.

    Example: `groundwire follow table`
    """
    _serve(config, "follow", hooks=False, lanes=[], follow=True, follower=name)


@app.command()
def check(
    config: ConfigOption = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print every key with its default, as TOML.")
    ] = False,
) -> None:
    """Connects to everything that is configured - queue, lake, each platform, the log's key - and
    says in plain words what is wrong and what to do; warns of what is unsafe. The exit code is 0
    when nothing fails.

    Example: `groundwire check`, or `groundwire check --defaults > groundwire.toml`
    """
    if defaults:
        from consumer.settings_defaults import defaults as text

        sys.stdout.write(text())
        return
    from consumer.app import checks

    async def trying(found: Settings) -> bool:
        well = True
        async for one in checks(found):
            good = "[yellow]warn[/yellow]" if one.warning else "[green]ok  [/green]"
            mark = good if one.ok else "[red]FAIL[/red]"
            out.print(f"{mark} {escape(one.what)}: {escape(one.said)}")
            if one.advice and (one.warning or not one.ok):
                out.print(f"     {escape(one.advice)}")
            well = well and one.ok
        return well

    if not do(trying(settings(config))):
        raise typer.Exit(FAILED)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where its queue, lake and keys go.")
    ] = Path("groundwire-demo"),
    once: Annotated[bool, typer.Option("--once", help="Exit when the story is over.")] = False,
    queue: Annotated[str | None, typer.Option(help="Another queue, such as amqp://..")] = None,
    lake: Annotated[str | None, typer.Option(help="Another lake, such as s3://..")] = None,
) -> None:
    """Plays a story on simulated platforms: upload, label, review, approval, sending back,
    deletion; shows each webhook, its answer, and what changed in lake and log.

    Example: `groundwire demo --once --dir /tmp/demo`
    """
    from consumer.demo import story
    from consumer.telemetry import configure_logging

    configure_logging(level="ERROR")
    place = directory.absolute()
    if not do(story.play(place, once=once, queue=queue, lake=lake, console=Console())):
        raise typer.Exit(FAILED)


app.add_typer(cli_dead.dead, name="dead")
app.command()(cli_log.verify)
app.command()(cli_log.report)
app.add_typer(cli_log.key, name="key")
app.command()(cli_log.gc)
app.command()(cli_pull.pull)
app.command()(cli_reconcile.reconcile)
app.command("backfill", help=cli_reconcile.BACKFILL)(cli_reconcile.reconcile)
app.command()(cli_changes.changes)
app.add_typer(cli_snapshot.snapshot, name="snapshot")
app.add_typer(cli_retrain.retrain, name="retrain")
app.command()(cli_look.show)
app.command()(cli_look.calibrate)


def _serve(
    config: Path | None,
    command: str,
    *,
    hooks: bool,
    lanes: list[str],
    follow: bool = False,
    follower: str | None = None,
) -> None:
    from consumer import app as house
    from consumer.serve import end_at_the_latest, leave
    from consumer.telemetry import configure_logging, logger

    found = settings(config)
    configure_logging(secrets=found.secrets())

    def announce(what: str, where: Address) -> None:
        logger().info("listening", what=what, address=str(where))

    async def serving() -> None:
        stop = asyncio.Event()
        last = asyncio.create_task(end_at_the_latest(stop, found.work.stop_s))
        await house.serve(
            found,
            command=command,
            hooks=hooks,
            lanes=lanes,
            followers=house.chosen(found, follower) if follow else (),
            announce=announce,
            stop=stop,
        )
        await last

    do(serving())
    leave()


if __name__ == "__main__":
    main()
