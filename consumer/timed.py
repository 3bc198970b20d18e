"""A platform whose fetches and downloads are measured; else it is the platform it wraps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from consumer.errors import Permanent, Transient
from consumer.model import Delivery, Mask, Missing, Series, TaskEvent, TaskKey, TaskSnapshot
from consumer.ports import Platform, SavedImage
from consumer.telemetry import Metrics


class Timed:
    """Implements ``Platform``."""

    def __init__(
        self, platform: Platform, metrics: Metrics, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.source = platform.source
        self._platform = platform
        self._metrics = metrics
        self._now = now

    def verify(self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Delivery:
        return self._platform.verify(headers, query, body)

    def parse(self, delivery: Delivery) -> list[TaskEvent]:
        return self._platform.parse(delivery)

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        began, ok = self._now(), False
        try:
            answers = await self._platform.fetch(tasks)
            ok = True
            return answers
        finally:
            self._metrics.fetched(self.source, self._now() - began, ok)

    async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
        began = self._now()
        data = await self._platform.download(snapshot, mask)
        self._metrics.downloaded(self.source, self._now() - began, len(data))
        return data

    async def save_images(
        self, snapshot: TaskSnapshot, series: Series, folder: Path
    ) -> list[SavedImage]:
        began = self._now()
        saved = await self._platform.save_images(snapshot, series, folder)
        size = sum(image.size for image in saved)
        self._metrics.downloaded(self.source, self._now() - began, size)
        return saved
