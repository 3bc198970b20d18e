"""Settings become adapters: the only place that names them.

The large libraries (of brokers, buckets, images) are imported with the adapter that needs them, so
that a command which needs none starts at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from consumer.download import Downloader
from consumer.errors import Permanent
from consumer.inbox import INBOX, InboxQueue
from consumer.live_secrets import LiveSecret, LiveSecrets
from consumer.log.locate import owner
from consumer.log.log import TileLog
from consumer.log.note import BadNote, Signer, load_key, new_key, show_key
from consumer.model import LaneSpec, TaskKey
from consumer.platforms.labelbox import Labelbox
from consumer.platforms.labelbox_template import Template
from consumer.platforms.redbrick import RedBrick
from consumer.ports import DeadLetters, Handler, ImageObjects, Platform, Queue, Sightings, Store
from consumer.queues.sqlite import SqliteQueue
from consumer.settings import ConfigurationError, Settings
from consumer.settings_model import LabelboxSource, RedBrickSource, Source
from consumer.stores.directory import DirectoryStore
from consumer.telemetry import learn_secret
from handlers import lanes, layout

LANES: tuple[LaneSpec, ...] = (lanes.EXPORT, lanes.AUDIT)
INBOX_PUT_S = 1.5  # comes after the broker's time, and senders wait for 5 s

Close = Callable[[], Awaitable[None]]


class FullQueue(Queue, DeadLetters, Protocol):
    """What every queue adapter implements."""


class FullPlatform(Platform, Sightings, Protocol):
    """What every platform adapter implements."""


class CheckedStore(Store, Protocol):
    """What every store adapter implements."""

    async def check(self) -> None:
        """Raises what is wrong with the store, a write tried included."""


class ClosableObjects(ImageObjects, Protocol):
    """What every reader of images in buckets implements."""

    def close(self) -> None: ...


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


def handler_of(lane: str) -> Handler:
    """What is done with the messages of a lane."""
    if lane == lanes.EXPORT.name:
        from handlers import export

        return export
    from handlers import audit

    return audit


def make_queue(settings: Settings) -> FullQueue:
    """The queue with all its lanes; not open yet."""
    if settings.queue.scheme == "sqlite":
        return SqliteQueue(settings.queue.path, LANES)
    from consumer.queues.rabbitmq import RabbitQueue

    password, ca = settings.queue_password, settings.queue_ca_file
    return RabbitQueue(
        settings.queue.url,
        LANES,
        prefix=settings.queue_prefix,
        declare=settings.declare,
        password=password.reveal() if password else None,
        ca=ca.read_text() if ca else None,
    )


def make_inbox(settings: Settings, queue: Queue) -> InboxQueue | None:
    """The queue of a receiver with an inbox; None where none is configured."""
    if settings.inbox is None:
        return None
    return InboxQueue(queue, inbox_file(settings.inbox.path))


def inbox_file(path: Path) -> SqliteQueue:
    return SqliteQueue(path, [INBOX], put_deadline_s=INBOX_PUT_S)


def make_store(settings: Settings) -> CheckedStore:
    if settings.lake.scheme == "file":
        return DirectoryStore(settings.lake.path)
    from consumer.stores.s3 import S3Store

    bucket, prefix = settings.lake.bucket
    return S3Store(bucket, prefix, endpoint=settings.lake_endpoint or None)


def make_platforms(settings: Settings, closing: list[Close]) -> dict[str, FullPlatform]:
    """The platforms by their source's name; what closes them is added to ``closing``."""
    sources = settings.sources.items()
    return {name: _platform(name, source, settings, closing) for name, source in sources}


def _platform(name: str, source: Source, settings: Settings, closing: list[Close]) -> FullPlatform:
    downloader = Downloader(
        hosts=frozenset(source.download_hosts),
        networks=source.private_networks,
        own_url=source.api_url,
        max_bytes=settings.work.max_download_bytes,
        max_file_bytes=settings.work.max_image_bytes,
        timeout_s=settings.work.download_timeout_s,
    )
    secrets = LiveSecrets([LiveSecret(one, learn_secret) for one in source.secrets])
    api_key = LiveSecret(source.api_key, learn_secret)
    made: Labelbox | RedBrick
    match source:
        case LabelboxSource():
            made = Labelbox(
                source=name,
                secrets=secrets,
                api_key=api_key,
                api_url=source.api_url,
                projects=source.projects,
                export_params=source.export_params.model_dump(),
                downloader=downloader,
                clock=now,
                images=source.images,
                objects=_image_objects(name, source, settings, closing),
                max_image_bytes=settings.work.max_image_bytes,
            )
        case RedBrickSource():
            made = RedBrick(
                name,
                secrets=secrets,
                api_key=api_key,
                api_url=source.api_url,
                organization=source.organization,
                projects=source.projects,
                ground_truth_stages=source.ground_truth_stages,
                masks=settings.rules()[name].masks,
                classes=settings.rules()[name].classes,
                max_image_bytes=settings.work.max_image_bytes,
                downloader=downloader,
                clock=now,
            )
    closing += [made.close, downloader.close]
    return made


def _image_objects(
    name: str, source: LabelboxSource, settings: Settings, closing: list[Close]
) -> ClosableObjects | None:
    """What reads a source's images in buckets; None where no bucket is named. Raises
    `ConfigurationError`."""
    try:
        template = Template(source.images).fixed_prefix if source.images else ""
    except ValueError as error:
        raise ConfigurationError([f"sources.{name}.images: {error}"]) from error
    prefixes = [*source.image_prefixes, *([template] if template.startswith("s3://") else [])]
    if not prefixes:
        return None
    from consumer.stores.s3_objects import S3Objects

    try:
        objects = S3Objects(prefixes, settings.lake_endpoint or None)
    except ValueError as error:
        raise ConfigurationError([f"sources.{name}.image_prefixes: {error}"]) from error

    async def close() -> None:
        objects.close()

    closing.append(close)
    return objects


def project_key(key: TaskKey) -> str:
    """Both platforms' project ids are unique in the world."""
    return layout.project_key(key.source, key.project, unique=True)


async def make_signer(settings: Settings, store: Store) -> Signer:
    """The log's key. On one machine it is made outside the lake at the first start, unless there
    is a log already. Raises `ConfigurationError`; ``Transient`` when the lake cannot be read."""
    try:
        signer = await read_signer(settings, store)
        return signer or new_key(settings.log_key_file, settings.log.origin)
    except Permanent as error:
        raise ConfigurationError([f"log.key: {error.message}"]) from error


async def read_signer(settings: Settings, store: Store) -> Signer | None:
    """The key as it is configured; None when the first start is to make it. Raises ``Permanent``
    when there is none and none may be made."""
    path = settings.log_key_file
    if settings.log.key is not None:
        try:
            return Signer.from_text(settings.log.key.reveal())
        except BadNote as error:
            raise Permanent("key-malformed", str(error)) from error
    if path.exists():
        return load_key(path)
    if not settings.embedded:
        raise Permanent(
            "key-missing", "is missing; make one with `groundwire key new` and keep it safe"
        )
    if await owner(store) is not None:
        raise Permanent("key-missing", f"the lake has a log, but its key {path} is gone")
    return None


async def make_log(settings: Settings, store: Store) -> TileLog:
    """Opened by whoever writes to it."""
    index = settings.log_index_file
    index.parent.mkdir(parents=True, exist_ok=True)
    signer = await make_signer(settings, store)
    return TileLog(store, signer=signer, origin=settings.log.origin, index_path=index, clock=now)


def public_key(file: Path | None, settings: Settings | None) -> str:
    """Of a key file, or of the configured key. Raises ``Permanent`` and ``BadNote``."""
    if file is None and settings is not None and settings.log.key is not None:
        return Signer.from_text(settings.log.key.reveal()).verifier.vkey
    return show_key(file or (settings.log_key_file if settings else Path("log.key")))
