"""Takes out of a text what no log line may hold: tokens, signed URLs' queries, e-mails, secrets,
and characters that would do something to who reads it.

It errs on the side of taking too much: a log line is to be read, not to be parsed for values. Its
time grows with a text's length and no faster, whatever the text: outsiders choose some of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

GONE = "[redacted]"
MAX_TEXT = 8192  # characters of one value; what an outsider sends must not flood the log
MAX_DEPTH = 6

_BEYOND = 1024  # characters more are looked at, so that nothing is cut into what nobody recognises
_PLAIN = re.compile(r"[A-Za-z0-9_-]*")  # ids and slugs: no pattern below finds anything in them
# Control characters, what turns the direction of writing or has no width, halves of surrogates.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_CONTROL = re.compile(f"[{_UNSEEN}]")
_WITHIN_LINES = re.compile(f"(?!\n)[{_UNSEEN}]")
# Possessive and with bounds, so that no text makes the search slow.
_WORD = re.compile(r"[^\s\"'<>]++")
_URL_USER = re.compile(r"://[^/?#]*@")
_EMAIL = re.compile(r"(?<![\w.%+'\ufffd-])[\w.%+'\ufffd-]++@[\w-]++(?:\.[\w-]++)++")
_QUOTED_EMAIL = re.compile(r"(?<![\w.+'-])[\w.+'-]++%40[\w-]++(?:\.[\w-]++)++")
_SCHEME = re.compile(r"(?i)\b(bearer|basic)\s{1,8}+[A-Za-z0-9._~+/=-]{6,}+")
_NAMED = re.compile(
    r"(?i)((?:api[_-]?key|token|secret|password|passwd|authorization|signature|credential)"
    r"[A-Za-z_-]{0,40}+[\"']?\s{0,8}+[:=]\s{0,8}+[\"']?)[^\s\"',;&]++"
)
_DIGEST = re.compile(r"(?i)\b(sha1|sha256)=[0-9a-f]++")
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]*+)?")
_TRACES = ("exception", "stack")  # as structlog calls them: texts of several lines
_SENSITIVE_KEY = re.compile(
    r"(?i)(?:^|_)(?:token|secrets?|password|authorization|api_?key|credentials?|cookie)$"
)


class Redactor:
    """Redacts texts and nested values; ``secrets`` are known values taken out wherever they are."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = {one for secret in secrets for one in _spellings(secret)}
        self._known = self._pattern()

    def learn(self, secret: str) -> None:
        """One more known value: secrets are rotated while we run."""
        if new := _spellings(secret) - self._secrets:
            self._secrets |= new
            self._known = self._pattern()

    def _pattern(self) -> re.Pattern[str] | None:
        known = sorted(self._secrets, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str, *, lines: bool = False) -> str:
        """The text without what must not be logged, at most `MAX_TEXT` characters long and on one
        line, unless it may have several (``lines``)."""
        long = len(text) > MAX_TEXT
        if long:
            text = text[: MAX_TEXT + _BEYOND]
        if self._known is not None:
            text = self._known.sub(GONE, text)
        if not _PLAIN.fullmatch(text):
            text = _cleaned(printable(text, lines=lines))
        return text[:MAX_TEXT] + "..." if long else text

    def value(self, value: Any, depth: int = 0) -> Any:
        """The same value with every string in it redacted; what is too deep is left out."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= MAX_DEPTH:
            return "..."
        if isinstance(value, Mapping):
            items = value.items()
            return {self.text(str(k)): self.field(str(k), v, depth + 1) for k, v in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(one, depth + 1) for one in value]
        if isinstance(value, bytes):
            return f"<{len(value)} bytes>"
        return self.text(str(value))

    def field(self, name: str, value: Any, depth: int = 0) -> Any:
        """As `value`, and nothing at all of a field whose name says that it is a secret."""
        if value and _SENSITIVE_KEY.search(name):
            return GONE
        if name in _TRACES and isinstance(value, str):
            return self.text(value, lines=True)
        return self.value(value, depth)


def printable(text: str, *, lines: bool = False) -> str:
    """The text without characters that would do something to a terminal, on one line unless it may
    have several (``lines``)."""
    return (_WITHIN_LINES if lines else _CONTROL).sub("\ufffd", text)


def json_text(text: str) -> str:
    """The same JSON, with such characters escaped in its strings."""

    def escaped(found: re.Match[str]) -> str:
        units = found[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))

    return text if text.isascii() and "\x7f" not in text else _WITHIN_LINES.sub(escaped, text)


def _spellings(secret: str) -> set[str]:
    """As it may stand in a text: in a URL, in JSON, or as it is. Short ones would be everywhere."""
    if len(secret) < 4:
        return set()
    quoted = quote(secret, safe="")
    return {secret, quoted, quoted.lower(), quote(secret), json.dumps(secret)[1:-1]}


def _cleaned(text: str) -> str:
    text = _WORD.sub(_without_query, text)
    text = _SCHEME.sub(rf"\1 {GONE}", text)
    text = _NAMED.sub(rf"\1{GONE}", text)
    text = _DIGEST.sub(rf"\1={GONE}", text)
    text = _JWT.sub(GONE, text)
    return _QUOTED_EMAIL.sub("[e-mail]", _EMAIL.sub("[e-mail]", text))


def _without_query(word: re.Match[str]) -> str:
    """A URL without its user and its query; a path without its query."""
    head, mark, query = word[0].partition("?")
    is_url = "://" in head
    if is_url:
        head = _URL_USER.sub(f"://{GONE}@", head)
    if query and (is_url or ("/" in head and "=" in query)):
        query = GONE
    return head + mark + query
