"""DICOM series whose truth is known, made whole and then spoiled in one way at a time.

A series is a list of datasets, which tests change as they like and write to a folder; what
its voxels are and where they lie follows from the `Scan` alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
OBLIQUE = ((0.8, 0.6, 0.0), (-0.48, 0.64, 0.6))

LOSSLESS = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "JPEG lossless": JPEGLosslessSV1,
}
_ENCODED = {RLELossless, JPEGLSLossless, JPEG2000Lossless}


@dataclass(frozen=True, slots=True)
class Scan:
    """A volume as a scanner would have it: sizes in voxels and millimetres, patient coordinates
    (LPS), stored values from ``least`` to ``largest``."""

    columns: int = 40
    rows: int = 34
    slices: int = 6
    directions: tuple[tuple[float, ...], tuple[float, ...]] = AXIAL
    origin: tuple[float, float, float] = (-31.5, 22.25, -107.0)
    between_columns: float = 0.75
    between_rows: float = 1.25
    pitch: float = 2.5
    bits_allocated: int = 16
    bits_stored: int = 16
    signed: bool = True
    least: int = -1000
    largest: int = 3000
    rescale: tuple[float, float] | None = (1, 0)
    modality: str = "CT"
    seed: int = 0

    @property
    def stored(self) -> NDArray[Any]:
        """(column, row, slice), as stored; the ends of the range occur."""
        random = np.random.default_rng(self.seed)
        shape = (self.columns, self.rows, self.slices)
        values = random.integers(self.least, self.largest, shape, endpoint=True)
        values[0, 0, 0], values[-1, -1, -1] = self.least, self.largest
        return values.astype(self.dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.asarray(np.cross(*self.directions), np.float64)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel index to RAS+ millimetres."""
        lps = np.eye(4)
        lps[:3, 0] = np.array(self.directions[0]) * self.between_columns
        lps[:3, 1] = np.array(self.directions[1]) * self.between_rows
        lps[:3, 2] = self.normal * self.pitch
        lps[:3, 3] = self.origin
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps

    def position(self, k: float) -> list[float]:
        return [float(v) for v in np.array(self.origin) + k * self.pitch * self.normal]


def series(scan: Scan) -> list[Dataset]:
    """One dataset for each slice, in order."""
    uids = _uids(scan)
    return [_slice(scan, k, uids) for k in range(scan.slices)]


def write(
    datasets: Sequence[Dataset], folder: Path, syntax: UID = ExplicitVRLittleEndian
) -> list[tuple[str, Path]]:
    """The files, by name; the datasets stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [(f"{n:03}.dcm", folder / f"{n:03}.dcm") for n in range(len(datasets))]
    for dataset, (_, path) in zip(datasets, files, strict=True):
        _save(copy.deepcopy(dataset), path, syntax)
    return files


def set_pixels(dataset: Dataset, values: NDArray[Any]) -> None:
    """``values`` are (column, row[, frame])."""
    data = np.ascontiguousarray(values.T).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"


def enhanced(scan: Scan, *, times: int = 1, shared: Sequence[str] = ()) -> Dataset:
    """One multi-frame image, slice after slice, time after time; the functional groups named in
    ``shared`` stand once for all frames. Stored values at time t are t more."""
    dataset = _common(scan, _uids(scan))
    mr = scan.modality == "MR"
    dataset.SOPClassUID = EnhancedMRImageStorage if mr else EnhancedCTImageStorage
    dataset.NumberOfFrames = scan.slices * times
    volumes = [scan.stored + np.array(t, scan.dtype) for t in range(times)]
    set_pixels(dataset, np.concatenate(volumes, axis=2))
    groups = [_groups(scan, k, t) for t in range(times) for k in range(scan.slices)]
    common = Dataset()
    for keyword in shared:
        setattr(common, keyword, getattr(groups[0], keyword))
        for group in groups:
            delattr(group, keyword)
    dataset.SharedFunctionalGroupsSequence = Items([common])
    dataset.PerFrameFunctionalGroupsSequence = Items(groups)
    dataset.DimensionIndexSequence = Items([_dimension(0x00209057), _dimension(0x00209128)])
    return dataset


def reorder_frames(dataset: Dataset, scan: Scan, order: Sequence[int]) -> None:
    """Frames and their functional groups in another order within the file."""
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    dataset.PerFrameFunctionalGroupsSequence = Items([groups[n] for n in order])
    shape = (len(groups), scan.rows, scan.columns)
    frames = np.frombuffer(dataset.PixelData, scan.dtype)[: np.prod(shape)].reshape(shape)
    set_pixels(dataset, frames[list(order)].T)


def _uids(scan: Scan) -> dict[str, str]:
    names = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    return {name: generate_uid(entropy_srcs=[name, repr(scan)]) for name in names}


def _common(scan: Scan, uids: dict[str, str]) -> Dataset:
    dataset = Dataset()
    for name, value in uids.items():
        setattr(dataset, name, value)
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID = "Nobody^Made^Up", "none"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality = scan.modality
    dataset.Manufacturer, dataset.SeriesNumber = "none", 1
    dataset.StudyDate, dataset.StudyTime, dataset.InstanceNumber = "20200102", "030405", 1
    dataset.RepetitionTime, dataset.EchoTime = 2000, 30
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = scan.rows, scan.columns, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored = scan.bits_allocated, scan.bits_stored
    dataset.HighBit, dataset.PixelRepresentation = scan.bits_stored - 1, int(scan.signed)
    return dataset


def _slice(scan: Scan, k: int, uids: dict[str, str]) -> Dataset:
    dataset = _common(scan, uids)
    dataset.SOPClassUID = MRImageStorage if scan.modality == "MR" else CTImageStorage
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = scan.position(k)
    dataset.ImageOrientationPatient = [*scan.directions[0], *scan.directions[1]]
    dataset.PixelSpacing = [scan.between_rows, scan.between_columns]
    dataset.SliceThickness = scan.pitch
    if scan.rescale is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = scan.rescale
    set_pixels(dataset, scan.stored[:, :, k])
    return dataset


def _groups(scan: Scan, k: int, t: int) -> Dataset:
    group = Dataset()
    content, position, orientation = Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [k + 1, t + 1]
    content.InStackPositionNumber, content.StackID = k + 1, "1"
    content.TemporalPositionIndex = t + 1
    position.ImagePositionPatient = scan.position(k)
    orientation.ImageOrientationPatient = [*scan.directions[0], *scan.directions[1]]
    measures, transformation = Dataset(), Dataset()
    measures.PixelSpacing = [scan.between_rows, scan.between_columns]
    measures.SliceThickness = scan.pitch
    group.FrameContentSequence = Items([content])
    group.PlanePositionSequence = Items([position])
    group.PlaneOrientationSequence = Items([orientation])
    group.PixelMeasuresSequence = Items([measures])
    if scan.rescale is not None:
        transformation.RescaleSlope, transformation.RescaleIntercept = scan.rescale
        transformation.RescaleType = "US"
        group.PixelValueTransformationSequence = Items([transformation])
    return group


def _dimension(pointer: int) -> Dataset:
    item = Dataset()
    item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, 0x00209111
    return item


def _save(dataset: Dataset, path: Path, syntax: UID) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    native = syntax not in _ENCODED and syntax != JPEGLosslessSV1
    dataset.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    if syntax == ExplicitVRBigEndian and dataset.BitsAllocated > 8:
        words = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}")
        dataset.PixelData = words.byteswap().tobytes()
    if syntax in _ENCODED:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True, overwrite=True)
    if syntax == JPEGLosslessSV1:
        _to_jpeg_lossless(path)


def _to_jpeg_lossless(path: Path) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    if not reader.Read():
        raise ValueError("gdcm cannot read a phantom")
    change.SetInput(reader.GetImage())
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    if not change.Change():
        raise ValueError("gdcm cannot encode a phantom")
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise ValueError("gdcm cannot write a phantom")
