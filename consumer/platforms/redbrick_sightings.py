"""What RedBrick tells of a project's tasks without their labels, page by page.

A page that is not clean is an error, never fewer tasks. Nobody knows whether RedBrick pages by
place or by key: where tasks went away while we listed, so that others may have slipped over a
page's edge, the listing is begun again. A task whose times cannot be read is told without them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from consumer.errors import Permanent, Transient
from consumer.platforms import redbrick_queries as queries
from consumer.platforms.patience import patient
from consumer.platforms.redbrick_api import RedBrickApi
from consumer.platforms.redbrick_document import is_merged
from consumer.platforms.redbrick_history import history_of, uploaded_versions
from consumer.platforms.redbrick_projects import Projects
from consumer.platforms.redbrick_snapshot import WORKED_ON, ProjectFacts, active_at
from consumer.platforms.redbrick_types import check_listed
from consumer.platforms.redbrick_values import moment
from consumer.platforms.redbrick_versions import parts_of, version_of
from consumer.platforms.texts import short, time_text
from consumer.ports import Sleep
from consumer.sightings import Page, Sighting, Window

PAGE = 100  # tasks that are asked for at once
MAX_PAGES = 100_000  # of one listing
MAX_ROUNDS = 3  # that a listing may take where tasks go away meanwhile
MAX_ID = 200  # characters of a task's id

Json = Mapping[str, Any]


class Listing:
    """The listings of one organization's projects; ``final`` as `snapshot_of` takes it."""

    def __init__(
        self,
        api: RedBrickApi,
        organization: str,
        projects: Projects,
        final: Collection[str],
        sleep: Sleep,
        *,
        max_pages: int = MAX_PAGES,
    ) -> None:
        self._api = api
        self._organization = organization
        self._projects = projects
        self._final = final
        self._sleep = sleep
        self._max_pages = max_pages

    async def now(self) -> str:
        _, now = await self._api.ask_when(queries.WHO_ASKS, {})
        return now

    async def changed_since(self, project: str, window: Window) -> AsyncIterator[Page]:
        """Raises ``Transient`` or ``Permanent``; a page that fails is asked for again. Only
        ``window.since`` is for the platform."""
        for _ in range(MAX_ROUNDS):
            facts = await patient(lambda: self._projects.facts(project), self._sleep)
            listed = _Round()
            async for told in self._pages(project, window.since, facts):
                listed.add(told)
                seen = (sighting_of(one, project, facts, self._final) for one in told.entries)
                yield Page(tuple(seen), listed.first_count)
            if listed.is_whole:
                return
        raise _malformed("platform-listing-short", "fewer tasks came than RedBrick counts")

    async def _pages(
        self, project: str, since: str | None, facts: ProjectFacts
    ) -> AsyncIterator[_Told]:
        variables = {
            "orgId": self._organization,
            "projectId": project,
            "stageName": None,
            "cacheTime": since,
            "first": PAGE,
            "after": None,
        }
        query, seen = queries.page(consensus=facts.consensus), set[str]()
        for _ in range(self._max_pages):
            told = await patient(lambda: self._told(query, variables), self._sleep)
            yield told
            if told.cursor is None:
                return
            if told.cursor in seen:
                raise _malformed("platform-listing-circles", "a listing's cursor came back")
            seen.add(told.cursor)
            variables["after"] = told.cursor
        raise Permanent("platform-listing-endless", f"more than {self._max_pages} pages")

    async def _told(self, query: str, variables: Json) -> _Told:
        return _told(*await self._api.ask_when(query, variables))


@dataclass(frozen=True, slots=True)
class _Told:
    """A page: its tasks, how many RedBrick counts in all, where the next begins, and when it was
    answered."""

    entries: list[Json]
    count: int | None
    cursor: str | None
    at: str


@dataclass(slots=True)
class _Round:
    """One way through a listing."""

    began: str | None = None
    first_count: int | None = None  # None where what is counted is not the whole listing
    last_count: int | None = None
    _old: set[str] = field(default_factory=set)
    _new: set[str] = field(default_factory=set)

    def add(self, told: _Told) -> None:
        if self.began is None:
            self.began = _after_second(told.at)
            of_page = told.cursor is not None and told.count == len(told.entries)
            self.first_count = None if of_page else told.count
        self.last_count = told.count
        for entry in told.entries:
            (self._new if _is_new(entry, self.began) else self._old).add(entry["taskId"])

    @property
    def is_whole(self) -> bool:
        """Whether all came that stood there from the first page to the last: none is lacking,
        and none went away, as far as RedBrick counts. What came meanwhile need not be among
        them."""
        if self.first_count is None or self.last_count is None:
            return True
        went_away = self.first_count + len(self._new) > self.last_count
        lacking = len(self._old) < min(self.first_count, self.last_count)
        return not went_away and not lacking


def sighting_of(entry: Json, project: str, facts: ProjectFacts, final: Collection[str]) -> Sighting:
    """An entry with a task's id. ``active_at`` is never later than what a fetch of the same state
    gives: only what would move a pointer counts."""
    task = entry["taskId"]
    try:
        check_listed(entry)
        stage = short(entry["currentStageName"])
        events = entry.get("genericEvents") or []
        history = history_of(project, task, events, final)
        worked_on = any(item.type in WORKED_ON for item in history)
        uploaded = () if worked_on else uploaded_versions(events)
        made, counted = _label_times(entry, facts, uploaded)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, Permanent):
        return Sighting(task)
    return Sighting(task, stage, active_at(history, counted), made)


def _label_times(
    entry: Json, facts: ProjectFacts, uploaded: Collection[str]
) -> tuple[tuple[str, ...], list[str]]:
    """(when versions of labels were made, those of them by which a snapshot is active)."""
    latest = version_of(entry.get("latestTaskData"), {})
    parts = parts_of(entry, {}) if facts.consensus else []
    merged = facts.consensus and is_merged(entry, parts, facts.reviews)
    own = [part.version for part in parts]
    if merged or not parts:
        own.append(latest)
    versions = [latest, *(part.version for part in parts)]
    made = {moment(one.saved_at) for one in versions if one.td_id and one.saved_at}
    counted = [
        moment(one.saved_at)
        for one in own
        if one.td_id and one.saved_at and one.td_id not in uploaded
    ]
    return tuple(sorted(made)), counted


def _told(data: Json, at: str) -> _Told:
    """Raises ``Transient``."""
    answer = data.get("tasksPaged")
    answer = answer if isinstance(answer, dict) else {}
    entries = answer.get("entries")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise _malformed("platform-answer-malformed", "a page of RedBrick's listing is malformed")
    cursor, count = answer.get("cursor"), answer.get("count")
    if cursor is not None and not isinstance(cursor, str):
        raise _malformed("platform-answer-malformed", "a listing's cursor is no text")
    if count is not None and (type(count) is not int or count < len(entries)):
        raise _malformed("platform-answer-malformed", "a listing's count is none")
    return _Told(entries, count, cursor or None, at)


def _is_entry(entry: object) -> bool:
    """Whether it names a task; how that stands may be unreadable."""
    task = entry.get("taskId") if isinstance(entry, dict) else None
    return isinstance(task, str) and 0 < len(task) <= MAX_ID and task.isprintable()


def _is_new(entry: Json, began: str) -> bool:
    try:
        return moment(entry["datapoint"]["createdAt"]) >= began
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False


def _after_second(at: str) -> str:
    """The end of the second that a platform's time tells."""
    return time_text(datetime.fromisoformat(at) + timedelta(seconds=1))


def _malformed(reason: str, message: str) -> Transient:
    return Transient(reason, message)
