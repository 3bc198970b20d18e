"""Every key in the lake: pure functions, with their inverse.

Every name that came from outside goes through `safe_name`, which no name can escape or collide in:
what it gives is one path component, and two names give the same component only if they are equal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from string import ascii_uppercase

RESERVED = frozenset(
    {"log", "followers", "sweeps", "tables", "snapshots", "notes", "groundwire-check"}
)
SNAPSHOTS = "snapshots"
SNAPSHOT_FILE = "snapshot.json"
MAX_NAME = 100  # characters of a component; a file system's limit is 255 bytes

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._()+,=@-]*[A-Za-z0-9_()+=@-])?", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def safe_name(name: str) -> str:
    """One path component for a name of any kind.

    A plain name of at most 100 characters is itself. Any other becomes its readable rest, ``~``
    and 128 bits of its SHA-256; ``~`` is in no plain name, so the two kinds never meet.
    """
    if len(name) <= MAX_NAME and _PLAIN.fullmatch(name):
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    rest = _UNSAFE.sub("-", name[:200]).strip("-.")[:40]
    return f"{rest}~{mark}"


def project_key(source: str, project: str, *, unique: bool) -> str:
    """The project's top-level name: its id where the platform's ids are unique in the world, else
    ``{source}.{id}``. A reserved name is prefixed as well."""
    name = project if unique and project not in RESERVED else f"{source}.{project}"
    return safe_name(name)


def task_prefix(project_key: str, task: str) -> str:
    return f"{project_key}/tasks/{safe_name(task)}/"


def pointer_key(project_key: str, task: str) -> str:
    return f"{task_prefix(project_key, task)}current.json"


def manifest_key(project_key: str, task: str, revision: str) -> str:
    return f"{task_prefix(project_key, task)}revisions/{revision}.json"


def file_key(project_key: str, task: str, sha256: str, name: str) -> str:
    """``name`` is one component, made by `safe_name` (and a suffix of ours)."""
    return f"{task_prefix(project_key, task)}files/{sha256}/{name}"


def taxonomy_key(project_key: str, sha256: str) -> str:
    return f"{project_key}/taxonomies/{sha256}.json"


def note_key(sha256: str) -> str:
    """An erasable note: free text with its salt, named by the hash of its bytes."""
    return f"notes/{sha256}.json"


def snapshot_prefix(name: str, identity: str) -> str:
    """The folder of one snapshot; both parts are slugs of ours."""
    return f"{SNAPSHOTS}/{name}/{identity}/"


def snapshot_of(key: str) -> tuple[str, str] | None:
    """(name, id) of a snapshot by the key of its ``snapshot.json``; None for any other key."""
    parts = key.split("/")
    if len(parts) == 4 and parts[0] == SNAPSHOTS and parts[3] == SNAPSHOT_FILE:
        return parts[1], parts[2]
    return None


def task_of_pointer(key: str) -> tuple[str, str] | None:
    """(project key, task's component) of a pointer's key; None for any other key."""
    parts = key.split("/")
    if len(parts) == 4 and parts[1] == "tasks" and parts[3] == "current.json":
        return parts[0], parts[2]
    return None


def series_names(given: Sequence[str | None]) -> list[str]:
    """Distinct file names (without suffix) for a task's series, in their order.

    An unnamed series is A, B, .. Z, AA by its place among all; a name that is taken already gets
    ``_1``, ``_2``, ... (RedBrick's own export names them so.)
    """
    taken: set[str] = set()
    names: list[str] = []
    for index, name in enumerate(given):
        base = letters(index) if name is None or not name.strip() else safe_name(name)
        chosen = base
        count = 0
        while chosen in taken:
            count += 1
            chosen = f"{base}_{count}"
        taken.add(chosen)
        names.append(chosen)
    return names


def letters(index: int) -> str:
    """0 is A, 25 is Z, 26 is AA: as spreadsheets count."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = ascii_uppercase[rest] + text
    return text
