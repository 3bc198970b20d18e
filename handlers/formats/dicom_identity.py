"""What makes a new DICOM object of an old series: the same patient, study and frame of reference,
identifiers of its own, and nothing of the clock.

The same input gives the same bytes: identifiers are hashes of the object's own content, dates are
the series'. Text is written as UTF-8 whatever the series was written in.
"""

from __future__ import annotations

import hashlib
import io
import re

from pydicom import Dataset, dcmwrite
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import PersonName

MANUFACTURER = "Groundwire"
MODEL = "Groundwire"
DEVICE_SERIAL_NUMBER = "0"
SOFTWARE_VERSION = "1"  # of what is written: a change of it makes other objects of the same masks
UNKNOWN_DATE = "19000101"  # where a date must be and the series has none
UNKNOWN_TIME = "000000"

_UID_ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's, free for generated identifiers

# Required of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): empty if unknown.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
# What tells patients apart, or that they are not to be told.
_OPTIONAL = ("IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod")
_METHODS = "DeidentificationMethodCodeSequence"
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")

_DATES = (
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("StudyDate", "StudyTime"),
)
_DATE = re.compile(r"\d{8}", re.ASCII)
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", re.ASCII)


def identify(target: Dataset, source: Dataset) -> None:
    """Makes ``target`` an object of the same patient and study as ``source``."""
    target.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _REQUIRED:
        _set(target, keyword, _text(source, keyword))
    for keyword in _OPTIONAL:
        if keyword in source:
            _set(target, keyword, _text(source, keyword))
    if source.get(_METHODS):
        _set(target, _METHODS, [_code(item) for item in source[_METHODS].value])
    target.StudyInstanceUID = source.StudyInstanceUID
    target.Manufacturer, target.ManufacturerModelName = MANUFACTURER, MODEL
    target.DeviceSerialNumber = DEVICE_SERIAL_NUMBER
    target.SoftwareVersions = SOFTWARE_VERSION


def date(target: Dataset, source: Dataset, date: str, time: str) -> None:
    """Sets date and time of the target to when the series was made, by the nearest that it tells;
    in 1900 if it tells nothing."""
    setattr(target, date, UNKNOWN_DATE)
    setattr(target, time, UNKNOWN_TIME)
    for day, hour in _DATES:
        if _DATE.fullmatch(_text(source, day)):
            setattr(target, date, _text(source, day))
            if _TIME.fullmatch(_text(source, hour)):
                setattr(target, time, _text(source, hour))
            return


def lasting_uid(*what: str) -> UID:
    """An identifier that is always the same for the same thing."""
    return generate_uid(_UID_ROOT, entropy_srcs=["groundwire", *what])


PLACEHOLDERS = tuple(lasting_uid("placeholder", what) for what in ("series", "instance", "other"))


def sealed(dataset: Dataset) -> bytes:
    """The object as a DICOM file, with hashes of its content in place of `PLACEHOLDERS`: objects
    of one identifier are equal bytes. All are 64 characters, so no length changes."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    data = bytearray(buffer.getbuffer())
    digest = hashlib.sha256(data).hexdigest()
    for placeholder in PLACEHOLDERS:
        old, new = placeholder.encode(), lasting_uid(digest, placeholder).encode()
        at = data.find(old)
        while at >= 0:
            data[at : at + len(old)] = new
            at = data.find(old, at)
    return bytes(data)


def file_meta(sop_class: str, transfer_syntax: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(PLACEHOLDERS[1])
    meta.TransferSyntaxUID = UID(transfer_syntax)
    return meta


def _text(source: Dataset, keyword: str) -> str:
    """A text of the series, several values as one; empty where it has none."""
    value = source.get(keyword)
    if value is None or isinstance(value, str | PersonName):
        return str(value or "")
    return "\\".join(map(str, value))


def _code(item: Dataset) -> Dataset:
    code = Dataset()
    for keyword in _CODE:
        if keyword in item:
            _set(code, keyword, _text(item, keyword))
    return code


def _set(target: Dataset, keyword: str, value: object) -> None:
    """Sets what the series has even where it breaks a rule: a warning would quote it."""
    target.add(DataElement(keyword, _vr(keyword), value, validation_mode=IGNORE))


def _vr(keyword: str) -> str:
    return dictionary_VR(keyword)
