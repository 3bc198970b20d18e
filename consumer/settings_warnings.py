"""What is well configured and yet unsafe: said by ``groundwire check``, with what to do about it.

No warning repeats a secret; files are looked at, never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from consumer.settings import Settings
from consumer.settings_model import SourceSection
from consumer.settings_retrain import secrets_of
from consumer.settings_values import Place, Secret

LEAST_SECRET = 16  # characters; a random one of them cannot be tried out
_GUEST = "guest"  # RabbitMQ's first user, whose password is its name


@dataclass(frozen=True, slots=True)
class Caution:
    """``what`` is the key; ``said`` what is unsafe about it; ``advice`` what to do."""

    what: str
    said: str
    advice: str


def cautions(settings: Settings) -> list[Caution]:
    """In the order of the file."""
    return [
        *_broker("queue", settings.queue, settings.queue_password),
        *_broker("relay.url", settings.relay.url, settings.relay.password),
        *_lake(settings),
        *_listeners(settings),
        *(one for name, of in settings.sources.items() for one in _source(name, of)),
        *_secret_files(settings),
        *_folders(settings),
    ]


def _broker(key: str, place: Place | None, secret: Secret | None) -> Iterator[Caution]:
    if place is None or not place.scheme.startswith("amqp"):
        return
    parts = urlsplit(place.url)
    if place.scheme == "amqp" and not _is_loopback(parts.hostname):
        yield Caution(
            key,
            "amqp:// sends events and the password as plain text over the network",
            "Use amqps://, with queue_ca where the authority is your own.",
        )
    password = secret.reveal() if secret else parts.password
    if (parts.username or _GUEST) == _GUEST and (password or _GUEST) == _GUEST:
        yield Caution(
            key,
            "the broker is asked as guest, whose password everybody knows",
            "Give Groundwire a user of its own, with a password in queue_password.",
        )


def _lake(settings: Settings) -> Iterator[Caution]:
    if settings.lake.scheme == "s3" and _is_plain(settings.lake_endpoint):
        yield Caution(
            "lake_endpoint",
            "masks and log go to the store as plain text over the network",
            "Use https://.",
        )


def _listeners(settings: Settings) -> Iterator[Caution]:
    http, admin = settings.http, settings.admin
    if _is_any(http.listen.host) and not http.trusted_proxies:
        yield Caution(
            "http.listen",
            f"{http.listen} takes plain HTTP from every network, and no proxy is trusted",
            "Listen where the TLS proxy is, and name its address in http.trusted_proxies: else "
            "all senders count as one.",
        )
    if not admin.listen.loopback:
        yield Caution(
            "admin.listen",
            f"{admin.listen} is not on loopback, and its token goes over the network as plain text",
            "Listen on 127.0.0.1, or see that only the TLS proxy and Prometheus reach it.",
        )


def _source(name: str, source: SourceSection) -> Iterator[Caution]:
    key = f"sources.{name}"
    if _is_plain(getattr(source, "api_url", "")):
        yield Caution(
            f"{key}.api_url", "the API key goes over the network as plain text", "Use https://."
        )
    if not source.download_hosts:
        yield Caution(
            f"{key}.download_hosts",
            "is empty: masks and images are fetched from any public host that a task names",
            "Name the hosts that they lie on.",
        )
    if "*" in source.projects:
        yield Caution(
            f"{key}.projects",
            '"*" takes the webhooks of every project that the key may read',
            "Name the projects.",
        )
    for number, secret in enumerate(source.secrets):
        if len(secret.reveal()) < LEAST_SECRET:
            yield Caution(
                f"{key}.secrets[{number}]",
                f"is shorter than {LEAST_SECRET} characters: whoever guesses it sends webhooks",
                "Make one with `openssl rand -hex 32`.",
            )


def _secret_files(settings: Settings) -> Iterator[Caution]:
    for key, path in _files(settings):
        mode = _mode(path)
        if mode is not None and mode & 0o077:
            yield Caution(
                key,
                f"{path} can be read by other users of this machine (mode {mode & 0o777:o})",
                f"chmod 600 {path} (in Kubernetes: defaultMode 0400).",
            )


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Every file that holds a secret, with a key that names it; each once."""
    named: list[tuple[str, Secret | None]] = [
        ("queue_password", settings.queue_password),
        ("relay.password", settings.relay.password),
        ("admin.token", settings.admin.token),
        ("privacy.key", settings.privacy.key),
        ("log.key", settings.log.key),
        ("snapshots.key", settings.snapshots.key),
    ]
    for name, source in settings.sources.items():
        named += [(f"sources.{name}.secrets[{n}]", one) for n, one in enumerate(source.secrets)]
        named.append((f"sources.{name}.api_key", source.api_key))
    for name, policy in settings.retrain.items():
        named += [(f"retrain.{name}.target", one) for one in secrets_of(policy)]
    seen: set[Path] = set()
    for key, secret in named:
        path = secret.path if secret else None
        if path is not None and path not in seen:
            seen.add(path)
            yield key, path
    if settings.log.key is None:
        yield "log.key", settings.log_key_file


def _folders(settings: Settings) -> Iterator[Caution]:
    """Whoever may write beside a queue's file may put another in its place."""
    places = [("queue", settings.queue), ("inbox", settings.inbox)]
    paths = [(key, one.path) for key, one in places if one and one.scheme == "sqlite"]
    for key, path in [*paths, ("log.index", settings.log_index_file)]:
        for one in (path, _folder(path)):
            mode = _mode(one)
            if mode is not None and mode & 0o002:
                yield Caution(
                    key,
                    f"{one} can be written by every user of this machine",
                    f"Put it into a folder of Groundwire's own, or chmod o-w {one}.",
                )
    if settings.lake.scheme == "file":
        yield from _lake_folder(settings.lake.path)


def _lake_folder(lake: Path) -> Iterator[Caution]:
    """A folder above that nobody else may enter keeps the lake as well."""
    mode = _mode(lake) or 0
    is_reached = all((_mode(one) or 0) & 0o001 for one in lake.parents)
    if mode & 0o007 and is_reached:
        does = "altered" if mode & 0o002 else "read"
        yield Caution(
            "lake",
            f"masks and images in {lake} can be {does} by every user of this machine",
            f"chmod o-rwx {lake}; give a group to those who may read it.",
        )


def _folder(path: Path) -> Path:
    """The nearest that is there: what is made in it later is as safe as it is."""
    return next(one for one in path.absolute().parents if one.exists())


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None


def _is_plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not _is_loopback(parts.hostname)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
