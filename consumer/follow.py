"""One follower's loop: read the log from the cursor on, hand it over, store the cursor.

The cursor lies in ``followers/{name}.json`` and is swapped after the effect, so a crash repeats
work and loses none. Whoever finds that another process moved it begins again from there. A follower
that fails waits and is started again; it never stops the others, nor the process.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from consumer.errors import Conflict, GroundwireError, Permanent, Transient
from consumer.model import FORMAT, decode, encode
from consumer.ports import Batch, Cursor, Follower, LogReader, Step, Store
from consumer.retry import Policy, backoff_s
from consumer.telemetry import Metrics, logger

BATCH = 1024  # entries that are read at once
KEEP_S = 1.0  # a cursor that only went on is stored so often; one whose state changed, at once
IDLE_S = 30.0  # without news the log is looked at again by then
PERMANENT_S = 60.0  # what a person must mend is tried again so often

Pause = Callable[[asyncio.Event, float], Awaitable[None]]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """``followers/{name}.json``. ``log`` is whose indices these are; ``sequence`` grows with each
    swap, so that no bytes recur."""

    follower: str
    log: str
    next: Annotated[int, msgspec.Meta(ge=0)]
    sequence: int
    state: dict[str, Any] = {}
    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT


def cursor_key(name: str) -> str:
    return f"followers/{name}.json"


async def read_cursor(store: Store, name: str) -> tuple[Stored | None, str | None]:
    """The stored cursor and its tag; None when the follower has never run. Raises ``Permanent``
    (``cursor-unreadable``)."""
    stored = await store.read(cursor_key(name))
    if stored is None:
        return None, None
    try:
        found = decode(stored.data, Stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = f"{cursor_key(name)} is no cursor of this version; remove it to begin anew"
        raise Permanent("cursor-unreadable", said) from error
    return found, stored.etag


@dataclass(slots=True)
class Following:
    """Runs one follower until it is told to stop. ``pause`` waits so long, or until the stop;
    ``now`` tells seconds that pass."""

    follower: Follower
    log: LogReader
    store: Store
    metrics: Metrics
    pause: Pause
    policy: Policy = field(default_factory=lambda: Policy(base_s=0.5, cap_s=30.0))
    random: Callable[[], float] = random.random
    now: Callable[[], float] = time.monotonic
    _stored: Stored | None = None
    _etag: str | None = None
    _failure: GroundwireError | None = None
    _troubles: tuple[str, ...] = ()

    async def run(self, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            began = self._stored
            try:
                await self._follow(stop)
                return
            except Exception as error:
                moved = self._stored is not None and self._stored != began
                failures = 1 if moved else failures + 1
                wait_s = self._wait_s(error, failures)
            await self.pause(stop, wait_s)

    async def check(self) -> None:
        """For readiness: raises why it does not follow, when it does not."""
        if self._failure is not None:
            raise Transient(self._failure.reason, self._failure.message)

    def _wait_s(self, error: Exception, failures: int) -> float:
        if isinstance(error, Conflict):
            logger().info("follower yields", follower=self.follower.name)
            return backoff_s(failures, self.policy, self.random)
        known = isinstance(error, GroundwireError)
        self._failure = (
            error
            if isinstance(error, GroundwireError)
            else Transient("follower-crashed", f"unexpected {type(error).__name__}")
        )
        wait_s = backoff_s(failures, self.policy, self.random)
        if isinstance(error, Permanent):
            wait_s = PERMANENT_S
        elif isinstance(error, Transient) and error.after_s:
            wait_s = max(wait_s, error.after_s)
        self.metrics.follower_failed(self.follower.name, self._failure.reason)
        logger().error(
            "follower waits",
            follower=self.follower.name,
            reason=self._failure.reason,
            detail=self._failure.message,
            after_s=round(wait_s, 1),
            exc_info=None if known else error,
        )
        return wait_s

    async def _follow(self, stop: asyncio.Event) -> None:
        cursor = await self._begin(stop)
        if cursor is None:
            return
        position, wake_s = cursor.next, 0.0
        kept_at, step = -math.inf, Step(cursor)
        while not stop.is_set():
            size = await self._news(stop, position, wake_s)
            if stop.is_set():
                break
            batch = await self._batch(position, size)
            step = await self.follower.follow(batch)
            if self._is_news(step) or self.now() - kept_at >= KEEP_S:
                await self._keep(step)
                kept_at = self.now()
            position = batch.end
            wake_s = _wake_s(step) if self._is_kept(step) else min(KEEP_S, _wake_s(step))
            self._failure = None
            self.metrics.follower(self.follower.name, step.cursor.next, batch.size)
            self._tell(step.troubles)
        await self._keep(step)

    async def _begin(self, stop: asyncio.Event) -> Cursor | None:
        """Where to begin; waits for the log's first entry. None when stopped before."""
        identity = await self.log.identity()
        while not identity:
            if stop.is_set():
                return None
            await self._news(stop, 0, IDLE_S)
            identity = await self.log.identity()
        self._stored, self._etag = await read_cursor(self.store, self.follower.name)
        self._check(identity, await self.log.size())
        before = self._stored or Stored(
            follower=self.follower.name, log=identity, next=0, sequence=0
        )
        self._stored = before
        cursor = await self.follower.start(Cursor(before.next, before.state))
        self.metrics.follower(self.follower.name, cursor.next, await self.log.size())
        return cursor

    def _check(self, identity: str, size: int) -> None:
        if self._stored is None:
            return
        key = cursor_key(self.follower.name)
        if self._stored.log != identity:
            said = f"{key} is of the log {self._stored.log}, not of {identity}: remove it to begin"
            raise Permanent("cursor-of-another-log", f"{said} anew")
        if self._stored.next > size:
            said = f"{key} is at {self._stored.next}, and the log has only {size} entries: was"
            raise Permanent("cursor-ahead", f"{said} the lake restored from a copy?")

    async def _news(self, stop: asyncio.Event, position: int, wake_s: float) -> int:
        """The log's size when it is over ``position``, or after the time; soon when stopped."""
        looking = asyncio.ensure_future(self.log.wait(position, wake_s))
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({looking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return looking.result() if looking.done() else position
        finally:
            for one in (looking, stopped):
                one.cancel()
            await asyncio.gather(looking, stopped, return_exceptions=True)

    async def _batch(self, position: int, size: int) -> Batch:
        end = max(position, min(size, position + BATCH))
        entries = await self.log.read(position, end) if end > position else []
        wanted = [entry for entry in entries if entry.data.get("kind") in self.follower.kinds]
        return Batch(wanted, position, end, max(size, end))

    def _tell(self, troubles: tuple[str, ...]) -> None:
        """What keeps failing is said once, and again when it is over."""
        name = self.follower.name
        self.metrics.follower_troubles(name, len(troubles))
        if troubles == self._troubles:
            return
        for reason in sorted(set(troubles) - set(self._troubles)):
            self.metrics.follower_failed(name, reason)
        if troubles:
            logger().warning("follower goes on, but", follower=name, troubles=list(troubles))
        else:
            logger().info("follower has no more troubles", follower=name)
        self._troubles = troubles

    def _is_news(self, step: Step) -> bool:
        return self._stored is None or _plain(step.cursor.state) != self._stored.state

    def _is_kept(self, step: Step) -> bool:
        return not self._is_news(step) and step.cursor.next == self._before.next

    @property
    def _before(self) -> Stored:
        if self._stored is None:  # `_begin` sees to it
            raise Permanent("follower-not-begun")
        return self._stored

    async def _keep(self, step: Step) -> None:
        """Stores the cursor. Raises ``Conflict`` when another process has moved it."""
        if self._is_kept(step):
            return
        before = self._before
        now = Stored(
            follower=before.follower,
            log=before.log,
            next=step.cursor.next,
            sequence=before.sequence + 1,
            state=_plain(step.cursor.state),
        )
        key = cursor_key(self.follower.name)
        self._etag = await self.store.swap(key, encode(now), if_match=self._etag)
        self._stored = now


def _wake_s(step: Step) -> float:
    return IDLE_S if step.wake_s is None else max(0.0, min(IDLE_S, step.wake_s))


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read again, so that equal states are equal."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(state))
    return plain
