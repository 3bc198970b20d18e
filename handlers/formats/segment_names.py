"""How segments are named and coloured in DICOM objects, alike in SEG and RTSTRUCT."""

from __future__ import annotations

import colorsys
import unicodedata
from collections import Counter
from collections.abc import Sequence

from consumer.model import LabelCount

MAX_LENGTH = 64  # characters of an LO value (PS3.5 table 6.2-1)

_GOLDEN = 0.618033988749895  # of the colour circle, from hue to hue: neighbours differ most


def segment_names(segments: Sequence[LabelCount]) -> list[str]:
    """A name for each, all different: the category; ``category (value N)`` where several have
    it; ``value N`` without one. What a DICOM text cannot hold becomes ``_``."""
    plain = [_plain(segment.category or "") for segment in segments]
    counts = Counter(name[:MAX_LENGTH].strip().casefold() for name in plain)
    names = []
    for segment, name in zip(segments, plain, strict=True):
        if not name:
            names.append(f"value {segment.value}")
        elif counts[name[:MAX_LENGTH].strip().casefold()] > 1 or "value " in name:
            suffix = f" (value {segment.value})"
            names.append(name[: MAX_LENGTH - len(suffix)].strip() + suffix)
        else:
            names.append(name[:MAX_LENGTH].strip())
    return names


def segment_colour(number: int) -> tuple[int, int, int]:
    """Red, green and blue, of 255, for a segment by its number from 1 on."""
    red, green, blue = colorsys.hsv_to_rgb((number - 1) * _GOLDEN % 1, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def dicom_text(text: str) -> str:
    """``text`` as an LO value: at most 64 characters, none that separates or controls."""
    return _plain(text)[:MAX_LENGTH].strip()


def _plain(text: str) -> str:
    kept = (
        "_" if c == "\\" or unicodedata.category(c).startswith("C") else c
        for c in unicodedata.normalize("NFC", text)
    )
    return " ".join("".join(kept).split())
