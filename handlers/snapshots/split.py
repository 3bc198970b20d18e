"""Which part of the data set a task is in: by a keyed hash, the same in every snapshot.

The hash is of the patient, where the task's name tells one, or else of the task; so the tasks of
one patient are never parted, and nothing that comes or goes moves another task.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from consumer.errors import Permanent
from consumer.model import canonical
from handlers.snapshots.described import SplitSettings, key_id

LOOKED_AT = 200  # characters of a name that the pattern is tried on

_WHOLE = 1 << 64


class Split:
    """``patient`` is a regular expression with one group, or empty. Raises ``Permanent``
    (``bad-split``) for shares that do not add up to 1 and a pattern that is none."""

    def __init__(self, shares: Mapping[str, float], key: bytes, patient: str = "") -> None:
        self._key = key
        parts = [(name, share) for name, share in sorted(shares.items()) if share > 0]
        if abs(sum(share for _, share in parts) - 1.0) > 1e-6 or min(shares.values()) < 0:
            raise Permanent("bad-split", "the shares of a split must add up to 1")
        self._names = [name for name, _ in parts]
        # The last part gets what rounding leaves.
        self._ends = [round(end * _WHOLE) for end in accumulate(share for _, share in parts)][:-1]
        self._pattern = _compiled(patient)
        self.settings = SplitSettings(shares=dict(shares), patient=patient, key_id=key_id(key))

    def part_of(self, project_key: str, task: str, name: str) -> str:
        """The part that a task is in."""
        patient = self._patient(name)
        told = ["patient", patient] if patient else ["task", project_key, task]
        mark = hmac.new(self._key, canonical(told), hashlib.sha256).digest()
        return self._names[bisect_right(self._ends, int.from_bytes(mark[:8], "big"))]

    def _patient(self, name: str) -> str | None:
        """None where no name tells one: then the task stands for itself."""
        found = self._pattern.search(name[:LOOKED_AT]) if self._pattern else None
        return found[1] if found else None


def _compiled(patient: str) -> re.Pattern[str] | None:
    if not patient:
        return None
    try:
        pattern = re.compile(patient)
    except re.error as error:
        raise Permanent("bad-split", "the pattern of a patient is no regular expression") from error
    if pattern.groups != 1:
        raise Permanent("bad-split", "the pattern of a patient needs exactly one group")
    return pattern
