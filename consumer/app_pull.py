"""Where a pull comes from and goes to: settings, and what a pulled folder remembers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from consumer.app_adapters import make_store
from consumer.errors import Permanent
from consumer.ports import Store
from consumer.settings import Settings, load_lake
from handlers.pull import current, where
from handlers.pull.options import Options, mistakes, spoken
from handlers.pull.stage import Progress
from handlers.pull.state import State
from handlers.pull.sync import Summary, Wish, pull
from handlers.pull.times import moment

__all__ = ["Asked", "Options", "Summary", "mistakes", "moment", "pulled", "spoken", "wished"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The command as it was typed; ``options`` is None when none was given."""

    project: str | None = None
    directory: Path | None = None
    options: Options | None = None
    lake: str | None = None
    config: Path | None = None
    clear_cache: bool = False


async def wished(asked: Asked, environ: Mapping[str, str] = os.environ) -> tuple[Store, Wish]:
    """What is meant: inside a pulled folder, whatever was not typed is as it was the last time.

    Raises `ConfigurationError`; ``Permanent`` when it is not clear which project or folder.
    """
    directory = (asked.directory or Path()).absolute()
    found = where.find(asked.project, directory)
    remembered = found[1] if found else None
    settings = _settings(asked, remembered, environ)
    store = make_store(settings)
    if found:
        folder, project = found[0], found[1].project
    else:
        project = where.folder_of(asked.project) if asked.project else await _only(store, settings)
        folder = directory / project
    options = asked.options or (remembered.options if remembered else Options())
    wish = Wish(
        project=project,
        folder=folder,
        options=options,
        lake=settings.lake.path.as_uri() if settings.lake.scheme == "file" else str(settings.lake),
        endpoint=settings.lake_endpoint,
        clear_cache=asked.clear_cache,
    )
    return store, wish


async def pulled(store: Store, wish: Wish, progress: Progress) -> Summary:
    return await pull(store, wish, progress=progress, sleep=asyncio.sleep)


def _settings(asked: Asked, remembered: State | None, environ: Mapping[str, str]) -> Settings:
    """Where the lake is: as typed or configured for this command, else as remembered, else as
    configured here."""
    told = asked.lake or asked.config or environ.get("GROUNDWIRE_LAKE")
    if told or remembered is None or not remembered.lake:
        return load_lake(asked.config, asked.lake, environ)
    if remembered.endpoint:
        environ = {"GROUNDWIRE_LAKE_ENDPOINT": remembered.endpoint, **environ}
    return load_lake(None, remembered.lake, environ)


async def _only(store: Store, settings: Settings) -> str:
    projects = await current.projects(store)
    if len(projects) == 1:
        return projects[0]
    if not projects:
        raise Permanent("empty-lake", f"the lake {settings.lake.shown} holds no project")
    named = ", ".join(projects)
    raise Permanent("which-project", f"the lake holds several projects: name one of {named}")
