"""Which voxel value an object has: the one that is configured for its class, else a free one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Literal

from consumer.errors import Permanent
from consumer.model import ClassRule
from handlers.formats.label_map import MAX_LABEL

Masks = Literal["instance", "binary", "semantic"]


def assign_values(
    objects: Mapping[str, str | None], classes: Sequence[ClassRule], masks: Masks
) -> dict[str, int]:
    """The value of every object; ``objects`` are the name of its class (None is a name, too) by
    feature id.

    A configured class has its value in every task, shared by its objects. The others get the
    lowest values that no class is configured to have, in the order of (name, feature id): each
    object its own in ``instance``, each name its own in ``semantic``, all of them 1 in ``binary``,
    where every object is alone in its mask. Raises ``Permanent`` (class-value-unusable).
    """
    configured = {rule.name: rule.value for rule in classes}
    if not all(1 <= value <= MAX_LABEL for value in configured.values()):
        raise Permanent("class-value-unusable", f"a class's value is not from 1 to {MAX_LABEL}")
    free = _free(set(configured.values()))
    by_name: dict[str, int] = {}
    values: dict[str, int] = {}
    for feature, category in sorted(objects.items(), key=lambda one: (one[1] or "", one[0])):
        name = category or ""
        if name in configured:
            values[feature] = configured[name]
        elif masks == "binary":
            values[feature] = 1
        elif masks == "semantic":
            values[feature] = by_name[name] if name in by_name else next(free)
            by_name[name] = values[feature]
        else:
            values[feature] = next(free)
    return values


def _free(taken: set[int]) -> Iterator[int]:
    return (value for value in count(1) if value not in taken)
