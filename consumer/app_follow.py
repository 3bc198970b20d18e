"""What follows the log, composed: each follower by its name, and the loop that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from consumer.app_adapters import Close, now
from consumer.follow import Following
from consumer.ports import Follower, FollowPorts, LogReader, Queue, Store
from consumer.serve import pause
from consumer.settings import ConfigurationError, Settings
from consumer.telemetry import Metrics

Make = Callable[[Settings, FollowPorts, list[Close]], Follower]

FOLLOWERS: Mapping[str, Make] = {}


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
