"""Names of folders and files that no other name meets, on any file system; pure.

``layout.safe_name`` lets no name out of its folder and keeps apart what differs. A file system that
ignores case, or reserves names, asks for more: whatever would meet another name, or a reserved one,
carries eight digits of its hash after a ``~``, which no name from outside has in that place.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from consumer.errors import Permanent
from consumer.model import identifier
from handlers import layout
from handlers.pull.select import Facts

MAX_BYTES = 255  # of a component, the limit of the usual file systems

_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:\.nii\.gz|\.seg\.dcm|\.rtstruct\.dcm|\.[A-Za-z0-9]{1,8})$")


def folders(tasks: Sequence[Facts], *, by: str) -> dict[str, str]:
    """Each task's folder, by its place in the lake; ``by`` is ``name`` or ``id``.

    Given all tasks of a project, deleted ones included, so that a folder's name hangs neither on
    what is selected nor on the order in which tasks came; of tasks with one name none has it bare.
    """
    wanted = {task.place: layout.safe_name(task.name if by == "name" else task.task)
              for task in tasks}  # fmt: skip
    marks = {task.place: identifier(task.source, task.task) for task in tasks}
    met = Counter(folded(name) for name in wanted.values())
    made = {place: name if met[folded(name)] == 1 and not _is_reserved(name)
            else f"{name}~{marks[place][:8]}" for place, name in wanted.items()}  # fmt: skip
    met = Counter(folded(name) for name in made.values())
    return {place: name if met[folded(name)] == 1 else f"{wanted[place]}~{marks[place]}"
            for place, name in made.items()}  # fmt: skip


def distinct(paths: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The paths, given as components, with every component marked that would meet a sibling.

    Raises ``Permanent`` (``path-unsafe``) for what is no path below a folder.
    """
    children: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for path in paths:
        for depth, part in enumerate(path):
            checked(part)
            children[path[:depth]].add(part)
    met = {parent: Counter(map(folded, parts)) for parent, parts in children.items()}

    def alone(parent: tuple[str, ...], part: str) -> str:
        is_met = met[parent][folded(part)] > 1 or _is_reserved(part)
        return marked(part) if is_met else part

    return [tuple(alone(path[:depth], part) for depth, part in enumerate(path)) for path in paths]


def marked(part: str) -> str:
    """The component with digits of its hash before its suffix."""
    suffix = suffix_of(part)
    stem = part.removesuffix(suffix)
    reserved, dot, rest = stem.partition(".")
    mark = f"~{identifier(part)[:8]}"
    return f"{reserved}{mark}{dot}{rest}{suffix}" if dot else f"{stem}{mark}{suffix}"


def suffix_of(name: str) -> str:
    found = _SUFFIX.search(name)
    return found.group() if found else ""


def checked(part: str) -> str:
    """One plain component of a path. What makes lake names makes only such."""
    unsafe = part in ("", ".", "..") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in part)
    if unsafe or len(part.encode("utf-8", "surrogatepass")) > MAX_BYTES or part[-1] in ". ":
        raise Permanent("path-unsafe", "the lake names a file that no folder can safely hold")
    return part


def folded(part: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())


def clashing(paths: Iterable[str], taken: Callable[[str], bool]) -> str | None:
    """The first path that would need a folder where ``taken`` says a file is."""
    for path in paths:
        parts = path.split("/")
        if any(taken(folded("/".join(parts[:depth]))) for depth in range(1, len(parts))):
            return path
    return None


def _is_reserved(part: str) -> bool:
    return bool(_RESERVED.fullmatch(part.partition(".")[0].rstrip()))
