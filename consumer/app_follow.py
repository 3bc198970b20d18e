"""What follows the log, composed: each follower by its name, and the loop that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from consumer.app_adapters import Close, now
from consumer.follow import Following
from consumer.ports import Follower, FollowPorts, LogReader, Queue, Store
from consumer.queues.exchange import RabbitExchange
from consumer.serve import pause
from consumer.settings import ConfigurationError, Settings
from consumer.telemetry import Metrics
from handlers.relay import Relay

Make = Callable[[Settings, FollowPorts, list[Close]], Follower]


def _relay(settings: Settings, ports: FollowPorts, closing: list[Close]) -> Follower:
    place = settings.relay_place
    if place is None:
        raise ConfigurationError(["relay.url: is missing"])
    password = settings.relay.password
    if settings.relay.url is None:
        password = password or settings.queue_password
    ca = settings.queue_ca_file
    exchange = RabbitExchange(
        place.url,
        exchange=settings.relay.exchange,
        declare=settings.relay.declare,
        password=password.reveal() if password else None,
        ca=ca.read_text() if ca else None,
    )
    closing.append(exchange.close)
    return Relay(ports, exchange)


FOLLOWERS: Mapping[str, Make] = {"relay": _relay}


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
    on = tuple(one for one in settings.followers() if one in FOLLOWERS)
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
