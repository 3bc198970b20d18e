"""A series' images from wherever a data row says that they are to this machine's disk.

A reference is the URL of one file, of a zip archive, of a JSON list of URLs, or an ``s3://`` object
or prefix. What it is, only its content tells. Whoever writes data rows chooses the references, so
every kind has its limits, other schemes are refused, and files are named by their number alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from consumer.download import Downloader
from consumer.errors import Permanent, Refused
from consumer.model import Series, TaskSnapshot
from consumer.platforms import archives
from consumer.platforms.labelbox_template import Template
from consumer.platforms.texts import short, sound
from consumer.ports import ImageObjects, SavedImage

MAX_FILES = 20_000  # of one series
MAX_LIST_BYTES = 8 << 20  # of a JSON list of URLs
DOWNLOADS = 4  # of one source at a time

T = TypeVar("T")
Authorization = Callable[[str], str | None]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,19}(?=:)")


class Budget:
    """What the files of a series may still be, in bytes and in number."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = self.left_bytes = total_bytes
        self._left_files = MAX_FILES

    def spend(self, size_bytes: int) -> None:
        """Raises ``Permanent`` when it is more than is left."""
        self.left_bytes -= size_bytes
        if self.left_bytes < 0:
            text = f"more than {self._total_bytes} bytes in one series"
            raise Permanent("images-too-large", text)

    def add(self, files: int) -> None:
        """Raises ``Permanent`` when there are too many."""
        self._left_files -= files
        if self._left_files < 0:
            raise Permanent("images-too-many", f"over {MAX_FILES} files in one series")


class ImageSaver:
    """``authorization`` says with what a URL is asked. ``objects`` is None where no bucket may be
    read. ``template`` stands for what rows say, where it is given."""

    def __init__(
        self,
        downloader: Downloader,
        authorization: Authorization,
        *,
        objects: ImageObjects | None,
        template: Template | None,
        max_bytes: int,
    ) -> None:
        self._downloader = downloader
        self._authorization = authorization
        self._objects = objects
        self._template = template
        self._max_bytes = max_bytes
        self._gate = asyncio.Semaphore(DOWNLOADS)

    async def save(self, snapshot: TaskSnapshot, series: Series, folder: Path) -> list[SavedImage]:
        """In the order of the references, and within one in the order of names, or of its list."""
        budget = Budget(self._max_bytes)
        saved: list[SavedImage] = []
        for number, reference in enumerate(self._references(snapshot, series)):
            start = folder / f"{number:06d}"
            saved += await self._reference(reference.strip(), start, budget, listed=False)
        return saved

    def _references(self, snapshot: TaskSnapshot, series: Series) -> list[str]:
        if self._template is not None:
            return [self._template.filled(task=snapshot.task, name=snapshot.name)]
        if not series.images:
            raise Refused("images-unknown", "the data row names no image")
        return [image.reference for image in series.images]

    async def _reference(
        self, reference: str, path: Path, budget: Budget, *, listed: bool
    ) -> list[SavedImage]:
        """What one reference gives, in files whose names begin with ``path``'s; ``listed`` by
        another, it may not be a list again."""
        scheme = scheme_of(reference)
        if scheme == "s3" and reference.endswith("/"):
            if listed:
                raise Refused("images-nested", "a list of images names a whole prefix")
            return await self._prefix(reference, path, budget)
        if scheme == "s3":
            image = await self._object(reference, path, budget)
        elif scheme in ("http", "https"):
            image = await self._file(reference, path, budget)
        else:
            raise _unreachable(scheme)
        return await self._opened(image, reference, budget, listed=listed)

    async def _opened(
        self, image: SavedImage, reference: str, budget: Budget, *, listed: bool
    ) -> list[SavedImage]:
        """The file, or what it holds or lists."""
        start = await asyncio.to_thread(_start_of, image.path)
        if archives.is_archive(start):
            return await asyncio.to_thread(archives.unpack, image.path, budget)
        urls = await asyncio.to_thread(_listed_in, image, reference, start)
        if urls is None:
            budget.add(1)
            return [image]
        if listed:
            raise Refused("images-nested", "a list of images names a list of images")
        if len(urls) > MAX_FILES:
            raise Permanent("images-too-many", f"over {MAX_FILES} files in one series")
        await asyncio.to_thread(image.path.unlink)
        found = await _all(
            [
                partial(self._reference, url, _beside(image.path, number), budget, listed=True)
                for number, url in enumerate(urls)
            ]
        )
        return [one for several in found for one in several]

    async def _prefix(self, url: str, path: Path, budget: Budget) -> list[SavedImage]:
        found = await self._bucket().list(url)
        if not found:
            raise Refused("images-missing", "nothing lies below the s3 prefix of the images")
        budget.add(len(found))
        budget.spend(sum(size for _, size in found))
        return await _all(
            [
                partial(self._sized, one, size, _beside(path, number))
                for number, (one, size) in enumerate(found)
            ]
        )

    async def _object(self, url: str, path: Path, budget: Budget) -> SavedImage:
        image = await self._sized(url, budget.left_bytes, path)
        budget.spend(image.size)
        return image

    async def _sized(self, url: str, max_bytes: int, path: Path) -> SavedImage:
        async with self._gate:
            sha256, size = await self._bucket().save(url, path, max_bytes)
        return SavedImage(name=_name_of(url), path=path, sha256=sha256, size=size)

    async def _file(self, url: str, path: Path, budget: Budget) -> SavedImage:
        async with self._gate:
            sha256, size = await self._downloader.save(
                url,
                path,
                authorization=self._authorization(url),
                max_bytes=self._max_bytes,
                spend=budget.spend,
            )
        name = _name_of(unquote(url.partition("?")[0].partition("#")[0]))
        return SavedImage(name=name, path=path, sha256=sha256, size=size)

    def _bucket(self) -> ImageObjects:
        if self._objects is None:
            text = "an image lies in s3, and the source's image_prefixes allow no bucket"
            raise Refused("images-unreachable", text)
        return self._objects


def scheme_of(reference: str) -> str:
    """In lower case; empty for what is no URL."""
    found = _SCHEME.match(reference.casefold())
    return found.group() if found else ""


def _unreachable(scheme: str) -> Refused:
    if scheme == "gs":
        text = "an image is given as gs://, which is not read: give it as https://"
    elif scheme:
        text = f"an image is given as {scheme}:, which is not read"
    else:
        text = "an image is given by what is no URL"
    return Refused("images-unreachable", text)


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _listed_in(image: SavedImage, reference: str, start: bytes) -> list[str] | None:
    """The URLs of a JSON list of them; None for what is no JSON list. Raises ``Refused`` for a
    file that says by its name to be one and is not."""
    named = urlsplit(reference).path.casefold().endswith(".json")
    if not named and not start.lstrip().startswith(b"["):
        return None
    try:
        if image.size > MAX_LIST_BYTES:
            raise ValueError(image.size)
        urls = json.loads(image.path.read_bytes())
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        if named:
            text = "a .json file of images is no list of URLs, or too long"
            raise Refused("images-list-unreadable", text) from None
        return None
    return urls


def _beside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-{number:06d}")


def _name_of(place: str) -> str:
    """The last part of a path, fit to stand in a manifest."""
    last = os.path.basename(place.rstrip("/"))
    return short(sound(last)) or "image"


async def _all(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """All answers in order; the first failure ends the others."""
    tasks = [asyncio.ensure_future(call()) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
