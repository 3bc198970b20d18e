"""The composition root: settings become adapters, ports and processes; only here are adapters and
handlers named.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from consumer.admin import Admin
from consumer.dispatch import Dispatcher
from consumer.download import Downloader
from consumer.errors import Permanent, Transient
from consumer.gather import Gatherer
from consumer.listener import Listener
from consumer.log.locate import owner
from consumer.log.log import TileLog
from consumer.log.note import BadNote, Signer, load_key, new_key
from consumer.model import LaneSpec, Record, TaskKey
from consumer.platforms.labelbox import Labelbox
from consumer.platforms.redbrick import RedBrick
from consumer.ports import DeadLetters, Handler, Platform, Ports, Queue, Store
from consumer.queues.rabbitmq import RabbitQueue
from consumer.queues.sqlite import SqliteQueue
from consumer.receive import Limits, Receiver
from consumer.retry import Policy, backoff_s
from consumer.serve import Loop, Process, pause
from consumer.settings import ConfigurationError, Settings
from consumer.settings_model import LabelboxSource, RedBrickSource, Source
from consumer.settings_values import Address
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from consumer.telemetry import Metrics, logger
from consumer.timed import Timed
from handlers import audit, export, layout

HANDLERS: Mapping[str, Handler] = {"export": export, "audit": audit}
LANES: tuple[LaneSpec, ...] = tuple(handler.LANE for handler in HANDLERS.values())

Announce = Callable[[str, Address], None]
Close = Callable[[], Awaitable[None]]


class FullQueue(Queue, DeadLetters, Protocol):
    """What every queue adapter implements."""


class CheckedStore(Store, Protocol):
    """What every store adapter implements."""

    async def check(self) -> None:
        """Raises what is wrong with the store, a write tried included."""


class Unlogged:
    """The log of a process that works on no audit lane: nothing may ask it."""

    async def append(self, entries: Sequence[Mapping[str, Any]]) -> int:
        raise Permanent("no-log", "this process does not write the log")


def our_version() -> str:
    """Of the installed distribution."""
    try:
        return version("groundwire")
    except PackageNotFoundError:  # run from its source
        return "unknown"


def now() -> datetime:
    return datetime.now(UTC)


def make_queue(settings: Settings) -> FullQueue:
    """The queue with all its lanes; not open yet."""
    if settings.queue.scheme == "sqlite":
        return SqliteQueue(settings.queue.path, LANES)
    password, ca = settings.queue_password, settings.queue_ca_file
    return RabbitQueue(
        settings.queue.url,
        LANES,
        prefix=settings.queue_prefix,
        declare=settings.declare,
        password=password.reveal() if password else None,
        ca=ca.read_text() if ca else None,
    )


def make_store(settings: Settings) -> CheckedStore:
    if settings.lake.scheme == "file":
        return DirectoryStore(settings.lake.path)
    bucket, prefix = settings.lake.bucket
    return S3Store(bucket, prefix, endpoint=settings.lake_endpoint or None)


def make_platforms(settings: Settings, closing: list[Close]) -> dict[str, Platform]:
    """The platforms by their source's name; what closes them is added to ``closing``."""
    sources = settings.sources.items()
    return {name: _platform(name, source, settings, closing) for name, source in sources}


def _platform(name: str, source: Source, settings: Settings, closing: list[Close]) -> Platform:
    downloader = Downloader(
        hosts=frozenset(source.download_hosts),
        max_bytes=settings.work.max_download_bytes,
        timeout_s=settings.work.download_timeout_s,
    )
    secrets = [secret.reveal().encode() for secret in source.secrets]
    made: Labelbox | RedBrick
    match source:
        case LabelboxSource():
            made = Labelbox(
                source=name,
                secrets=secrets,
                api_key=source.api_key.reveal(),
                api_url=source.api_url,
                projects=source.projects,
                export_params=source.export_params.model_dump(),
                downloader=downloader,
                clock=now,
            )
        case RedBrickSource():
            made = RedBrick(
                name,
                secrets=secrets,
                api_key=source.api_key.reveal(),
                api_url=source.api_url,
                organization=source.organization,
                projects=source.projects,
                ground_truth_stages=source.ground_truth_stages,
                downloader=downloader,
                clock=now,
            )
    closing += [made.close, downloader.close]
    return made


def project_key(key: TaskKey) -> str:
    """Both platforms' project ids are unique in the world."""
    return layout.project_key(key.source, key.project, unique=True)


async def make_signer(settings: Settings, store: Store) -> Signer:
    """The log's key. On one machine it is made outside the lake at the first start, unless there
    is a log already. Raises `ConfigurationError`; ``Transient`` when the lake cannot be read."""
    given = settings.log.key
    try:
        if given is not None:
            return Signer.from_text(given.reveal())
        path = settings.log_key_file
        if path.exists():
            return load_key(path)
        if not settings.embedded:
            raise ConfigurationError(
                ["log.key: is missing; make one with `groundwire key new` and keep it safe"]
            )
        if await owner(store) is not None:
            raise ConfigurationError(
                [f"log.key: the lake has a log, but its key {path} is gone; bring it back"]
            )
        return new_key(path, settings.log.origin)
    except (BadNote, Permanent) as error:
        raise ConfigurationError([f"log.key: {error}"]) from error


async def make_log(settings: Settings, store: Store) -> TileLog:
    """Opened by whoever writes to it."""
    index = settings.log_index_file
    index.parent.mkdir(parents=True, exist_ok=True)
    signer = await make_signer(settings, store)
    return TileLog(store, signer=signer, origin=settings.log.origin, index_path=index, clock=now)


async def serve(
    settings: Settings,
    *,
    command: str,
    hooks: bool,
    lanes: Sequence[str],
    announce: Announce = lambda _what, _where: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Runs one long-running command until it is stopped: the receiver (``hooks``), the named
    lanes, or both. Raises `ConfigurationError` and ``serve.Failed``."""
    _needs(settings, hooks=hooks, lanes=lanes)
    metrics = Metrics(settings.sources, version=our_version())
    queue, store = make_queue(settings), make_store(settings)
    closing: list[Close] = []
    platforms = make_platforms(settings, closing)
    log = await make_log(settings, store) if "audit" in lanes else None
    if log is not None:
        closing.append(log.close)
    ports = Ports(
        platforms={name: Timed(platform, metrics) for name, platform in platforms.items()},
        queue=queue,
        store=store,
        log=log or Unlogged(),
        rules=settings.rules(),
        project_key=project_key,
        clock=now,
    )
    process = Process(
        queue=queue,
        started=_started(settings, command),
        stop_s=settings.work.stop_s,
        announce=announce,
        stop=stop or asyncio.Event(),
        closing=closing,
        lanes={name: _loop(name, settings, ports, metrics, log) for name in lanes},
    )
    if hooks:
        process.hooks = (_hook_listener(settings, ports, metrics), settings.http.listen)
    process.admin = (
        _admin_listener(settings, process, metrics, lanes, log),
        settings.admin.listen,
    )
    await process.run()


def _needs(settings: Settings, *, hooks: bool, lanes: Sequence[str]) -> None:
    if (hooks or "export" in lanes) and not settings.sources:
        raise ConfigurationError(
            ["sources: there is none; add [sources.NAME] (groundwire check --defaults shows how)"]
        )


def _started(settings: Settings, command: str) -> Record:
    fields = {
        "version": our_version(),
        "configuration_sha256": settings.fingerprint(),
        "command": command,
    }
    return Record(id=uuid.uuid4().hex, kind="started", fields=fields)


def _hook_listener(settings: Settings, ports: Ports, metrics: Metrics) -> Listener:
    receiver = Receiver(
        ports.platforms,
        Gatherer(ports.queue).put,
        metrics,
        limits=Limits(settings.http.body_limit_bytes, settings.http.body_timeout_s),
        trusted_proxies=settings.http.trusted_proxies,
    )
    return Listener(
        receiver.application(),
        header_timeout_s=settings.http.header_timeout_s,
        stop_s=settings.work.stop_s / 2,
    )


def _admin_listener(
    settings: Settings,
    process: Process,
    metrics: Metrics,
    lanes: Sequence[str],
    log: TileLog | None,
) -> Listener:
    def working(lane: str) -> Callable[[], Awaitable[None]]:
        return lambda: process.check_lane(lane)

    token = settings.admin.token
    admin = Admin(
        metrics,
        process.queue,
        LANES,
        checks={"queue": process.check_queue, **{f"lane {lane}": working(lane) for lane in lanes}},
        log=_log_size(log) if log else None,
        token=token.reveal() if token else None,
    )
    return Listener(
        admin.application(), header_timeout_s=settings.http.header_timeout_s, stop_s=1.0
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
        HANDLERS[name],
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
            await log.open()
        except (Transient, Permanent) as error:
            if isinstance(error, Permanent) and error.reason.startswith("log-"):
                raise
            logger().error("log not open", reason=error.reason, detail=error.message)
            await pause(stop, min(30.0, backoff_s(attempt, policy, random.random)))
        else:
            return


def key_path(settings: Settings) -> Path:
    """Where ``groundwire key new`` puts a key unless told otherwise."""
    return settings.log_key_file
