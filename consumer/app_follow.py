"""What follows the log, composed: each follower by its name, and the loop that runs it. What a
follower needs is imported with it."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from consumer import check
from consumer.app_adapters import Close, now
from consumer.app_retrain import make_retrain
from consumer.app_targets import make_target
from consumer.check import Checked
from consumer.follow import Following
from consumer.ports import Follower, FollowPorts, LogReader, Queue, Store
from consumer.serve import pause
from consumer.settings import ConfigurationError, Settings
from consumer.settings_retrain import CommandTarget, Target
from consumer.telemetry import Metrics

if TYPE_CHECKING:
    from consumer.queues.exchange import RabbitExchange
    from handlers.table import TablePlace

_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")

Make = Callable[[Settings, FollowPorts, list[Close]], Follower]


def _relay(settings: Settings, ports: FollowPorts, closing: list[Close]) -> Follower:
    from handlers.relay import Relay

    exchange = _exchange(settings)
    closing.append(exchange.close)
    return Relay(ports, exchange)


def _exchange(settings: Settings) -> RabbitExchange:
    from consumer.queues.exchange import RabbitExchange

    place = settings.relay_place
    if place is None:
        raise ConfigurationError(["relay.url: is missing"])
    password = settings.relay.password
    if settings.relay.url is None:
        password = password or settings.queue_password
    ca = settings.queue_ca_file
    return RabbitExchange(
        place.url,
        exchange=settings.relay.exchange,
        declare=settings.relay.declare,
        password=password.reveal() if password else None,
        ca=ca.read_text() if ca else None,
    )


def _table(settings: Settings, ports: FollowPorts, closing: list[Close]) -> Follower:
    from handlers.table import Table

    return Table(ports, table_place(settings))


def _mirror(settings: Settings, ports: FollowPorts, closing: list[Close]) -> Follower:
    from handlers.mirror import Mirror

    return Mirror(ports, interval_s=settings.mirror.interval_s, check_s=settings.mirror.check_s)


def table_place(settings: Settings) -> Callable[[], TablePlace]:
    """Where the table lies, with credentials that are valid when it is asked. Raises
    `ConfigurationError` for what delta-rs reads as another place."""
    if _ESCAPED.search(
        str(settings.lake.path if settings.lake.scheme == "file" else settings.lake)
    ):
        said = "lake: its name has a percent sign and two digits, where no Delta table can lie"
        raise ConfigurationError([f"{said}; rename it, or write [follow] table = false"])
    from handlers.table import TablePlace
    from handlers.table_schema import TABLE

    if settings.lake.scheme == "file":
        folder = TablePlace(str(settings.lake.path / TABLE))
        return lambda: folder
    from consumer.stores.s3_delta import DeltaOptions

    bucket, prefix = settings.lake.bucket
    uri = f"s3://{bucket}/{prefix}/{TABLE}" if prefix else f"s3://{bucket}/{TABLE}"
    options = DeltaOptions(bucket, endpoint=settings.lake_endpoint or None)
    return lambda: TablePlace(uri, options())


FOLLOWERS: Mapping[str, Make] = {
    "mirror": _mirror,
    "relay": _relay,
    "retrain": make_retrain,
    "table": _table,
}


async def checks(settings: Settings) -> AsyncIterator[Checked]:
    """What followers need beyond queue and lake: the relay's exchange, and each policy's target."""
    if settings.follow.relay:
        exchange = _exchange(settings)
        try:
            yield await check.attempt(
                "relay",
                lambda: _answering(exchange, settings.relay.exchange),
                "Look at [relay] url, password and exchange: may the user declare it?",
            )
        finally:
            await exchange.close()
    for name, policy in settings.retrain.items():
        key = f"retrain.{name}"
        try:
            make_target(policy.target, [], key=f"{key}.target")
        except ConfigurationError as error:
            yield Checked(key, False, "; ".join(error.mistakes), "Look at its target.")
        else:
            yield _tellable(key, policy.target)


def _tellable(key: str, target: Target) -> Checked:
    """Without starting anything."""
    if isinstance(target, CommandTarget) and shutil.which(target.command[0]) is None:
        said = f"there is no program {target.command[0]} that can be run here"
        return Checked(key, False, said, "Install it where groundwire follow or run will run.")
    return Checked(key, True, f"its target ({target.type}) can be told; not tried")


async def _answering(exchange: RabbitExchange, name: str) -> str:
    await exchange.ready()
    return f"the exchange {name} takes messages"


def followings(
    settings: Settings,
    names: Sequence[str],
    *,
    store: Store,
    queue: Queue,
    log: LogReader,
    metrics: Metrics,
    closing: list[Close],
) -> dict[str, Following]:
    """The loops of the named followers; what closes them is added to ``closing``."""
    ports = FollowPorts(store=store, queue=queue, log=log, clock=now)
    return {
        name: Following(
            FOLLOWERS[name](settings, ports, closing),
            log=log,
            store=store,
            metrics=metrics,
            pause=pause,
        )
        for name in names
    }


def chosen(settings: Settings, name: str | None) -> tuple[str, ...]:
    """The followers that a process is to run: the named one, or all that are switched on. Raises
    `ConfigurationError`."""
    on = settings.followers()
    if name is None:
        return on
    if not on:
        raise ConfigurationError(["follow: nothing is switched on; set [follow] mirror = true"])
    if name not in FOLLOWERS:
        raise ConfigurationError([f"there is no follower {name}: {', '.join(FOLLOWERS)}"])
    if name not in on:
        key = "[retrain.NAME]" if name == "retrain" else f"[follow] {name} = true"
        raise ConfigurationError([f"{name} is switched off: write {key}"])
    return (name,)
