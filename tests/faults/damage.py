"""Answers damaged at random places: a key that is gone, another type, a number beyond all measure,
nesting beyond all depth, no JSON at all."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

DEEP = "<deep>"
_VALUES: tuple[Any, ...] = (
    {}, [], "", "x", "\x00\n", "\ud800", 7, -1, 0.5, True, False,
    10**400, float("inf"), float("nan"), DEEP, [None], {"x": None}, [[]], "9" * 5000,
)  # fmt: skip
_NEVER: tuple[Any, ...] = ({"x": None}, DEEP)  # what no field is that may be null
_EITHER: tuple[Any, ...] = (("frames", []),)  # a legacy group has them listed, or behind a URL
_MAPS = {"projects", "groups", "frames", "objects"}  # whose keys are data: one less is no damage

Place = tuple[Any, Any, bool]  # what holds it, under which name or number; whether it may be gone


def places(value: Any, inside: object = None) -> Iterator[Place]:
    """Every place in a JSON value where something else could stand."""
    is_map = isinstance(value, dict)
    for name, held in value.items() if is_map else enumerate(value):
        yield value, name, is_map and inside not in _MAPS
        if isinstance(held, dict | list):
            yield from places(held, name)


def damage(answer: Any, rng: random.Random) -> str:
    """Puts another type somewhere, or takes a key away, and says so. Where there is nothing,
    nothing is put that might as well be there."""
    holder, name, may_go = rng.choice(list(places(answer)))
    if may_go and rng.random() < 0.3:
        del holder[name]
        return f"{name} is gone"
    kind = type(holder[name])
    others = _NEVER if holder[name] is None else _VALUES
    allowed = [one for one in others if type(one) is not kind and (name, one) not in _EITHER]
    holder[name] = rng.choice(allowed)
    return f"{name} is {holder[name]!r:.40}"


def as_json(value: Any) -> bytes:
    """With what JSON cannot say: NaN as JavaScript's, half of a surrogate pair, and nesting that
    is deeper than any stack."""
    return json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).encode()


def cut(body: bytes, rng: random.Random) -> bytes:
    """Only its first part."""
    return body[: rng.randrange(len(body) or 1)]
