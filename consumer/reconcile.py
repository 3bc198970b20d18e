"""The sweep: what a platform holds is compared with the lake, and what differs is queued.

Webhooks get lost; what nobody told is found here. The order is the heart: the platform's time is
asked for before its tasks, and stored as the watermark only after all that was found is confirmed
in the queue. A full sweep lists the lake before it asks the platform, so what is in the lake and
not at the platform was not merely new; the export asks twice before it calls such a task deleted,
and where most of a project is missing, a person is asked first.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.model import Action, LaneSpec, TaskEvent, identifier, timestamp
from consumer.ports import Clock, LogReader, Queue, Sightings, Sleep
from consumer.reconcile_plan import (
    LakeSide,
    Pace,
    Tally,
    Watch,
    Wish,
    due,
    earlier,
    is_most,
    slot_of,
)
from consumer.reconcile_seen import check_log, find_projects
from consumer.reconcile_state import Ledger, Project, Run, State
from consumer.sightings import Gap, Page, Window

CHUNK = 128  # tasks that are compared, and put, at once
ROOM_S = 2.0  # until a full queue is looked at again
TRIES = 3  # of one call that may work later
MAX_WAIT_S = 60.0  # for one of them
RENEW_S = 30.0  # the claim is renewed so often

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Errand:
    """The sweep of one project, under way. ``left`` are places of the lake where nothing was
    sighted yet; None when that does not matter."""

    wish: Wish
    run: Run
    tally: Tally
    left: set[str] | None = None

    @property
    def project(self) -> str:
        return self.tally.project


@dataclass(slots=True)
class Sweeper:
    """Sweeps the projects of one source. ``sleep`` waits; ``now`` tells seconds that pass;
    ``new_id`` names a run."""

    platform: Sightings
    lake: LakeSide
    queue: Queue
    lane: LaneSpec  # whose backlog is not to grow too long
    ledger: Ledger
    log: LogReader
    projects: Sequence[str]  # as configured
    pace: Pace
    clock: Clock
    sleep: Sleep
    now: Callable[[], float]
    watch: Watch
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex
    _renewed_at: float = 0.0

    async def sweep(
        self, wish: Wish | None = None, *, project: str | None = None, force: bool = False
    ) -> list[Tally] | None:
        """Every project, or the one; None while another process sweeps, which ``force`` stops.

        What fails for one project does not hold up the others; what all share does. Raises
        ``Transient`` and ``Permanent`` when it cannot begin, `Taken` when another process took
        over. Cancelled, it keeps the claim for as long as that lasts.
        """
        wish = wish or Wish()
        if wish.claims and not await self.ledger.claim(force=force):
            return None
        self._renewed_at = self.now()
        swept = False
        try:
            names = [project] if project else await self.known(wish)
            tallies = await self._each(names, wish)
            swept = len(tallies) == len(names) and not any(
                isinstance(one.failure, Transient) for one in tallies
            )
        except Exception:
            if wish.claims:
                with suppress(GroundwireError):
                    await self.ledger.release(swept=False)
            raise
        if wish.claims:
            await self.ledger.release(swept=swept and project is None)
        return tallies

    async def known(self, wish: Wish) -> list[str]:
        """The projects to sweep: those that are configured, or all that were ever seen."""
        named = [one for one in self.projects if one != "*"]
        if "*" not in self.projects:
            await check_log(self.ledger, self.log, keep=not wish.dry)
            return named
        state = await find_projects(self.ledger, self.log, keep=not wish.dry)
        return list(dict.fromkeys([*named, *sorted(state.projects)]))

    async def _each(self, names: Sequence[str], wish: Wish) -> list[Tally]:
        tallies = []
        for name in names:
            tally = Tally(name)
            tallies.append(tally)
            try:
                await self._sweep(tally, wish)
            except (Transient, Permanent) as error:
                tally.failure = error
                if isinstance(error, Transient) and error.shared:
                    break
        return tallies

    async def _sweep(self, tally: Tally, wish: Wish) -> None:
        at = "" if wish.kind == "stale" else await self._patiently(self.platform.now)
        before = (await self.ledger.read()).project(tally.project)
        tally.kind = wish.kind or due(before, at, self.pace)
        run = await self._begin(tally, wish)
        self.watch.begins(tally.project, tally.kind)
        if tally.kind == "stale":
            await self._remade(_Errand(wish, run, tally))
        elif tally.kind == "full":
            # Listed before the platform is asked: what is new by then cannot look missing.
            left = await self._patiently(partial(self.lake.places, tally.project))
            await self._sighted(_Errand(wish, run, tally, left), Window())
            await self._unsighted(_Errand(wish, run, tally, left))
        elif tally.kind == "window" or before.watermark is None:
            await self._sighted(_Errand(wish, run, tally), wish.window)
        else:
            since = earlier(before.watermark, self.pace.overlap_s)
            await self._sighted(_Errand(wish, run, tally), Window(since=since))
        if not wish.dry:
            await self.ledger.change(lambda state: self._finished(state, tally.project, run, at))

    # what is compared

    async def _sighted(self, errand: _Errand, window: Window) -> None:
        """What the platform lists. Of a person's window only what lies in it; otherwise the
        platform may have its own reasons to call a task changed."""
        listing = self.platform.changed_since(errand.project, window)
        async with aclosing(cast(Any, listing)) as pages:
            async for page in pages:
                await self._page(errand, page, window if errand.run.kind == "window" else Window())

    async def _page(self, errand: _Errand, page: Page, window: Window) -> None:
        for chunk in _chunks([one for one in page.sightings if window.holds(one)]):
            await self._compared(errand, partial(self.lake.gaps, errand.project, chunk))
            self._count(errand, len(chunk), page.total)
            if errand.left is not None:
                errand.left.difference_update(self.lake.place(one.task) for one in chunk)

    async def _unsighted(self, errand: _Errand) -> None:
        """What the lake holds, and the platform did not list, unless that is most of it."""
        left = sorted(errand.left or ())
        if not (errand.wish.dry or errand.wish.accept_missing):
            await self._check_missing(errand, left)
        for chunk in _chunks(left):
            await self._compared(errand, partial(self.lake.missing, errand.project, chunk))

    async def _check_missing(self, errand: _Errand, left: Sequence[str]) -> None:
        """Counted before the first is queued, unless there are too few for it to matter."""
        seen, missing = errand.tally.seen, 0
        if is_most(len(left), seen):
            for chunk in _chunks(left):
                await self._keep_claim(errand)
                missing += len(await self.lake.missing(errand.project, chunk))
        if is_most(missing, seen):
            said = f"the platform lists {seen} tasks, and lacks {missing} more that the lake holds"
            raise Permanent(
                "sweep-mostly-missing",
                f"{said}; look whether the API key still sees the project, and if they were "
                "deleted, call groundwire reconcile --full --accept-missing",
            )

    async def _remade(self, errand: _Errand) -> None:
        """What the lake holds, and would be made otherwise now."""
        places = sorted(await self._patiently(partial(self.lake.places, errand.project)))
        window = errand.wish.window
        for chunk in _chunks(places):
            await self._compared(errand, partial(self.lake.stale, errand.project, chunk, window))
            self._count(errand, len(chunk), len(places))

    def _count(self, errand: _Errand, seen: int, total: int | None) -> None:
        errand.tally.seen += seen
        self.watch.seen(seen, total)

    async def _compared(self, errand: _Errand, compare: Callable[[], Awaitable[list[Gap]]]) -> None:
        """Queues the gaps that are there once there is room for them."""
        await self._keep_claim(errand)
        gaps = await compare()
        if gaps and not errand.wish.dry and await self._waited_for_room(errand):
            gaps = await compare()
        if not gaps:
            return
        if not errand.wish.dry:
            events = [self._event(errand, gap) for gap in gaps]
            await self._patiently(lambda: self.queue.put(events))
            errand.tally.queued += len(gaps)
        errand.tally.add(gaps)
        self.watch.found(gaps)

    def _event(self, errand: _Errand, gap: Gap) -> TaskEvent:
        """Its id is the same however often the run comes across the task. It announces what was
        seen, so that an answer which is older is asked for again."""
        source = self.ledger.source
        return TaskEvent(
            id=identifier(source, errand.project, gap.task, errand.run.id),
            source=source,
            project=errand.project,
            task=gap.task,
            action=Action.SWEEP,
            received_at=timestamp(self.clock()),
            body_sha256="",
            stage=gap.stage,
            occurred_at=gap.active_at,
            run=errand.run.id,
            gap=gap.why,
        )

    # gently

    async def _waited_for_room(self, errand: _Errand) -> bool:
        """Returns once the lane is short enough; whether that took a while."""
        waited = False
        while True:
            depth = await self._patiently(lambda: self.queue.depth(self.lane))
            if depth.ready + depth.waiting <= self.pace.most_waiting:
                return waited
            waited = True
            self.watch.waits("queue-full", depth.ready + depth.waiting)
            await self.sleep(ROOM_S)
            await self._keep_claim(errand)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` gives; one that may work later is tried again, then raised."""
        for attempt in range(1, TRIES):
            try:
                return await call()
            except Transient as error:
                wait_s = max(error.after_s or 0.0, 0.5 * 2**attempt)
                if wait_s > MAX_WAIT_S:
                    raise
                self.watch.waits(error.reason, 0)
                await self.sleep(wait_s)
        return await call()

    async def _keep_claim(self, errand: _Errand) -> None:
        if errand.wish.claims and self.now() - self._renewed_at >= RENEW_S:
            await self.ledger.renew()
            self._renewed_at = self.now()

    # what is remembered

    async def _begin(self, tally: Tally, wish: Wish) -> Run:
        """The run that this sweep is: one that was not finished, if it is of the same kind."""
        fresh = Run(id=self.new_id(), kind=tally.kind, window=wish.window)
        if wish.dry:
            return fresh
        slot = slot_of(tally.kind)

        def begun(state: State) -> State:
            project = state.project(tally.project)
            found = _run(project, slot)
            if found is not None and (found.kind, found.window) == (fresh.kind, fresh.window):
                return state
            return state.with_project(tally.project, replace(project, **{slot: fresh}))

        state = await self.ledger.change(begun)
        return _run(state.project(tally.project), slot) or fresh

    def _finished(self, state: State, name: str, run: Run, at: str) -> State:
        """Raises `Taken`: another process sweeps this project now, and may have begun later."""
        project = state.project(name)
        if slot_of(run.kind) == "asked":
            done = replace(project, asked=None) if project.asked == run else project
            return state.with_project(name, done)
        self.ledger.mine(state)
        full_at = at if run.kind == "full" else project.full_at
        return state.with_project(name, replace(project, watermark=at, full_at=full_at, run=None))


def _run(project: Project, slot: str) -> Run | None:
    return project.asked if slot == "asked" else project.run


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
