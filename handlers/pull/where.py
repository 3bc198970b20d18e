"""Which pulled folder is meant: by a project's name, or by where the command was typed."""

from __future__ import annotations

from pathlib import Path

from consumer.errors import Permanent
from handlers import layout
from handlers.pull import state
from handlers.pull.state import State


def find(project: str | None, directory: Path) -> tuple[Path, State] | None:
    """The pulled folder: ``directory`` itself, or one in it; None when there is none yet. One that
    holds a snapshot is never meant, but by standing in it.

    Raises ``Permanent``: ``which-project`` when several could be meant, ``another-project`` when
    ``directory`` is another project's folder, ``pull-state-unreadable``.
    """
    if (here := state.load(directory)) is not None:
        if project is not None and not here.snapshot and here.project != folder_of(project):
            said = f"{directory} is a pulled folder of project {here.project}: name another DIR"
            raise Permanent("another-project", said)
        return directory, here
    if project is not None:
        place = directory / folder_of(project)
        return (place, found) if (found := state.load(place)) is not None else None
    files = directory.glob(f"*/{state.HIDDEN}/state.json")
    loaded = [(file.parents[1], state.load(file.parents[1])) for file in sorted(files)]
    places = [(place, one) for place, one in loaded if one is not None and not one.snapshot]
    if len(places) > 1:
        named = ", ".join(place.name for place, _ in places)
        raise Permanent("which-project", f"{directory} holds several: name one of {named}")
    return places[0] if places else None


def folder_of(project: str) -> str:
    """A project's folder, in the lake and here; the name of either may be given."""
    is_ours = "~" in project and "/" not in project
    return project if is_ours else layout.safe_name(project)
