"""The Labelbox platform: verified webhooks in, task snapshots and masks out.

One export job serves up to 2,000 data rows. The details that Groundwire itself needs are fetched
whatever ``export_params`` says, and only left out of the document.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from consumer.download import Downloader
from consumer.errors import Permanent, Transient
from consumer.model import (
    Delivery,
    Mask,
    Missing,
    Series,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
    timestamp,
)
from consumer.platforms import labelbox_hooks, labelbox_legacy
from consumer.platforms.labelbox_export import PARAMS, Exports, batches
from consumer.platforms.labelbox_graphql import GraphQL, ProjectUnreadable
from consumer.platforms.labelbox_images import ImageSaver
from consumer.platforms.labelbox_rows import snapshot_of
from consumer.platforms.labelbox_sightings import Listing
from consumer.platforms.labelbox_template import Template
from consumer.ports import Clock, ImageObjects, SavedImage, Sleep
from consumer.sightings import Page, Window

API_URL = "https://api.labelbox.com/graphql"
EXPORT_PARAMS = tuple(PARAMS)  # the six names of the vendor's page, on unless switched off

ROWS_AT_ONCE = 4  # whose legacy frames are fetched

_PROJECT = "query GetProjectPyApi($param_0: ID!){project(where: {id: $param_0}){id name}}"
_NEEDED = frozenset({"data_row_details", "project_details", "label_details", "performance_details"})
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one account may send us, and how long it may take."""

    answer_bytes: int = 16 << 20  # of one GraphQL answer
    export_bytes: int = 512 << 20  # of one job's file
    frames_bytes: int = 64 << 20  # behind one legacy frames URL
    mask_bytes: int = 64 << 20
    answer_s: float = 60.0
    export_s: float = 600.0


Answer = TaskSnapshot | Missing | Transient | Permanent


class Labelbox:
    """One Labelbox account. ``images`` is where a task's images lie when its data row does not
    say (`Template`); ``objects`` reads those in buckets, if any may be read."""

    def __init__(
        self,
        *,
        source: str,
        secrets: Sequence[bytes],
        api_key: str | Callable[[], str],
        downloader: Downloader,
        clock: Clock,
        projects: Collection[str] = ("*",),
        api_url: str = API_URL,
        export_params: Mapping[str, bool] | None = None,
        sleep: Sleep = asyncio.sleep,
        limits: Limits = Limits(),
        images: str = "",
        objects: ImageObjects | None = None,
        max_image_bytes: int = 16 << 30,  # of one series
    ) -> None:
        self.source = source
        self._secrets = secrets  # looked at anew each time: they may be rotated
        self._projects = tuple(projects)
        self._clock = clock
        chosen = {**dict.fromkeys(EXPORT_PARAMS, True), **(export_params or {})}
        self._shown = frozenset(name for name, on in chosen.items() if on)
        self._api_origin = _origin(api_url)
        self._key = api_key if callable(api_key) else lambda: api_key
        self._downloader = downloader
        self._limits = limits
        self._images = ImageSaver(
            downloader,
            self._key_for,
            objects=objects,
            template=Template(images) if images else None,
            max_bytes=max_image_bytes,
        )
        self._graphql = GraphQL(
            url=api_url,
            authorization=self._authorization,
            timeout_s=limits.answer_s,
            max_bytes=limits.answer_bytes,
        )
        made = partial(
            Exports,
            self._graphql,
            downloader,
            sleep=sleep,
            timeout_s=limits.export_s,
            max_bytes=limits.export_bytes,
        )
        self._exports, self._listing = made(), Listing(made(patient=True))

    async def close(self) -> None:
        await self._graphql.close()

    def verify(self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Delivery:
        now = timestamp(self._clock())
        return labelbox_hooks.verified(self.source, headers, body, self._secrets, now)

    def parse(self, delivery: Delivery) -> list[TaskEvent]:
        return labelbox_hooks.events(delivery, self._projects)

    async def fetch(self, tasks: Sequence[TaskKey]) -> dict[TaskKey, Answer]:
        by_project: defaultdict[str, list[str]] = defaultdict(list)
        for key in dict.fromkeys(tasks):
            by_project[key.project].append(key.task)
        answers: dict[TaskKey, Answer] = {}
        for project, ids in by_project.items():
            for batch in batches(ids):
                answers |= await self._fetch_batch(project, batch)
        return answers

    async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
        data = await self._get(mask.reference, max_bytes=self._limits.mask_bytes)
        if data.startswith(_PNG_START) and not data.endswith(_PNG_END):
            raise Transient("download-truncated", "a mask's PNG has no end")
        return data

    async def save_images(
        self, snapshot: TaskSnapshot, series: Series, folder: Path
    ) -> list[SavedImage]:
        return await self._images.save(snapshot, series, folder)

    async def now(self) -> str:
        """The API's own clock."""
        return await self._listing.now()

    def changed_since(self, project: str, window: Window) -> AsyncIterator[Page]:
        """By what Labelbox calls a data row's last activity, and by when it was labeled. One
        export job: which rows are told is decided when it starts."""
        return self._listing.changed_since(project, window)

    async def _fetch_batch(self, project: str, ids: Sequence[str]) -> dict[TaskKey, Answer]:
        keys = [TaskKey(source=self.source, project=project, task=task) for task in ids]
        try:
            job = await self._exports.run(project, ids, sorted(self._shown | _NEEDED))
            entries: defaultdict[str | None, list[Json]] = defaultdict(list)
            async for entry in self._exports.rows(job):
                entries[labelbox_legacy.row_id(entry)].append(entry)
            lacking = not set(ids) <= entries.keys()
            lines = sum(map(len, entries.values()))
            absent = await self._absence(project, job, lines) if lacking else None
            if not entries.keys() <= set(ids):
                text = "a row of the export is none that was asked for"
                absent = absent or Transient("export-unreadable", text)
        except ProjectUnreadable as error:
            return dict.fromkeys(keys, error)
        gate = asyncio.Semaphore(ROWS_AT_ONCE)

        async def one(key: TaskKey) -> Answer:
            if key.task in entries:
                return await self._answer(key, entries[key.task], gate)
            return absent or Missing(source=key.source, project=key.project, task=key.task)

        return dict(zip(keys, await asyncio.gather(*map(one, keys)), strict=True))

    async def _absence(self, project: str, job: str, lines: int) -> Transient | None:
        """What it means that rows are absent from a job's answer: None when they are not there.
        Raises ``ProjectUnreadable``."""
        data = await self._graphql.ask(_PROJECT, {"param_0": project})
        if not isinstance(data.get("project"), dict):
            raise ProjectUnreadable
        if await self._exports.reports_more(job, lines):
            return Transient("export-incomplete", "the export reports errors, or more rows")
        return None

    async def _answer(
        self, key: TaskKey, entries: Sequence[Json], gate: asyncio.Semaphore
    ) -> Answer:
        """The row's answer; a failure of its own is its answer. Only legacy rows need I/O."""
        try:
            row = entries[-1]
            if labelbox_legacy.is_legacy(row):
                async with gate:
                    frames = {
                        url: labelbox_legacy.read_frames(
                            await self._get(url, max_bytes=self._limits.frames_bytes)
                        )
                        for url in labelbox_legacy.frame_urls(entries)
                    }
                row = labelbox_legacy.current_row(entries, key.project, frames)
            return snapshot_of(row, key, self._shown)
        except (Transient, Permanent) as error:
            return error

    async def _get(self, url: str, *, max_bytes: int) -> bytes:
        """What a data row points at; with our key where it lies on the API's own origin. A key
        that is refused there may be refused everywhere: then that is what is raised."""
        key = self._key_for(url)
        try:
            return await self._downloader.get(url, authorization=key, max_bytes=max_bytes)
        except Transient as error:
            if key is not None and error.reason == "download-refused":
                await self._exports.now()
            raise

    def _key_for(self, url: str) -> str | None:
        return self._authorization() if _origin(url) == self._api_origin else None

    def _authorization(self) -> str:
        if not (key := self._key()):
            said = "there is no API key at present"
            raise Transient("platform-credentials", said, shared=True)
        return f"Bearer {key}"


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return parts.scheme, parts.hostname, port
