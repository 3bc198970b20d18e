"""The folders of a project's tasks, kept up to date as tasks come, go and are renamed; pure.

A task's folder hangs on its own name and on those of the tasks that could meet it, on no other; so
a change costs as much as there are tasks of that name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from handlers.pull import names
from handlers.pull.select import Facts

BY = "name"


class Folders:
    """By task id. Deleted tasks keep their place among those of a name, as in a pull."""

    def __init__(self, tasks: Iterable[Facts]) -> None:
        self._groups: defaultdict[str, dict[str, Facts]] = defaultdict(dict)
        self._of: dict[str, str] = {}
        for facts in tasks:
            self._put(facts)

    def change(self, tasks: dict[str, Facts | None]) -> dict[str, str]:
        """Takes in what these tasks are now (None: gone for good). Returns the folders of all tasks
        that could have another by that, those that are unchanged included."""
        groups = {self._of[task] for task in tasks if task in self._of}
        for task, facts in tasks.items():
            if task in self._of:
                del self._groups[self._of.pop(task)][task]
            if facts is not None:
                groups.add(self._put(facts))
        found: dict[str, str] = {}
        for group in groups:
            members = self._groups[group]
            by_place = names.folders(list(members.values()), by=BY)
            found |= {task: by_place[facts.place] for task, facts in members.items()}
            if not members:
                del self._groups[group]
        return found

    def _put(self, facts: Facts) -> str:
        group = names.folded(names.bare(facts, by=BY))
        self._groups[group][facts.task] = facts
        self._of[facts.task] = group
        return group
