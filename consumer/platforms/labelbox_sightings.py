"""What Labelbox tells of a project's data rows without fetching what was drawn: an export job that
is read line by line, so that a project of any size needs the memory of one line.

A row that cannot be read is told by its id alone: that is its own trouble, found when it is
fetched. A job that failed, reports errors, or brought fewer lines than it counts is an error.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from consumer.errors import Permanent, Transient
from consumer.platforms.labelbox_export import Exports
from consumer.platforms.labelbox_history import history_of
from consumer.platforms.labelbox_json import Json, child
from consumer.platforms.labelbox_legacy import current_row, is_legacy, row_id
from consumer.platforms.labelbox_rows import (
    active_at,
    entry_of,
    facts_of,
    label_times,
    stage_of,
    steps_of,
    truth_of,
    with_sorted_labels,
)
from consumer.sightings import Page, Sighting, Window

PAGE = 500  # sightings in a page of ours
DETAILS = ("data_row_details", "project_details", "label_details", "performance_details")
MAX_ID = 200  # characters of a row's id
MAX_ENTRIES = 1_000  # of one row, in the legacy shape


class Listing:
    """The listings of one account."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports

    async def now(self) -> str:
        return await self._exports.now()

    async def changed_since(self, project: str, window: Window) -> AsyncIterator[Page]:
        """Raises ``Transient`` or ``Permanent``, where lines are lacking at the end."""
        job = await self._exports.search(project, search_query(window), DETAILS)
        page: list[Sighting] = []
        with tempfile.TemporaryDirectory(prefix="groundwire-") as folder:
            async for entries in self._of_one_row(job, Path(folder)):
                page.append(sighting_of(entries, project))
                if len(page) == PAGE:
                    yield Page(tuple(page))
                    page = []
                    await asyncio.sleep(0)  # lines come from the disk, and others wait for the loop
        if page:
            yield Page(tuple(page))

    async def _of_one_row(self, job: str, folder: Path) -> AsyncIterator[list[Json]]:
        """The entries of one row that follow each other: several only in the legacy shape."""
        entries: list[Json] = []
        async for entry in self._exports.saved_rows(job, folder):
            if entries and (len(entries) == MAX_ENTRIES or row_id(entry) != row_id(entries[0])):
                yield entries
                entries = []
            entries.append(entry)
        if entries:
            yield entries


def search_query(window: Window) -> list[Json]:
    """The vendor's filters for a window; none names all rows. Bounds are widened to whole
    seconds, which is what the vendor's SDK sends."""
    bounds = {
        "data_row_last_activity_at": (window.since, window.until),
        "labeled_at": (window.label_since, window.label_until),
    }
    return [
        {"type": kind, "value": {**_between(start, end), "timezone": "UTC"}}
        for kind, (start, end) in bounds.items()
        if start or end
    ]


def _between(start: str | None, end: str | None) -> Json:
    low, high = start and _second(start), end and _second(end, up=True)
    if low and high:
        return {"operator": "BETWEEN", "value": {"min": low, "max": high}}
    if low:
        return {"operator": "GREATER_THAN_OR_EQUAL", "value": low}
    return {"operator": "LESS_THAN_OR_EQUAL", "value": high}


def _second(at: str, *, up: bool = False) -> str:
    moment = datetime.fromisoformat(at)
    if up and moment.microsecond:
        moment += timedelta(seconds=1)
    return moment.strftime("%Y-%m-%dT%H:%M:%S+0000")


def sighting_of(entries: Sequence[Json], project: str) -> Sighting:
    """Of all entries of one row. Raises ``Transient`` when they name no row."""
    task = row_id(entries[-1])
    if task is None or not 0 < len(task) <= MAX_ID or not task.isprintable():
        raise Transient("export-unreadable", "a row of the export has no id")
    try:
        row = entries[-1]
        if is_legacy(row):
            row = current_row(entries, project, _NO_FRAMES)
        row = with_sorted_labels(row, project)
        entry = entry_of(row, project)
        details = child(entry, "project_details")
        history = history_of(steps_of(details), project, task)
        times = [label_times(label) for label in entry["labels"]]
        facts = [facts_of(label) for label in entry["labels"]]
        return Sighting(
            task,
            stage_of(details),
            active_at(child(row, "data_row"), history, [changed for _, changed in times]),
            tuple(sorted(made for made, _ in times if made)),
            frozenset(one.id for one in facts),
            truth_of(facts, details).label,
            judged=True,
        )
    except Permanent:
        return Sighting(task)


_NO_FRAMES: Mapping[str, Sequence[Json]] = defaultdict(tuple)  # they hold drawings, not times
