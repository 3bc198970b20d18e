"""What leaves a snapshot before anything of it is written."""

from __future__ import annotations

import time
from typing import Any

import pytest

from consumer.errors import Permanent
from consumer.model import (
    EventType,
    ExportRules,
    HistoryItem,
    Label,
    Mask,
    Polyline,
    Segment,
    Series,
    TaskSnapshot,
    encode,
)
from handlers.privacy import hashed, without_addresses
from tests.fakes_platform import NOON, snapshot

KEY = b"a key"
ANNA = "Anna.Berg+ct@klinik-nord.example.org"


def snapshot_of_anna(**changes: Any) -> TaskSnapshot:
    item = HistoryItem(id="h1", type=EventType.ACCEPTED, at=NOON, actor=ANNA, assignee=ANNA)
    at = ("scores", ANNA, "mask")
    own = f"seen by {ANNA}"
    series = Series(
        name=f"for {ANNA}",
        masks=(Mask(reference=f"https://host/{ANNA}", kind="nifti", slot=at, category=own),),
        segments=(Segment(value=1, slot=at, category=own),),
        polylines=(Polyline(group="Axial", feature="f", frame=1, category=own, points=()),),
        slot=at,
        png_slot=at,
    )
    fields: dict[str, Any] = {
        "name": ANNA,
        "history": (item,),
        "labels": (Label(id="l", version="v", series=(series,)),),
        "document": {
            "createdBy": ANNA,
            "comments": [f"ask {ANNA} or <{ANNA.lower()}>", 3, None],
            "scores": {ANNA: {"mask": "x"}},
        },
        "taxonomy": {"createdBy": ANNA, "objectTypes": [{"hint": f"ask {ANNA}"}]},
    }
    return snapshot(**{**fields, **changes})


def test_addresses_are_kept_unless_told_otherwise() -> None:
    given = snapshot_of_anna()
    assert without_addresses(given, ExportRules(), b"") is given


@pytest.mark.parametrize("emails", ["hash", "drop"])
def test_no_address_is_left_but_in_references(emails: Any) -> None:
    found = without_addresses(snapshot_of_anna(), ExportRules(emails=emails), KEY)
    shown = encode(found).replace(f"https://host/{ANNA}".encode(), b"")
    assert b"@" not in shown
    assert found.labels[0].series[0].masks[0].reference.endswith(ANNA)


def test_a_hash_tells_one_person_from_another_and_not_who_it_is() -> None:
    found = without_addresses(snapshot_of_anna(), ExportRules(emails="hash"), KEY)
    assert found.document["createdBy"] == hashed(ANNA, KEY) == hashed(ANNA.upper(), KEY)
    assert found.history[0].actor == hashed(ANNA, KEY)
    assert hashed(ANNA, b"another key") != hashed(ANNA, KEY) != hashed("bo@x.example", KEY)
    assert found.document["comments"][0] == f"ask {hashed(ANNA, KEY)} or <{hashed(ANNA, KEY)}>"


def test_what_is_dropped_leaves_nothing() -> None:
    found = without_addresses(snapshot_of_anna(), ExportRules(emails="drop"), b"")
    assert found.document["createdBy"] == ""
    assert found.document["comments"] == ["ask  or <>", 3, None]
    assert found.history[0].actor is None
    assert found.name == found.task


def test_places_in_the_document_follow_its_names() -> None:
    found = without_addresses(snapshot_of_anna(), ExportRules(emails="hash"), KEY)
    series = found.labels[0].series[0]
    for place in (series.slot, series.png_slot, series.masks[0].slot, series.segments[0].slot):
        inner = found.document
        for step in place:
            inner = inner[step]  # type: ignore[index]
        assert inner == "x"


def test_without_a_key_nothing_is_hashed_and_nothing_exported() -> None:
    with pytest.raises(Permanent) as caught:
        without_addresses(snapshot_of_anna(), ExportRules(emails="hash"), b"")
    assert caught.value.reason == "email-key-missing"


@pytest.mark.parametrize(
    "text", ["a" * 100_000 + "@", ("a." * 50 + "@") * 2_000, "x@" + "a." * 99_999]
)
def test_no_text_makes_the_search_slow(text: str) -> None:
    given = snapshot_of_anna(document={"comment": text})
    began = time.process_time()
    without_addresses(given, ExportRules(emails="drop"), b"")
    assert time.process_time() - began < 5
