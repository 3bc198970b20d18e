"""People's addresses leave a snapshot before anything of it is written: pure.

With ``hash`` an address becomes a keyed hash (HMAC-SHA256), so that one person's work can be told
from another's by nobody who lacks the key; with ``drop`` nothing of it is left. URLs have lost
their query at the platform's adapter already.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any

import msgspec

from consumer.errors import Permanent
from consumer.model import ExportRules, HistoryItem, JsonPath, Label, Mask, Series, TaskSnapshot

# RFC 5322's dot-atoms, quoted local parts apart, and any host. Both sides are bounded (RFC 5321,
# 4.5.3.1), and the local part possessive, so that no text makes the search slow.
_ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,256}+@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_HASHED = 32  # hex digits: 128 bits

Clean = Callable[[str], str]


def without_addresses(snapshot: TaskSnapshot, rules: ExportRules, key: bytes) -> TaskSnapshot:
    """The snapshot as ``rules.emails`` wants it: its document, taxonomy, history, and names.

    Raises ``Permanent`` (email-key-missing) when addresses are to be hashed and there is no key.
    """
    if rules.emails == "keep":
        return snapshot
    clean = cleaner(rules, key)
    return msgspec.structs.replace(
        snapshot,
        name=clean(snapshot.name) or snapshot.task,
        document=_cleaned(snapshot.document, clean),
        taxonomy=_cleaned(snapshot.taxonomy, clean),
        history=tuple(_item(item, clean) for item in snapshot.history),
        labels=tuple(_label(label, clean) for label in snapshot.labels),
    )


def cleaner(rules: ExportRules, key: bytes) -> Clean:
    """What makes of a text one as ``rules.emails`` wants it.

    Raises ``Permanent`` (email-key-missing) when addresses are to be hashed and there is no key.
    """
    if rules.emails == "hash" and not key:
        raise Permanent("email-key-missing", "[privacy] key is missing, so no address is hashed")

    def replaced(match: re.Match[str]) -> str:
        return hashed(match.group(), key) if rules.emails == "hash" else ""

    def clean(text: str) -> str:
        is_wanted = rules.emails != "keep" and "@" in text
        return _ADDRESS.sub(replaced, text) if is_wanted else text

    return clean


def hashed(address: str, key: bytes) -> str:
    """The same for one address however it is capitalised."""
    mac = hmac.new(key, address.casefold().encode("utf-8", "surrogatepass"), hashlib.sha256)
    return f"email-{mac.hexdigest()[:_HASHED]}"


def _cleaned(value: Any, clean: Clean) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): _cleaned(inner, clean) for name, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner, clean) for inner in value]
    return value


def _item(item: HistoryItem, clean: Clean) -> HistoryItem:
    return msgspec.structs.replace(
        item, actor=_optional(item.actor, clean), assignee=_optional(item.assignee, clean)
    )


def _label(label: Label, clean: Clean) -> Label:
    return msgspec.structs.replace(
        label, series=tuple(_series(series, clean) for series in label.series)
    )


def _series(series: Series, clean: Clean) -> Series:
    """The places in the document follow what its names became."""
    return msgspec.structs.replace(
        series,
        name=_optional(series.name, clean),
        masks=tuple(_mask(mask, clean) for mask in series.masks),
        segments=tuple(
            msgspec.structs.replace(
                segment,
                category=_optional(segment.category, clean),
                slot=_place(segment.slot, clean),
            )
            for segment in series.segments
        ),
        polylines=tuple(
            msgspec.structs.replace(line, category=_optional(line.category, clean))
            for line in series.polylines
        ),
        slot=_place(series.slot, clean),
        png_slot=_place(series.png_slot, clean),
    )


def _mask(mask: Mask, clean: Clean) -> Mask:
    return msgspec.structs.replace(
        mask, category=_optional(mask.category, clean), slot=_place(mask.slot, clean)
    )


def _place(path: JsonPath, clean: Clean) -> JsonPath:
    return tuple(clean(step) if isinstance(step, str) else step for step in path)


def _optional(text: str | None, clean: Clean) -> str | None:
    return (clean(text) or None) if text else text
