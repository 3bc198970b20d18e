"""Which pulled folder is meant: by a project's name, or by where the command was typed."""

from __future__ import annotations

from pathlib import Path

from consumer.errors import Permanent
from handlers import layout
from handlers.pull import state
from handlers.pull.state import State


def find(project: str | None, directory: Path) -> tuple[Path, State] | None:
    """The pulled folder: ``directory`` itself, or one in it; None when there is none yet.

    Raises ``Permanent``: ``which-project`` when several could be meant, ``another-project`` when
    ``directory`` is another project's folder, ``pull-state-unreadable``.
    """
    if (here := state.load(directory)) is not None:
        if project is not None and here.project != folder_of(project):
            said = f"{directory} is a pulled folder of project {here.project}: name another DIR"
            raise Permanent("another-project", said)
        return directory, here
    if project is not None:
        place = directory / folder_of(project)
        return (place, found) if (found := state.load(place)) is not None else None
    places = sorted(file.parents[1] for file in directory.glob(f"*/{state.HIDDEN}/state.json"))
    if len(places) > 1:
        named = ", ".join(place.name for place in places)
        raise Permanent("which-project", f"{directory} holds several: name one of {named}")
    for place in places:
        if (found := state.load(place)) is not None:
            return place, found
    return None


def folder_of(project: str) -> str:
    """A project's folder, in the lake and here; the name of either may be given."""
    is_ours = "~" in project and "/" not in project
    return project if is_ours else layout.safe_name(project)
