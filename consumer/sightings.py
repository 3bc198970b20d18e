"""What a platform tells of its tasks without their labels: enough to see where the lake lags.

A sighting is a hint like a webhook: it says which task to look at; the state is fetched anew. All
times are in `model.timestamp` form, by the platform's own clock.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sighting:
    """One task as a listing shows it. None where the listing does not tell.

    ``active_at`` means the same as a `TaskSnapshot`'s, so that the two can be compared.
    ``label_created_at`` are the times at which its labels were made, ``labels`` their ids, and
    ``ground_truth_label`` the one that is the ground truth, if ``judged`` says that this is told.
    """

    task: str
    stage: str | None = None
    active_at: str | None = None
    label_created_at: tuple[str, ...] | None = None
    labels: frozenset[str] | None = None
    ground_truth_label: str | None = None
    judged: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the tasks that were asked for; ``total`` is how many there are in all, where the
    platform tells."""

    sightings: tuple[Sighting, ...]
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Which tasks are wanted: active within ``since`` and ``until``, with a label that was made
    within ``label_since`` and ``label_until``; ends included, None is no bound."""

    since: str | None = None
    until: str | None = None
    label_since: str | None = None
    label_until: str | None = None

    @property
    def everything(self) -> bool:
        return self == Window()

    def holds(self, seen: Sighting) -> bool:
        """Whether the sighting may be of a task that is wanted: what is not told counts."""
        if seen.active_at is not None and not _within(seen.active_at, self.since, self.until):
            return False
        if seen.label_created_at is None or (self.label_since, self.label_until) == (None, None):
            return True
        return any(_within(at, self.label_since, self.label_until) for at in seen.label_created_at)


@dataclass(frozen=True, slots=True)
class Gap:
    """A task that does not stand in the lake as it was seen; ``why`` is a slug."""

    task: str
    why: str
    stage: str | None = None
    active_at: str | None = None


def _within(at: str, start: str | None, end: str | None) -> bool:
    return (start is None or start <= at) and (end is None or at <= end)
