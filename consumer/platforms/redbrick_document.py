"""A RedBrick task as its entry in the vendor's ``tasks.json``: pure.

Equal to what the vendor's SDK writes with the same form of masks (``binary_mask=False`` for one
label map per series), but for the paths of masks, which the export fills in, and for URLs, which
lose their query.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consumer.platforms import redbrick_shapes as shapes
from consumer.platforms.redbrick_values import (
    as_json,
    percent,
    truth_value,
    user_name,
    without_query,
)
from consumer.platforms.redbrick_variants import Variant, labels_in
from consumer.platforms.redbrick_versions import Part, Version

Json = Mapping[str, Any]
Document = dict[str, Any]

CONSENSUS, SUPER_TRUTH = "consensusTasks", "superTruth"
INSTANCES = Variant()


@dataclass(frozen=True, slots=True)
class Images:
    """A task's images by series: infos as the platform has them, and the series of each image."""

    infos: tuple[Json, ...]
    indices: tuple[tuple[int, ...], ...]  # of each series, in viewing order
    items: tuple[str, ...]
    is_split: bool  # the platform knows which image belongs to which series

    @property
    def series_of_item(self) -> dict[int, int]:
        return {item: n for n, items in enumerate(self.indices) for item in items}

    @property
    def names(self) -> list[str | None]:
        """The series' own names, as far as the export uses them."""
        return [info.get("name") or None if self.is_split else None for info in self.infos]


def images_of(datapoint: Json) -> Images:
    """Reads the series; images nobody assigned to one are all in the first."""
    infos: Sequence[Json] = datapoint.get("seriesInfo") or [{}]
    items = tuple(datapoint.get("items") or [])
    indices = [tuple(info.get("itemsIndices") or ()) for info in infos]
    is_split = all(indices) and sum(map(len, indices)) == len(items)
    if not all(indices):
        indices = [tuple(range(len(items))), *[() for _ in infos[1:]]]
    return Images(tuple(infos), tuple(indices), items, is_split)


def document_of(
    entry: Json,
    images: Images,
    version: Version,
    parts: Sequence[Part],
    *,
    consensus: bool,
    reviews: Sequence[str],
    variant: Variant = INSTANCES,
) -> Document:
    """The entry. ``consensus`` is the project's setting, ``reviews`` the names of its review
    stages. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for malformed answers."""
    document = _task(entry, images, version)
    empty = [_series(n, images, entry["datapoint"]) for n in range(len(images.infos))]
    document["series"] = copy.deepcopy(empty)
    if not consensus:
        document["status"] = (entry.get("currentStageSubTask") or {}).get("state")
        _fill(document, version, images, variant)
        return _finished(document)
    document["consensus"] = True
    document["consensusScore"] = _agreed(entry, parts)
    if not parts:
        document["status"] = (entry.get("currentStageSubTask") or {}).get("state")
    if is_merged(entry, parts, reviews):
        truth = _saved(version, document.get("updatedBy"), empty)
        _fill(truth, version, images, variant)
        document[SUPER_TRUTH] = truth
    document[CONSENSUS] = []
    for part in parts:
        own = _saved(part.version, user_name(part.user), empty)
        own["status"] = part.status
        if part.scores:
            own["scores"] = [_score(score) for score in part.scores]
        _fill(own, part.version, images, variant)
        document[CONSENSUS].append(own)
    return _finished(document)


def is_merged(entry: Json, parts: Sequence[Part], reviews: Sequence[str]) -> bool:
    """Whether a consensus task's newest version is the merged one, nobody's own."""
    stage = entry["currentStageName"]
    return bool(stage == "END" or (stage in reviews and _agreed(entry, parts) is None))


def _agreed(entry: Json, parts: Sequence[Part]) -> float | None:
    overall = (entry.get("currentStageSubTask") or {}).get("overallConsensusScore")
    return percent(overall) if parts and parts[0].scores is not None else None


def _task(entry: Json, images: Images, version: Version) -> Document:
    datapoint = entry["datapoint"]
    saved_by = user_name((entry.get("latestTaskData") or {}).get("createdByEntity"))
    classification = as_json(datapoint.get("attributes") or None)
    return {
        "taskId": entry["taskId"],
        "name": datapoint.get("name") or next(iter(images.items), ""),
        "labelsId": version.td_id,
        "currentStageName": entry.get("currentStageName"),
        "priority": entry.get("priority"),
        "createdBy": (datapoint.get("createdByEntity") or {}).get("email"),
        "createdAt": datapoint.get("createdAt"),
        "storageId": (datapoint.get("storageMethod") or {}).get("storageId"),
        "updatedBy": saved_by,
        "updatedAt": version.saved_at,
        "metaData": as_json(datapoint.get("metaData") or None),
        "datapointClassification": {
            "attributes": {one["name"]: truth_value(one["value"]) for one in classification}
        }
        if classification
        else None,
    }


def _saved(version: Version, saved_by: str | None, empty: Sequence[Json]) -> Document:
    return {
        "series": copy.deepcopy(list(empty)),
        "labelsId": version.td_id,
        "updatedBy": saved_by,
        "updatedAt": version.saved_at,
    }


def _score(score: Json) -> Document:
    told: Document = {"secondaryUser": user_name(score.get("user"))}
    told["score"] = percent(score.get("score"))
    return {key: value for key, value in told.items() if value is not None}


def _series(number: int, images: Images, datapoint: Json) -> Document:
    """One series without labels."""
    info, indices = images.infos[number], images.indices[number]
    series: Document = {
        "name": info.get("name") or None,
        "metaData": as_json(info["metaData"]) if isinstance(info.get("metaData"), str) else None,
        "imageHeaders": image_headers(info),
        "items": [images.items[index] for index in sorted(indices)],
    }
    for key, name, show in (
        ("heatMaps", "heatMaps", _heat_map),
        ("transforms", "transforms", _transform),
        ("centerline", "centerline", _centerline),
    ):
        own = [show(one) for one in datapoint.get(key) or [] if one.get("seriesIndex") == number]
        series[name] = own or None
    return {key: value for key, value in series.items() if value is not None}


def image_headers(info: Json) -> Document | None:
    """The geometry of a series' images, as the platform tells it."""
    given = as_json(info.get("imageHeaders") or None)
    if not given:
        return None
    headers: Document = {"dimensions": given.get("dimensions")}
    if info.get("dataType") not in ("web", "report"):
        headers |= {"spacing": given.get("spacing"), "origin": given.get("origin")}
        if isinstance(flat := given.get("direction"), list):
            headers["direction"] = [[float(v) for v in flat[row : row + 3]] for row in (0, 3, 6)]
    if isinstance(frames := given.get("totalFrames"), int) and frames > 1:
        headers["totalFrames"] = frames
    if (affine := _affine(headers)) is not None:
        headers["affine"] = affine
    return headers


def _affine(headers: Json) -> list[list[float]] | None:
    spacing, origin, direction = (headers.get(k) for k in ("spacing", "origin", "direction"))
    if not spacing or not origin or not direction or len(spacing) != 3 or len(origin) != 3:
        return None
    rows = [
        [float(d * s) for d, s in zip(row, spacing, strict=True)] + [float(start)]
        for row, start in zip(direction, origin, strict=True)
    ]
    return [*rows, [0.0, 0.0, 0.0, 1.0]]


def _heat_map(given: Json) -> Document:
    optional = ("preset", "dataRange", "opacityPoints", "opacityPoints3d", "rgbPoints")
    shown = {key: given[key] for key in optional if given.get(key)}
    return {"name": given["name"], "item": given["item"], **shown}


def _transform(given: Json) -> Document:
    flat = given["transform"]
    return {"transform": [flat[start : start + 4] for start in range(0, len(flat), 4)]}


def _centerline(given: Json) -> Document:
    return {"name": given["name"], "centerline": as_json(given["centerline"])}


def _fill(output: Document, version: Version, images: Images, variant: Variant) -> None:
    """Writes a version's labels into ``output`` and its series."""
    series: list[Document] = output["series"]
    for number, path in (version.paths or {}).items():
        _reach(series, number)
        if path:
            series[number] |= variant.series(labels_in(number, version.labels))
    for label in version.labels:
        number = label.get("volumeindex", 0)
        _reach(series, number)
        _place(label, output, number, images, variant)


def _place(label: Json, output: Document, number: int, images: Images, variant: Variant) -> None:
    series: list[Document] = output["series"]
    about = shapes.common(label)
    viewed = images.indices[number] if number < len(images.indices) else ()
    where = shapes.video(label, sorted(viewed))
    says_something = "id" not in about or len(about) > 1
    if label.get("tasklevelclassify") or label.get("studyclassify"):
        if says_something:
            output["classification"] = about
    elif label.get("multiclassify") or label.get("seriesclassify"):
        if says_something or where:
            series[number].setdefault("classifications", []).append({**about, **where})
    elif label.get("instanceclassify"):
        frame = label["frameindex"]
        name = images.items[viewed[frame]] if frame < len(viewed) else ""
        told = {"fileIndex": frame, "fileName": name, "values": about.get("attributes", {})}
        series[number].setdefault("instanceClassifications", []).append(told)
    elif (label.get("dicom") or {}).get("instanceid"):
        _place_segment(label, about, series, variant)
    elif (shape := shapes.shape(label, about, where)) is not None:
        name, entry = shape
        series[number].setdefault(name, []).append(entry)


def _place_segment(label: Json, about: Json, series: list[Document], variant: Variant) -> None:
    for number in segment_series(label, len(series)):
        own = series[number]
        has_mask = "segmentations" in own
        for key, value in (("segmentMap", {}), *variant.flags(has_mask=False).items()):
            own.setdefault(key, copy.copy(value))
        instance = copy.deepcopy(dict(about))
        if label["dicom"].get("groupids") and not own["binaryMask"]:
            instance["overlappingGroups"] = copy.deepcopy(label["dicom"]["groupids"])
        place = variant.key(label, has_mask=has_mask)
        if place is not None:
            own["segmentMap"][place] = instance


def segment_series(label: Json, count: int) -> list[int]:
    """The series that a segment is in: its own, or every one when it does not say."""
    number = label.get("volumeindex")
    if isinstance(number, int) and 0 <= number < count:
        return [number]
    return list(range(count))


def _reach(series: list[Document], number: int) -> None:
    """Labels may name a series that the task's images do not have."""
    if not 0 <= number < MAX_SERIES:
        raise ValueError("series index out of bounds")
    series.extend({} for _ in range(number + 1 - len(series)))


MAX_SERIES = 10_000


def _finished(document: Document) -> Document:
    """Without what is not there, as the vendor leaves it out; a name or series always is there."""
    always = ("taskId", "name", "series", "classification")
    kept = {
        key: value for key, value in document.items() if value or key in always or _counts(value)
    }
    for part in (*kept.get(CONSENSUS, []), kept.get(SUPER_TRUTH, {})):
        for key in [key for key, value in part.items() if value is None]:
            del part[key]
    finished: Document = without_query(kept)
    return finished


def _counts(value: Any) -> bool:
    """Zero and the empty list of annotators are values; empty texts and objects are not."""
    return (isinstance(value, int | float) and not isinstance(value, bool)) or value == []
