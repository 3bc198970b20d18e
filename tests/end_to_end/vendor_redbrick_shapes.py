"""Labels that are no segmentation, one of each kind, in RedBrick's own form."""

from __future__ import annotations

from typing import Any

_POINT = {"xnorm": 0.25, "ynorm": 0.5}
_FRAME = {"frameindex": 1, "globalitemsindex": 0, "seriesframeindex": 1, "trackid": "t"}
OTHER_SHAPES: list[dict[str, Any]] = [
    {"labelid": "s", "studyclassify": True, "attributes": [{"name": "contrast", "value": "true"}]},
    {"labelid": "r", "seriesclassify": True, "volumeindex": 1, "attributes": [
        {"name": "phase", "value": "venous"}]},
    {"labelid": "i", "instanceclassify": True, "frameindex": 1, "volumeindex": 0, "attributes": [
        {"name": "blurred", "value": False}]},
    {"labelid": "1", "volumeindex": 0, "length3d": {
        "point1": [1, 2, 3], "point2": [4, 5, 6], "normal": [0, 0, 1],
        "computedpoint1world": [1.0, 2.0, 3.0], "computedpoint2world": [1.5, 2.5, 3.5],
        "computedlength": 5.5}},
    {"labelid": "2", "volumeindex": 0, "angle3d": {
        "point1": [1, 2, 3], "point2": [4, 5, 6], "point3": [7, 8, 9], "normal": [0, 0, 1],
        "computedpoint2world": [1.0, 2.0, 3.0], "computedangledeg": 45.5}},
    {"labelid": "3", "volumeindex": 1, "point": _POINT, **_FRAME, "linkid": "g"},
    {"labelid": "4", "volumeindex": 1, "readonly": True, "point3d": {
        "pointx": 1, "pointy": 0, "pointz": 2, "computedpointworld": [0.0, 1.0, 2.0]}},
    {"labelid": "5", "volumeindex": 0, "polyline": [_POINT, _POINT], **_FRAME},
    {"labelid": "6", "volumeindex": 0, "polygon": [_POINT], "stats": {"area": 2.5, "mean": None}},
    {"labelid": "7", "volumeindex": 0, **_FRAME, "ellipse": {
        "xcenternorm": 0.5, "ycenternorm": 0.5, "xnorm": 0.1, "ynorm": 0.2, "rot": 0.3}},
    {"labelid": "8", "volumeindex": 0, "bbox2d": {**_POINT, "wnorm": 0.1, "hnorm": 0.2}},
    {"labelid": "9", "volumeindex": 0, "stats": {"volume": 8}, "cuboid": {
        "point1": [1, 2, 3], "point2": [4, 5, 6], "computedpoint1world": [0.5, 0.5, 0.5]}},
    {"labelid": "x", "dicom": {"instanceid": 9}, "classid": 2},
]  # fmt: skip
