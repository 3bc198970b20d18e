"""Phantom CT studies whose truth is known: ellipsoid organs in an ellipsoid body.

Everything follows from the seed, the identifiers included, except a mask as a vendor writes it,
whose bytes differ every time on purpose.
"""

from __future__ import annotations

import gzip
import io
import secrets
import struct
import zlib
from dataclasses import dataclass

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

Voxels = NDArray[np.uint8]

AIR, TISSUE = -1000, 40  # Hounsfield units
INTERCEPT = -1024  # stored value 0
_UID_ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's, free for made-up data
_NOISE = 12.0


@dataclass(frozen=True, slots=True)
class Organ:
    """An ellipsoid; ``centre`` and ``radii`` are fractions of the volume's sides."""

    name: str
    value: int  # in the truth
    hounsfield: int
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]


ORGANS = (
    Organ("liver", 1, 60, (0.35, 0.45, 0.55), (0.18, 0.20, 0.30)),
    Organ("spleen", 2, 50, (0.72, 0.55, 0.55), (0.09, 0.12, 0.22)),
    Organ("aorta", 3, 250, (0.52, 0.68, 0.50), (0.05, 0.05, 0.48)),
)


@dataclass(frozen=True, slots=True)
class Phantom:
    """One made-up patient with one axial series; ``shape`` is (columns, rows, slices), sizes are
    in millimetres, ``origin`` is the first voxel's centre in DICOM's LPS coordinates."""

    seed: int = 0
    shape: tuple[int, int, int] = (64, 64, 24)
    spacing: tuple[float, float, float] = (4.0, 4.0, 5.0)
    origin: tuple[float, float, float] = (-126.0, -126.0, -60.0)
    organs: tuple[Organ, ...] = ORGANS

    @property
    def affine(self) -> tuple[tuple[float, ...], ...]:
        """Voxel index to RAS+ millimetres, 4 x 4: x and y turn round between LPS and RAS."""
        (i, j, k), (x, y, z) = self.spacing, self.origin
        return (
            (-i, 0.0, 0.0, -x),
            (0.0, -j, 0.0, -y),
            (0.0, 0.0, k, z),
            (0.0, 0.0, 0.0, 1.0),
        )

    def uid(self, *what: str) -> UID:
        """A valid DICOM UID that is always the same for the same seed and thing."""
        return generate_uid(_UID_ROOT, entropy_srcs=["groundwire", str(self.seed), *what])


def truth(phantom: Phantom) -> Voxels:
    """The label of every voxel, (i, j, k) = (column, row, slice); 0 is no organ. Organs lie a
    little differently in every patient; where two meet, the later one wins."""
    rng = np.random.default_rng(phantom.seed)
    labels = np.zeros(phantom.shape, np.uint8)
    for organ in phantom.organs:
        centre = tuple(
            c + d for c, d in zip(organ.centre, rng.uniform(-0.03, 0.03, 3), strict=True)
        )
        labels[_ellipsoid(phantom.shape, centre, organ.radii)] = organ.value
    return labels


def ct_series(phantom: Phantom) -> list[bytes]:
    """One DICOM file for each slice, feet first, as a scanner's archive would hold them."""
    stored = _stored_values(phantom)
    dataset = _patient_and_image(phantom)
    files = []
    for k in range(phantom.shape[2]):
        _set_slice(dataset, phantom, k, stored[:, :, k])
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


def nifti_mask(labels: Voxels, affine: tuple[tuple[float, ...], ...]) -> bytes:
    """A mask as platforms write it: correct, but with text and the time in its headers, so that
    no two are equal."""
    image = nibabel.Nifti1Image(labels, np.asarray(affine))  # type: ignore[no-untyped-call]
    image.header["descrip"] = f"drawn by Phantom^Annotator {secrets.token_hex(8)}"
    return gzip.compress(image.to_bytes())


def frame_masks(labels: Voxels, value: int, *, frame_base: int = 1) -> dict[str, dict[int, bytes]]:
    """One object's PNG masks by view and frame (counted from ``frame_base``); frames without it
    are left out. Rows and columns are (j, i) in Axial, (k, j) in Sagittal, (k, i) in Coronal."""
    drawn = labels == value
    views = {"Axial": (2, 1, 0), "Sagittal": (0, 2, 1), "Coronal": (1, 2, 0)}
    return {
        view: {
            frame_base + frame: grey_png(np.where(plane, np.uint8(255), np.uint8(0)))
            for frame, plane in enumerate(drawn.transpose(axes))
            if plane.any()
        }
        for view, axes in views.items()
    }


def grey_png(pixels: Voxels) -> bytes:
    """A PNG of 8-bit grey, from (row, column) pixels."""
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()  # filter 0, "none", before each row
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _ellipsoid(
    shape: tuple[int, int, int], centre: tuple[float, ...], radii: tuple[float, ...]
) -> NDArray[np.bool_]:
    i, j, k = (
        ((np.arange(size) + 0.5) / size - middle) / radius
        for size, middle, radius in zip(shape, centre, radii, strict=True)
    )
    inside: NDArray[np.bool_] = (
        i[:, None, None] ** 2 + j[None, :, None] ** 2 + k[None, None, :] ** 2 <= 1
    )
    return inside


def _stored_values(phantom: Phantom) -> NDArray[np.uint16]:
    rng = np.random.default_rng((phantom.seed, 1))
    hounsfield = np.full(phantom.shape, AIR, np.float32)
    hounsfield[_ellipsoid(phantom.shape, (0.5, 0.5, 0.5), (0.45, 0.38, 9.0))] = TISSUE
    labels = truth(phantom)
    for organ in phantom.organs:
        hounsfield[labels == organ.value] = organ.hounsfield
    hounsfield += rng.normal(0, _NOISE, phantom.shape).astype(np.float32)
    return np.clip(np.rint(hounsfield - INTERCEPT), 0, 4095).astype(np.uint16)


def _patient_and_image(phantom: Phantom) -> Dataset:
    """What every slice of the series has in common."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = CTImageStorage
    d.SpecificCharacterSet = "ISO_IR 100"
    d.PatientName, d.PatientID = f"Phantom^Patient {phantom.seed}", f"PHANTOM-{phantom.seed}"
    d.PatientBirthDate, d.PatientSex = "19700101", "O"
    d.StudyInstanceUID, d.SeriesInstanceUID = phantom.uid("study"), phantom.uid("series")
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = phantom.uid("frame"), ""
    d.StudyDate = d.SeriesDate = d.ContentDate = "20260102"
    d.StudyTime = d.SeriesTime = d.ContentTime = "030405"
    d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = "1", "", ""
    d.Modality, d.Manufacturer, d.SeriesNumber = "CT", "Groundwire phantom", 1
    d.ImageType, d.PatientPosition = ["ORIGINAL", "PRIMARY", "AXIAL"], "HFS"
    d.KVP, d.AcquisitionNumber = None, None
    d.Columns, d.Rows = phantom.shape[:2]
    d.PixelSpacing, d.SliceThickness = [*phantom.spacing[1::-1]], phantom.spacing[2]
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.RescaleSlope, d.RescaleIntercept, d.RescaleType = 1, INTERCEPT, "HU"
    return d


def _set_slice(d: Dataset, phantom: Phantom, k: int, plane: NDArray[np.uint16]) -> None:
    x, y, z = phantom.origin
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = phantom.uid("slice", str(k))
    d.InstanceNumber = k + 1
    d.ImagePositionPatient = [x, y, z + k * phantom.spacing[2]]
    d.PixelData = plane.T.astype("<u2").tobytes()
