"""The image series of a RedBrick task with one version's masks and segments: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from consumer.model import Image, JsonPath, Mask, Segment, Series
from consumer.platforms import redbrick_shapes as shapes
from consumer.platforms.redbrick_document import Images, segment_series
from consumer.platforms.redbrick_values import as_json, without_query
from consumer.platforms.redbrick_variants import Variant, class_number
from consumer.platforms.redbrick_versions import Version
from consumer.platforms.texts import sound

Json = Mapping[str, Any]


class SeriesMaker:
    """Makes the series of every label of one task; they have the same images."""

    def __init__(self, images: Images, datapoint: Json, variant: Variant) -> None:
        self._series = images
        self._names = images.names
        self._variant = variant
        storage = (datapoint.get("storageMethod") or {}).get("storageId") or ""
        self._images = [
            tuple(_image(storage, images.items[index]) for index in indices)
            for indices in images.indices
        ]

    def series(self, version: Version, at: JsonPath) -> tuple[Series, ...]:
        """``at`` is where the document has the label's series; empty when it has none."""
        paths = version.paths or {}
        known = len(self._series.infos)
        count = max([known, *(number + 1 for number in paths)])
        segments: list[dict[int, Segment]] = [{} for _ in range(count)]
        for label in version.labels:
            for number in segment_series(label, count):
                if segment := self._segment(label, (*at, number) if at else ()):
                    segments[number][segment.value] = segment
        made = []
        for number in range(count):
            path, own = paths.get(number), segments[number]
            place: JsonPath = (*at, number) if at else ()
            has_mask = bool(path and self._variant.series(own))
            slot: JsonPath = (*place, "segmentations") if place else ()
            name = self._names[number] if number < known else None
            mask = Mask(reference=json.dumps([version.storage, path]), kind="nifti", slot=slot)
            made.append(
                Series(
                    name=None if name is None else sound(without_query(name)),
                    masks=(mask,) if path else (),
                    segments=tuple(own[value] for value in sorted(own)),
                    images=self._images[number] if number < known else (),
                    dimensions=self._dimensions(number) if number < known else None,
                    slot=slot,
                    png_slot=(*place, "pngMask") if place and has_mask else (),
                )
            )
        return tuple(made)

    def _segment(self, label: Json, place: JsonPath) -> Segment | None:
        dicom = label.get("dicom") or {}
        if not dicom.get("instanceid"):
            return None
        value = int(dicom["instanceid"])
        return Segment(
            value=value,
            category=shapes.category_name(label),
            category_value=class_number(label),
            overlaps=tuple(int(one) for one in dicom.get("groupids") or ()),
            slot=self._variant.segment_slot(place, value),
        )

    def _dimensions(self, number: int) -> tuple[int, ...] | None:
        """(columns, rows, slices). The vendor's headers also tell an affine, but not of which
        orientation, so it is not passed on as one."""
        headers = as_json(self._series.infos[number].get("imageHeaders") or None) or {}
        given = headers.get("dimensions")
        if isinstance(given, list) and len(given) == 3:
            return tuple(given) if all(type(d) is int and d > 0 for d in given) else None
        return None


def _image(storage: str, item: str) -> Image:
    """``item`` is a path in the storage, or a URL."""
    name = item.split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1]
    return Image(reference=json.dumps([storage, item]), name=sound(name))
