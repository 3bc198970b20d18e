"""A series' images: fetched at most once, when somebody needs them, and where their voxels lie.

A revision that was made with the same images tells where they lie, so a label drawn anew fetches
no image.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from consumer.errors import Permanent, Refused
from consumer.model import ExportRules, Manifest, Series, TaskSnapshot, Volume
from consumer.ports import Ports, SavedImage
from handlers.formats.dicom import DicomSeries, is_dicom, read_series
from handlers.formats.grid import Grid
from handlers.privacy import Clean, cleaner
from handlers.scratch import Scratch, on_disk, remove_orphans
from handlers.threads import converted

VOLUME = "volume"  # what a `Refusal` is about
NOT_DICOM = "images-not-dicom"
_BESIDE = (".txt", ".md", ".json", ".xml", ".csv", ".html", ".pdf", ".log", ".md5", ".db")
_NOT_DICOM = (".nii", ".nii.gz", ".png", ".jpg", ".jpeg", ".bmp", ".mp4", ".avi")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a series' voxels lie, or why nobody can say; ``shape`` may be known all the same."""

    grid: Grid | None = None
    shape: tuple[int, int, int] | None = None
    refused: Refused | None = None
    volume: Volume | None = None  # for the manifest


class SeriesImages:
    """The images of the series at one position; a context that removes what it fetched."""

    def __init__(
        self,
        snapshot: TaskSnapshot,
        series: Series,
        position: int,
        *,
        known: Manifest | None,
        ports: Ports,
    ) -> None:
        """``known`` is a revision that was made with the very same images, if there is one."""
        self.series, self.position = series, position
        self._snapshot, self._ports = snapshot, ports
        self._rules = ports.rules[snapshot.source]
        self._scratch: Scratch | None = None
        self._saved: list[SavedImage] | Refused | None = None
        self._read: DicomSeries | Refused | None = None
        self._place = _known_place(known, series, position) if known else None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._scratch is not None:
            await asyncio.to_thread(self._scratch.remove)

    @property
    def folder(self) -> Path:
        """On this machine's disk, until the context ends. Raises ``Transient``."""
        if self._scratch is None:
            self._scratch = Scratch()
        return self._scratch.path

    @property
    def are_dicom(self) -> bool:
        """As far as their names tell."""
        names = [image.name.casefold() for image in self.series.images]
        return bool(names) and not all(name.endswith(_NOT_DICOM) for name in names)

    async def place(self) -> Place:
        """Raises ``Transient``; ``Permanent`` where a person has to mend something."""
        async with self._lock:
            if self._place is None:
                self._place = _place_of(await self._dicom(), self.series, self.position)
            return self._place

    @property
    def seen(self) -> Place | None:
        """The place, if anybody has asked for it or the revision before tells."""
        return self._place

    async def read(self) -> DicomSeries | Refused:
        """The series, or why it cannot be read rightly. Raises what `place` raises."""
        async with self._lock:
            return await self._dicom()

    async def dicom(self) -> DicomSeries:
        """As `read`, but raises ``Refused``."""
        read = await self.read()
        if isinstance(read, Refused):
            raise read
        return read

    async def files(self) -> list[SavedImage]:
        """The images on this machine's disk, until the context ends. Raises ``Refused``, and what
        `place` raises."""
        async with self._lock:
            saved = await self._files()
        if isinstance(saved, Refused):
            raise saved
        return saved

    async def _dicom(self) -> DicomSeries | Refused:
        if self._read is None:
            saved = await self._files() if self.are_dicom else _not_dicom(self.series)
            if isinstance(saved, Refused):
                self._read = saved
            else:
                self._read = await converted(_read, saved, self._rules)
        return self._read

    async def _files(self) -> list[SavedImage] | Refused:
        if self._saved is None:
            await asyncio.to_thread(remove_orphans)
            folder = self.folder / "images"
            with on_disk():
                folder.mkdir()
            platform = self._ports.platforms[self._snapshot.source]
            clean = cleaner(self._rules, self._ports.email_key)
            try:
                saved = await platform.save_images(self._snapshot, self.series, folder)
                self._saved = [replace(one, name=_private(one.name, clean)) for one in saved]
            except Refused as refused:
                self._saved = Refused(refused.reason, clean(refused.message), shape=refused.shape)
        return self._saved


def _private(name: str, clean: Clean) -> str:
    """A file's name stands in keys and errors. What its suffix tells is no part of an address."""
    kinds = (".dcm", *_NOT_DICOM)
    suffix = next((kind for kind in kinds if name.casefold().endswith(kind)), "")
    stem = name[: len(name) - len(suffix)]
    return (clean(stem).strip() or "image") + name[len(stem) :]


def _read(saved: list[SavedImage], rules: ExportRules) -> DicomSeries | Refused:
    """By their content; the names of files stand in errors, which only a manifest shows."""
    found = [image for image in saved if is_dicom(image.path)]
    if not found:
        return Refused(NOT_DICOM, f"none of {len(saved)} images is a DICOM file")
    # A damaged slice must not be left aside: at the end of a series nothing would miss it.
    among = [one for one in saved if one in found or not _is_beside(one.name)]
    if rules.paths == "id":
        named = [(f"image {number}", one.path) for number, one in enumerate(among, start=1)]
    else:
        named = [(one.name, one.path) for one in among]
    try:
        return read_series(named, pitch_tolerance=rules.pitch_tolerance)
    except Refused as refused:
        return refused
    except Permanent as error:
        return Refused(error.reason, error.message)


def _is_beside(name: str) -> bool:
    """Whether its name says that it is no image, but what archives hold beside them."""
    return name.startswith(".") or name.casefold().endswith(_BESIDE)


def _not_dicom(series: Series) -> Refused:
    if not series.images:
        return Refused("images-unknown", "the platform tells no image of the series")
    return Refused(NOT_DICOM, "the images are of another format than DICOM")


def _place_of(read: DicomSeries | Refused, series: Series, position: int) -> Place:
    if isinstance(read, Refused):
        volume = None
        if read.shape is not None:
            volume = Volume(position=position, series=series.name, shape=read.shape)
        return Place(shape=read.shape, refused=read, volume=volume)
    grid = read.grid
    volume = Volume(
        position=position,
        series=series.name,
        shape=grid.shape,
        affine=grid.affine,
        pitch_mm=round(read.pitch_mm, 6),
        pitch_deviation=round(read.pitch_deviation, 6),
    )
    return Place(grid=grid, shape=grid.shape, volume=volume)


def _known_place(known: Manifest, series: Series, position: int) -> Place | None:
    """What a manifest says of the series, if it says it whole."""
    here = (position, series.name, None)
    volume = next((v for v in known.volumes if (v.position, v.series, v.label) == here), None)
    refusal = next(
        (r for r in known.refused if (r.position, r.series, r.label) == here and r.what == VOLUME),
        None,
    )
    shape = None
    if volume is not None and volume.shape is not None:
        i, j, k = volume.shape
        shape = (i, j, k)
        if volume.affine is not None:
            return Place(grid=Grid(shape, volume.affine), shape=shape, volume=volume)
    if refusal is None:
        return None
    return Place(
        shape=shape,
        refused=Refused(refusal.reason, refusal.message, shape=shape),
        volume=volume,
    )
