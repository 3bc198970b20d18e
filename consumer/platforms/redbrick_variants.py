"""In which form RedBrick's masks are exported, and how the vendor's SDK names each in a document.

``instance``: one mask as it is stored. ``binary``: one for each instance. ``semantic``: one of
classes. The keys, and which of them are absent, are those that redbrick-sdk 2.35.4 writes
(``process_download`` and ``dicom_rb_series``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from consumer.model import ClassRule, JsonPath
from consumer.platforms import redbrick_shapes as shapes

Masks = Literal["instance", "binary", "semantic"]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """The form of one source's masks; ``classes`` fix the voxel values of semantic ones."""

    masks: Masks = "instance"
    classes: tuple[ClassRule, ...] = ()

    def flags(self, *, has_mask: bool) -> dict[str, Any]:
        """What a series with segments says of its masks; the export fills in the names."""
        return {
            "binaryMask": has_mask and self.masks == "binary",
            "semanticMask": has_mask and self.masks == "semantic",
            "pngMask": False,
        }

    def series(self, labels: Collection[Any]) -> dict[str, Any]:
        """What a series with a mask says before its segments are known: where a list stands, the
        files' names are to be a list, even of one. Nothing when the mask is to be split but none
        of ``labels`` is in it."""
        if self.masks == "instance":
            return {"segmentations": None, "segmentMap": {}, **self.flags(has_mask=True)}
        return (
            {"segmentations": [], "segmentMap": {}, **self.flags(has_mask=True)} if labels else {}
        )

    def segment_slot(self, series: JsonPath, instance: int) -> JsonPath:
        """Where the document names the file that an instance is in. Of semantic masks the vendor
        names only the whole."""
        if not series or self.masks == "semantic":
            return ()
        return (*series, "segmentMap", str(instance), "mask")

    def key(self, label: Json, *, has_mask: bool) -> str | None:
        """By what a segment is found in its series' map; None for a class without a number."""
        if not has_mask or self.masks != "semantic":
            return str(label["dicom"]["instanceid"])
        name = shapes.category_name(label)
        values = {rule.name: rule.value for rule in self.classes}
        value = class_number(label) if name is None else values.get(name, class_number(label))
        return None if value is None else str(value)


def class_number(label: Json) -> int | None:
    """What a voxel of the label's class is in the vendor's semantic masks: one more than the
    class's id in the taxonomy, which begins with 0."""
    class_id = label.get("classid")
    return class_id + 1 if isinstance(class_id, int) and class_id >= 0 else None


def labels_in(series: int, labels: Sequence[Json]) -> list[Json]:
    """The segments that lie in a series' mask: its own, and those that say no series."""
    return [
        label
        for label in labels
        if label.get("dicom") and label.get("volumeindex", series) == series
    ]
