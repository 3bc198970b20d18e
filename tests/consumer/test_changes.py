"""What an entry of the log means: to the ground truth, and as a place in the log."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.changes import MAX_POSITION, TaskChange, change_of, position, read_position
from consumer.model import LakeMove, canonical, encode

LOG = "example.org/lake~0a1b2c3d4e5f"
AT = "2026-01-02T03:04:05.000000Z"


def entry(**fields: Any) -> dict[str, Any]:
    """A ``lake`` entry as the log holds it; the task comes into the ground truth unless told."""
    return {
        "id": "lake:t/1",
        "kind": "lake",
        "format": 1,
        "logged_at": AT,
        "source": "redbrick-prod",
        "project": "p-1",
        "task": "t-1",
        "project_key": "p-1",
        "sequence": 1,
        "change": "exported",
        "stage": "END",
        "old_stage": None,
        "revision": "r1",
        "old_revision": None,
        "ground_truth": True,
        "was_ground_truth": False,
        "ground_truth_label": None,
        "old_ground_truth_label": None,
        "ground_truth_reason": None,
        "label_version": "v1",
        "recipe": "x",
        "manifest_key": "p-1/tasks/t-1/revisions/r1.json",
        "manifest_sha256": "0" * 64,
        "refused": [],
        "pointer_sha256": "1" * 64,
        "platform": "redbrick",
        "approved_by": "user-1",
        "approved_at": AT,
        "caused_by": ["e-1"],
    } | fields


def old_entry(**fields: Any) -> dict[str, Any]:
    """As it was before platform, approval and the label that was the ground truth were logged."""
    new = ("platform", "approved_by", "approved_at", "old_ground_truth_label", "manifest_key")
    return {k: v for k, v in entry(**fields).items() if k not in new}


def change(given_entry: dict[str, Any]) -> TaskChange:
    found = change_of(7, given_entry, LOG)
    assert found is not None
    return found


def truth(**fields: Any) -> str | None:
    return change(entry(**fields)).ground_truth


def test_a_move_into_the_ground_truth_is_told_whole() -> None:
    assert msgspec.to_builtins(change(entry())) == {
        "id": f"7@{LOG}",
        "index": 7,
        "at": AT,
        "platform": "redbrick",
        "source": "redbrick-prod",
        "project": "p-1",
        "project_key": "p-1",
        "task": "t-1",
        "sequence": 1,
        "change": "exported",
        "ground_truth": "added",
        "stage": "END",
        "revision": "r1",
        "manifest_key": "p-1/tasks/t-1/revisions/r1.json",
        "label_version": "v1",
        "approved_by": "user-1",
        "approved_at": AT,
    }


def expected(was: bool, old: str | None, now: bool, new: str | None) -> str | None:
    """The ground truth is what counts and is there; the rest follows from before and after."""
    before = old if was else None
    after = new if now else None
    if before == after:
        return None
    if before is None:
        return "added"
    return "removed" if after is None else "changed"


@pytest.mark.parametrize(
    ("was", "old", "now", "new"),
    list(itertools.product((False, True), (None, "r1", "r2"), (False, True), (None, "r1", "r2"))),
)
def test_every_combination_of_before_and_after(
    was: bool, old: str | None, now: bool, new: str | None
) -> None:
    fields = {"was_ground_truth": was, "old_revision": old, "ground_truth": now, "revision": new}
    assert change(entry(**fields)).ground_truth == expected(was, old, now, new)
    assert change(old_entry(**fields)).ground_truth == expected(was, old, now, new)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"was_ground_truth": True, "old_revision": "r1"}, None),
        ({"was_ground_truth": True, "old_revision": "r1", "stage": "Other"}, None),
        ({"was_ground_truth": True, "old_revision": "r0"}, "changed"),
        ({"revision": None, "change": "moved"}, None),
        ({"ground_truth": False}, None),
        (
            {
                "was_ground_truth": True,
                "old_revision": "r1",
                "ground_truth": False,
                "revision": None,
                "change": "deleted",
            },
            "removed",
        ),
    ],
    ids=[
        "moved-within", "moved-to-another-final-stage", "drawn-anew", "approved-but-not-exported",
        "exported-but-not-approved", "deleted",
    ],
)  # fmt: skip
def test_what_a_move_did_to_the_ground_truth(fields: dict[str, Any], what: str | None) -> None:
    assert truth(**fields) == what


WITHIN = {"was_ground_truth": True, "old_revision": "r1"}


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("label-1", "label-2", "changed"),
        ("label-1", "label-1", None),
        (None, "label-2", "changed"),
        ("label-1", None, "changed"),
        (None, None, None),
    ],
)
def test_another_label_as_the_ground_truth_is_a_change_though_the_files_are_the_same(
    old: str | None, new: str | None, what: str | None
) -> None:
    assert truth(**WITHIN, old_ground_truth_label=old, ground_truth_label=new) == what


def test_another_label_is_told_by_its_id() -> None:
    found = change(entry(**WITHIN, old_ground_truth_label="a", ground_truth_label="b"))
    assert found.label == "b"


def test_a_label_of_a_task_outside_the_ground_truth_is_no_change() -> None:
    fields = {"old_ground_truth_label": "a", "ground_truth_label": "b", "ground_truth": False}
    assert truth(**fields) is None


def test_an_entry_from_before_labels_were_told_is_no_change_of_label() -> None:
    found = change(old_entry(**WITHIN, ground_truth_label="label-2"))
    assert (found.ground_truth, found.label) == (None, "label-2")


def test_an_entry_from_before_the_platform_was_told_has_its_source_for_it() -> None:
    found = change(old_entry())
    assert (found.platform, found.source) == ("redbrick-prod", "redbrick-prod")
    assert (found.approved_by, found.approved_at, found.manifest_key) == (None, None, None)
    assert found.ground_truth == "added"


@pytest.mark.parametrize("kind", ["receipt", "history", "started", "snapshot", None, 7, "LAKE"])
def test_every_other_kind_of_entry_is_no_change(kind: Any) -> None:
    assert change_of(7, {**entry(), "kind": kind}, LOG) is None
    assert change_of(7, {}, LOG) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"task": None},
        {"sequence": "1"},
        {"change": "vanished"},
        {"logged_at": None},
        {"source": 5, "platform": None},
        {"project_key": None},
        {"revision": 3},
    ],
)
def test_a_lake_entry_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        change_of(7, entry(**fields), LOG)


def test_what_the_log_holds_of_a_move_is_all_that_is_read() -> None:
    """The entry that the audit lane makes of a `LakeMove` has every field that is read here."""
    read = {*TaskChange.__struct_fields__} - {"id", "index", "at", "label", "source"}
    told = {*LakeMove.__struct_fields__, "project", "task"}
    assert read <= told


@given(st.builds(dict, **{k: st.booleans() for k in ("ground_truth", "was_ground_truth")}))
def test_a_change_is_the_same_after_a_way_as_json(fields: dict[str, bool]) -> None:
    found = change(entry(**fields))
    assert msgspec.json.decode(encode(found), type=TaskChange) == found


def test_reading_an_entry_leaves_it_as_it_was() -> None:
    given_entry = entry()
    before = canonical(given_entry)
    change_of(7, given_entry, LOG)
    assert canonical(given_entry) == before


ORIGINS = st.from_regex(r"[^\s+\x00-\x1f\x7f]{1,200}", fullmatch=True)
MARKS = st.from_regex(r"[0-9a-f]{12}", fullmatch=True)


@given(index=st.integers(0, 10**18 - 1), origin=ORIGINS, mark=MARKS)
@example(index=0, origin="a@b@c", mark="0" * 12)
@example(index=10**18 - 1, origin="ö" * 200, mark="f" * 12)
def test_a_position_of_any_log_is_read_as_it_was_written(
    index: int, origin: str, mark: str
) -> None:
    log = f"{origin}~{mark}"
    assert read_position(position(index, log)) == (index, log)
    assert read_position(str(index)) == (index, None)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-1", "+1", "1.0", "1e3", "0x10", "01", "00", "1_000", "one", "1@", "@log",
        "1 @log", " 1", "1\n", "1@log\n", "1@a b", "1@a\tb", "1@a\x00b", "1@a\x7f", "1@a\u00a0b",
        "1@a\u2028b",
        "1@a\u0085b", "\u0661", "\uff11", "\u00b2", "9" * 19, "9" * 5000, f"1@{'x' * 251}",
        "1@" + "x" * MAX_POSITION, "null", "[1]", "1;2", "1,2",
    ],
)  # fmt: skip
def test_what_is_no_position_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="index of the log") as caught:
        read_position(text)
    assert len(str(caught.value)) < 100


@given(st.text(max_size=MAX_POSITION + 10))
def test_any_text_is_a_position_in_one_spelling_or_refused(text: str) -> None:
    try:
        index, log = read_position(text)
    except ValueError:
        return
    assert text == (str(index) if log is None else position(index, log))
    assert len(text) <= MAX_POSITION
    assert len(text.splitlines()) == 1
