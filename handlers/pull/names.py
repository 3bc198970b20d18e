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
_SUFFIX = re.compile(
    r"(?:\.nii\.gz|\.seg\.dcm|\.rtstruct\.dcm|\.classes\.json|\.[A-Za-z0-9]{1,8})$"
)


def folders(tasks: Sequence[Facts], *, by: str) -> dict[str, str]:
    """Each task's folder, by its place in the lake; ``by`` is ``name`` or ``id``,
    and a task whose name the lake keeps out of paths goes by its id.

    Given all tasks of a project, deleted ones included, so that a folder's name hangs neither on
    what is selected nor on the order in which tasks came; of tasks with one name none has it bare.
    """
    wanted = {task.place: bare(task, by=by) for task in tasks}
    marks = {task.place: identifier(task.source, task.task) for task in tasks}
    met = Counter(folded(name) for name in wanted.values())
    made = {
        place: _with(name, marks[place][:8])
        if met[folded(name)] > 1 or _is_reserved(name)
        else name
        for place, name in wanted.items()
    }
    met = Counter(folded(name) for name in made.values())
    return {
        place: _with(wanted[place], marks[place]) if met[folded(name)] > 1 else name
        for place, name in made.items()
    }


def bare(task: Facts, *, by: str) -> str:
    """The folder of a task that meets no other. Only tasks whose bare folders are equal when
    `folded` can meet, so `folders` of all of those is `folders` of the whole project for them."""
    return layout.safe_name(task.name if by == "name" and not task.nameless else task.task)


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
    return _with(part.removesuffix(suffix), identifier(part)[:8]) + suffix


def _with(name: str, mark: str) -> str:
    """A reserved name is reserved whatever follows its first dot, so the mark comes before."""
    if not _is_reserved(name):
        return f"{name}~{mark}"
    stem, dot, rest = name.partition(".")
    return f"{stem}~{mark}{dot}{rest}"


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
