"""Which voxel value each object gets."""

from __future__ import annotations

import pytest

from consumer.errors import Permanent
from consumer.model import ClassRule
from handlers.formats.values import assign_values

OBJECTS = {"c": "spleen", "a": "liver", "b": "liver", "d": "aorta"}


def rule(name: str, value: int) -> ClassRule:
    return ClassRule(name=name, value=value)


def test_a_configured_class_has_its_value_whatever_else_is_drawn() -> None:
    values = assign_values(OBJECTS, [rule("liver", 7)], "instance")

    assert (values["a"], values["b"]) == (7, 7)


def test_others_get_the_lowest_free_values_by_name_and_feature() -> None:
    assert assign_values(OBJECTS, [], "instance") == {"d": 1, "a": 2, "b": 3, "c": 4}


def test_no_object_gets_the_value_of_a_configured_class() -> None:
    classes = [rule("liver", 1), rule("not drawn here", 3)]

    assert assign_values(OBJECTS, classes, "instance") == {"a": 1, "b": 1, "d": 2, "c": 4}


def test_semantic_values_are_per_name() -> None:
    assert assign_values(OBJECTS, [rule("aorta", 2)], "semantic") == {
        "a": 1,
        "b": 1,
        "c": 3,
        "d": 2,
    }


def test_binary_values_are_one_or_the_classs() -> None:
    assert assign_values(OBJECTS, [rule("aorta", 2)], "binary") == {"a": 1, "b": 1, "c": 1, "d": 2}


def test_the_order_of_objects_changes_nothing() -> None:
    turned = dict(reversed(OBJECTS.items()))

    assert assign_values(turned, [], "instance") == assign_values(OBJECTS, [], "instance")


def test_objects_without_a_name_come_first() -> None:
    assert assign_values({"a": "liver", "z": None}, [], "semantic") == {"z": 1, "a": 2}


@pytest.mark.parametrize("value", [0, -1, 2**32])
def test_a_class_cannot_have_a_value_that_no_voxel_has(value: int) -> None:
    with pytest.raises(Permanent):
        assign_values(OBJECTS, [rule("liver", value)], "instance")
