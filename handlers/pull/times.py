"""Dates as people write them, for ``--since`` and its kin; pure.

A beginning is the first moment of what is written, an end the last: the 4th of October as an end
includes that whole day, 12:30:00 that whole second. (Labelbox's SDK sends ``GREATER_THAN_OR_EQUAL``
and ``LESS_THAN_OR_EQUAL`` with the text as it stands, so both ends are included there, too.)
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from consumer.model import timestamp

MAX_LENGTH = 64
FORMS = "YYYY-MM-DD, 'YYYY-MM-DD hh:mm:ss' or ISO 8601"

_ZONE = re.compile(r"(?:Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)$", re.IGNORECASE)
_UNITS = {0: timedelta(days=1), 2: timedelta(hours=1), 4: timedelta(minutes=1)}
_SECOND, _INSTANT = timedelta(seconds=1), timedelta(microseconds=1)


def moment(text: str, *, end: bool) -> str:
    """The moment in `timestamp` form, of UTC where the text names no zone.

    Raises ``ValueError`` with a sentence.
    """
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError
        parsed = datetime.fromisoformat(text.strip())
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        last = parsed + _unit(text.strip()) - _INSTANT
        return timestamp(last if end else parsed)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:MAX_LENGTH]!r} is no date: write {FORMS}") from None


def _unit(text: str) -> timedelta:
    """How long that lasts which the text names."""
    _, mark, time = text.replace(" ", "T", 1).partition("T")
    digits = re.sub(r"\D", "", _ZONE.sub("", time)) if mark else ""
    return _UNITS.get(len(digits), _SECOND if len(digits) == 6 else _INSTANT)
