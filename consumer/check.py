"""``groundwire check``: connects to everything that is configured, and says in plain words what is
wrong and what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.log.index import IdIndex
from consumer.log.locate import owner
from consumer.log.note import Signer
from consumer.model import LaneSpec, TaskKey
from consumer.ports import Platform, Queue, Store

CHECK_S = 30.0  # for one of them
NOBODY = "groundwire-check"  # a task (and project) that no platform has


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing that was tried; ``advice`` says what to do when it is not ``ok``, and what to do
    about a ``warning``, which is nothing that fails."""

    what: str
    ok: bool
    said: str
    advice: str = ""
    warning: bool = False


async def attempt(what: str, doing: Callable[[], Awaitable[str]], advice: str) -> Checked:
    """What came of it; never raises for what may be wrong out there."""
    try:
        async with asyncio.timeout(CHECK_S):
            return Checked(what, True, await doing())
    except TimeoutError:
        return Checked(what, False, f"no answer within {CHECK_S:g} s", advice)
    except GroundwireError as error:
        return Checked(what, False, error.message, _advice(error.reason, advice))
    except OSError as error:
        return Checked(what, False, error.strerror or type(error).__name__, advice)
    except Exception as error:
        return Checked(what, False, f"unexpected {type(error).__name__}", advice)


def queue_check(queue: Queue, where: str) -> Awaitable[Checked]:
    async def doing() -> str:
        try:
            await queue.open()
            await queue.ready()
        finally:
            await queue.close()
        return f"{where} takes messages"

    return attempt(
        "queue", doing, "Look at `queue`: is the server up, the user known, may it write?"
    )


def inbox_check(inbox: Queue, lane: LaneSpec, file: Path) -> Awaitable[Checked]:
    """What waits in this machine's inbox: only a process that receives takes it to the broker."""
    begun, waiting = file.exists(), 0

    async def doing() -> str:
        nonlocal waiting
        if not begun:
            return f"{file} is not there: the first receiver makes it"
        try:
            await inbox.open()
            depth = await inbox.depth(lane)
        finally:
            await inbox.close()
        waiting = depth.ready + depth.leased + depth.waiting
        return f"{file} holds {waiting} messages for the broker" if waiting else f"{file} is empty"

    async def checked() -> Checked:
        found = await attempt("inbox", doing, "Look at `inbox`: can its file be written?")
        return replace(found, warning=True, advice=FORWARDED) if waiting else found

    return checked()


def store_check(probe: Callable[[], Awaitable[None]], where: str) -> Awaitable[Checked]:
    async def doing() -> str:
        try:
            await probe()
        except Transient as error:
            if error.reason == "store-folder-absent":
                return error.message  # nothing is wrong yet: whether a log is gone, the next tells
            raise
        return f"{where} can be written, read, listed and deleted from"

    return attempt("lake", doing, LAKE)


def platform_check(platform: Platform, projects: Sequence[str], where: str) -> Awaitable[Checked]:
    """Asks for a task that nobody has: the answer tells whether the key is good, and whether the
    projects can be read."""

    async def doing() -> str:
        for project in projects:
            await _project(platform, project)
        named = [project for project in projects if project != "*"]
        read = f", {len(named)} project(s) can be read" if named else ""
        return f"{where} answers, the API key is good{read}"

    what = f"sources.{platform.source}"
    return attempt(what, doing, "Look at its api_url, api_key and projects.")


async def _project(platform: Platform, project: str) -> None:
    known = project != "*"
    key = TaskKey(source=platform.source, project=project if known else NOBODY, task=NOBODY)
    try:
        answer = (await platform.fetch([key]))[key]
        if known and isinstance(answer, Transient | Permanent):
            raise answer
    except (Transient, Permanent) as error:
        if isinstance(error, Transient) and error.shared:
            raise
        if known:
            raise Permanent(error.reason, f"project {project}: {error.message}") from error


def log_check(
    signer: Callable[[], Awaitable[Signer | None]], store: Store, index: Path | None = None
) -> Awaitable[Checked]:
    """``index`` is this machine's file of the log's ids: where it knows entries and the lake has no
    log, the lake is not the lake."""

    async def doing() -> str:
        found = await signer()
        if found is None:
            return "the first start makes a key outside the lake"
        mine = found.verifier.vkey
        theirs = await owner(store)
        if theirs is None and (known := _entries_in(index)):
            raise Permanent("log-gone", f"the lake has no log, but {index} knows {known} entries")
        if theirs is None:
            return f"the log begins with the first entry; its public key is {mine}"
        if theirs != mine:
            raise Permanent(
                "log-key", f"the log in the lake was begun with the key {theirs}, yours is {mine}"
            )
        return f"the key is the log's own: {mine}"

    return attempt(
        "log", doing, "Look at [log] key and origin; make a key with `groundwire key new`."
    )


def _entries_in(index: Path | None) -> int:
    if index is None or not index.exists():
        return 0
    ids = IdIndex(index)
    try:
        return ids.covered()[0]
    finally:
        ids.close()


def _advice(reason: str, otherwise: str) -> str:
    """The log lies in the lake: what is wrong with the lake is no fault of the log's key."""
    return ADVICE.get(reason, LAKE if reason.startswith("store-") else otherwise)


FORWARDED = "A running receiver with this inbox forwards them once the broker is there: start one."
LAKE = "Look at `lake`, its credentials, and what they may do there."
ADVICE = {
    "log-gone": "Mount the lake's disk, or set `lake` right, before anything is started. To begin "
    "a new log on purpose, move that index away.",
    "log-key": "Give the key that the log was begun with, or another lake: a log has one key.",
    "platform-credentials": "Make a new API key on the platform and put it where api_key points.",
    "platform-refused": "Make a new API key on the platform and put it where api_key points.",
    "platform-unreachable": "Look at api_url, and whether this machine may reach that address.",
    "store-not-conditional": "Use an S3 server that honours If-Match and If-None-Match on writes.",
}
