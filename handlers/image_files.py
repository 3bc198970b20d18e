"""A series' images in the lake: copied as they are, or converted to one NIfTI volume.

Copies are streamed from this machine's disk, and hashed on their way to it; a volume is compressed
slab by slab. Nothing is ever whole in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from consumer.errors import Permanent, Refused
from consumer.model import ExportRules, FileRef, Manifest, Refusal, TaskSnapshot
from consumer.ports import Ports, SavedImage
from handlers import layout
from handlers.formats.dicom import DicomSeries
from handlers.images import SeriesImages
from handlers.scratch import on_disk
from handlers.threads import converted, together
from handlers.units import Parts

FOLDER = "images/"
AT_ONCE = 4  # uploads of one series


async def image_files(
    images: SeriesImages,
    name: str,
    *,
    known: Manifest | None,
    misfit: bool,
    snapshot: TaskSnapshot,
    ports: Ports,
) -> Parts:
    """The images as the rules want them, in the lake on return; ``name`` is the series' file name.

    ``known`` is a revision made by the same recipe with the same images. ``misfit`` says that a
    label map does not lie on the images' grid: then no volume is made, for the two would differ.
    """
    rules = ports.rules[snapshot.source]
    parts = Parts()
    volume = f"{FOLDER}{name}.nii.gz"
    had = [file for file in known.files if _is_of(file, images)] if known else []
    told = [one for one in known.refused if _is_about(one, images)] if known else []
    lake = _Lake(images, snapshot, ports)
    try:
        if rules.with_files:
            copies = [file for file in had if file.path.startswith(f"{FOLDER}{name}/")]
            parts.files += copies or await lake.copies(name, rules)
        if rules.dicom_to_nifti and images.are_dicom and not misfit:
            converted_before = [file for file in had if file.path == volume]
            if not converted_before and not told:
                converted_before = [await lake.volume(volume)]
            parts.files += converted_before
            parts.refused += told
    except Refused as refused:
        parts.refused.append(refusal_of("image", refused, images))
    return parts


def refusal_of(what: str, refused: Permanent, images: SeriesImages) -> Refusal:
    return Refusal(
        what=what,
        reason=refused.reason,
        message=refused.message,
        position=images.position,
        series=images.series.name,
    )


class _Lake:
    """Writes one series' images."""

    def __init__(self, images: SeriesImages, snapshot: TaskSnapshot, ports: Ports) -> None:
        self._images, self._snapshot, self._ports = images, snapshot, ports

    async def copies(self, series_name: str, rules: ExportRules) -> list[FileRef]:
        """Raises ``Refused`` when nobody knows how to fetch them."""
        saved = await self._images.files()
        names = _file_names(saved, rules)

        async def copy(one: SavedImage, name: str) -> FileRef:
            path = f"{FOLDER}{series_name}/{name}"
            return await self._upload(path, one.path, one.sha256, one.size)

        pairs = zip(saved, names, strict=True)
        return await together((copy(one, name) for one, name in pairs), at_once=AT_ONCE)

    async def volume(self, path: str) -> FileRef:
        """Raises ``Refused`` when the series cannot be converted rightly."""
        series = await self._images.dicom()
        file = self._images.folder / "volume.nii.gz"
        sha256, size = await converted(_write_volume, series, file)
        grid = series.grid
        shape = grid.shape if series.times == 1 else (*grid.shape, series.times)
        return await self._upload(path, file, sha256, size, shape=shape, affine=grid.affine)

    async def _upload(
        self,
        path: str,
        file: Path,
        sha256: str,
        size: int,
        *,
        shape: tuple[int, ...] | None = None,
        affine: tuple[tuple[float, ...], ...] | None = None,
    ) -> FileRef:
        task = self._snapshot.key
        name = path.rpartition("/")[2]
        key = layout.file_key(self._ports.project_key(task), task.task, sha256, name)
        await self._ports.store.upload(key, file)
        return FileRef(
            path=path,
            key=key,
            sha256=sha256,
            size=size,
            series=self._images.series.name,
            position=self._images.position,
            shape=shape,
            affine=affine,
            geometry="affine" if affine else None,
        )


def _write_volume(series: DicomSeries, file: Path) -> tuple[str, int]:
    """(SHA-256, bytes) of the file, hashed on the way to the disk."""
    with on_disk(), file.open("wb") as opened:
        out = _Hashing(opened)
        series.write_nifti(out)  # type: ignore[arg-type]
    return out.sha256.hexdigest(), out.size


class _Hashing:
    """What is written through it is hashed."""

    def __init__(self, out: object) -> None:
        self._write = out.write  # type: ignore[attr-defined]
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        written: int = self._write(data)
        return written


def _file_names(saved: Sequence[SavedImage], rules: ExportRules) -> list[str]:
    """Distinct ones: the platform's, or numbers where paths are to tell nothing."""
    if rules.paths == "id":
        return [f"{n:06d}{_suffix(one.name)}" for n, one in enumerate(saved, start=1)]
    taken: set[str] = set()
    names = []
    for number, one in enumerate(saved, start=1):
        name = layout.safe_name(one.name) if one.name else f"{number:06d}"
        if name.casefold() in taken:
            name = f"{number:06d}-{name}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _suffix(name: str) -> str:
    known = (".nii.gz", ".nii", ".dcm", ".png", ".jpg", ".jpeg")
    return next((one for one in known if name.casefold().endswith(one)), "")


def _is_of(file: FileRef, images: SeriesImages) -> bool:
    here = (images.position, images.series.name)
    return (
        file.label is None and file.path.startswith(FOLDER) and (file.position, file.series) == here
    )


def _is_about(refusal: Refusal, images: SeriesImages) -> bool:
    here = ("image", None, images.position, images.series.name)
    return (refusal.what, refusal.label, refusal.position, refusal.series) == here
