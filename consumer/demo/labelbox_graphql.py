"""The little of GraphQL that a simulated Labelbox needs: which operation, which fields.

Answers hold exactly the fields a query selects, and a field nobody knows is refused, so a client
that asks for too little or for the wrong thing fails here as it would there.
"""

from __future__ import annotations

import re
from typing import Any

_OPERATION = re.compile(r"^\s*(?:query|mutation)\s+(\w+)")
_TOKEN = re.compile(r"\w+|[{}]")
_ARGUMENTS = re.compile(r"\([^()]*\)")

Selection = dict[str, "Selection"]


class UnknownField(Exception):
    """The query selects a field that the answer does not have."""


def operation_name(query: str) -> str | None:
    found = _OPERATION.match(query)
    return found.group(1) if found else None


def selection(query: str) -> Selection:
    """The selected fields of the one operation in ``query``, nested; arguments are dropped.

    Raises ValueError for braces that do not balance.
    """
    body = query[query.index("{", query.find(")") if _has_head(query) else 0) :]
    stack: list[Selection] = [{}]
    last: Selection = stack[0]
    for token in _TOKEN.findall(_ARGUMENTS.sub("", body)):
        if token == "{":
            stack.append(last)
        elif token == "}":
            last = stack.pop()
        elif not stack:
            break
        else:
            last = stack[-1].setdefault(token, {})
    if len(stack) != 1:
        raise ValueError("braces do not balance")
    return stack[0]


def _has_head(query: str) -> bool:
    """Whether the operation declares variables before its first brace."""
    return -1 < query.find("(") < query.find("{")


def select(value: Any, wanted: Selection) -> Any:
    """``value`` with only the wanted fields, as a GraphQL server answers."""
    if value is None or not wanted:
        return value
    if isinstance(value, list):
        return [select(one, wanted) for one in value]
    missing = wanted.keys() - value.keys()
    if missing:
        raise UnknownField(f"Cannot query field {sorted(missing)[0]!r}")
    return {name: select(value[name], inner) for name, inner in wanted.items()}
