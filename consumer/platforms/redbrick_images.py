"""A series' images from RedBrick's storages to this machine's disk.

They are presigned in batches just before they are fetched, streamed and hashed on the way, and
named by their number alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from consumer.download import Downloader
from consumer.errors import Permanent, Refused, Transient
from consumer.model import Image
from consumer.platforms.patience import presigned
from consumer.ports import SavedImage

MAX_FILES = 20_000  # of one series
BATCH = 100  # items presigned by one question
DOWNLOADS = 4  # of one source at a time

Presign = Callable[[str, Sequence[str]], Awaitable[list[str | None]]]


class _Budget:
    """What the files of a series may still take together, in bytes."""

    def __init__(self, total: int) -> None:
        self._total = self._left = total

    def spend(self, size: int) -> None:
        """Raises ``Permanent`` when it is more than is left."""
        self._left -= size
        if self._left < 0:
            raise Permanent("images-too-large", f"more than {self._total} bytes in one series")


class ImageSaver:
    """``presign`` gives a URL for each path of a storage, in the same order, or None."""

    def __init__(self, presign: Presign, downloader: Downloader, *, max_bytes: int) -> None:
        self._presign = presign
        self._downloader = downloader
        self._max_bytes = max_bytes
        self._gate = asyncio.Semaphore(DOWNLOADS)

    async def save(self, images: Sequence[Image], folder: Path) -> list[SavedImage]:
        """In the order of ``images``. Raises ``Transient``, ``Permanent`` beyond the limits, and
        ``Refused`` for what is not fetched by HTTP."""
        if len(images) > MAX_FILES:
            raise Permanent(
                "images-too-many", f"{len(images)} files in one series; the limit is {MAX_FILES}"
            )
        budget = _Budget(self._max_bytes)
        saved: list[SavedImage] = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            urls = await self._urls([json.loads(image.reference) for image in batch])
            downloads = [
                asyncio.ensure_future(self._one(image, url, folder / f"{number:06d}", budget))
                for number, (image, url) in enumerate(zip(batch, urls, strict=True), start)
            ]
            try:
                saved += await asyncio.gather(*downloads)
            finally:
                for download in downloads:
                    download.cancel()
                await asyncio.gather(*downloads, return_exceptions=True)
        return saved

    async def _one(self, image: Image, url: str, path: Path, budget: _Budget) -> SavedImage:
        async with self._gate:
            waiting = [url]

            async def fetch() -> tuple[str, int]:
                (now,) = waiting or await self._urls([json.loads(image.reference)])
                waiting.clear()
                return await self._downloader.save(now, path, spend=budget.spend)

            sha256, size = await presigned(fetch)
        return SavedImage(name=image.name, path=path, sha256=sha256, size=size)

    async def _urls(self, places: Sequence[tuple[str, str]]) -> list[str]:
        """Where each (storage, item) can be fetched; one question for each storage."""
        urls: dict[tuple[str, str], str] = {}
        for storage in dict.fromkeys(storage for storage, _ in places):
            items = [item for of, item in places if of == storage]
            for item, url in zip(items, await self._presign(storage, items), strict=True):
                urls[storage, item] = _checked(item, url)
        return [urls[storage, item] for storage, item in places]


def _checked(item: str, url: str | None) -> str:
    url = url or (item if item.startswith(("https://", "http://")) else None)
    if url is None:
        raise Transient("image-not-presigned", "RedBrick gave no URL for an image")
    if not url.startswith(("https://", "http://")):
        raise Refused("image-not-fetchable", f"an image is reached by {_scheme(url)}, not by HTTP")
    return url


def _scheme(url: str) -> str:
    scheme = url.split(":", 1)[0]
    return scheme if scheme.isalnum() and scheme.isascii() and len(scheme) <= 20 else "other means"
