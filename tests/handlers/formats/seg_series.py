"""Series to draw on: small ones of every orientation, as files for the programs that read them
and as headers for us."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from consumer.model import LabelCount
from handlers.formats.grid import Grid
from handlers.formats.label_map import LabelMap, count_labels

TURN = np.deg2rad(25)
DIRECTIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (np.cos(TURN), np.sin(TURN), 0, -0.6 * np.sin(TURN), 0.6 * np.cos(TURN), 0.8),
    "prone": (-1, 0, 0, 0, -1, 0),
}
MATERIAL = "groundwire test series"


@dataclass(frozen=True)
class Series:
    """The headers of a made-up series, in slice order, and the same with pixels as ``images``."""

    grid: Grid
    pitch_mm: float
    frame_of_reference: str
    datasets: tuple[Dataset, ...]
    images: tuple[Dataset, ...]
    frames: tuple[int, ...] = ()
    modality: str = "CT"
    pitch_deviation: float = 0.0
    times: int = 1


@dataclass(frozen=True)
class Shape:
    """``shape`` is (columns, rows, slices), ``spacing`` likewise in millimetres."""

    shape: tuple[int, int, int] = (20, 16, 6)
    spacing: tuple[float, float, float] = (0.9, 1.3, 2.5)
    origin: tuple[float, float, float] = (-31.25, 17.5, -101.125)
    seed: str = "series"
    header: dict[str, object] = field(default_factory=dict)


def series(view: str = "axial", of: Shape | None = None) -> Series:
    """One image a slice."""
    of = of or Shape()
    images = [_slice(of, view, k) for k in range(of.shape[2])]
    return _series(of, view, images, ())


def enhanced_series(view: str = "axial", of: Shape | None = None) -> Series:
    """One multi-frame image whose frames are stored in another order than slices lie."""
    of = of or Shape()
    count = of.shape[2]
    order = np.random.default_rng(5).permutation(count)  # frame f is slice order[f]
    d = _common(of, view, EnhancedMRImageStorage)
    _set_uid(d, of, "enhanced")
    d.NumberOfFrames, d.Modality = count, "MR"
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = d.pop("PixelSpacing").value
    measures.SliceThickness = d.pop("SliceThickness").value
    plane.ImageOrientationPatient = d.pop("ImageOrientationPatient").value
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    d.SharedFunctionalGroupsSequence = [shared]
    d.PerFrameFunctionalGroupsSequence = [_frame(of, view, int(k)) for k in order]
    d.PixelData = b"".join(_pixels(of, int(k)) for k in order)
    frames = tuple(int(f) for f in np.argsort(order))
    return _series(of, view, [d], frames)


def affine(of: Shape, view: str) -> tuple[tuple[float, ...], ...]:
    """Voxel index to RAS+ millimetres."""
    row, column = np.reshape(DIRECTIONS[view], (2, 3))
    axes = np.stack([row, column, np.cross(row, column)], axis=1) * of.spacing
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, of.origin
    return tuple(map(tuple, (np.diag([-1, -1, 1, 1]) @ matrix).tolist()))


def drawn(
    array: NDArray[np.generic], on: Series, *names: str | None
) -> tuple[LabelMap, tuple[LabelCount, ...]]:
    """A label map on the series' grid, and its segments named in the order of their values."""
    label_map = LabelMap(np.asfortranarray(array), on.grid.affine)
    counts = count_labels(label_map, ())
    named = [*names, *[None] * len(counts)]
    return label_map, tuple(
        LabelCount(value=c.value, voxels=c.voxels, category=name)
        for c, name in zip(counts, named, strict=False)
    )


def save(on: Series, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(on.images):
        dcmwrite(folder / f"{number:03}.dcm", image, enforce_file_format=True)
    return folder


def _series(of: Shape, view: str, images: list[Dataset], frames: tuple[int, ...]) -> Series:
    headers = [copy.deepcopy(image) for image in images]
    for header in headers:
        del header.PixelData
    return Series(
        grid=Grid(of.shape, affine(of, view)),
        pitch_mm=of.spacing[2],
        frame_of_reference=str(images[0].FrameOfReferenceUID),
        datasets=tuple(headers),
        images=tuple(images),
        frames=frames,
    )


def _slice(of: Shape, view: str, k: int) -> Dataset:
    d = _common(of, view, CTImageStorage if view == "axial" else MRImageStorage)
    _set_uid(d, of, f"slice {k}")
    d.InstanceNumber = k + 1
    d.ImagePositionPatient = _position(of, view, k)
    d.PixelData = _pixels(of, k)
    return d


def _frame(of: Shape, view: str, k: int) -> Dataset:
    position, content, frame = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = _position(of, view, k)
    content.StackID, content.InStackPositionNumber = "1", k + 1
    content.DimensionIndexValues = [k + 1]
    frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
    return frame


def _position(of: Shape, view: str, k: int) -> list[str]:
    row, column = np.reshape(DIRECTIONS[view], (2, 3))
    position = np.asarray(of.origin) + np.cross(row, column) * of.spacing[2] * k
    return [f"{value:.6f}" for value in position]


def _pixels(of: Shape, k: int) -> bytes:
    columns, rows, _ = of.shape
    return np.full((rows, columns), 100 + k, "<u2").tobytes()


def _uid(of: Shape, what: str) -> str:
    return str(generate_uid(entropy_srcs=[MATERIAL, of.seed, what]))


def _set_uid(d: Dataset, of: Shape, what: str) -> None:
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = _uid(of, what)


def _common(of: Shape, view: str, sop_class: str) -> Dataset:
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = sop_class
    d.SpecificCharacterSet = "ISO_IR 100"
    d.PatientName, d.PatientID, d.PatientBirthDate = "Müller^Test", "P-1", "19700101"
    d.PatientSex, d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = "O", "S1", "A1", ""
    d.StudyDate, d.StudyTime, d.SeriesDate, d.SeriesTime = "20240102", "030405", "20240103", "0607"
    d.StudyInstanceUID, d.SeriesInstanceUID = _uid(of, "study"), _uid(of, "series")
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = _uid(of, "frame"), ""
    d.Modality = "CT" if sop_class == CTImageStorage else "MR"
    d.ImageType, d.SeriesNumber, d.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 3, 1
    d.Columns, d.Rows = of.shape[:2]
    d.PixelSpacing, d.SliceThickness = [of.spacing[1], of.spacing[0]], of.spacing[2]
    d.ImageOrientationPatient = [f"{value:.12g}" for value in DIRECTIONS[view]]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.RescaleSlope, d.RescaleIntercept = 1, 0
    for keyword, value in of.header.items():
        setattr(d, keyword, value)
    return d
