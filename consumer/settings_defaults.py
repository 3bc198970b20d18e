"""``groundwire check --defaults``: every key with its default, as TOML with one-line comments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic.fields import FieldInfo

from consumer.settings import Settings
from consumer.settings_model import SOURCE_KINDS, SourceSection
from consumer.settings_values import Section


def defaults() -> str:
    """A ``groundwire.toml`` that changes nothing; what has no default is commented out."""
    lines = ["# groundwire.toml: every key with its default. GROUNDWIRE_A__B overrides [a] b."]
    lines += _table(Settings())
    for name, field in Settings.model_fields.items():
        section = field.get_default()
        if isinstance(section, Section):
            lines += ["", f"[{name}]", *_table(section)]
    for kind in SOURCE_KINDS:
        lines += ["", *(f"# {line}" for line in _source(kind))]
    return "\n".join(lines) + "\n"


def _table(section: Section) -> Iterator[str]:
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        if not isinstance(field.get_default(), Section) and name != "sources":
            yield from _key(name, values[name], field)


def _source(kind: type[SourceSection]) -> Iterator[str]:
    """One kind of source, with the sub-tables below it."""
    platform = get_args(kind.model_fields["platform"].annotation)[0]
    head = f"[sources.{platform}]"
    yield f"{head}  # POST /hooks/{platform}; the name is yours, and there may be many"
    yield f'platform = "{platform}"'
    below: dict[str, Section] = {}
    for name, field in kind.model_fields.items():
        default = field.get_default()
        if isinstance(default, Section):
            below[name] = default
        elif name in _EXAMPLES:
            yield f"{name} = {_EXAMPLES[name]}  # needed; {field.description}"
        elif name != "platform":
            yield from _key(name, default, field)
    for name, section in below.items():
        yield f"[sources.{platform}.{name}]"
        yield from _table(section)


def _key(name: str, value: Any, field: FieldInfo) -> Iterator[str]:
    if value is None:
        yield f"# {name} =  # {field.description}"
    else:
        yield f"{name} = {_toml(value)}  # {field.description}"


def _toml(value: Any) -> str:
    """JSON is TOML but for tables."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{{inner}}}"
    return json.dumps(value)


_EXAMPLES = {
    "secrets": '["env:WEBHOOK_SECRET"]',
    "api_key": '"env:API_KEY"',
    "organization": '"..."',
}
