"""A snapshot's data set in a folder: the tasks' immutable files of then, in the layouts of a pull.

Nothing that moves is read - no pointer, no newer revision - so the folder's files are the same
bytes whenever and wherever it is pulled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from consumer.errors import Permanent
from consumer.ports import Sleep, Store
from handlers.pull import state, sync
from handlers.pull.names import checked
from handlers.pull.options import Options
from handlers.pull.select import Facts
from handlers.pull.stage import Progress
from handlers.snapshots.described import Snapshot
from handlers.snapshots.rows import facts_of_row
from handlers.snapshots.stored import bring_rows, rows_in, scratch


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a snapshot goes; ``lake`` and ``endpoint`` are only remembered. ``options`` None are
    those of the last time. In ``directory`` it gets a folder of its own, or is that folder."""

    directory: Path
    options: Options | None = None
    lake: str = ""
    endpoint: str = ""
    clear_cache: bool = False


async def pull(
    store: Store, snapshot: Snapshot, to: Destination, *, progress: Progress, sleep: Sleep
) -> dict[Path, sync.Summary]:
    """What was done in each folder: one for all, but in the platforms' layout one for each project
    of several. Raises as `sync.pull` does."""
    async with scratch() as folder:
        file = await bring_rows(store, snapshot, folder, sleep)
        by_project = _facts(file)
    root, options = _root(snapshot, to)
    parts = _parts(snapshot, root, options, by_project)
    done = {}
    for place, (project, facts) in parts.items():
        wish = sync.Wish(
            project=project,
            folder=place,
            options=options,
            lake=to.lake,
            endpoint=to.endpoint,
            clear_cache=to.clear_cache,
            snapshot=spoken(snapshot),
            facts=facts,
        )
        done[place] = await sync.pull(store, wish, progress=progress, sleep=sleep)
    return done


def spoken(snapshot: Snapshot) -> str:
    """As a person names it, and a pulled folder remembers it."""
    return f"{snapshot.name}/{snapshot.id}"


def _facts(file: Path) -> dict[str, list[Facts]]:
    """The tasks of each project, each once though it may have many rows."""
    found: dict[str, dict[str, Facts]] = {}
    for row in rows_in(file):
        facts = facts_of_row(row)
        found.setdefault(row.project_key, {}).setdefault(facts.place, facts)
    return {project: list(tasks.values()) for project, tasks in found.items()}


def _root(snapshot: Snapshot, to: Destination) -> tuple[Path, Options]:
    """Its folder, and the options; only the ground truth's labels are in a snapshot."""
    root = to.directory
    if state.load(root) is None:
        root = to.directory / f"{snapshot.name}-{snapshot.id}"
    before = state.load(root) or _of_a_part(root)
    options = to.options or (before.options if before else Options())
    return root, msgspec.structs.replace(options, ground_truth=True)


def _of_a_part(root: Path) -> state.State | None:
    for file in sorted(root.glob(f"*/{state.HIDDEN}/state.json")):
        return state.load(file.parents[1])
    return None


def _parts(
    snapshot: Snapshot, root: Path, options: Options, by_project: Mapping[str, list[Facts]]
) -> dict[Path, tuple[str, list[Facts]]]:
    """Project and tasks of each folder. A training set is one, with one set of classes. Raises
    ``Permanent`` (``path-unsafe``) for a project that is no name: rows are what the lake holds."""
    if len(by_project) == 1 or options.layout != "redbrick":
        if len(by_project) > 1 and _of_a_part(root) is not None:
            raise _mixed(root)
        every = [facts for several in by_project.values() for facts in several]
        return {root: (snapshot.id, every)}
    if state.load(root) is not None:
        raise _mixed(root)
    return {root / checked(project): (project, facts) for project, facts in by_project.items()}


def _mixed(root: Path) -> Permanent:
    said = f"{root} holds this snapshot in another layout, and it is of several projects"
    return Permanent("another-layout", f"{said}: name another DIR")
