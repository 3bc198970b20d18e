"""Faults for a simulated RedBrick: what the next answers of an operation are to be instead."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    STATUS = "status"  # this HTTP status and nothing useful in the body
    HANG = "hang"  # no answer until the server stops
    GRAPHQL_ERROR = "graphql-error"  # a 200 whose body says errors
    TRUNCATED = "truncated"  # the first half of the body, under its full length
    CUT = "cut"  # the first half of the body, as if it were all
    STALE = "stale"  # the task as it was `steps` changes ago
    HALF_PAGE = "half-page"  # a listing's page without its second half
    NO_CURSOR = "no-cursor"  # a listing's page that claims to be the last
    OTHER = "other"  # what ``change`` makes of the body
    SAME_CURSOR = "same-cursor"  # a listing's page that points at itself


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong answer; ``status`` and ``headers`` for STATUS, ``steps`` for STALE, ``change`` for
    OTHER."""

    kind: Kind
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    steps: int = 1
    message: str = "Something went wrong"
    change: Callable[[bytes], bytes] = bytes


def status(code: int, *, retry_after_s: int | None = None) -> Fault:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Fault(Kind.STATUS, status=code, headers=headers)


class Faults:
    """Faults waiting for their operation: a GraphQL operation's name, or ``"file GET"``."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Fault]] = defaultdict(deque)

    def add(self, operation: str, fault: Fault, *, times: int = 1) -> None:
        """The next ``times`` answers of the operation go wrong like this."""
        self._waiting[operation].extend([fault] * times)

    def take(self, operation: str) -> Fault | None:
        waiting = self._waiting[operation]
        return waiting.popleft() if waiting else None

    def clear(self) -> None:
        self._waiting.clear()
