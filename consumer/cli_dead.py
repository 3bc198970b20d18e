"""``groundwire dead``: the commands for what was given up."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from consumer.cli_shared import (
    MISCONFIGURED,
    ByOption,
    ConfigOption,
    LaneOption,
    ReasonOption,
    end,
    escape,
    out,
    settings,
    with_queue,
)

if TYPE_CHECKING:
    from consumer.app import FullQueue
    from consumer.dead import Verb
    from consumer.model import DeadLetter, LaneSpec

dead = typer.Typer(
    no_args_is_help=True,
    help="What was given up: list it, look at it, replay or drop it. Example: "
    '`groundwire dead replay 3f2a --reason "the API key is renewed"`.',
)


@dead.command("list")
def dead_list(
    config: ConfigOption = None,
    lane: LaneOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Of each lane.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The oldest dead letters, one a line, with why and when they were given up.

    Example: `groundwire dead list --lane export`
    """
    from consumer import dead as letters

    async def listing(queue: FullQueue) -> list[DeadLetter]:
        return await letters.letters(queue, _lanes(lane), limit=limit)

    found = with_queue(settings(config), listing)
    if as_json:
        for one in found:
            sys.stdout.write(json.dumps(msgspec.to_builtins(one)) + "\n")
        return
    for line in _lines(found):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@dead.command("show")
def dead_show(
    message: Annotated[str, typer.Argument(help="The id, or how it begins.")],
    config: ConfigOption = None,
    lane: LaneOption = None,
) -> None:
    """One dead letter, whole, as JSON.

    Example: `groundwire dead show 3f2a`
    """
    from consumer import dead as letters

    async def showing(queue: FullQueue) -> list[DeadLetter]:
        return await letters.find(queue, _lanes(lane), [message])

    for one in with_queue(settings(config), showing):
        sys.stdout.write(json.dumps(msgspec.to_builtins(one), indent=2) + "\n")


@dead.command("replay")
def dead_replay(
    reason: ReasonOption,
    messages: Annotated[list[str] | None, typer.Argument(help="Ids, or how they begin.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    by: ByOption = None,
    config: ConfigOption = None,
    lane: LaneOption = None,
) -> None:
    """Puts dead letters back into their lane, with their attempts forgotten. Who did it and why
    goes into the log first.

    Example: `groundwire dead replay --all --reason "the platform is back"`
    """
    _settle("replayed", reason, messages or [], every, by, config, lane)


@dead.command("drop")
def dead_drop(
    reason: ReasonOption,
    messages: Annotated[list[str] | None, typer.Argument(help="Ids, or how they begin.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    by: ByOption = None,
    config: ConfigOption = None,
    lane: LaneOption = None,
) -> None:
    """Removes dead letters for ever. Who did it and why goes into the log first.

    Example: `groundwire dead drop 3f2a --reason "a test project, deleted since"`
    """
    _settle("dropped", reason, messages or [], every, by, config, lane)


def _settle(
    verb: Verb,
    reason: str,
    messages: list[str],
    every: bool,
    by: str | None,
    config: Path | None,
    lane: str | None,
) -> None:
    from consumer import app as house
    from consumer import dead as letters
    from handlers import layout

    if bool(messages) == every:
        end(MISCONFIGURED, "name the dead letters, or say --all")
    lanes = _lanes(lane)
    found = settings(config)
    person = letters.Person(by or letters.whoami(), reason)

    async def settling(queue: FullQueue) -> list[DeadLetter]:
        store = house.make_store(found)
        chosen = await (
            letters.letters(queue, lanes) if every else letters.find(queue, lanes, messages)
        )
        return await letters.settle(
            queue,
            store,
            lanes,
            chosen,
            verb=verb,
            person=person,
            note_key=layout.note_key,
            clock=house.now,
        )

    done = with_queue(found, settling)
    for one in done:
        out.print(escape(f"{verb} {one.message.id} ({one.lane}, {one.failure.reason})"))
    if not done:
        out.print("no dead letters")


def _lines(letters: Sequence[DeadLetter]) -> list[str]:
    """Columns as wide as what they hold, since an id that is cut short serves nobody."""
    if not letters:
        return ["no dead letters"]
    rows = [("id", "lane", "reason", "attempts", "given up at", "task", "last error")]
    for one in letters:
        task, failure = getattr(one.message, "task", ""), one.failure
        told = (one.message.id, one.lane, failure.reason, str(one.attempts), failure.at[:19])
        rows.append((*told, task, failure.message))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (map(str.ljust, row, widths) for row in rows)
    return ["  ".join(cells).rstrip() for cells in padded]


def _lanes(name: str | None) -> tuple[LaneSpec, ...]:
    from consumer import app as house

    lanes = tuple(lane for lane in house.LANES if name in (None, lane.name))
    if not lanes:
        end(MISCONFIGURED, f"there is no lane {name}: the lanes are export and audit")
    return lanes
