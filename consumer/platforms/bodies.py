"""A webhook's body as JSON: strict, and read so that the event loop is never held up. Pure.

Python's reader gives way to other threads only where it calls Python, hence the hooks for numbers,
and a limit on what calls none. What it makes has no cycles, so that collecting garbage meanwhile
would only look at all of it again and again: 0.5 s for 1 MiB of empty lists, which take 0.03 s.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from consumer.errors import Rejected

MAX_LISTS = 200_000

Pairs = list[tuple[str, Any]]


def read_body(body: bytes, made: Callable[[Pairs], dict[str, Any]]) -> Any:
    """``made`` is what becomes of an object. Integers are exact, however large.

    Raises ``Rejected`` (422).
    """
    if body.count(b"[") > MAX_LISTS:
        raise Rejected(422, "too-many-lists", f"more than {MAX_LISTS} lists in one body")
    try:
        with _uncollected():
            return json.loads(
                body,
                object_pairs_hook=made,
                parse_constant=_refuse,
                parse_int=_integer,
                parse_float=_fraction,
            )
    except RecursionError:
        raise Rejected(422, "nested-too-deep", "the body is nested too deep") from None
    except ValueError:  # UnicodeDecodeError is one
        raise Rejected(422, "not-json", "the body is not JSON") from None


def _integer(text: str) -> int:
    return int(text)


def _fraction(text: str) -> float:
    return float(text)


def _refuse(constant: str) -> NoReturn:
    """NaN and the infinities are no JSON."""
    raise ValueError(constant)


@contextmanager
def _uncollected() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
