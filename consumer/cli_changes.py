"""The command ``changes``: what moved in the lake, as lines of JSON."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

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
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from consumer.errors import Transient
    from consumer.log.walk import Place, Wanted
    from consumer.settings import Settings

RETRY_S = 5.0

AfterOption = Annotated[
    str | None, typer.Option(metavar="POSITION", help="A change's id, or an index of the log.")
]
TruthOption = Annotated[
    bool, typer.Option("--ground-truth", help="Only what changed the ground truth.")
]
ProjectsOption = Annotated[
    list[str] | None, typer.Option("--project", help="Only this one, by its id; may be repeated.")
]
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="Goes on as the log grows, until interrupted.")
]


def changes(
    after: AfterOption = None,
    ground_truth: TruthOption = False,
    project: ProjectsOption = None,
    follow: FollowOption = False,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """Prints what moved in the lake, one line of JSON for each change, straight from the lake's
    log: no server is needed. Go on later with `--after` and the last line's `id`.

    Example: `groundwire changes --ground-truth --follow | jq .task`
    """
    from consumer.changes import read_position
    from consumer.log.walk import Wanted

    try:
        place = None if after is None else read_position(after)
    except ValueError as error:
        end(MISCONFIGURED, f"--after {error}")
    found = lake_settings(config, lake)
    wanted = Wanted(ground_truth, frozenset(project or ()))
    do(_print(found, place, wanted, follow=follow))


async def _print(found: Settings, after: Place | None, wanted: Wanted, *, follow: bool) -> None:
    import msgspec

    from consumer.app_adapters import make_store
    from consumer.log.tail import LogTail
    from consumer.log.walk import walk
    from consumer.redact import json_text

    log = LogTail(make_store(found), poll_s=found.follow.poll_s)
    if not await log.identity() and after is None:
        if not follow:
            end(FAILED, f"the lake {found.lake.shown} holds no log")
        err.print(escape(f"groundwire: the lake {found.lake.shown} holds no log yet"))
    failed = _waiting() if follow else None
    async for change in walk(log, after, wanted, failed=failed):
        if not _write(json_text(msgspec.json.encode(change).decode()).encode()):
            return


def _write(line: bytes) -> bool:
    """One line, at once; False when whoever read has enough."""
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # What Python still holds back must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _waiting() -> Callable[[Transient], Awaitable[None]]:
    """Says once why nothing comes, and waits."""
    said: set[str] = set()

    async def wait(error: Transient) -> None:
        import asyncio

        if error.reason not in said:
            said.add(error.reason)
            err.print(escape(f"groundwire: {error.message} ({error.reason}); waiting"))
        await asyncio.sleep(max(RETRY_S, error.after_s or 0.0))

    return wait
