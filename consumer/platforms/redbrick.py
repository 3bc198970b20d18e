"""RedBrick AI: hooks with a secret token in their URL, state by GraphQL, presigned masks.

Webhooks are hints: only which task to look at is read from them. A stage move costs one query;
masks are presigned and fetched only when asked for.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consumer.download import Downloader
from consumer.errors import Permanent, Rejected, Transient
from consumer.model import (
    ClassRule,
    Delivery,
    Mask,
    Missing,
    Series,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
    timestamp,
)
from consumer.platforms import redbrick_queries as queries
from consumer.platforms.patience import presigned
from consumer.platforms.redbrick_api import RedBrickApi
from consumer.platforms.redbrick_document import images_of
from consumer.platforms.redbrick_images import ImageSaver
from consumer.platforms.redbrick_projects import Projects
from consumer.platforms.redbrick_sightings import Listing
from consumer.platforms.redbrick_snapshot import Content, ProjectFacts, snapshot_of
from consumer.platforms.redbrick_types import check_task
from consumer.platforms.redbrick_variants import Masks, Variant
from consumer.platforms.redbrick_versions import (
    Part,
    Version,
    named,
    parts_of,
    unknown_classes,
    version_of,
)
from consumer.platforms.redbrick_webhook import events_of
from consumer.ports import SavedImage, Sleep
from consumer.sightings import Page, Window
from consumer.signature import token_matches

MAX_LABELS_BYTES = 64 << 20  # of one file of labels, unpacked
QUERIES_AT_ONCE = 6
_REMEMBERED_LABELS = 512  # files of labels, each at most _SMALL bytes
_SMALL = 128 << 10
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


class RedBrick:
    """One organization's account. ``ground_truth_stages`` are names in any case; ``masks`` is how
    documents name them, and ``classes`` are what semantic ones hold; ``max_image_bytes`` limits the
    images of one series."""

    def __init__(
        self,
        source: str,
        *,
        secrets: Sequence[bytes],
        api_key: str | Callable[[], str],
        organization: str,
        downloader: Downloader,
        api_url: str = "https://api.redbrickai.com",
        projects: Collection[str] = ("*",),
        ground_truth_stages: Collection[str] = ("END", "Output"),
        masks: Masks = "instance",
        classes: Sequence[ClassRule] = (),
        max_image_bytes: int = 16 << 30,
        timeout_s: float = 30.0,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.source = source
        self._secrets = secrets  # looked at anew each time: they may be rotated
        self._organization = organization
        self._allowed = frozenset(projects)
        self._final = frozenset(name.casefold() for name in ground_truth_stages)
        self._downloader = downloader
        self._clock = clock
        self._api = RedBrickApi(api_url, api_key, timeout_s=timeout_s)
        self._projects = Projects(self._api, organization, clock)
        self._listing = Listing(self._api, organization, self._projects, self._final, sleep)
        self._variant = Variant(masks, tuple(classes))
        self._images = ImageSaver(self._presigned, downloader, max_bytes=max_image_bytes)
        self._labels: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    async def close(self) -> None:
        await self._api.close()

    def verify(self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Delivery:
        """RedBrick documents no signature: the hook's URL carries a secret ``token``."""
        if not token_matches(query.get("token", ""), self._secrets):
            raise Rejected(401, "token-wrong", "the URL's token is missing or not a live secret")
        return Delivery(
            source=self.source,
            body=body,
            headers=dict(headers),
            received_at=timestamp(self._clock()),
        )

    def parse(self, delivery: Delivery) -> list[TaskEvent]:
        return events_of(
            delivery,
            organization=self._organization,
            projects=self._allowed,
            final=self._final,
        )

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        """One query for each task. A failure that all would share ends the others."""
        gate = asyncio.Semaphore(QUERIES_AT_ONCE)

        async def one(key: TaskKey) -> TaskSnapshot | Missing | Transient | Permanent:
            async with gate:
                try:
                    return await self._fetch(key)
                except Transient as error:
                    if error.shared:
                        raise
                    return error
                except Permanent as error:
                    return error
                except _MALFORMED as error:
                    said = f"RedBrick's answer is malformed: {type(error).__name__}"
                    return Transient("platform-answer-malformed", said)

        running = [asyncio.ensure_future(one(key)) for key in tasks]
        try:
            return dict(zip(tasks, await asyncio.gather(*running), strict=True))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
        """Presigned when it is wanted, and fetched without a credential, as presigned URLs want."""
        storage, path = json.loads(mask.reference)
        return await self._stored(storage, path)

    async def save_images(
        self, snapshot: TaskSnapshot, series: Series, folder: Path
    ) -> list[SavedImage]:
        """Presigned in batches, just before each is fetched. Files are named by their number."""
        return await self._images.save(series.images, folder)

    async def now(self) -> str:
        """The API's own clock."""
        return await self._listing.now()

    def changed_since(self, project: str, window: Window) -> AsyncIterator[Page]:
        """``window.since`` is compared by RedBrick with what it calls a task's cache time. Only
        the listing's pages are asked for: no labels, no masks."""
        return self._listing.changed_since(project, window)

    async def _fetch(self, key: TaskKey) -> TaskSnapshot | Missing:
        project = await self._projects.facts(key.project)
        variables = {
            "orgId": self._organization,
            "projectId": key.project,
            "taskId": key.task,
        }
        data = await self._api.ask(queries.task(consensus=project.consensus), variables)
        entry = data["task"]
        if entry is None:
            await self._projects.facts(key.project, fresh=True)  # raises when it is unreadable
            return Missing(source=key.source, project=key.project, task=key.task)
        check_task(entry, key.task)
        content, project = await self._complete(_content(entry, project), key, project)
        return snapshot_of(key, content, project, self._final, self._variant)

    async def _complete(
        self, content: Content, key: TaskKey, project: ProjectFacts
    ) -> tuple[Content, ProjectFacts]:
        """The same with the labels that lie in files, named by a taxonomy that knows them all."""
        raw = await self._labels_of(content.version)
        raw_parts = [await self._labels_of(part.version) for part in content.parts]
        found = [label for labels in (raw, *raw_parts) for label in labels or ()]
        if unknown_classes(found, project.taxonomy):
            project = await self._projects.facts(key.project, fresh=True)

        def filled(version: Version, labels: Sequence[Any] | None) -> Version:
            if labels is None:
                return version
            return replace(version, labels=named(labels, project.taxonomy))

        parts = tuple(
            replace(part, version=filled(part.version, labels))
            for part, labels in zip(content.parts, raw_parts, strict=True)
        )
        return replace(content, version=filled(content.version, raw), parts=parts), project

    async def _labels_of(self, version: Version) -> list[Any] | None:
        """The labels in the version's file; None when they are inline. A ``tdId`` never changes
        its labels, so small files are remembered."""
        if version.labels_path is None:
            return None
        known = (version.td_id or "", version.labels_path)
        data = self._labels.pop(known, None)
        if data is None:
            stored = self._stored(version.storage, version.labels_path, MAX_LABELS_BYTES)
            data = _unpacked(await stored)
        if version.td_id and len(data) <= _SMALL:
            self._labels[known] = data
            while len(self._labels) > _REMEMBERED_LABELS:
                self._labels.popitem(last=False)
        try:
            labels = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Transient("labels-malformed", "the file of labels is not JSON") from error
        if not isinstance(labels, list):
            raise Transient("labels-malformed", "the file of labels is not a list")
        return labels

    async def _stored(self, storage: str, path: str, max_bytes: int | None = None) -> bytes:
        async def fetch() -> bytes:
            url = await self._opened(storage, path)
            return await self._downloader.get(url, max_bytes=max_bytes)

        return await presigned(fetch)

    async def _opened(self, storage: str, path: str) -> str:
        (url,) = await self._presigned(storage, [path])
        if url is None:
            raise Transient("mask-not-presigned", "RedBrick gave no URL for a stored file")
        return url

    async def _presigned(self, storage: str, paths: Sequence[str]) -> list[str | None]:
        """A URL for each path, in the same order; None for what the platform does not hold."""
        variables = {"orgId": self._organization, "storageId": storage, "items": list(paths)}
        answer = (await self._api.ask(queries.PRESIGN, variables)).get("presignItems")
        if not isinstance(answer, list) or len(answer) != len(paths):
            raise Transient("mask-not-presigned", "RedBrick gave no URLs for stored files")
        return [url if isinstance(url, str) and url else None for url in answer]


def _content(entry: Mapping[str, Any], project: ProjectFacts) -> Content:
    images = images_of(entry["datapoint"])
    series_of_item = images.series_of_item
    parts: list[Part] = parts_of(entry, series_of_item) if project.consensus else []
    version = version_of(entry.get("latestTaskData"), series_of_item)
    return Content(entry=entry, images=images, version=version, parts=tuple(parts))


def _unpacked(data: bytes) -> bytes:
    """A file that the storage keeps gzipped comes gzipped."""
    if data[:2] != b"\x1f\x8b":
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, MAX_LABELS_BYTES + 1)
    except zlib.error as error:
        raise Transient("labels-malformed", "the file of labels is not whole gzip") from error
    if len(plain) > MAX_LABELS_BYTES:
        raise Permanent("labels-too-large", f"more than {MAX_LABELS_BYTES} bytes of labels")
    return plain
