"""The sweep, composed: of a process that works on what it queues, and of the command."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from consumer.app_adapters import (
    Close,
    FullPlatform,
    make_platforms,
    make_queue,
    make_store,
    now,
    project_key,
)
from consumer.errors import Permanent, Transient
from consumer.log.tail import LogTail
from consumer.ports import LogReader, Queue, Sightings, Store
from consumer.reconcile import Sweeper
from consumer.reconcile_loop import Sweeping, SweepMetrics
from consumer.reconcile_plan import Pace, Tally, Watch, Wish
from consumer.reconcile_state import Ledger, Taken
from consumer.retry import Policy, backoff_s
from consumer.serve import opened, pause
from consumer.settings import ConfigurationError, Settings
from consumer.sightings import Window
from consumer.telemetry import Metrics
from handlers import lanes
from handlers.pull.times import moment
from handlers.standing import LakeStanding

__all__ = ["Tally", "Watch", "Window", "Wish", "chosen", "moment", "reconciled", "sweepings"]

TRIES = 5  # of a command, for what may work later


def sweepings(
    settings: Settings,
    platforms: Mapping[str, Sightings],
    *,
    store: Store,
    queue: Queue,
    log: LogReader,
    metrics: Metrics,
) -> dict[str, Sweeping]:
    """The periodic sweeps, by source; none when they are switched off."""
    if not settings.sweep.every_s:
        return {}
    return {
        name: Sweeping(
            _sweeper(settings, name, platform, store, queue, log, SweepMetrics(name, metrics)),
            metrics=metrics,
            pause=pause,
            clock=now,
            every_s=settings.sweep.every_s,
        )
        for name, platform in platforms.items()
    }


def chosen(settings: Settings, source: str | None, project: str | None) -> list[str]:
    """The sources that are meant. Raises `ConfigurationError`."""
    names = list(settings.sources)
    if source is not None and source not in settings.sources:
        said = f"no [sources.{source}] is configured"
        raise ConfigurationError([f"{said}: there are {', '.join(names)}" if names else said])
    if not names:
        raise ConfigurationError(["sources: there is none; add [sources.NAME]"])
    wanted = [source] if source else names
    if project is None:
        return wanted
    allowing = [
        name for name in wanted if {"*", project}.intersection(settings.sources[name].projects)
    ]
    if len(allowing) == 1:
        return allowing
    if not allowing:
        said = f"--project {project}: no source's projects name it"
        raise ConfigurationError([said if source is None else f"{said} ([sources.{source}])"])
    raise ConfigurationError(
        [f"--project {project}: name its source, one of {', '.join(allowing)}"]
    )


async def reconciled(
    settings: Settings,
    sources: Sequence[str],
    *,
    project: str | None,
    wish: Wish,
    watch: Watch,
) -> AsyncIterator[tuple[str, Tally]]:
    """The sweep that a person asks for: each project of each source, when it is done or given up.
    It takes over from a periodic sweep that is under way. One source that fails holds up no other.
    Raises ``Transient`` and ``Permanent`` when there is no queue.
    """
    store = make_store(settings)
    log = LogTail(store)
    async with _connected(settings, wish) as (queue, platforms):
        for name in sources:
            sweeper = _sweeper(settings, name, platforms[name], store, queue, log, watch)
            try:
                projects = [project] if project else await sweeper.known(wish)
            except (Transient, Permanent) as error:
                yield name, Tally("*", failure=error)
                continue
            for one in projects:
                yield name, await _patiently(sweeper, wish, one)


async def _patiently(sweeper: Sweeper, wish: Wish, project: str) -> Tally:
    """One project's sweep, begun again while that may help: it goes on with what it queued."""
    policy = Policy(base_s=2.0, cap_s=60.0)
    for attempt in range(1, TRIES + 1):
        try:
            tallies = await sweeper.sweep(wish, project=project, force=True)
            tally = tallies[0] if tallies else Tally(project)
        except Taken:
            said = f"another process took over the sweep of {sweeper.ledger.source}"
            tally = Tally(project, failure=Permanent("sweep-taken", said))
        except (Transient, Permanent) as error:
            tally = Tally(project, failure=error)
        if not isinstance(tally.failure, Transient) or attempt == TRIES:
            break
        sweeper.watch.waits(tally.failure.reason, 0)
        wait_s = backoff_s(attempt, policy, random.random)
        await sweeper.sleep(max(wait_s, tally.failure.after_s or 0.0))
    return tally


def _sweeper(
    settings: Settings,
    name: str,
    platform: Sightings,
    store: Store,
    queue: Queue,
    log: LogReader,
    watch: Watch,
) -> Sweeper:
    sweep = settings.sweep
    return Sweeper(
        platform=platform,
        lake=LakeStanding(
            source=name,
            store=store,
            project_key=project_key,
            rules=settings.rules()[name],
            sleep=asyncio.sleep,
        ),
        queue=queue,
        lane=lanes.EXPORT,
        ledger=Ledger(store, name, me=uuid.uuid4().hex, clock=now),
        log=log,
        projects=settings.sources[name].projects,
        pace=Pace(
            full_every_s=sweep.full_every_s,
            overlap_s=sweep.overlap_s,
            most_waiting=sweep.most_waiting,
        ),
        clock=now,
        sleep=asyncio.sleep,
        now=time.monotonic,
        watch=watch,
    )


@asynccontextmanager
async def _connected(
    settings: Settings, wish: Wish
) -> AsyncIterator[tuple[Queue, dict[str, FullPlatform]]]:
    """Queue and platforms; a sweep that queues nothing needs no queue that answers."""
    closing: list[Close] = []
    queue = make_queue(settings)
    platforms = make_platforms(settings, closing)
    try:
        async with AsyncExitStack() as stack:
            if not wish.dry:
                await stack.enter_async_context(opened(queue))
            yield queue, platforms
    finally:
        for close in closing:
            await close()
