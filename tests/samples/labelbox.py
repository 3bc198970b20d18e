"""Labelbox exports to read: samples of our own, and the vendor's page where it lies beside us.

The page's JSON is not valid as printed: comments are stripped and the legacy array left open.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = Path(__file__).parents[3] / "shared" / "seeds" / "labelbox-export-dicom-annotations.md"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One data row in the current shape, another in the legacy shape with its frames."""

    current: Json
    legacy: Json
    frames: list[Json]


def ours() -> Sample:
    legacy = json.loads((HERE / "labelbox-legacy.json").read_text())
    current = json.loads((HERE / "labelbox-row.json").read_text())
    return Sample(current=current, legacy=legacy["entry"], frames=legacy["frames"])


def samples() -> dict[str, Sample]:
    found = {"ours": ours()}
    if PAGE.exists():
        found["page"] = _page()
    return found


def _page() -> Sample:
    text = re.sub(r"(?<!:)//.*", "", PAGE.read_text())
    text = text[text.index("Sample project export") :]
    current, position = _next(text, 0)
    legacy, position = _next(text, position)
    frames = []
    while "{" in text[position:]:
        frame, position = _next(text, position)
        frames.append(frame)
    return Sample(current=current, legacy=legacy, frames=frames)


def _next(text: str, position: int) -> tuple[Json, int]:
    found, end = json.JSONDecoder().raw_decode(text, text.index("{", position))
    return found, end
