"""Where a series' images lie when the data row does not say: a URL with ``{task}`` or ``{name}``.

The operator writes the template, whoever makes tasks chooses what is filled in: so that never
leads out of the place where its braces stand.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from consumer.errors import Refused

SCHEMES = ("s3://", "https://", "http://")
_FIELD = re.compile(r"\{(task|name)\}")
_MAX = 500  # characters of what is filled in


class Template:
    """Such as ``s3://bucket/studies/{task}/``. Raises ``ValueError`` for what is none."""

    def __init__(self, text: str) -> None:
        fixed = _FIELD.sub("", text)
        if "{" in fixed or "}" in fixed:
            raise ValueError("{task} and {name} are all that can be filled in")
        if not text.startswith(SCHEMES):
            raise ValueError("images are read from s3://, https:// and http:// only")
        first = _FIELD.search(text)
        start = text[: first.start()] if first else text
        if start.count("/") < 3:
            raise ValueError("the bucket or host must be given, and a / behind it")
        self._text = text
        self.fixed_prefix = start[: start.rindex("/") + 1]  # what lies below it the operator names

    def filled(self, *, task: str, name: str) -> str:
        """The URL for one task. Raises ``Refused`` for a name that cannot stand in it."""
        values = {"task": task, "name": name}
        return _FIELD.sub(lambda found: self._quoted(values[found.group(1)]), self._text)

    def _quoted(self, value: str) -> str:
        """Keys of s3 are what they are, and only lose their slashes; URLs are quoted in full."""
        if not value.strip(".") or not value.isprintable() or len(value) > _MAX:
            text = "the task's name or id cannot stand in the URL of its images"
            raise Refused("images-unreachable", text)
        if self._text.startswith("s3://"):
            return value.replace("/", "%2F")
        return quote(value, safe="")
