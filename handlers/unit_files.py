"""One unit's files: kept from the revision before, or downloaded, converted and written."""

from __future__ import annotations

import msgspec

from consumer.model import (
    Exported,
    ExportRules,
    FileRef,
    Manifest,
    Mask,
    TaskSnapshot,
    digest,
)
from consumer.ports import Ports
from handlers import layout
from handlers.conversion import Around, Made, NewFile, convert_label_map, convert_nothing
from handlers.framed import convert_frames
from handlers.images import SeriesImages
from handlers.pointers import drawn_version, needs_place
from handlers.threads import converted, together
from handlers.units import Parts, Unit

AT_ONCE = 4  # downloads, and writes, of one unit


def kept(
    unit: Unit, known: Manifest | None, latest: Exported | None, rules: ExportRules
) -> Parts | None:
    """What a revision made by the same recipe, with the same images, has of the same label
    version; None when nothing."""
    if known is None or latest is None:
        return None
    if latest.labels.get(unit.label.id) != drawn_version(unit.label, rules):
        return None
    files = [file for file in known.files if unit.owns(file)]
    if not files or not all(unit.names(file) for file in files):
        return None
    return Parts(
        files=[_renamed_categories(file, unit, rules) for file in files],
        volumes=[one for one in known.volumes if unit.owns(one)],
        refused=[one for one in known.refused if unit.owns(one)],
    )


async def made(
    unit: Unit, images: SeriesImages | None, snapshot: TaskSnapshot, ports: Ports
) -> Parts:
    """The unit's files, in the lake on return. Raises ``Transient`` and ``Permanent``."""
    rules = ports.rules[snapshot.source]
    around = await _around(unit, images, rules)
    found = await _convert(unit, around, snapshot, ports)
    writing = (_write(file, unit, snapshot, ports) for file in found.files)
    return Parts(
        files=await together(writing, at_once=AT_ONCE),
        volumes=[found.volume] if found.volume else [],
        refused=found.refused,
    )


async def _around(unit: Unit, images: SeriesImages | None, rules: ExportRules) -> Around:
    if images is None or not needs_place(unit.series, rules):
        return Around(rules)
    place = await images.place()
    if {"seg", "rtstruct"}.isdisjoint(rules.formats):
        return Around(rules, place)
    return Around(rules, place, await images.read())


async def _convert(unit: Unit, around: Around, snapshot: TaskSnapshot, ports: Ports) -> Made:
    platform = ports.platforms[snapshot.source]
    if unit.is_empty:
        return await converted(convert_nothing, unit, around)
    if not unit.is_framed:
        raw = await platform.download(snapshot, unit.series.masks[0])
        return await converted(convert_label_map, raw, unit, around)

    async def picture(mask: Mask) -> tuple[str, bytes]:
        return mask.reference, await platform.download(snapshot, mask)

    masks = {mask.reference: mask for mask in unit.series.masks}  # one may show several objects
    pictures = dict(await together(map(picture, masks.values()), at_once=AT_ONCE))
    return await converted(convert_frames, pictures, unit, around)


async def _write(file: NewFile, unit: Unit, snapshot: TaskSnapshot, ports: Ports) -> FileRef:
    sha256 = digest(file.data)
    folders = file.path.removeprefix(f"{file.path.partition('/')[0]}/{unit.folder}")
    name = folders.replace("/", ".")
    key = layout.file_key(ports.project_key(snapshot.key), snapshot.task, sha256, name)
    await ports.store.create(key, file.data)
    described = file._asdict()
    del described["data"]
    return FileRef(
        **described,
        key=key,
        sha256=sha256,
        size=len(file.data),
        label=unit.label.id,
        series=unit.series.name,
        position=unit.position,
    )


def _renamed_categories(file: FileRef, unit: Unit, rules: ExportRules) -> FileRef:
    """A kept file under today's taxonomy: the voxels are the same, a category's name may not be.
    Values of classes are made of the names, so there nothing is kept under another."""
    if unit.is_framed or rules.masks == "semantic":
        return file
    names = {segment.value: segment.category for segment in unit.series.segments}
    counts = tuple(
        msgspec.structs.replace(
            count, category=names.get(file.instance or count.value, count.category)
        )
        for count in file.labels
    )
    return msgspec.structs.replace(file, labels=counts)
