"""What makes a new DICOM object of an old series: the same patient, study and frame of reference,
identifiers of its own, and nothing of the clock.

The same input gives the same bytes: identifiers are hashes of the object's own content, dates are
the series'. Text is written as UTF-8 whatever the series was written in.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.dataelem import DataElement
from pydicom.uid import UID, generate_uid

MANUFACTURER = "Groundwire"
MODEL = "Groundwire"
DEVICE_SERIAL_NUMBER = "0"
SOFTWARE_VERSION = "1"  # of what is written: a change of it makes other objects of the same masks
UNKNOWN_DATE = "19000101"  # where a date must be and the series has none
UNKNOWN_TIME = "000000"

PLACEHOLDERS = ("1.2.3.1", "1.2.3.2", "1.2.3.3")  # of series, instance, dimensions: until `sealed`

_UID_ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's, free for generated identifiers

# Required of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): empty if unknown.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
# What tells patients and studies apart or how they were de-identified.
_OPTIONAL = (
    "IssuerOfPatientID", "TypeOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "IssuerOfAccessionNumberSequence",
)  # fmt: skip
_DATES = (
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("StudyDate", "StudyTime"),
)


def identify(target: Dataset, source: Dataset) -> None:
    """Makes ``target`` an object of the same patient and study as ``source``."""
    target.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _REQUIRED:
        setattr(target, keyword, _text(source.get(keyword)))
    for keyword in _OPTIONAL:
        if keyword in source:
            setattr(target, keyword, source[keyword].value)
    target.StudyInstanceUID = source.StudyInstanceUID
    target.Manufacturer, target.ManufacturerModelName = MANUFACTURER, MODEL
    target.DeviceSerialNumber = DEVICE_SERIAL_NUMBER
    target.SoftwareVersions = SOFTWARE_VERSION


def when(source: Dataset) -> tuple[str, str]:
    """Date and time of the series' content, the nearest that it tells; of 1900 if it tells none."""
    for date, time in _DATES:
        if source.get(date):
            return str(source.get(date)), str(source.get(time) or UNKNOWN_TIME)
    return UNKNOWN_DATE, UNKNOWN_TIME


def lasting_uid(*what: str) -> UID:
    """An identifier that is always the same for the same thing."""
    return generate_uid(_UID_ROOT, entropy_srcs=["groundwire", *what])


def sealed(dataset: Dataset) -> bytes:
    """The object as a DICOM file, its placeholder identifiers replaced by hashes of its content,
    so that objects of one identifier are equal bytes."""
    digest = _digest(dataset)
    fresh = {uid: lasting_uid(digest, uid) for uid in PLACEHOLDERS}
    for element in _identifiers(dataset):
        if element.value in fresh:
            element.value = fresh[str(element.value)]
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return _written(dataset)


def file_meta(sop_class: UID, transfer_syntax: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(PLACEHOLDERS[1])
    meta.TransferSyntaxUID = transfer_syntax
    return meta


def _digest(dataset: Dataset) -> str:
    """Of pixels and header apart, so that pixels are not copied."""
    pixels = dataset.get("PixelData", b"")
    if pixels:
        element = dataset["PixelData"]
        del dataset.PixelData
    digest = hashlib.sha256(_written(dataset))
    digest.update(hashlib.sha256(pixels).digest())
    if pixels:
        dataset.add(element)
    return digest.hexdigest()


def _identifiers(dataset: Dataset) -> Iterator[DataElement]:
    """Every element of identifiers, those within sequences too."""
    for element in dataset:
        if element.VR == "UI":
            yield element
        elif element.VR == "SQ":
            for item in element.value:
                yield from _identifiers(item)


def _written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _text(value: object) -> str:
    """Of a name, date or text; of several values where one is allowed, all."""
    return "" if value is None else str(value)
