"""Templates of a request are filled in so that no value can leave the place it was given: pure.

Placeholders are those of ``string.Template``: ``$name``, ``${name}``, and ``$$`` for a dollar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template
from urllib.parse import quote

Fields = Mapping[str, str]

NUMBERS = frozenset({"decision", "log_size", "tasks", "added", "changed"})  # of the fields
_ARE_JSON = NUMBERS | {"event"}


def fill_text(template: str, fields: Fields) -> str:
    """The values as they are."""
    return Template(template).substitute(fields)


def fill_url(template: str, fields: Fields) -> str:
    """Each value percent-encoded, slashes too: it stays within its segment or parameter."""
    return Template(template).substitute({k: quote(v, safe="") for k, v in fields.items()})


def fill_header(template: str, fields: Fields) -> str:
    """Without what could end the header: control characters become spaces."""
    filled = Template(template).substitute(fields)
    return "".join(c if c.isprintable() else " " for c in filled).strip()


def fill_json(template: str, fields: Fields) -> str:
    """Between quotes, a value is text of that string, escaped. Outside of them it is a JSON value:
    ``$event`` an object, counts numbers, all else a string. Raises ``ValueError`` for a template
    that is not JSON then."""
    quoted = False

    def one(name: str) -> str:
        if quoted:
            return json.dumps(fields[name])[1:-1]
        return fields[name] if name in _ARE_JSON else json.dumps(fields[name])

    filled: list[str] = []
    for text, name in _parts(template):
        filled.append(text)
        quoted = _ends_quoted(text, quoted)
        if name is not None:
            filled.append(one(name))
    done = "".join(filled)
    try:
        json.loads(done)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON once its values are filled in") from None
    return done


def _parts(template: str) -> list[tuple[str, str | None]]:
    """(Literal text, the name that follows it); the last has none."""
    parts: list[tuple[str, str | None]] = []
    text, at = "", 0
    for found in Template.pattern.finditer(template):
        text += template[at : found.start()]
        at = found.end()
        name = found.group("named") or found.group("braced")
        if name is None:
            text += "$"
        else:
            parts.append((text, name))
            text = ""
    return [*parts, (text + template[at:], None)]


def _ends_quoted(text: str, quoted: bool) -> bool:
    """Whether a JSON string is open after ``text``."""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = quoted
        elif character == '"':
            quoted = not quoted
    return quoted
