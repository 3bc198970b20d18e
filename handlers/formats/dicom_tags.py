"""The elements of a DICOM dataset as plain values: what is read is checked, or refused.

Values are taken from the raw bytes (DICOM PS3.5, section 6.2), so that nothing is guessed,
repaired or warned about on the way.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from consumer.errors import Refused

_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FD": "d", "FL": "f"}
_TEXT = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "TM", "UI"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MAX_ITEMS = 100_000  # of sequences in one header: each costs a kilobyte and 40 microseconds
ITEM = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"  # little and big endian

_SHOWN = 100  # characters of a name or value in an error


@dataclass(frozen=True, slots=True)
class Tags:
    """The elements of one dataset of the file ``name``; a missing or empty element is None.

    Raises ``Refused`` (``bad-tag``) for a value that is not what its element is for.
    """

    name: str
    dataset: Dataset

    def text(self, keyword: str) -> str | None:
        values = self.texts(keyword)
        return values[0] if values and values[0] else None

    def texts(self, keyword: str) -> tuple[str, ...]:
        raw = self._raw(keyword)
        if raw is None:
            return ()
        return tuple(part.strip(" \0") for part in raw[1].decode("latin-1").split("\\"))

    def whole(self, keyword: str) -> int | None:
        value = self.number(keyword)
        if value is not None and value != int(value):
            raise self.bad(keyword, f"{value:g} is not a whole number")
        return None if value is None else int(value)

    def number(self, keyword: str) -> float | None:
        values = self.numbers(keyword)
        if values is not None and len(values) != 1:
            raise self.bad(keyword, f"{len(values)} values, not one")
        return None if values is None else values[0]

    def hint(self, keyword: str) -> float | None:
        """A number that only some series need: None also for what is no single one."""
        try:
            return self.number(keyword)
        except Refused:
            return None

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """Finite numbers; ``count`` of them, where that is said."""
        raw = self._raw(keyword)
        if raw is None:
            return None
        vr, data, little = raw
        values = self._unpacked(keyword, vr, data, little) if vr in _BINARY else None
        if values is None:
            values = self._parsed(keyword, data)
        if not all(math.isfinite(value) for value in values):
            raise self.bad(keyword, "a value is not a finite number")
        if count is not None and len(values) != count:
            raise self.bad(keyword, f"{len(values)} values, not {count}")
        return values or None

    def items(self, keyword: str) -> tuple[Tags, ...]:
        """The datasets of a sequence."""
        element = self._element(keyword)
        if element is None:
            return ()
        if isinstance(element, RawDataElement):
            if max(map((element.value or b"").count, ITEM)) > MAX_ITEMS:
                raise self.bad(keyword, f"over {MAX_ITEMS} items")
            try:
                element = convert_raw_data_element(element)
            except MemoryError:
                raise
            except Exception as error:  # whatever damaged bytes make of the parser
                raise self.bad(keyword, "cannot be parsed") from error
        if not all(isinstance(item, Dataset) for item in element.value or ()):
            raise self.bad(keyword, "not a sequence")
        return tuple(Tags(self.name, item) for item in element.value or ())

    def has(self, keyword: str) -> bool:
        return _tag(keyword) in self.dataset

    def bad(self, keyword: str, why: str) -> Refused:
        return Refused("bad-tag", f"{shown(self.name)}: {keyword}: {shown(why)}")

    def _raw(self, keyword: str) -> tuple[str, bytes, bool] | None:
        """VR, bytes, and whether they are little endian."""
        element = self._element(keyword)
        if element is None or not element.value:
            return None
        if not isinstance(element, RawDataElement):
            raise self.bad(keyword, "not a plain value")
        vr = (
            element.VR
            if element.VR in _BINARY or element.VR in _TEXT
            else dictionary_VR(element.tag)
        )
        return vr, element.value, element.is_little_endian

    def _element(self, keyword: str) -> RawDataElement | DataElement | None:
        """As it is in the file: to ask the dataset for a value would change its neighbours."""
        tag = _tag(keyword)
        if tag not in self.dataset:
            return None
        try:
            return self.dataset.get_item(tag)
        except MemoryError:
            raise
        except Exception as error:  # an empty element of an unknown kind
            raise self.bad(keyword, "cannot be parsed") from error

    def _unpacked(self, keyword: str, vr: str, data: bytes, little: bool) -> tuple[float, ...]:
        code = _BINARY[vr]
        count, rest = divmod(len(data), struct.calcsize(code))
        if rest:
            raise self.bad(keyword, f"{len(data)} bytes")
        return struct.unpack(f"{'<' if little else '>'}{count}{code}", data)

    def _parsed(self, keyword: str, data: bytes) -> tuple[float, ...]:
        texts = [part.strip(" \0") for part in data.decode("latin-1").split("\\")]
        if texts == [""]:
            return ()
        for text in texts:
            if not _NUMBER.fullmatch(text):
                raise self.bad(keyword, f"{text!r} is not a number")
        return tuple(float(text) for text in texts)


def shown(text: str) -> str:
    """A name or value from outside as an error may show it: one line, not long."""
    clean = "".join(c if c.isprintable() else "?" for c in text[: _SHOWN + 1])
    return clean if len(clean) <= _SHOWN else clean[: _SHOWN - 1] + "…"


_tags: dict[str, BaseTag] = {}


def _tag(keyword: str) -> BaseTag:
    if keyword not in _tags:
        number = tag_for_keyword(keyword)
        if number is None:
            raise KeyError(keyword)
        _tags[keyword] = BaseTag(number)
    return _tags[keyword]
