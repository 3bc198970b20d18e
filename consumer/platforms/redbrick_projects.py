"""What is the same for every task of a RedBrick project, asked for at most once a minute."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from consumer.errors import Transient
from consumer.platforms import redbrick_queries as queries
from consumer.platforms.redbrick_api import RedBrickApi
from consumer.platforms.redbrick_snapshot import ProjectFacts
from consumer.platforms.redbrick_types import check_project

KEPT = timedelta(seconds=60)
_REVIEW = "expert-review"  # the brick of a review stage
_READABLE = "CREATION_SUCCESS"


class Projects:
    """A project that cannot be read is an error for all its tasks, never a reason to think that
    they are gone."""

    def __init__(self, api: RedBrickApi, organization: str, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._organization = organization
        self._clock = clock
        self._known: dict[str, tuple[datetime, ProjectFacts]] = {}
        self._answers: Counter[str] = Counter()
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def facts(self, project: str, *, fresh: bool = False) -> ProjectFacts:
        """Raises ``Transient``. ``fresh`` asks again, unless somebody else just did."""
        answers = self._answers[project]
        async with self._asking[project]:
            if (known := self._known.get(project)) is not None:
                asked_at, facts = known
                just_asked = self._answers[project] > answers
                if just_asked or (not fresh and self._clock() - asked_at < KEPT):
                    return facts
            variables = {"orgId": self._organization, "projectId": project}
            answer = (await self._api.ask(queries.PROJECT, variables)).get("project")
            facts = _facts(answer)
            self._known[project] = (self._clock(), facts)
            self._answers[project] += 1
            return facts


def _facts(answer: Any) -> ProjectFacts:
    if not isinstance(answer, Mapping) or answer.get("status") != _READABLE:
        raise Transient("project-unreadable", "RedBrick shows no such project to this key")
    try:
        check_project(answer)
        return ProjectFacts(
            taxonomy=dict(answer["taxonomy"]),
            consensus=bool((answer.get("consensusSettings") or {}).get("enabled")),
            reviews=tuple(
                stage["stageName"]
                for stage in answer.get("stages") or []
                if stage.get("brickName") == _REVIEW
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Transient("project-unreadable", "RedBrick's project is malformed") from error
