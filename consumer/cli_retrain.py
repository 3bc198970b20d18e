"""``groundwire retrain``: what was decided, how the policies stand, and a decision by hand."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from consumer.cli_shared import (
    MISCONFIGURED,
    ByOption,
    ConfigOption,
    LakeOption,
    ReasonOption,
    do,
    end,
    escape,
    lake_settings,
    out,
    settings,
    with_queue,
)

if TYPE_CHECKING:
    from consumer.app import FullQueue
    from consumer.app_retrain import Decision, Open, Overview, Standing, Told

retrain = typer.Typer(
    no_args_is_help=True,
    help="When training begins by itself: what was decided, what is pending, and firing by hand. "
    "Example: `groundwire retrain status`.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@retrain.command("list")
def retrain_list(
    policy: Annotated[str | None, typer.Argument(help="Only this policy.")] = None,
    as_json: JsonOption = False,
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """Every decision in the log, the newest last: when and why it was made, on how many tasks, at
    which size of the log, and whether its target has begun. Needs no queue and no secret.

    Example: `groundwire retrain list nightly`
    """
    from consumer import app_retrain as house

    found = do(house.decisions(lake_settings(config, lake)))
    wanted = [one for one in found if policy in (None, one.decision.policy)]
    if as_json:
        for one in wanted:
            sys.stdout.write(json.dumps(_plain(one)) + "\n")
        return
    if not wanted:
        out.print("nothing has been decided yet")
    for one in wanted:
        out.print(escape(_line(one)))


@retrain.command("status")
def retrain_status(config: ConfigOption = None) -> None:
    """How each policy stands: how many tasks are pending, what it waits for and until when, and
    which of its decisions have not begun yet, with the last failure.

    Example: `groundwire retrain status`
    """
    from consumer import app_retrain as house

    found = settings(config)
    if not found.retrain:
        end(MISCONFIGURED, "retrain: there is no policy; write [retrain.NAME]")
    shown = do(house.overview(found))
    for one in shown.standings:
        for line in _standing(one):
            out.print(escape(line))
    for opened in shown.open:
        out.print(escape(_open(opened, gone=opened.decision.policy in shown.gone)), style="yellow")
    out.print(escape(_behind(shown)), style="dim")


@retrain.command("fire")
def retrain_fire(
    policy: Annotated[str, typer.Argument(help="The policy's name.")],
    reason: ReasonOption,
    by: ByOption = None,
    within: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds to wait for the log.")
    ] = 60.0,
    config: ConfigOption = None,
) -> None:
    """Decides now, whatever the policy says. Who did it and why goes into the log; the snapshot is
    taken and the target told by whichever process follows the log.

    Example: `groundwire retrain fire nightly --reason "a new protocol, as of today"`
    """
    from consumer import app_retrain as house

    found = settings(config)
    if policy not in found.retrain:
        there = ", ".join(found.retrain) or "there is none; write [retrain.NAME]"
        end(MISCONFIGURED, f"there is no policy {policy}: {there}")

    async def firing(queue: FullQueue) -> Decision:
        return await house.fire(found, queue, policy, by=by, reason=reason, within_s=within)

    made = with_queue(found, firing)
    said = "decided, and as a dry run that is all" if made.dry_run else "decided"
    out.print(
        escape(
            f"{made.policy} {made.decision}: {said}; log size {made.log_size}, "
            f"{made.added} new and {made.changed} changed task(s) since the last"
        ),
        style="green",
    )


def _plain(one: Told) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(one.decision)
    ended = dict(one.ended) if one.ended is not None else None
    return {**found, "triggered": ended, "failures": one.failures}


def _line(one: Told) -> str:
    made = one.decision
    tasks = f"{made.added} new, {made.changed} changed"
    by = f" by {made.who}" if made.who else ""
    told = f"{made.policy} {made.decision}  {_time(made.decided_at)}  {made.reason}{by}  {tasks}"
    return f"{told}  log size {made.log_size}  {_fate(one)}"


def _fate(one: Told) -> str:
    if one.decision.dry_run:
        return "dry run"
    if one.ended is None:
        failures = f" ({', '.join(one.failures)})" if one.failures else ""
        return f"not triggered yet{failures}"
    snapshot, reference = one.ended.get("snapshot"), one.ended.get("reference") or ""
    target = f"{one.ended.get('target')} {reference}".rstrip()
    return f"snapshot {snapshot}  triggered {_time(str(one.ended.get('logged_at')))}  {target}"


def _standing(one: Standing) -> list[str]:
    from consumer.app_retrain import Decide

    pending = one.pending
    tasks = f"{pending.tasks} task(s) pending ({pending.added} new, {pending.changed} changed)"
    if isinstance(one.next, Decide):
        waits = f"it is due ({one.next.reason})"
    elif one.next.until is not None:
        waits = f"it decides at {_moment(one.next.until)} if nothing changes"
    else:
        waits = _lacks(one)
    lines = [f"{one.policy.name}: {one.decided} decision(s); {tasks}; {waits}"]
    if one.policy.dry_run:
        lines.append("  a dry run: it decides, and starts nothing")
    if one.unreadable:
        lines.append(f"  {one.unreadable} task(s) do not count: their manifest cannot be had")
    if one.undrawn:
        among = f"of {one.sought} task(s) that were looked at"
        lines.append(f"  no ground truth has {', '.join(one.undrawn)} yet, {among}")
    return lines


def _lacks(one: Standing) -> str:
    if one.policy.min_changes:
        return f"it waits for {one.policy.min_changes} task(s)"
    return "it waits for a task"


def _open(one: Open, *, gone: bool) -> str:
    made = one.decision
    told = f"{made.policy} {made.decision}, decided {_time(made.decided_at)}, has not begun"
    if gone:
        return f"{told}: the policy is not configured any more; it is kept until it is again"
    if one.begun is not None:
        return f"{made.policy} {made.decision} has begun; the log does not say so yet"
    if one.reason is None:
        return f"{told}: under way"
    tries = f"{one.attempts} tries, the last at {_time(one.tried_at)}"
    again = f"again {one.wait_s:.0f} s later"
    return f"{told}: {one.reason}, {one.message} ({tries}; {again})"


def _behind(shown: Overview) -> str:
    if shown.behind is None:
        return "the follower has not run yet: groundwire run, or groundwire follow retrain"
    if shown.behind:
        return f"the follower's state is {shown.behind} log entries old"
    return "the follower has taken in the whole log"


def _time(text: str) -> str:
    return text[:19]


def _moment(at: datetime) -> str:
    from consumer.model import timestamp

    return _time(timestamp(at))
