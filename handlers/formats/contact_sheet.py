"""A picture of a mask over its image, slice by slice, so that a person can look: pure.

Slices are shown as radiologists see them: columns to the right, rows down, turned so that the
patient's right is at the left and the front at the top where the affine tells; the letters at the
edges say what is where.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from consumer.model import LabelCount
from handlers.formats.label_map import Affine, LabelMap

MAX_SLICES = 30
TILE = 220  # pixels of a tile's longer side, at least one for each voxel up to 512
_MAX_TILE = 512
_GAP = 4
_LINE = 14  # height of a line of text
_COLOURS = (
    (230, 60, 60), (60, 180, 75), (70, 130, 250), (255, 205, 50), (200, 80, 220),
    (70, 220, 220), (250, 140, 40), (170, 250, 80), (250, 170, 200), (150, 110, 70),
)  # fmt: skip
_WINDOW = (1.0, 99.0)  # percentiles of the image that are black and white
_MIN_WIDTH = 320
_MAX_LEGEND = 30
_FILL = 0.35  # of the colour inside a mask; its outline is all colour


@dataclass(frozen=True, slots=True)
class Sheet:
    """A PNG, and which slices (k, from 0) it shows."""

    png: bytes
    slices: tuple[int, ...]


def contact_sheet(
    label_map: LabelMap,
    counts: Sequence[LabelCount],
    image: NDArray[Any] | None,
    *,
    title: str,
    slices: int = MAX_SLICES,
) -> Sheet:
    """At most ``slices`` slices with something drawn, evenly chosen; of an empty mask, of all.

    ``image`` is (i, j, k) of the label map's shape, any number type; None is shown black.
    """
    shown = _chosen(label_map.array, slices)
    window = _window(image, shown) if image is not None else (0.0, 1.0)
    turn = _Turn(label_map.affine, placed=label_map.geometry != "pixdim")
    values = [count.value for count in counts]
    tiles = []
    for k in shown:
        grey = None if image is None else image[:, :, k]
        tiles.append(_tile(label_map, grey, k, window, turn, values))
    legend = [
        (_COLOURS[place % len(_COLOURS)], f"{c.value} {_printable(c.category)} ({c.voxels} voxels)")
        for place, c in enumerate(counts)
    ]
    return Sheet(_arranged(tiles, title, legend), tuple(shown))


def _chosen(labels: NDArray[Any], count: int) -> list[int]:
    drawn = np.flatnonzero(labels.any(axis=(0, 1)))
    among = drawn if len(drawn) else np.arange(labels.shape[2])
    count = max(1, min(count, MAX_SLICES, len(among)))
    places = np.linspace(0, len(among) - 1, count).round().astype(int)
    return [int(among[place]) for place in places]


def _window(image: NDArray[Any], shown: Sequence[int]) -> tuple[float, float]:
    sample = image[:, :, list(shown)][::2, ::2].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, _WINDOW)
    return float(low), float(max(high, low + 1e-6))


class _Turn:
    """How a slice is turned for the eye: along either edge the patient's right, front or head
    comes first. ``letters`` say which, for the left and the upper edge."""

    def __init__(self, affine: Affine, *, placed: bool) -> None:
        matrix = np.asarray(affine)[:3, :3]
        self._lengths = np.sqrt((matrix**2).sum(axis=0))
        towards = [int(np.argmax(np.abs(matrix[:, axis]))) for axis in (0, 1)]
        grows = [matrix[world, axis] > 0 for axis, world in enumerate(towards)]
        self._flips = tuple(placed and bool(one) for one in grows)
        self.letters = ["RAS"[world] if placed else "?" for world in towards]

    def picture(self, plane: NDArray[Any]) -> NDArray[Any]:
        """(row, column) of an (i, j) plane."""
        across, down = self._flips
        turned = plane.T[:, ::-1] if across else plane.T
        return turned[::-1] if down else turned

    def size(self, shape: Sequence[int]) -> tuple[int, int]:
        """(width, height) in pixels: voxels keep their proportions."""
        width, height = shape[0] * self._lengths[0], shape[1] * self._lengths[1]
        scale = min(max(TILE, *shape[:2]), _MAX_TILE) / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))


def _tile(
    label_map: LabelMap,
    plane: NDArray[Any] | None,
    k: int,
    window: tuple[float, float],
    turn: _Turn,
    values: Sequence[int],
) -> Image.Image:
    labels = turn.picture(label_map.array[:, :, k])
    size = turn.size(label_map.shape)
    tile = Image.new("RGB", size) if plane is None else _grey(turn.picture(plane), window, size)
    pixels = np.asarray(tile).astype(np.float32)
    enlarged = np.asarray(
        Image.fromarray(_ranks(labels, values)).resize(size, Image.Resampling.NEAREST)
    )
    edge = _edges(enlarged)
    for rank in np.unique(enlarged[enlarged > 0]).tolist():
        colour = np.array(_COLOURS[(rank - 1) % len(_COLOURS)], np.float32)
        inside = enlarged == rank
        pixels[inside] += (colour - pixels[inside]) * _FILL
        pixels[inside & edge] = colour
    tile = Image.fromarray(pixels.astype(np.uint8))
    write = ImageDraw.Draw(tile)
    write.text((3, 1), f"k {k}", fill=(255, 255, 255))
    left, top = turn.letters
    write.text((3, size[1] // 2), left, fill=(255, 255, 255))
    write.text((size[0] // 2, 1), top, fill=(255, 255, 255))
    return tile


def _grey(plane: NDArray[Any], window: tuple[float, float], size: tuple[int, int]) -> Image.Image:
    low, high = window
    scaled = (np.nan_to_num(plane.astype(np.float32)) - low) / (high - low) * 255
    grey = Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))
    return grey.resize(size, Image.Resampling.BILINEAR).convert("RGB")


def _ranks(labels: NDArray[Any], values: Sequence[int]) -> NDArray[np.uint8]:
    """Each label as its place among the values, from 1; colours recur after 255 of them."""
    ranks = np.zeros(labels.shape, np.uint8)
    for place, value in enumerate(values):
        ranks[labels == value] = 1 + place % 255
    return ranks


def _edges(ranks: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels with a neighbour of another label."""
    edge = np.zeros(ranks.shape, np.bool_)
    down, across = ranks[1:] != ranks[:-1], ranks[:, 1:] != ranks[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge


def _arranged(
    tiles: Sequence[Image.Image], title: str, legend: Sequence[tuple[tuple[int, int, int], str]]
) -> bytes:
    width, height = tiles[0].size
    columns = math.ceil(math.sqrt(len(tiles) * height / width))
    rows = math.ceil(len(tiles) / columns)
    legend = legend[:_MAX_LEGEND]
    top = _LINE * (2 + len(legend))
    across = max(columns * (width + _GAP) + _GAP, _MIN_WIDTH)
    sheet = Image.new("RGB", (across, top + rows * (height + _GAP)), (24, 24, 24))
    write = ImageDraw.Draw(sheet)
    write.text((_GAP, 2), _printable(title), fill=(255, 255, 255))
    for line, (colour, text) in enumerate(legend, start=1):
        write.rectangle((_GAP, _LINE * line + 4, _GAP + 10, _LINE * line + 12), fill=colour)
        write.text((_GAP + 16, _LINE * line + 2), text, fill=(220, 220, 220))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (_GAP + column * (width + _GAP), top + row * (height + _GAP)))
    out = io.BytesIO()
    sheet.save(out, format="PNG")
    return out.getvalue()


def _printable(text: str | None) -> str:
    """What the built-in font can write."""
    return (text or "?")[:80].encode("latin-1", "replace").decode("latin-1")
