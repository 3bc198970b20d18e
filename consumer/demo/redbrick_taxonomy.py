"""The taxonomy that a simulated RedBrick project starts with, and label values in its terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CATEGORIES = (("liver", "#9b2226"), ("lesion", "#ee9b00"), ("vessel", "#005f73"))


def taxonomy(org_id: str, tax_id: str, created_at: str) -> dict[str, Any]:
    """Every field that the vendor's SDK asks for; three segmentation classes, 0 to 2."""
    return {
        "orgId": org_id,
        "taxId": tax_id,
        "name": "Abdomen",
        "version": 1,
        "createdAt": created_at,
        "archived": False,
        "isNew": True,
        "categories": None,
        "attributes": None,
        "taskCategories": None,
        "taskAttributes": None,
        "colorMap": None,
        "studyClassify": [_attribute(0, "contrast", "BOOL")],
        "seriesClassify": [_attribute(0, "phase", "SELECT", ("arterial", "venous"))],
        "instanceClassify": [],
        "objectTypes": [
            _object_type(class_id, name, color) for class_id, (name, color) in enumerate(CATEGORIES)
        ],
    }


def interpolated(label: Mapping[str, Any], tax: Mapping[str, Any]) -> dict[str, Any]:
    """A label as the API inlines it: with the category's and the attributes' names filled in.

    Labels that come as a file hold the ids alone; the client looks them up.
    """
    full = dict(label)
    kind = next((o for o in tax["objectTypes"] if o["classId"] == label.get("classid")), None)
    if kind is not None:
        full["category"] = kind["category"]
        known = {a["attrId"]: a for a in kind["attributes"]}
        full["attributes"] = [
            _named(value, known[value["attrid"]]) for value in label.get("attributes", [])
        ]
    return full


def _named(value: Mapping[str, Any], attribute: Mapping[str, Any]) -> dict[str, Any]:
    named = {**value, "name": attribute["name"]}
    if attribute["attrType"] == "SELECT":
        options = {o["optionId"]: o["name"] for o in attribute["options"]}
        named["value"] = options[value["optionid"]]
    return named


def _object_type(class_id: int, category: str, color: str) -> dict[str, Any]:
    return {
        "category": category,
        "classId": class_id,
        "labelType": "SEGMENTATION",
        "attributes": [
            _attribute(0, "certainty", "SELECT", ("sure", "unsure")),
            _attribute(1, "note", "TEXT"),
        ],
        "color": color,
        "archived": False,
        "parents": None,
        "hint": None,
    }


def _attribute(
    attr_id: int, name: str, kind: str, options: tuple[str, ...] | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "attrType": kind,
        "attrId": attr_id,
        "options": options
        and [
            {"name": option, "optionId": n, "color": None, "archived": False}
            for n, option in enumerate(options)
        ],
        "archived": False,
        "parents": None,
        "hint": None,
        "defaultValue": None,
        "minValue": None,
        "maxValue": None,
        "stepValue": None,
    }
