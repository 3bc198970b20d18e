"""The three ways a thing can fail, each with one answer.

Every error carries a constant ``reason`` slug, which is log field, metric label and log entry
alike. The text is for a person; it never holds a secret, a signed URL or anybody's name.
"""

from __future__ import annotations


class GroundwireError(Exception):
    """A failure with a constant reason and a sentence for a person."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason.replace("-", " "))
        self.reason = reason
        self.message = message or reason.replace("-", " ")


class Rejected(GroundwireError):
    """The sender's fault: answered with ``status`` (4xx), nothing is queued, do not resend."""

    def __init__(self, status: int, reason: str, message: str = "") -> None:
        super().__init__(reason, message)
        self.status = status


class Transient(GroundwireError):
    """May work later: tried again.

    ``after_s`` is the least wait that the other side asked for (``Retry-After``), in seconds.
    ``shared`` says that the failure is not one task's own (credentials, rate limit, server down),
    so asking for fewer tasks would not help.
    """

    def __init__(
        self, reason: str, message: str = "", *, after_s: float | None = None, shared: bool = False
    ) -> None:
        super().__init__(reason, message)
        self.after_s = after_s
        self.shared = shared


class Permanent(GroundwireError):
    """Will never work as it stands: buried in the dead letters, where a person decides."""


class Refused(Permanent):
    """What cannot be converted rightly, so it is not: ``message`` names the file and the measure.
    ``shape`` (columns, rows, slices) is the voxel grid, where that is known all the same."""

    def __init__(
        self, reason: str, message: str = "", *, shape: tuple[int, int, int] | None = None
    ) -> None:
        super().__init__(reason, message)
        self.shape = shape


class Conflict(GroundwireError):
    """A store key holds other bytes than expected: somebody else was first."""

    def __init__(self, key: str) -> None:
        super().__init__("conflict", f"{key} holds something else")
        self.key = key
