"""Which projects a source has been seen in: read from the log, each entry once.

The log's identity stands in the state: one that was copied into another lake is refused, for its
watermarks would hide what that lake lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from consumer.errors import Permanent
from consumer.ports import LogReader
from consumer.reconcile_state import MAX_PROJECTS, Ledger, Project, State, state_key

ENTRIES_AT_ONCE = 4096
KINDS = frozenset({"receipt", "lake"})


async def check_log(ledger: Ledger, log: LogReader, *, keep: bool = True) -> State:
    """The state, whose log this is from now on, if it is to ``keep`` that. Raises ``Permanent``
    when it is another's."""
    identity = await log.identity()
    state = await ledger.read()
    if state.log not in ("", identity):
        key = state_key(ledger.source)
        said = f"{key} is of the log {state.log}, not of {identity or 'this lake, which has none'}:"
        raise Permanent("sweep-state-of-another-log", f"{said} remove it to sweep anew")
    return await _made(ledger, state, lambda now: replace(now, log=identity), keep=keep)


async def find_projects(ledger: Ledger, log: LogReader, *, keep: bool = True) -> State:
    """The state with every project of the source that the log tells of so far."""
    state = await check_log(ledger, log, keep=keep)
    size = await log.size()
    if state.next > size:
        said = f"{state_key(ledger.source)} is at {state.next}, and the log has only {size} entries"
        raise Permanent("sweep-state-ahead", f"{said}: was the lake restored from a copy?")
    while state.next < size:
        end = min(size, state.next + ENTRIES_AT_ONCE)
        found = {
            str(entry.data["project"])
            for entry in await log.read(state.next, end)
            if entry.data.get("kind") in KINDS and entry.data.get("source") == ledger.source
        }
        state = await _made(ledger, state, partial(_with, found=found, end=end), keep=keep)
    return state


async def _made(
    ledger: Ledger, state: State, how: Callable[[State], State], *, keep: bool
) -> State:
    return await ledger.change(how) if keep else how(state)


def _with(state: State, found: set[str], end: int) -> State:
    projects = {**{name: Project() for name in sorted(found)}, **state.projects}
    if len(projects) > MAX_PROJECTS:
        said = f"[sources.{state.source}] has been seen in over {MAX_PROJECTS} projects"
        raise Permanent("sweep-too-many-projects", f"{said}: name those that count")
    return replace(state, projects=projects, next=max(state.next, end))
