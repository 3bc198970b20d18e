"""Makes one revision of a task: fetches what is new, checks it, writes files and manifest.

Everything written is immutable and named by its hash, so writing again after a crash changes
nothing. The manifest is written last, and only when every file it names is in the lake: a revision
is never without its masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from consumer.errors import Permanent
from consumer.model import (
    Exported,
    ExportRules,
    FileRef,
    Manifest,
    Pointer,
    TaskSnapshot,
    canonical,
    decode,
    digest,
)
from consumer.ports import Ports
from handlers import layout, unit_files
from handlers.documents import document_bytes, document_with
from handlers.image_files import image_files, refusal_of
from handlers.images import NOT_DICOM, VOLUME, SeriesImages
from handlers.pointers import DOCUMENT, images_version, label_version, masks_of, needs_images
from handlers.threads import together
from handlers.units import Parts, Unit, series_names, units_of

UNITS_AT_ONCE = 4  # of one task
MAX_DOCUMENT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """A revision that is in the lake: its manifest's key and hash, and whether its labels or its
    recipe are others than those of the revision before; ``refused`` are the reasons of what could
    not be made rightly."""

    revision: str
    manifest_key: str
    new_files: bool
    refused: tuple[str, ...] = ()


async def write_revision(
    snapshot: TaskSnapshot, pointer: Pointer | None, recipe: str, ports: Ports
) -> Written:
    """The revision that shows ``snapshot``, in the lake on return.

    A label whose version and recipe the pointer knows keeps its files; nothing of it is
    downloaded. Raises ``Transient`` or ``Permanent``, and then nothing refers to what was written.
    """
    rules = ports.rules[snapshot.source]
    latest = pointer.latest if pointer else None
    before = await _manifest_of(latest, ports)
    known = before if _may_keep(latest, snapshot, recipe, rules) else None
    units = list(units_of(snapshot, rules))
    async with AsyncExitStack() as stack:
        images = await _images(snapshot, known, ports, stack)

        async def parts_of(unit: Unit) -> Parts:
            kept = unit_files.kept(unit, known, latest, rules)
            around = images.get(unit.position)
            return kept or await unit_files.made(unit, around, snapshot, ports)

        made = await together(map(parts_of, units), at_once=UNITS_AT_ONCE)
        of_images = [
            await _of_images(one, units, made, known, snapshot, ports)
            for _, one in sorted(images.items())
        ]
    named = [(unit, parts.files) for unit, parts in zip(units, made, strict=True)]
    document = document_with(snapshot.document, named)
    manifest = await _manifest(
        snapshot, document, [*made, *of_images], _empty(units, made), before, ports
    )
    data = canonical(manifest)
    revision = digest(data)
    key = layout.manifest_key(ports.project_key(snapshot.key), snapshot.task, revision)
    if latest is None or before is None or key != latest.manifest:
        await ports.store.create(key, data)
    same = (
        pointer is not None
        and before is not None
        and pointer.recipe == recipe
        and pointer.label_version == label_version(snapshot)
        and masks_of(before.files) == masks_of(manifest.files)
    )
    refused = tuple(sorted({one.reason for one in manifest.refused}))
    return Written(revision=revision, manifest_key=key, new_files=not same, refused=refused)


async def _manifest_of(latest: Exported | None, ports: Ports) -> Manifest | None:
    """The newest manifest of the task, for the files that may be kept. One that is gone from the
    lake or damaged is as good as none: everything is then fetched anew."""
    stored = await ports.store.read(latest.manifest) if latest else None
    if latest is None or stored is None:
        return None
    if not latest.manifest.endswith(f"/{digest(stored.data)}.json"):
        return None
    try:
        return decode(stored.data, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _may_keep(
    latest: Exported | None, snapshot: TaskSnapshot, recipe: str, rules: ExportRules
) -> bool:
    """Whether the newest revision was made by this recipe, with the very same images."""
    if latest is None or latest.recipe != recipe:
        return False
    return latest.images == images_version(snapshot, rules)


async def _images(
    snapshot: TaskSnapshot, known: Manifest | None, ports: Ports, stack: AsyncExitStack
) -> dict[int, SeriesImages]:
    """The images by the series' position, where files are made with them."""
    rules = ports.rules[snapshot.source]
    found: dict[int, SeriesImages] = {}
    for label in snapshot.labels:
        for position, series in enumerate(label.series):
            if position not in found and needs_images(series, rules):
                one = SeriesImages(snapshot, series, position, known=known, ports=ports)
                found[position] = await stack.enter_async_context(one)
    return found


async def _of_images(
    images: SeriesImages,
    units: Sequence[Unit],
    made: Sequence[Parts],
    known: Manifest | None,
    snapshot: TaskSnapshot,
    ports: Ports,
) -> Parts:
    """What the manifest holds of a series itself: where it lies, and its images."""
    rules = ports.rules[snapshot.source]
    here = [(u, p) for u, p in zip(units, made, strict=True) if u.position == images.position]
    all_series = max((label.series for label in snapshot.labels), key=len)
    parts = await image_files(
        images,
        series_names(all_series, rules)[images.position],
        known=known,
        misfit=any(one.what == "image" for _, part in here for one in part.refused),
        snapshot=snapshot,
        ports=ports,
    )
    if (place := images.seen) is not None:
        parts.volumes += [place.volume] if place.volume else []
        own_place = all(not (unit.is_framed or unit.is_empty) for unit, _ in here)
        if place.refused is not None and not (place.refused.reason == NOT_DICOM and own_place):
            parts.refused.append(refusal_of(VOLUME, place.refused, images))
    return parts


def _empty(units: Sequence[Unit], made: Sequence[Parts]) -> tuple[str, ...]:
    """Series in the ground truth that have no mask, and get no empty label map either because
    nobody tells their grid."""
    pairs = zip(units, made, strict=True)
    return tuple(unit.name for unit, parts in pairs if unit.is_empty and not parts.files)


async def _manifest(
    snapshot: TaskSnapshot,
    document: dict[str, Any],
    parts: Sequence[Parts],
    empty: tuple[str, ...],
    before: Manifest | None,
    ports: Ports,
) -> Manifest:
    project = ports.project_key(snapshot.key)
    files = [file for one in parts for file in one.files]
    taxonomy = await _write_taxonomy(snapshot, project, before, ports)
    written = await _write_document(snapshot, project, document, before, ports)
    volumes = (volume for one in parts for volume in one.volumes)
    refused = (refusal for one in parts for refusal in one.refused)
    return Manifest(
        source=snapshot.source,
        project=snapshot.project,
        task=snapshot.task,
        taxonomy=taxonomy,
        taxonomy_key=layout.taxonomy_key(project, taxonomy) if taxonomy else None,
        files=tuple(sorted([written, *files], key=lambda file: file.path)),
        name=snapshot.name,
        empty=empty,
        volumes=tuple(sorted(volumes, key=lambda one: (one.position, one.label or ""))),
        refused=tuple(sorted(refused, key=lambda one: (one.position, one.label or "", one.what))),
    )


async def _write_document(
    snapshot: TaskSnapshot,
    project: str,
    document: Mapping[str, Any],
    before: Manifest | None,
    ports: Ports,
) -> FileRef:
    data = document_bytes(document)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Permanent("document-too-large", f"annotations of {len(data)} bytes")
    sha256 = digest(data)
    key = layout.file_key(project, snapshot.task, sha256, DOCUMENT)
    if before is None or all(file.key != key for file in before.files):
        await ports.store.create(key, data)
    return FileRef(path=DOCUMENT, key=key, sha256=sha256, size=len(data))


async def _write_taxonomy(
    snapshot: TaskSnapshot, project: str, before: Manifest | None, ports: Ports
) -> str | None:
    if not snapshot.taxonomy:
        return None
    data = document_bytes(snapshot.taxonomy)
    sha256 = digest(data)
    if before is None or before.taxonomy != sha256:
        await ports.store.create(layout.taxonomy_key(project, sha256), data)
    return sha256
