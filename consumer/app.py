"""The composition root: adapters become ports, ports become processes."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from consumer import check
from consumer.admin import Admin
from consumer.app_adapters import (
    LANES,
    Close,
    FullQueue,
    Unlogged,
    handler_of,
    inbox_file,
    make_inbox,
    make_log,
    make_platforms,
    make_queue,
    make_store,
    now,
    our_version,
    project_key,
    public_key,
    read_signer,
)
from consumer.app_follow import checks as follow_checks
from consumer.app_follow import chosen, followings
from consumer.app_sweep import sweepings
from consumer.check import Checked
from consumer.collecting import collect_when_quiet
from consumer.crowd import MOST_BYTES, Crowd
from consumer.dispatch import Dispatcher
from consumer.errors import Permanent, Transient
from consumer.follow import Following
from consumer.gather import Gatherer
from consumer.inbox import INBOX, InboxQueue
from consumer.limits import Failures
from consumer.listener import UNREAD_S, Listener, room_for
from consumer.log.log import TileLog
from consumer.log.tail import LogTail
from consumer.model import Record
from consumer.ports import Log, Ports, Queue
from consumer.receive import Limits, Receiver
from consumer.replays import Replays
from consumer.retry import Policy, backoff_s
from consumer.serve import Loop, Process, pause, unless
from consumer.settings import ConfigurationError, Settings
from consumer.settings_values import Address
from consumer.settings_warnings import cautions
from consumer.stream import ChangeStream
from consumer.telemetry import Metrics, logger
from consumer.timed import Timed

__all__ = [
    "LANES",
    "FullQueue",
    "checks",
    "chosen",
    "make_queue",
    "make_store",
    "now",
    "our_version",
    "public_key",
    "serve",
]

Announce = Callable[[str, Address], None]
PROBES = 64  # connections of the admin listener besides those that read changes


async def serve(
    settings: Settings,
    *,
    command: str,
    hooks: bool,
    lanes: Sequence[str],
    followers: Sequence[str] = (),
    announce: Announce = lambda _what, _where: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Runs one long-running command until it is stopped: the receiver (``hooks``), the named
    lanes, the named followers. Raises `ConfigurationError` and ``serve.Failed``."""
    _needs(settings, hooks=hooks, lanes=lanes)
    metrics = Metrics(settings.sources, version=our_version())
    queue, store = make_queue(settings), make_store(settings)
    inbox = make_inbox(settings, queue) if hooks else None
    closing: list[Close] = []
    platforms = make_platforms(settings, closing)
    log = await make_log(settings, store) if "audit" in lanes else None
    tail = LogTail(store, poll_s=settings.follow.poll_s)
    if log is not None:
        closing.append(log.close)
    ports = Ports(
        platforms={name: Timed(platform, metrics) for name, platform in platforms.items()},
        queue=queue,
        store=store,
        log=_Woken(log, tail) if log else Unlogged(),
        rules=settings.rules(),
        project_key=project_key,
        clock=now,
        email_key=settings.email_key,
        kinds={name: source.platform for name, source in settings.sources.items()},
    )
    following = followings(
        settings,
        followers,
        store=store,
        queue=queue,
        log=tail,
        metrics=metrics,
        closing=closing,
    )
    sweeping = (
        sweepings(settings, platforms, store=store, queue=queue, log=tail, metrics=metrics)
        if "export" in lanes
        else {}
    )
    stream = _stream(settings, tail, metrics)
    closing.append(stream.close)
    process = Process(
        queue=inbox or queue,
        started=_started(settings, command),
        stop_s=settings.work.stop_s,
        announce=announce,
        stop=stop or asyncio.Event(),
        closing=closing,
        lanes={
            **{name: _loop(name, settings, ports, metrics, log) for name in lanes},
            **{f"follow {name}": one.run for name, one in following.items()},
            **{f"sweep {name}": one.run for name, one in sweeping.items()},
            "changes": stream.until,
        },
    )
    crowd, guests = _crowds(settings, hooks=hooks)
    if hooks:
        listener = _hook_listener(settings, ports, metrics, process.queue, crowd)
        process.hooks = (listener, settings.http.listen)
        process.lanes = {
            **process.lanes,
            "collector": lambda stop: collect_when_quiet(stop, lambda: len(crowd)),
        }
    process.admin = (
        _admin_listener(settings, process, metrics, lanes, log, following, stream, inbox, guests),
        settings.admin.listen,
    )
    await process.run()


class _Woken:
    """The log, whose readers in this process learn at once that it has grown."""

    def __init__(self, log: Log, tail: LogTail) -> None:
        self._log, self._tail = log, tail

    async def append(self, entries: Sequence[Mapping[str, Any]]) -> int:
        size = await self._log.append(entries)
        self._tail.wake()
        return size


def _needs(settings: Settings, *, hooks: bool, lanes: Sequence[str]) -> None:
    if (hooks or "export" in lanes) and not settings.sources:
        raise ConfigurationError(
            ["sources: there is none; add [sources.NAME] (groundwire check --defaults shows how)"]
        )


def _crowds(settings: Settings, *, hooks: bool) -> tuple[Crowd, Crowd]:
    """Who may be connected at once for hooks, and for the rest, of as many as the system allows."""
    http, guests = settings.http, settings.changes.max_readers + PROBES
    room = room_for(guests + (http.max_connections if hooks else 0))
    guests = min(guests, room // 2 if hooks else room)
    return Crowd(room - guests, max(MOST_BYTES, 4 * http.body_limit_bytes)), Crowd(guests)


def _started(settings: Settings, command: str) -> Record:
    fields = {
        "version": our_version(),
        "configuration_sha256": settings.fingerprint(),
        "command": command,
    }
    return Record(id=uuid.uuid4().hex, kind="started", fields=fields)


def _hook_listener(
    settings: Settings, ports: Ports, metrics: Metrics, queue: Queue, crowd: Crowd
) -> Listener:
    http = settings.http
    metrics.connections(lambda: len(crowd), lambda: crowd.held)
    gatherer = Gatherer(queue)
    receiver = Receiver(
        ports.platforms,
        gatherer.put,
        metrics,
        gatherer.ready,
        limits=Limits(http.body_limit_bytes, http.body_timeout_s),
        trusted_proxies=http.trusted_proxies,
        failures=Failures(http.failures_per_address, http.failures_per_source),
        replays=Replays(http.replay_s),
        crowd=crowd,
    )
    return Listener(
        receiver.application(),
        header_timeout_s=http.header_timeout_s,
        stop_s=settings.work.stop_s / 2,
        crowd=crowd,
        unread_s=UNREAD_S,
        malformed=receiver.malformed,
        closed=metrics.connection_closed,
    )


def _admin_listener(
    settings: Settings,
    process: Process,
    metrics: Metrics,
    lanes: Sequence[str],
    log: TileLog | None,
    following: Mapping[str, Following],
    stream: ChangeStream,
    inbox: InboxQueue | None,
    crowd: Crowd,
) -> Listener:
    """``crowd`` bounds its connections, lest they take the files that webhooks need."""

    def working(lane: str) -> Callable[[], Awaitable[None]]:
        return lambda: process.check_lane(lane)

    token = settings.admin.token
    admin = Admin(
        metrics,
        process.queue,
        LANES,
        checks={
            "queue": process.check_queue,
            **{f"lane {lane}": working(lane) for lane in lanes},
            # A receiver is ready when its 2xx can be kept, whatever follows the log.
            **({f"follow {n}": f.check for n, f in following.items()} if not lanes else {}),
        },
        notes={"inbox": lambda: inbox.state().told()} if inbox else {},
        measure=_inbox_measure(inbox, metrics) if inbox else lambda: None,
        log=_log_size(log) if log else None,
        # A receiver alone need not reach the lake.
        changes=stream.handle if lanes or following else None,
        token=token.reveal() if token else None,
    )
    return Listener(
        admin.application(),
        header_timeout_s=settings.http.header_timeout_s,
        stop_s=1.0,
        cancels=True,
        crowd=crowd,
    )


def _inbox_measure(inbox: InboxQueue, metrics: Metrics) -> Callable[[], None]:
    def measure() -> None:
        state = inbox.state()
        metrics.inbox(state.waiting, away=state.away is not None)

    return measure


def _stream(settings: Settings, tail: LogTail, metrics: Metrics) -> ChangeStream:
    return ChangeStream(
        tail,
        metrics,
        max_readers=settings.changes.max_readers,
        heartbeat_s=settings.changes.heartbeat_s,
        stalled_s=settings.changes.stalled_s,
    )


def _log_size(log: TileLog) -> Callable[[], tuple[int, float | None]]:
    def size() -> tuple[int, float | None]:
        state = log.state()
        return state.size, state.age_s

    return size


def _loop(
    name: str, settings: Settings, ports: Ports, metrics: Metrics, log: TileLog | None
) -> Loop:
    retry = settings.retry
    policy = Policy(attempts=retry.attempts, base_s=retry.base_s, cap_s=retry.cap_s)
    dispatcher = Dispatcher(
        handler_of(name),
        ports.queue,
        ports,
        metrics,
        policy,
        concurrency=settings.work.concurrency,
    )

    async def run(stop: asyncio.Event) -> None:
        if name == "audit" and log is not None:
            await _open_log(log, policy, stop)
        await dispatcher.run(stop)

    return run


async def _open_log(log: TileLog, policy: Policy, stop: asyncio.Event) -> None:
    """Waits until the lake can be read. A log of another key, or a damaged one, ends the process:
    nothing may be appended to it."""
    attempt = 0
    while not stop.is_set():
        attempt += 1
        try:
            await unless(stop, log.open())
        except (Transient, Permanent) as error:
            if isinstance(error, Permanent) and error.reason.startswith("log-"):
                raise
            logger().error("log not open", reason=error.reason, detail=error.message)
            await pause(stop, min(30.0, backoff_s(attempt, policy, random.random)))
        else:
            return


async def checks(settings: Settings) -> AsyncIterator[Checked]:
    """Everything that is configured, tried one after the other."""
    store = make_store(settings)
    yield await check.queue_check(make_queue(settings), settings.queue.shown)
    if settings.inbox is not None:
        yield await check.inbox_check(inbox_file(settings.inbox.path), INBOX, settings.inbox.path)
    yield await check.store_check(store.check, settings.lake.shown)
    index = settings.log_index_file
    yield await check.log_check(lambda: read_signer(settings, store), store, index)
    closing: list[Close] = []
    platforms = make_platforms(settings, closing)
    if not platforms:
        yield Checked("sources", False, "there is none", "Add [sources.NAME].")
    try:
        for name, platform in platforms.items():
            source = settings.sources[name]
            yield await check.platform_check(platform, source.projects, source.api_url)
    finally:
        for close in closing:
            await close()
    async for one in follow_checks(settings):
        yield one
    for caution in cautions(settings):
        yield Checked(caution.what, True, caution.said, caution.advice, warning=True)
