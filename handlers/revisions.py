"""Makes one revision of a task: downloads what is new, checks it, writes files and manifest.

Everything written is immutable and named by its hash, so writing again after a crash changes
nothing. The manifest is written last, and only when every mask it names is in the lake: a revision
is never without its masks.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from consumer.errors import Permanent
from consumer.model import (
    Exported,
    FileRef,
    Label,
    LabelCount,
    Manifest,
    Mask,
    Pointer,
    Segment,
    Series,
    TaskSnapshot,
    canonical,
    decode,
    digest,
)
from consumer.ports import Ports
from handlers import layout
from handlers.formats import nifti, png
from handlers.pointers import DOCUMENT, label_version, masks_of

DOWNLOADS = 4  # of one task at a time
MAX_DOCUMENT_BYTES = 64 << 20
# Of the whole process, so that its memory is bounded by two volumes however many tasks are in work.
CONVERSIONS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="convert")


@dataclass(frozen=True, slots=True)
class Written:
    """A revision that is in the lake: its manifest's key and hash, and whether its labels or its
    recipe are others than those of the revision before."""

    revision: str
    manifest_key: str
    new_files: bool


@dataclass(frozen=True, slots=True)
class _Slot:
    """A file that the revision needs, and the places where the document names it."""

    label: Label
    series: Series
    position: int  # of the series among the label's
    path: str
    name: str  # the last component of its key
    mask: Mask | None  # None: an empty label map
    document: tuple[tuple[str | int, ...], ...]


async def write_revision(
    snapshot: TaskSnapshot, pointer: Pointer | None, recipe: str, ports: Ports
) -> Written:
    """The revision that shows ``snapshot``, in the lake on return.

    A label whose version and recipe the pointer knows keeps its files; nothing of it is
    downloaded. Raises ``Transient`` or ``Permanent``, and then nothing refers to what was written.
    """
    project = ports.project_key(snapshot.key)
    latest = pointer.latest if pointer else None
    before = await _manifest_of(latest, ports)
    slots = list(_slots(snapshot))
    kept = _kept_files(snapshot, latest, recipe, before)
    masks = await _write_masks(slots, kept, snapshot, ports)
    document = copy.deepcopy(snapshot.document)
    for slot, file in zip(slots, masks, strict=True):
        for place in slot.document:
            _name_in(document, place, file.key)
    known = {file.key for file in before.files} if before else set()
    taxonomy = await _write_taxonomy(snapshot, project, before, ports)
    manifest = Manifest(
        source=snapshot.source,
        project=snapshot.project,
        task=snapshot.task,
        taxonomy=taxonomy,
        taxonomy_key=layout.taxonomy_key(project, taxonomy) if taxonomy else None,
        files=tuple(
            sorted(
                [await _write_document(snapshot, project, document, known, ports), *masks],
                key=lambda file: file.path,
            )
        ),
        empty=_empty_series(snapshot),
    )
    data = canonical(manifest)
    revision = digest(data)
    key = layout.manifest_key(project, snapshot.task, revision)
    if latest is None or before is None or key != latest.manifest:
        await ports.store.create(key, data)
    same = (
        pointer is not None
        and before is not None
        and pointer.recipe == recipe
        and pointer.label_version == label_version(snapshot)
        and masks_of(before.files) == masks_of(manifest.files)
    )
    return Written(revision=revision, manifest_key=key, new_files=not same)


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


def _kept_files(
    snapshot: TaskSnapshot, latest: Exported | None, recipe: str, before: Manifest | None
) -> Mapping[tuple[str, str], FileRef]:
    """The files that need no download, by label id and path."""
    if latest is None or before is None or latest.recipe != recipe:
        return {}
    same = {label.id for label in snapshot.labels if latest.labels.get(label.id) == label.version}
    return {
        (file.label, file.path): file for file in before.files if file.label and file.label in same
    }


def _slots(snapshot: TaskSnapshot) -> Iterator[_Slot]:
    several = len(snapshot.labels) > 1
    for label in snapshot.labels:
        folder = f"{layout.safe_name(label.id)}/" if several else ""
        names = layout.series_names([series.name for series in label.series])
        for position, (series, name) in enumerate(zip(label.series, names, strict=True)):
            for mask in series.masks:
                path, last = _mask_path(mask, folder, name)
                places = (mask.slot, *(segment.slot for segment in series.segments))
                yield _Slot(label, series, position, path, last, mask, places)
            if not series.masks and _is_empty_truth(snapshot, label) and series.dimensions:
                last = f"{name}.nii.gz"
                path = f"segmentations/{folder}{last}"
                yield _Slot(label, series, position, path, last, None, (series.slot,))


def _mask_path(mask: Mask, folder: str, series_name: str) -> tuple[str, str]:
    """(path within the task, last component of the key)."""
    if mask.kind == "nifti":
        last = f"{series_name}.nii.gz"
        return f"segmentations/{folder}{last}", last
    group, feature = (layout.safe_name(part or "") for part in (mask.group, mask.feature))
    frame = f"{mask.frame:06d}" if mask.frame is not None else "all"
    return f"masks/{folder}{group}/{feature}/{frame}.png", f"{group}.{feature}.{frame}.png"


def _is_empty_truth(snapshot: TaskSnapshot, label: Label) -> bool:
    return snapshot.ground_truth and snapshot.ground_truth_label == label.id


def _empty_series(snapshot: TaskSnapshot) -> tuple[str, ...]:
    """Series in the ground truth that have no mask, and get no empty label map either because the
    platform does not tell their grid."""
    return tuple(
        name
        for label in snapshot.labels
        if _is_empty_truth(snapshot, label)
        for series, name in zip(
            label.series, layout.series_names([one.name for one in label.series]), strict=True
        )
        if not series.masks and not series.dimensions
    )


async def _write_masks(
    slots: Sequence[_Slot],
    kept: Mapping[tuple[str, str], FileRef],
    snapshot: TaskSnapshot,
    ports: Ports,
) -> list[FileRef]:
    """The files in the order of their slots; the first failure ends the others."""
    gate = asyncio.Semaphore(DOWNLOADS)

    async def one(slot: _Slot) -> FileRef:
        file = kept.get((slot.label.id, slot.path))
        if file is not None and _is_of(file, slot):
            return _renamed_categories(file, slot.series.segments)
        async with gate:
            return await _write_mask(slot, snapshot, ports)

    tasks = [asyncio.ensure_future(one(slot)) for slot in slots]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_of(file: FileRef, slot: _Slot) -> bool:
    """Whether a kept file is of the slot's series: the name of one may have become another's."""
    return (file.position, file.series) == (slot.position, slot.series.name)


def _renamed_categories(file: FileRef, segments: Sequence[Segment]) -> FileRef:
    """A kept file under today's taxonomy: the voxels are the same, a category's name may not be."""
    names = {segment.value: segment.category for segment in segments}
    counts = tuple(
        LabelCount(
            value=count.value,
            voxels=count.voxels,
            category=names.get(count.value, count.category),
        )
        for count in file.labels
    )
    return msgspec.structs.replace(file, labels=counts)


async def _write_mask(slot: _Slot, snapshot: TaskSnapshot, ports: Ports) -> FileRef:
    if slot.mask is None:
        data, described = await _converted(_empty_label_map, slot.series)
    else:
        raw = await ports.platforms[snapshot.source].download(snapshot, slot.mask)
        convert = _checked_png if slot.mask.kind == "png" else _canonical_label_map
        data, described = await _converted(convert, raw, slot.series)
    sha256 = digest(data)
    key = layout.file_key(ports.project_key(snapshot.key), snapshot.task, sha256, slot.name)
    await ports.store.create(key, data)
    return FileRef(
        path=slot.path,
        key=key,
        sha256=sha256,
        size=len(data),
        label=slot.label.id,
        series=slot.series.name,
        position=slot.position,
        group=slot.mask.group if slot.mask else None,
        feature=slot.mask.feature if slot.mask else None,
        frame=slot.mask.frame if slot.mask else None,
        shape=described.shape,
        affine=described.affine,
        geometry=described.geometry,
        labels=described.labels,
    )


async def _converted(
    convert: Callable[..., tuple[bytes, _Described]], *arguments: Any
) -> tuple[bytes, _Described]:
    return await asyncio.get_running_loop().run_in_executor(CONVERSIONS, convert, *arguments)


@dataclass(frozen=True, slots=True)
class _Described:
    shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...] | None = None
    geometry: str | None = None
    labels: tuple[LabelCount, ...] = ()


def _canonical_label_map(raw: bytes, series: Series) -> tuple[bytes, _Described]:
    label_map = nifti.read_label_map(raw)
    counts = nifti.check_label_map(label_map, series.segments, series.dimensions)
    return nifti.write_label_map(label_map), _describe(label_map, counts)


def _empty_label_map(series: Series) -> tuple[bytes, _Described]:
    label_map = nifti.empty_label_map(series.dimensions or (), series.affine)
    return nifti.write_label_map(label_map), _describe(label_map, ())


def _checked_png(raw: bytes, _: Series) -> tuple[bytes, _Described]:
    header = png.check_png(raw)
    return raw, _Described(shape=(header.width, header.height))


def _describe(label_map: nifti.LabelMap, counts: tuple[LabelCount, ...]) -> _Described:
    placed = label_map.geometry != "pixdim"
    return _Described(
        shape=label_map.shape,
        affine=label_map.affine if placed else None,
        geometry="affine" if placed else "unknown",
        labels=counts,
    )


async def _write_document(
    snapshot: TaskSnapshot,
    project: str,
    document: dict[str, Any],
    known: Collection[str],
    ports: Ports,
) -> FileRef:
    data = document_bytes(document)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Permanent("document-too-large", f"annotations of {len(data)} bytes")
    sha256 = digest(data)
    key = layout.file_key(project, snapshot.task, sha256, DOCUMENT)
    if key not in known:
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


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """A platform's document as JSON: equal documents, equal bytes. Not RFC 8785, because it may
    hold integers beyond 2^53, which stay exact."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _name_in(document: dict[str, Any], path: Sequence[str | int], value: str) -> None:
    """Sets what a slot names; a slot that is not there is the platform adapter's mistake."""
    if not path:
        return
    place: Any = document
    try:
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    except (KeyError, IndexError, TypeError) as error:
        raise Permanent("document-slot", "the document has no place for a mask's name") from error
