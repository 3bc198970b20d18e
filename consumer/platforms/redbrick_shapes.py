"""One label of RedBrick's storage form as its entry in the export: pure.

The keys on both sides are the vendor's (https://sdk.redbrickai.com/formats/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from consumer.platforms.redbrick_values import truth_value
from consumer.platforms.texts import sound

Label = Mapping[str, Any]
Shape = tuple[str, dict[str, Any]]  # the series' list that it goes into, and the entry


def common(label: Label) -> dict[str, Any]:
    """What every kind of label may have: id, category, attributes, group, read-only."""
    entry: dict[str, Any] = {}
    if label.get("labelid"):
        entry["id"] = label["labelid"]
    if label.get("category") is not None:
        entry["category"] = category(label["category"])
    attributes = {
        a["name"]: truth_value(a["value"])
        for a in label.get("attributes") or []
        if "name" in a and "value" in a
    }
    if attributes:
        entry["attributes"] = attributes
    if label.get("linkid") is not None:
        entry["group"] = label["linkid"]
    if label.get("readonly"):
        entry["readOnly"] = label["readonly"]
    return entry


def category(value: Any) -> Any:
    """A category's name; one of an old taxonomy is a trail below its root, which is left out."""
    if not isinstance(value, list) or not isinstance(value[0], list):
        return value
    trail = value[0]
    return trail[1] if len(trail) == 2 else trail[1:] if len(trail) > 2 else value


def category_name(label: Label) -> str | None:
    """The name of a label's category; a trail in an old taxonomy is one name."""
    named = category(label.get("category"))
    if isinstance(named, list):
        named = "::".join(map(str, named))
    return None if named is None else sound(str(named))


def video(label: Label, items: Sequence[int]) -> dict[str, Any]:
    """Where along the third axis a label lies; ``items`` are its series' image indices, sorted."""
    item, frame = (_index(label.get(name)) for name in ("globalitemsindex", "frameindex"))
    if item is None and frame is None:
        return {}
    entry: dict[str, Any] = {
        "trackId": label.get("trackid", ""),
        "keyFrame": label.get("keyframe", True),
        "endTrack": label.get("end", True),
    }
    if item in items:
        entry["seriesItemIndex"] = items.index(item)
    if label.get("seriesframeindex") is not None:
        entry["seriesFrameIndex"] = label["seriesframeindex"]
    if label.get("frameindex") is not None:
        entry["frameIndex"] = label["frameindex"]
    return {"video": entry}


def shape(label: Label, about: Mapping[str, Any], where: Mapping[str, Any]) -> Shape | None:
    """The geometry of a label that is neither a classification nor a segment, with ``about`` from
    `common` and ``where`` from `video`; None for one that has no geometry."""
    for key, build in _SHAPES.items():
        if label.get(key):
            name, entry, in_plane, measured = build(label[key])
            entry = {**entry, **about}
            if in_plane:
                entry |= where
            if measured and isinstance(label.get("stats"), dict):
                entry["stats"] = {k: v for k, v in label["stats"].items() if v is not None}
            return name, entry
    return None


_Built = tuple[str, dict[str, Any], bool, bool]  # list, entry, lies in a plane, has statistics


def _length(given: Label) -> _Built:
    entry = {"type": "length", "normal": given["normal"]}
    entry |= {name: _voxel(given[name]) for name in ("point1", "point2")}
    entry |= _world(
        given,
        ("computedpoint1world", "absolutePoint1"),
        ("computedpoint2world", "absolutePoint2"),
    )
    if given.get("computedlength"):
        entry["length"] = given["computedlength"]
    return "measurements", entry, False, False


def _angle(given: Label) -> _Built:
    entry = {"type": "angle", "normal": given["normal"]}
    for name, source in (("point1", "point1"), ("vertex", "point2"), ("point2", "point3")):
        entry[name] = _voxel(given[source])
    entry |= _world(
        given,
        ("computedpoint1world", "absolutePoint1"),
        ("computedpoint2world", "absoluteVertex"),
        ("computedpoint3world", "absolutePoint2"),
    )
    if given.get("computedangledeg"):
        entry["angle"] = given["computedangledeg"]
    return "measurements", entry, False, False


def _landmark(given: Label) -> _Built:
    return "landmarks", {"point": _normalised(given)}, True, False


def _landmark3d(given: Label) -> _Built:
    entry: dict[str, Any] = {}
    voxel = [given.get(f"point{axis}") for axis in "xyz"]
    if None not in voxel:
        entry["point"] = _voxel(voxel)
    entry |= _world(given, ("computedpointworld", "absolutePoint"))
    return "landmarks3d", entry, False, False


def _polyline(given: Sequence[Label]) -> _Built:
    return "polylines", {"points": [_normalised(point) for point in given]}, True, False


def _polygon(given: Sequence[Label]) -> _Built:
    return "polygons", {"points": [_normalised(point) for point in given]}, True, True


def _ellipse(given: Label) -> _Built:
    entry = {
        "pointCenter": {"xNorm": given["xcenternorm"], "yNorm": given["ycenternorm"]},
        "xRadiusNorm": given["xnorm"],
        "yRadiusNorm": given["ynorm"],
        "rotationRad": given["rot"],
    }
    return "ellipses", entry, True, True


def _box(given: Label) -> _Built:
    entry = {"pointTopLeft": _normalised(given), "wNorm": given["wnorm"], "hNorm": given["hnorm"]}
    return "boundingBoxes", entry, True, True


def _cuboid(given: Label) -> _Built:
    entry = {name: _voxel(given[name]) for name in ("point1", "point2") if given.get(name)}
    entry |= _world(
        given,
        ("computedpoint1world", "absolutePoint1"),
        ("computedpoint2world", "absolutePoint2"),
    )
    return "cuboids", entry, False, True


_SHAPES: dict[str, Callable[[Any], _Built]] = {  # in the order in which the vendor looks
    "length3d": _length,
    "angle3d": _angle,
    "point": _landmark,
    "point3d": _landmark3d,
    "polyline": _polyline,
    "ellipse": _ellipse,
    "bbox2d": _box,
    "cuboid": _cuboid,
    "polygon": _polygon,
}


def _voxel(point: Sequence[Any]) -> dict[str, Any]:
    return {"i": point[0], "j": point[1], "k": point[2]}


def _world(given: Label, *names: tuple[str, str]) -> dict[str, Any]:
    return {
        to: {"x": point[0], "y": point[1], "z": point[2]}
        for source, to in names
        if (point := given.get(source))
    }


def _normalised(point: Label) -> dict[str, Any]:
    return {"xNorm": point["xnorm"], "yNorm": point["ynorm"]}


def _index(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
