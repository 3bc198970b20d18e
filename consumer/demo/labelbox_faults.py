"""Faults that a test orders from a simulated Labelbox: the next answers of an operation go wrong.

An operation is a counter's name: ``export``, ``poll``, ``export header``, ``export offset``,
``export file GET``, ``mask GET``, ``frames GET``, ``images GET``, ``project``, ``user``.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "status", "graphql", "null", "rate-limit", "hang", "failed-task", "line-lost", "truncated",
    "stale", "other",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One answer that goes wrong.

    ``status``: this HTTP status, with ``retry_after`` and ``location`` as headers when given.
    ``graphql``: an error with ``code`` inside a 200. ``null``: a 200 whose data is null.
    ``rate-limit``: the vendor's "You have exceeded" message inside a 200. ``hang``: no answer
    until the client goes away. ``truncated``: half of the file or mask, as if whole.
    ``other``: what ``change`` makes of the body.

    Of the job that this ``export`` starts: ``failed-task``: it ends FAILED. ``line-lost``: its
    last line is lost, but its header counts it. ``stale``: it sees rows as they were before
    their last change.
    """

    kind: Kind
    status: int = 500
    retry_after: str | None = None
    location: str | None = None
    code: str = "INTERNAL_SERVER_ERROR"
    message: str = "Something went wrong"
    change: Callable[[bytes], bytes] = bytes


class Faults:
    """Ordered faults, first in, first out, by operation."""

    def __init__(self) -> None:
        self._ordered: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def order(self, operation: str, fault: Fault, *, times: int = 1) -> None:
        """The next ``times`` answers of the operation go wrong like this."""
        self._ordered[operation].extend([fault] * times)

    def next(self, operation: str) -> Fault | None:
        waiting = self._ordered[operation]
        return waiting.popleft() if waiting else None

    def clear(self) -> None:
        self._ordered.clear()
