"""What is known of a source's sweeps: how far each project was swept, and who sweeps now.

It lies in ``sweeps/{source}.json`` and is moved by compare-and-swap. A watermark is the platform's
own time before its question was asked, stored after everything found was confirmed. So a crash
anywhere repeats work and loses none; two that sweep at once do too much, never too little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from consumer.errors import Conflict, Permanent, Transient
from consumer.model import FORMAT, decode, encode, timestamp
from consumer.ports import Clock, Store
from consumer.sightings import Window

CLAIM_S = 120.0  # a claim that was not renewed for so long is nobody's
RACES = 8  # lost in a row before a change of the state waits
MAX_PROJECTS = 10_000  # of one source

Kind = Literal["changes", "full", "window", "stale"]


class _Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value of the state; what is at its default is left out."""


class Run(_Kept, frozen=True):
    """A sweep that is not finished. Whoever goes on with it gives its events the same ids."""

    id: str
    kind: Kind
    window: Window = Window()


class Project(_Kept, frozen=True):
    """``watermark`` and ``full_at`` are the platform's times; ``asked`` is a run of a person's that
    moves neither."""

    watermark: str | None = None
    full_at: str | None = None
    run: Run | None = None
    asked: Run | None = None


class Claim(_Kept, frozen=True):
    """Who sweeps, until when by our clock."""

    by: str
    until: str


class State(_Kept, frozen=True, omit_defaults=False):
    """``log`` is whose entries before ``next`` were read for projects; ``swept_at`` is our time of
    the last pass; ``sequence`` grows with each swap, so that no bytes recur."""

    source: str
    log: str = ""
    next: Annotated[int, msgspec.Meta(ge=0)] = 0
    swept_at: str | None = None
    claim: Claim | None = None
    projects: dict[str, Project] = {}
    sequence: int = 0
    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT

    def project(self, name: str) -> Project:
        return self.projects.get(name, Project())

    def with_project(self, name: str, project: Project) -> State:
        return replace(self, projects={**self.projects, name: project})


def state_key(source: str) -> str:
    return f"sweeps/{source}.json"


class Taken(Exception):
    """Another process sweeps now: it took the claim over."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """One source's state, as one process (``me``) reads and changes it."""

    store: Store
    source: str
    me: str
    clock: Clock

    async def read(self) -> State:
        """Raises ``Permanent`` (``sweep-state-unreadable``)."""
        return (await self._stored())[0]

    async def change(self, how: Callable[[State], State]) -> State:
        """Makes the state what ``how`` makes of it; that may be asked more than once."""
        for _ in range(RACES):
            before, etag = await self._stored()
            after = how(before)
            if after == before:
                return before
            after = replace(after, sequence=before.sequence + 1)
            try:
                await self.store.swap(state_key(self.source), encode(after), if_match=etag)
            except Conflict:
                continue
            return after
        raise Transient("sweep-contended", f"lost {RACES} races for {state_key(self.source)}")

    async def claim(self, *, force: bool = False) -> bool:
        """Whether this process may sweep; ``force`` takes it from whoever does."""
        state = await self.change(
            lambda state: state if self._others(state) and not force else self._claimed(state)
        )
        return state.claim is not None and state.claim.by == self.me

    async def renew(self) -> None:
        """Raises `Taken` when another process has the claim."""
        await self.change(lambda state: self._claimed(self.mine(state)))

    async def release(self, *, swept: bool) -> None:
        """Gives the claim back; ``swept``: all that was due has been done."""

        def released(state: State) -> State:
            if state.claim is None or state.claim.by != self.me:
                return state
            at = timestamp(self.clock()) if swept else state.swept_at
            return replace(state, claim=None, swept_at=at)

        await self.change(released)

    def mine(self, state: State) -> State:
        """The state, when this process has the claim; raises `Taken` otherwise."""
        if state.claim is None or state.claim.by != self.me:
            raise Taken
        return state

    def _claimed(self, state: State) -> State:
        until = timestamp(self.clock() + timedelta(seconds=CLAIM_S))
        return replace(state, claim=Claim(by=self.me, until=until))

    def _others(self, state: State) -> bool:
        """A claim that ends later than any could was made by a clock that has been set since."""
        if state.claim is None or state.claim.by == self.me:
            return False
        left_s = (datetime.fromisoformat(state.claim.until) - self.clock()).total_seconds()
        return 0 < left_s <= CLAIM_S

    async def _stored(self) -> tuple[State, str | None]:
        key = state_key(self.source)
        stored = await self.store.read(key)
        if stored is None:
            return State(source=self.source), None
        try:
            state = decode(stored.data, State)
            _check(state, self.source)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            said = f"{key} is no state of {self.source}'s sweeps, or of another version;"
            raise Permanent(
                "sweep-state-unreadable", f"{said} remove it, and the next sweep is a full one"
            ) from error
        return state, stored.etag


def _check(state: State, source: str) -> None:
    """Raises ``ValueError`` for another source's state, or times that are none."""
    if state.source != source:
        raise ValueError
    times = [state.swept_at, state.claim.until if state.claim else None]
    for project in state.projects.values():
        times += [project.watermark, project.full_at]
    for at in times:
        if at is not None and timestamp(datetime.fromisoformat(at)) != at:
            raise ValueError
