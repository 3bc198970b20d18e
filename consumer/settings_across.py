"""Mistakes between keys: what is well written, and does not fit together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumer.settings_values import read_address, split_names
from consumer.signature import MAX_SECRET_TEXT

if TYPE_CHECKING:
    from consumer.settings import Settings
    from consumer.settings_retrain import PolicySection


def across(raw: Mapping[str, Any]) -> list[str]:
    """Mistakes between keys, sought in what was written so that no other mistake hides them."""
    mistakes = [*_shared_projects(raw.get("sources")), *_privacy(raw.get("privacy"))]
    admin = raw.get("admin")
    if isinstance(admin, Mapping) and not admin.get("token"):
        try:
            address = read_address(admin.get("listen", "127.0.0.1:9090"))
        except ValueError:
            return mistakes  # reported already
        if not address.loopback:
            mistakes.append(
                f"admin.token: is missing, and admin.listen = {address} is not on loopback"
            )
    return mistakes


def _privacy(privacy: Any) -> list[str]:
    if not isinstance(privacy, Mapping) or privacy.get("emails") != "hash" or privacy.get("key"):
        return []
    return ['privacy.key: is missing; emails = "hash" needs one, or anybody could try addresses']


def _shared_projects(sources: Any) -> list[str]:
    mistakes: list[str] = []
    owner: dict[str, str] = {}
    accounts: dict[tuple[str, ...], list[tuple[str, bool]]] = {}
    tables = sources.items() if isinstance(sources, Mapping) else ()
    for name, source in tables:
        projects = split_names(source.get("projects", ["*"])) if isinstance(source, Mapping) else 0
        if not isinstance(projects, list):
            continue  # reported already
        key = f"sources.{name}.projects"
        if "*" in projects and len(projects) > 1:
            mistakes.append(f'{key}: "*" is every project; leave out the others')
        for project in dict.fromkeys(map(str, projects)):
            other = owner.setdefault(project, name)
            if project != "*" and other != name:
                mistakes.append(f"{key}: project {project} belongs to sources.{other} already")
        account = tuple(
            str(source.get(k)) for k in ("platform", "api_url", "api_key", "organization")
        )
        for other, other_all in accounts.get(account, ()):
            if "*" in projects or other_all:
                mistakes.append(
                    f'{key}: "*" meets sources.{other}, which has the same account: name them'
                )
        accounts.setdefault(account, []).append((name, "*" in projects))
    return mistakes


def _following(settings: Settings) -> list[str]:
    """What follows the log must be able to."""
    mistakes = []
    if settings.follow.relay and settings.relay_place is None:
        mistakes.append("relay.url: is missing; the queue is a file, and the relay needs a broker")
    if settings.relay.url is not None and settings.relay.url.scheme == "sqlite":
        mistakes.append("relay.url: must be a URL that begins with amqp or amqps and a colon")
    if abs(sum(settings.snapshots.split.values()) - 1.0) > 1e-6:
        mistakes.append("snapshots.split: the shares must add up to 1")
    for name, policy in settings.retrain.items():
        mistakes += _policy(f"retrain.{name}", policy, settings)
    return mistakes


def _policy(key: str, policy: PolicySection, settings: Settings) -> list[str]:
    """A project that no source takes, or a class that no table knows, never comes: the policy
    would never fire."""
    allowed = {project for one in settings.sources.values() for project in one.projects}
    mistakes = []
    if "*" in policy.projects and len(policy.projects) > 1:
        mistakes.append(f'{key}.projects: "*" is every project; leave out the others')
    if settings.sources and "*" not in allowed:
        unknown = [one for one in policy.projects if one != "*" and one not in allowed]
        mistakes += [f"{key}.projects: no source takes the project {one}" for one in unknown]
    known = _known_classes(policy, settings)
    unknown = [one for one in policy.classes if known and one not in known]
    return mistakes + [f"{key}.classes: {one} is in no [classes]" for one in unknown]


def _known_classes(policy: PolicySection, settings: Settings) -> set[str]:
    """The classes that the policy's sources may have; empty where one of them may have any."""
    sources = [
        one
        for one in settings.sources.values()
        if "*" in (*policy.projects, *one.projects)
        or not {*policy.projects}.isdisjoint(one.projects)
    ]
    tables = [settings.classes if one.classes is None else one.classes for one in sources]
    if not all(tables):
        return set()
    return {name for table in (tables or [settings.classes]) for name in table}


def places(settings: Settings) -> list[str]:
    return [*_places(settings), *_following(settings)]


def _places(settings: Settings) -> list[str]:
    mistakes = [
        f"sources.{name}.secrets[{number}]: over {MAX_SECRET_TEXT} characters; it never matches"
        for name, source in settings.sources.items()
        for number, secret in enumerate(source.secrets)
        if source.platform == "redbrick" and len(secret.reveal()) > MAX_SECRET_TEXT
    ]
    authority = settings.queue_ca_file
    if authority is not None and not authority.is_file():
        mistakes.append(f"queue_ca: {authority} is no file that can be read")
    if settings.inbox is not None and settings.queue.scheme == "sqlite":
        itself = settings.inbox.path == settings.queue.path
        why = "is the queue itself" if itself else "is of no use, since the queue is a file already"
        mistakes.append(f"inbox: {why}; leave it out")
    if settings.lake.scheme != "file":
        return mistakes
    lake = settings.lake.path
    if settings.inbox is not None and settings.inbox.path.is_relative_to(lake):
        mistakes.append("inbox: lies inside the lake; put it elsewhere")
    if settings.queue.scheme == "sqlite" and settings.queue.path.is_relative_to(lake):
        mistakes.append("queue: lies inside the lake; put it elsewhere")
    if settings.log_index_file.absolute().is_relative_to(lake):
        mistakes.append("log.index: lies inside the lake; put it elsewhere")
    key = settings.log.key
    if key and key.reference.startswith("file:"):
        path = Path(key.reference.removeprefix("file:")).absolute()
        if path.is_relative_to(lake):
            mistakes.append("log.key: lies inside the lake; put it elsewhere")
    return mistakes
