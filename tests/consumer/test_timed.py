"""What fetching from a platform costs, as metrics tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from consumer.model import Series, TaskSnapshot
from consumer.ports import Platform, SavedImage
from consumer.telemetry import Metrics
from consumer.timed import Timed


class Images:
    """A platform that has nothing but images of these sizes."""

    source = "clinic"

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes

    async def save_images(
        self, snapshot: TaskSnapshot, series: Series, folder: Path
    ) -> list[SavedImage]:
        return [SavedImage("a.dcm", folder / "0", "0" * 64, size) for size in self._sizes]


async def test_the_bytes_of_images_are_downloaded_bytes(tmp_path: Path) -> None:
    metrics, times = Metrics(sources={"clinic"}), iter((10.0, 12.5))
    timed = Timed(cast(Platform, Images([1000, 24])), metrics, now=lambda: next(times))
    saved = await timed.save_images(cast(Any, None), Series(name="ct"), tmp_path)
    assert [image.size for image in saved] == [1000, 24]
    text = metrics.render().decode()
    assert 'bytes_total{source="clinic"} 1024.0' in text
    assert 'download_seconds_sum{source="clinic"} 2.5' in text
