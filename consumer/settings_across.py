"""Mistakes between keys: what is well written, and does not fit together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumer.settings_values import read_address, split_names
from consumer.signature import MAX_SECRET_TEXT

if TYPE_CHECKING:
    from consumer.settings import Settings


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


def places(settings: Settings) -> list[str]:
    mistakes = [
        f"sources.{name}.secrets[{number}]: over {MAX_SECRET_TEXT} characters; it never matches"
        for name, source in settings.sources.items()
        for number, secret in enumerate(source.secrets)
        if source.platform == "redbrick" and len(secret.reveal()) > MAX_SECRET_TEXT
    ]
    authority = settings.queue_ca_file
    if authority is not None and not authority.is_file():
        mistakes.append(f"queue_ca: {authority} is no file that can be read")
    if settings.lake.scheme != "file":
        return mistakes
    lake = settings.lake.path
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
