"""Takes out of a text what no log line may hold: tokens, signed URLs' queries, e-mails, secrets.

It errs on the side of taking too much: a log line is to be read, not to be parsed for values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

GONE = "[redacted]"
MAX_TEXT = 8192  # characters of one value; what an outsider sends must not flood the log
MAX_DEPTH = 6

_PLAIN = re.compile(r"[A-Za-z0-9_-]*")  # ids and slugs: no pattern below finds anything in them
_URL_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@\"'<>]+@")
_URL_QUERY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s?#\"'<>]*)\?[^\s\"'<>]+")
_PATH_QUERY = re.compile(r"(/[^\s?#\"'<>]*)\?[^\s\"'<>]*=[^\s\"'<>]*")
_EMAIL = re.compile(r"[A-Za-z0-9._%+'-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_SCHEME = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")
_NAMED = re.compile(
    r"(?i)\b((?:api[_-]?key|token|secret|password|passwd|authorization|signature|credential)"
    r"[A-Za-z_-]*[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&]+"
)
_DIGEST = re.compile(r"(?i)\b(sha1|sha256)=[0-9a-f]+")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?")
_SENSITIVE_KEY = re.compile(
    r"(?i)(?:^|_)(?:token|secrets?|password|authorization|api_?key|credentials?|cookie)$"
)


class Redactor:
    """Redacts texts and nested values; ``secrets`` are known values taken out wherever they are."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = {s for s in secrets if len(s) >= 4}
        self._known = self._pattern()

    def learn(self, secret: str) -> None:
        """One more known value: secrets are rotated while we run."""
        if len(secret) >= 4:
            self._secrets.add(secret)
            self._known = self._pattern()

    def _pattern(self) -> re.Pattern[str] | None:
        known = sorted(self._secrets, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """The text without what must not be logged, at most `MAX_TEXT` characters long."""
        if len(text) > MAX_TEXT:
            text = text[:MAX_TEXT] + "..."
        if self._known is not None:
            text = self._known.sub(GONE, text)
        if _PLAIN.fullmatch(text):
            return text
        text = _URL_USER.sub(rf"\1{GONE}@", text)
        text = _URL_QUERY.sub(rf"\1?{GONE}", text)
        text = _PATH_QUERY.sub(rf"\1?{GONE}", text)
        text = _SCHEME.sub(rf"\1 {GONE}", text)
        text = _NAMED.sub(rf"\1{GONE}", text)
        text = _DIGEST.sub(rf"\1={GONE}", text)
        text = _JWT.sub(GONE, text)
        return _EMAIL.sub("[e-mail]", text)

    def value(self, value: Any, depth: int = 0) -> Any:
        """The same value with every string in it redacted; what is too deep is left out."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= MAX_DEPTH:
            return "..."
        if isinstance(value, Mapping):
            return {str(k): self.field(str(k), v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(one, depth + 1) for one in value]
        if isinstance(value, bytes):
            return f"<{len(value)} bytes>"
        return self.text(str(value))

    def field(self, name: str, value: Any, depth: int = 0) -> Any:
        """As `value`, and nothing at all of a field whose name says that it is a secret."""
        return GONE if value and _SENSITIVE_KEY.search(name) else self.value(value, depth)
