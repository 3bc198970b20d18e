"""A picture of how much there is of each class: bars for tasks and voxels, a colour for each part
of the data set; pure."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

MAX_CLASSES = 40  # with the most tasks; a line tells of the others
MAX_PARTS = 10

_COLOURS = (
    (55, 110, 190), (235, 140, 50), (80, 160, 90), (200, 75, 75), (140, 105, 190),
    (130, 95, 80), (215, 125, 190), (120, 120, 120), (185, 185, 60), (75, 185, 200),
)  # fmt: skip
_INK, _PALE, _PAPER = (30, 30, 30), (215, 215, 215), (255, 255, 255)
_TEXT, _TITLE = 14, 18  # points
_MARGIN, _NAMES, _PANEL, _NUMBERS = 20, 190, 330, 80  # widths in pixels
_BAR, _GAP = 13, 9  # heights in pixels
_TOP, _BOTTOM = 96, 44
_TICKS = 4


@dataclass(frozen=True, slots=True)
class Bars:
    """One panel: a class's values by part. Its axis is of powers of ten where ``wide``."""

    title: str
    values: Mapping[str, Mapping[str, int]]
    wide: bool = False


def histogram(title: str, parts: Sequence[str], panels: Sequence[Bars]) -> bytes:
    """A PNG. The classes are those of the first panel, the most frequent first; every panel has a
    bar for each class and part, with its value at its end."""
    parts = parts[:MAX_PARTS]
    ordered = _ordered(panels[0])
    shown = ordered[:MAX_CLASSES]
    height_of_one = len(parts) * _BAR + _GAP
    height = _TOP + max(1, len(shown)) * height_of_one + _BOTTOM
    width = _MARGIN + _NAMES + len(panels) * (_PANEL + _NUMBERS + _MARGIN)
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    _write(draw, (_MARGIN, 14), title, size=_TITLE, width=width - 2 * _MARGIN)
    _legend(draw, parts)
    for row, name in enumerate(shown):
        y = _TOP + row * height_of_one + (height_of_one - _GAP - _TEXT) // 2
        _write(draw, (_MARGIN, y), name, width=_NAMES - 10)
    for number, panel in enumerate(panels):
        left = _MARGIN + _NAMES + number * (_PANEL + _NUMBERS + _MARGIN)
        _panel(draw, left, panel, shown, parts)
    if len(ordered) > len(shown):
        said = f"and {len(ordered) - len(shown)} more classes"
        _write(draw, (_MARGIN, height - _BOTTOM + 14), said)
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


def _ordered(panel: Bars) -> list[str]:
    return sorted(panel.values, key=lambda name: (-sum(panel.values[name].values()), name))


def _panel(
    draw: ImageDraw.ImageDraw, left: int, panel: Bars, shown: Sequence[str], parts: Sequence[str]
) -> None:
    largest = max((panel.values[c].get(p, 0) for c in shown for p in parts
                   if c in panel.values), default=0)  # fmt: skip
    top_value = _round_up(largest, wide=panel.wide)
    height_of_one = len(parts) * _BAR + _GAP
    bottom = _TOP + max(1, len(shown)) * height_of_one
    said = f"{panel.title}, on a logarithmic axis" if panel.wide else panel.title
    _write(draw, (left, _TOP - 32), said)
    for value in _ticks(top_value, wide=panel.wide):
        x = left + _length(value, top_value, wide=panel.wide)
        draw.line((x, _TOP - 4, x, bottom), fill=_PALE)
        _write(draw, (x - 4, bottom + 4), spoken(value))
    draw.line((left, _TOP - 4, left, bottom), fill=_INK)
    for row, name in enumerate(shown):
        for place, part in enumerate(parts):
            value = panel.values.get(name, {}).get(part, 0)
            y = _TOP + row * height_of_one + place * _BAR
            length = _length(value, top_value, wide=panel.wide)
            if value:
                colour = _COLOURS[place % len(_COLOURS)]
                draw.rectangle((left + 1, y, left + max(2, length), y + _BAR - 3), fill=colour)
            _write(draw, (left + length + 6, y - 3), spoken(value), size=11)


def _legend(draw: ImageDraw.ImageDraw, parts: Sequence[str]) -> None:
    x = float(_MARGIN)
    for place, part in enumerate(parts):
        draw.rectangle((x, 43, x + 11, 54), fill=_COLOURS[place % len(_COLOURS)])
        _write(draw, (x + 17, 39), part)
        x += 17 + _font(_TEXT).getlength(_printable(part)) + 20


def _length(value: int, top_value: int, *, wide: bool) -> int:
    """Pixels of a bar; a value of 0 has none, and on a wide axis 1 is the first step."""
    if value <= 0 or top_value <= 0:
        return 0
    share = math.log10(value * 10) / math.log10(top_value * 10) if wide else value / top_value
    return round(share * _PANEL)


def _round_up(largest: int, *, wide: bool) -> int:
    """The end of an axis: a power of ten, or a number that its ticks divide."""
    if largest <= 0:
        return _TICKS
    if wide:
        return int("1" + "0" * len(str(largest - 1)))
    step = int("1" + "0" * max(0, len(str(largest)) - 2))
    least = _TICKS * step
    return -(-largest // least) * least


def _ticks(top_value: int, *, wide: bool) -> list[int]:
    if not wide:
        return [top_value * n // _TICKS for n in range(_TICKS + 1)]
    powers = len(str(top_value)) - 1
    return [0, *(10**n for n in range(0, powers + 1, max(1, -(-powers // _TICKS))))]


def spoken(value: int) -> str:
    """A number in few characters: 950, 1.2k, 34M."""
    for factor, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= factor:
            short = value / factor
            return f"{short:.0f}{unit}" if short >= 100 else f"{short:.3g}{unit}"
    return str(value)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    *,
    size: int = _TEXT,
    width: int | None = None,
) -> None:
    """Text that is cut where it would be wider."""
    text, font = _printable(text), _font(size)
    if width is not None and font.getlength(text) > width:
        while text and font.getlength(text + "..") > width:
            text = text[:-1]
        text += ".."
    draw.text(at, text, fill=_INK, font=font)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _printable(text: str) -> str:
    """What the built-in font can write."""
    plain = "".join(one if one.isprintable() else "?" for one in text[:200])
    return plain.encode("latin-1", "replace").decode("latin-1")
