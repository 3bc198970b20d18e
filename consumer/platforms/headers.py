"""What an answer's headers say of time: the platform's own clock, and how long it wants to be left
alone. Our clock plays no part where the platform's is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from consumer.download import retry_after_s
from consumer.errors import Transient
from consumer.platforms.texts import time_text

MAX_WAIT_S = 3600  # that another side may ask for

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT",
    re.ASCII,
)


def clock_of(headers: Mapping[str, str]) -> str:
    """The ``Date`` of an answer, as `timestamp` (whole seconds). Raises ``Transient``."""
    try:
        if (told := http_date(headers.get("Date", ""))) is not None:
            return time_text(told)
    except ValueError:
        pass
    raise Transient("platform-clock", "the platform's answer does not say what time it is there")


def wait_s(headers: Mapping[str, str]) -> float | None:
    """As `retry_after_s`; a date is counted from the answer's own ``Date`` on, where it has one."""
    until = http_date(headers.get("Retry-After", ""))
    asked_at = http_date(headers.get("Date", ""))
    if until is None or asked_at is None:
        return retry_after_s(headers)
    return min(max((until - asked_at).total_seconds(), 0.0), float(MAX_WAIT_S))


def http_date(text: str) -> datetime | None:
    """The one form that servers write (RFC 9110, 5.6.7: IMF-fixdate); None for anything else."""
    found = _DATE.fullmatch(text.strip())
    if found is None or found[2] not in _MONTHS:
        return None
    month = _MONTHS.index(found[2]) + 1
    day, year, hour, minute, second = (int(found[part]) for part in (1, 3, 4, 5, 6))
    try:
        # A leap second is the last one of its minute: no time that was told is later than it was.
        return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
