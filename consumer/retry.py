"""What becomes of an event that failed: a pure decision that the loop obeys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from consumer.errors import Permanent, Transient


@dataclass(frozen=True, slots=True)
class Policy:
    """Full jitter between half and all of ``base_s * 2**(attempt - 1)``, at most ``cap_s``."""

    attempts: int = 12  # about six hours with the defaults
    base_s: float = 2.0
    cap_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after so many seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Bury:
    """Give it up."""


def decide(
    error: Transient | Permanent, attempt: int, policy: Policy, random: Callable[[], float]
) -> Retry | Bury:
    """``attempt`` counts from 1; ``random`` gives [0, 1). What the other side asked for
    (``Retry-After``) is the least wait, whatever the attempt."""
    if isinstance(error, Permanent) or attempt >= policy.attempts:
        return Bury()
    return Retry(max(backoff_s(attempt, policy, random), error.after_s or 0.0))


def backoff_s(attempt: int, policy: Policy, random: Callable[[], float]) -> float:
    """The wait before the try after ``attempt``, in seconds."""
    full = min(policy.base_s * 2.0 ** min(attempt - 1, 30), policy.cap_s)
    return full * (0.5 + random() / 2)
