"""A long-running process: starts its parts, waits for a signal, stops them within a time.

What is leased is finished or given back: the lanes stop taking, work on until the time is nearly
over, and what is left is cancelled and goes back with the queue's closing. A process that a signal
has told to stop ends in that time whatever hangs (`end_at_the_latest`): what it then leaves behind
is what a crash leaves.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from threading import Timer
from typing import NoReturn, TypeVar

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.listener import Listener
from consumer.model import Record
from consumer.ports import Queue
from consumer.retry import Policy, backoff_s
from consumer.settings_values import Address
from consumer.telemetry import logger

CLOSE_S = 3.0  # of the stop, kept for giving back, disconnecting,
EXIT_S = 1.0  # and for the interpreter's own end
OVERDUE = 1  # the exit code of a process that something kept from ending
START = Policy(base_s=0.5, cap_s=15.0)

T = TypeVar("T")
Loop = Callable[[asyncio.Event], Coroutine[None, None, None]]  # runs until the event is set


class Failed(Exception):
    """The process ended by itself; the text says why, for a person."""


@dataclass(slots=True)
class Process:
    """``hooks`` and ``admin`` listen, ``lanes`` run, each by its name."""

    queue: Queue
    started: Record
    stop_s: float
    admin: tuple[Listener, Address] | None = None
    hooks: tuple[Listener, Address] | None = None
    lanes: Mapping[str, Loop] = field(default_factory=dict)
    closing: Sequence[Callable[[], Awaitable[None]]] = ()
    announce: Callable[[str, Address], None] = lambda _what, _where: None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _open: bool = False

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or ``stop``. Raises `Failed` when it cannot go on."""
        with _Signals(self.stop):
            try:
                await self._listen("admin", self.admin)
                if await self._open_queue():
                    for name, loop in self.lanes.items():
                        self._running[name] = asyncio.create_task(loop(self.stop), name=name)
                    await self._listen("hooks", self.hooks)
                    await self._until_stopped()
            finally:
                self.stop.set()
                await self._end()

    async def check_queue(self) -> None:
        """For readiness: a put would be kept."""
        if self.stop.is_set():
            raise Transient("stopping", "the process is stopping")
        if not self._open:
            raise Transient("starting", "the queue is not open yet")
        await self.queue.ready()

    async def check_lane(self, name: str) -> None:
        """For readiness: the lane's loop runs."""
        task = self._running.get(name)
        if task is None or task.done():
            raise Transient("lane-not-running", f"nothing works on the lane {name}")

    async def _listen(self, what: str, listening: tuple[Listener, Address] | None) -> None:
        if listening is None:
            return
        listener, address = listening
        try:
            port = await listener.start(address.host, address.port)
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise Failed(f"{what}: cannot listen on {address}: {said}") from error
        self.announce(what, Address(address.host, port))

    async def _open_queue(self) -> bool:
        """True once the queue is open and holds the start; False when stopped before."""
        attempt = 0
        while not self.stop.is_set():
            attempt += 1
            try:
                if await unless(self.stop, self._start_queue()):
                    return True
            except Transient as error:
                logger().warning("queue not open", reason=error.reason, detail=error.message)
                await pause(self.stop, backoff_s(attempt, START, random.random))
            except Permanent as error:
                raise Failed(f"queue: {error.message}") from error
        return False

    async def _start_queue(self) -> bool:
        if not self._open:
            await self.queue.open()
            self._open = True
        await self.queue.put([self.started])
        return True

    async def _until_stopped(self) -> None:
        """A lane that ends by itself ends the process: whoever supervises it starts it anew."""
        stopped = asyncio.create_task(self.stop.wait())
        try:
            done, _ = await asyncio.wait(
                {stopped, *self._running.values()}, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stopped.cancel()
        for name, task in self._running.items():
            if task in done and not self.stop.is_set():
                error = task.exception()
                logger().critical("lane ended", lane=name, exc_info=error)
                raise Failed(_ended(name, error))

    async def _end(self) -> None:
        logger().info("stopping")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.stop_s - EXIT_S
        works = [*self._running.values()]
        if self.hooks is not None:
            works.append(asyncio.create_task(self.hooks[0].stop()))
        if works:
            _, late = await asyncio.wait(works, timeout=max(0.1, self.stop_s - CLOSE_S))
            for task in late:
                task.cancel()
            if late:
                logger().warning("given back", unfinished=len(late))
                await asyncio.wait(late, timeout=max(0.1, deadline - loop.time() - 1.0))
        closing = [close() for close in (*self.closing, self.queue.close)]
        if self.admin is not None:
            closing.append(self.admin[0].stop())
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.5, deadline - loop.time())):
                for one in await asyncio.gather(*closing, return_exceptions=True):
                    if isinstance(one, BaseException):
                        logger().warning("not closed in order", reason=type(one).__name__)
        logger().info("stopped")


async def unless(stop: asyncio.Event, doing: Coroutine[None, None, T]) -> T | None:
    """What ``doing`` returns or raises; None when the process is to stop before, ``doing`` being
    cancelled: nobody waits for a server that does not answer."""
    task = asyncio.ensure_future(doing)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, stopped):
            one.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


async def end_at_the_latest(stop: asyncio.Event, stop_s: float) -> None:
    """For a process of its own: within ``stop_s`` after it was told to stop it is gone, even when a
    thread hangs in a library that knows no deadline, for which Python would wait."""

    def overdue() -> None:
        logger().critical("not stopped in time")
        os._exit(OVERDUE)

    await stop.wait()
    last = Timer(max(0.1, stop_s - EXIT_S / 2), overdue)
    last.daemon = True
    last.start()


def leave() -> NoReturn:
    """Ends a process that has stopped in order. What it kept is durable, and to take down all that
    it imported is most of a second of work for the interpreter: on a busy machine many seconds,
    which `end_at_the_latest` can no longer end."""
    with suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleeps, and wakes at once when the process is to stop."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def _ended(name: str, error: BaseException | None) -> str:
    """An exception group of one is that one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, GroundwireError):
        return f"lane {name}: {error.message}"
    return f"lane {name}: it ended unexpectedly ({type(error).__name__}); the log lines tell more"


class _Signals:
    """SIGTERM and SIGINT set the event; a second one, whichever, ends the process at once."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._heard = False

    def __enter__(self) -> None:
        for which in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(which, self._hear)

    def __exit__(self, *_: object) -> None:
        if not self._heard:
            self._let_go()

    def _hear(self) -> None:
        self._heard = True
        self._stop.set()
        self._let_go()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would wait for threads

    def _let_go(self) -> None:
        for which in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(which)


@asynccontextmanager
async def opened(queue: Queue) -> AsyncIterator[None]:
    """An open queue for a short command; closed afterwards."""
    await queue.open()
    try:
        yield
    finally:
        await queue.close()
