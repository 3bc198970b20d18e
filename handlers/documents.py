"""The platform's own document of a task, with the files that the export wrote named in it: pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from consumer.errors import Permanent
from consumer.model import FileRef, JsonPath
from handlers.units import Unit

_SUFFIXES = (".nii.gz", ".png", ".seg.dcm", ".rtstruct.dcm")  # the first that there is, is named


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """A platform's document as JSON: equal documents, equal bytes. Not RFC 8785, because it may
    hold integers beyond 2^53, which stay exact."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def document_with(
    document: Mapping[str, Any], made: Sequence[tuple[Unit, Sequence[FileRef]]]
) -> dict[str, Any]:
    """A copy in which each unit's places name the keys of its files.

    Raises ``Permanent`` (document-slot) for a place that is not there: the platform's adapter is
    wrong then.
    """
    filled = copy.deepcopy(dict(document))
    for unit, files in made:
        for place, value in _named(unit, files):
            _name_in(filled, place, value)
    return filled


def _named(unit: Unit, files: Sequence[FileRef]) -> Iterator[tuple[JsonPath, Any]]:
    """Each place with what stands there: a key, or several of one series' files."""
    pictures: dict[tuple[str | None, str | None, int | None], FileRef] = {
        (file.group, file.feature, file.frame): file for file in files if file.group
    }
    masks = _shown([file for file in files if not file.group])
    if masks:
        keys = [file.key for file in masks]
        yield unit.series.slot, keys
        if masks[0].path.endswith(".png"):
            yield unit.series.png_slot, True
        for segment in unit.series.segments:
            if (own := _of_object(masks, segment.value, None)) is not None:
                yield segment.slot, own.key
    for mask in unit.series.masks:
        if mask.kind == "png":
            of_frame = pictures.get((mask.group, mask.feature, mask.frame))
            shown = of_frame or _of_object(masks, None, mask.feature)
            if shown is not None:
                yield mask.slot, shown.key


def _shown(files: Sequence[FileRef]) -> list[FileRef]:
    """The files of the first format there is."""
    for suffix in _SUFFIXES:
        found = [file for file in files if file.path.endswith(suffix)]
        if found:
            return found
    return []


def _of_object(
    masks: Sequence[FileRef], instance: int | None, feature: str | None
) -> FileRef | None:
    """The file that an object is in: its own, or the one that holds all."""
    if not masks:
        return None
    if masks[0].instance is None:
        return masks[0]
    mine = (
        file
        for file in masks
        if file.instance == instance or (feature is not None and file.feature == feature)
    )
    return next(mine, None)


def _name_in(document: dict[str, Any], path: JsonPath, value: Any) -> None:
    """One key of a list stands alone, unless the document wants a list there."""
    if not path:
        return
    place: Any = document
    try:
        for step in path[:-1]:
            place = place[step]
        last: Any = path[-1]
        old = place.get(last) if isinstance(place, dict) else place[last]
        single = isinstance(value, list) and len(value) == 1 and not isinstance(old, list)
        place[last] = value[0] if single else value
    except (KeyError, IndexError, TypeError) as error:
        raise Permanent("document-slot", "the document has no place for a mask's name") from error
