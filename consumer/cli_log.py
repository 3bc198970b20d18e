"""The commands around log and lake: ``verify``, ``report``, ``key`` and ``gc``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from consumer.cli_shared import (
    FAILED,
    ByOption,
    ConfigOption,
    LakeOption,
    do,
    end,
    err,
    escape,
    lake_settings,
    out,
    read,
    settings,
    with_queue,
    write,
)

key = typer.Typer(
    no_args_is_help=True,
    help="The key that signs the log. Example: `groundwire key new --file log.key`.",
)


def verify(
    key: Annotated[
        str | None,
        typer.Option(help="The log's public key (name+hash+base64) or a file with it."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint kept from before; the log must extend it.")
    ] = None,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """Recomputes the log from its files, checks that everything it names is in the lake with its
    hash, and lists what nothing names. Needs no queue and no secret.

    Example: `groundwire verify --key groundwire+1a2b3c4d+Ab.. --checkpoint last-year.txt`
    """
    from consumer import app as house
    from consumer.log.verify import verify as verifying

    store = house.make_store(lake_settings(config, lake))
    vkey = _text_or_file(key) if key else None
    older = read(checkpoint) if checkpoint else None
    try:
        found = do(verifying(store, vkey=vkey, older=older))
    except ValueError as error:
        end(FAILED, str(error))
    for note in found.notes:
        out.print(f"[dim]{escape(note)}[/dim]")
    for finding in found.findings:
        out.print(f"[red]{escape(str(finding))}[/red]")
    for stray in found.unreferenced:
        out.print(f"[dim]unreferenced: {escape(stray)}[/dim]")
    out.print(escape(found.summary), style="green" if found.ok else "red")
    if not found.ok:
        raise typer.Exit(FAILED)


def report(
    task: Annotated[str | None, typer.Argument(help="Only this task, by its id.")] = None,
    ground_truth: Annotated[
        bool, typer.Option("--ground-truth", help="Only tasks in the ground truth.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; standard output without it.")
    ] = None,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """The audit trail from the log: who did what to which task and when, in the shape of RedBrick's
    own report.

    Example: `groundwire report --ground-truth -o report.json`
    """
    from consumer import app as house
    from consumer.errors import Permanent
    from consumer.log.read import entries, published
    from consumer.log.report import Report
    from consumer.redact import json_text

    found = lake_settings(config, lake)
    store = house.make_store(found)
    collected = Report(task=task, ground_truth=ground_truth)

    async def reporting() -> bool:
        async for entry in entries(store):
            try:
                collected.add(entry.data)
            except (KeyError, TypeError):
                said = f"entry {entry.index} of the log is none that this version knows"
                raise Permanent("log-damaged", f"{said}; groundwire verify tells more") from None
        return await published(store) is not None

    if not do(reporting()):
        err.print(escape(f"groundwire: there is no log in {found.lake.shown} yet"))
    elif task is not None and not collected.seen:
        end(FAILED, f"the log in {found.lake.shown} tells of no task {task}")
    text = json_text(json.dumps(collected.rows(), indent=2, ensure_ascii=False)) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        write(output, text)


@key.command("new")
def key_new(
    file: Annotated[Path, typer.Option(help="Where to; it must not exist.")] = Path("log.key"),
    origin: Annotated[
        str | None, typer.Option(help="The log's name; [log] origin without it.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Makes a signing key in a new file that only you can read, and prints its public half. Keep a
    copy of the public half where nobody can change it: `verify --key` wants it.

    Example: `groundwire key new --file /etc/groundwire/log.key --origin example.org/ground-truth`
    """
    from consumer.errors import GroundwireError
    from consumer.log.note import BadNote, new_key

    try:
        signer = new_key(file, origin or lake_settings(config, None).log.origin)
    except (GroundwireError, BadNote) as error:
        end(FAILED, str(error))
    except OSError as error:
        end(FAILED, f"{file} cannot be written: {error.strerror}")
    sys.stdout.write(signer.verifier.vkey + "\n")


@key.command("show")
def key_show(
    file: Annotated[
        Path | None, typer.Option(help="The key file; without it, the configured key.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Prints the public half of the signing key, for `verify --key`.

    Example: `groundwire key show --file /etc/groundwire/log.key`
    """
    from consumer import app as house
    from consumer.errors import GroundwireError
    from consumer.log.note import BadNote

    try:
        vkey = house.public_key(file, None if file else settings(config))
    except (GroundwireError, BadNote) as error:
        end(FAILED, str(error))
    sys.stdout.write(vkey + "\n")


def gc(
    older_than: Annotated[str, typer.Option(help="Only what is older: 12h, 7d, 2w.")] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    by: ByOption = None,
    config: ConfigOption = None,
) -> None:
    """Removes objects that no pointer and no manifest names: leftovers of crashes and lost races.
    Refuses when the lake does not verify; never touches the log. Run it while nothing exports: an
    export that is under way may be about to name an old leftover again.

    Example: `groundwire gc --older-than 7d --dry-run`
    """
    from consumer import app as house
    from consumer import gc as collector
    from consumer.dead import whoami

    found_settings = settings(config)
    store = house.make_store(found_settings)

    async def finding() -> Any:
        age = collector.age(older_than)
        return await collector.find(store, older_than=age, now=house.now())

    found = do(finding())
    for one in found:
        out.print(escape(f"{one.key} ({one.size} bytes)"))
    if dry_run or not found:
        out.print(f"{len(found)} object(s) would be removed" if found else "nothing to remove")
        return

    async def collecting(queue: house.FullQueue) -> collector.Collected:
        return await collector.collect(store, queue, found, who=by or whoami(), clock=house.now)

    done = with_queue(found_settings, collecting)
    out.print(f"removed {len(done.objects)} object(s), {done.size_bytes} bytes")


def _text_or_file(key: str) -> str:
    """A public key has two plus signs; anything else is the file that holds it."""
    return key if key.count("+") >= 2 else read(Path(key)).decode("utf-8", "replace").strip()
