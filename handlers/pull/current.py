"""What the lake holds now: a project's pointers, of which only those that moved are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from consumer.errors import Permanent
from consumer.model import Manifest, Pointer, decode
from consumer.ports import Listed, Sleep, Store
from handlers import layout
from handlers.pull.content import Reads
from handlers.pull.select import Facts, facts_of
from handlers.pull.together import each, retried


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be pulled rightly and is not there: of which task, and why. ``place`` is the
    task's in the lake, of what may be right next time."""

    task: str
    reason: str
    message: str
    place: str = ""


async def projects(store: Store) -> list[str]:
    """The projects that the lake holds."""
    found = {one.key.split("/")[0] async for one in store.list("") if "/tasks/" in one.key}
    return sorted(found - layout.RESERVED)


async def pointers(store: Store, project: str) -> list[Listed]:
    """The project's pointers, as a listing shows them."""
    listed = store.list(f"{project}/tasks/")
    return [one async for one in listed if layout.task_of_pointer(one.key) is not None]


async def read_facts(
    store: Store, listed: Sequence[Listed], known: Mapping[str, Facts], sleep: Sleep
) -> tuple[list[Facts], list[Problem]]:
    """What each pointer says, in the order of the listing. One whose version is known is not read;
    a store that tells no versions has all of them read."""
    facts: dict[str, Facts] = {}
    problems: list[Problem] = []

    async def one(item: Listed) -> None:
        kept = known.get(item.key)
        if kept is not None and item.version and kept.version == item.version:
            facts[item.key] = kept
            return
        stored = await retried(lambda: store.read(item.key), sleep)
        if stored is None:
            return
        place = item.key.removesuffix("current.json")
        try:
            facts[item.key] = facts_of(decode(stored.data, Pointer), place, item.version)
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = f"{item.key} is no pointer of this version; groundwire verify tells more"
            problems.append(Problem(place.split("/")[2], "pointer-unreadable", said, place))

    await each(listed, one)
    return [facts[item.key] for item in listed if item.key in facts], problems


async def read_manifest(task: Facts, contents: Reads) -> Manifest:
    """Raises ``Transient`` and ``Permanent``."""
    if task.manifest is None or task.manifest_sha256 is None:
        raise Permanent("no-revision", "the task has no revision")
    data = await contents.read(task.manifest, task.manifest_sha256)
    try:
        return decode(data, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = f"{task.manifest} is no manifest of this version"
        raise Permanent("manifest-unreadable", said) from error
