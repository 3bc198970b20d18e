"""No name escapes its place in the lake, and no two names meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import layout

HOSTILE = [
    "", ".", "..", "../../x", "/etc/passwd", "a/b", "a\\b", "\x00", "a\nb", " x", "x ", "x.", "-rf",
    "~", "x" * 300, "🩻", "é", "e\u0301", "\ud800", "CON:", "%2e%2e", "a//b", "\u202egpj",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_one_plain_component(name: str) -> None:
    safe = layout.safe_name(name)
    assert safe not in ("", ".", "..")
    assert len(safe.encode()) <= 100
    assert all(c.isascii() and (c.isalnum() or c in " ._()+,=@~-") for c in safe)
    assert safe[0] not in " .-"


def test_hostile_names_do_not_meet() -> None:
    assert len({layout.safe_name(name) for name in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("name", ["study01", "Chest CT (2)", "a_b-c.d", "user@site", "x" * 100])
def test_a_plain_name_is_itself(name: str) -> None:
    assert layout.safe_name(name) == name


@given(st.text(max_size=120), st.text(max_size=120))
def test_only_equal_names_give_equal_components(one: str, other: str) -> None:
    assert (layout.safe_name(one) == layout.safe_name(other)) == (one == other)


@given(st.text(max_size=120))
def test_nothing_is_safer_than_a_safe_name_that_is_plain(name: str) -> None:
    safe = layout.safe_name(name)
    assert layout.safe_name(safe) == safe or "~" in safe


def test_a_name_cannot_pose_as_the_safe_form_of_another() -> None:
    victim = layout.safe_name("../x")
    assert layout.safe_name(victim) != victim


@pytest.mark.parametrize(
    ("index", "name"), [(0, "A"), (25, "Z"), (26, "AA"), (27, "AB"), (701, "ZZ"), (702, "AAA")]
)
def test_unnamed_series_are_counted_in_letters(index: int, name: str) -> None:
    assert layout.letters(index) == name


def test_duplicate_series_names_get_a_number_and_never_meet() -> None:
    assert layout.series_names(["x", "x", "x_1", "D", None, "  "]) == [
        "x", "x_1", "x_1_1", "D", "E", "F",
    ]  # fmt: skip
    assert layout.series_names([None, None, "A", "D"]) == ["A", "B", "A_1", "D"]
    assert layout.series_names(["B", None]) == ["B", "B_1"]


@given(st.lists(st.one_of(st.none(), st.sampled_from(["a", "a_1", "A", "", "../a"])), max_size=12))
def test_series_names_are_always_distinct(names: list[str | None]) -> None:
    given_names = layout.series_names(names)
    assert len(set(given_names)) == len(names)


def test_a_project_cannot_take_a_reserved_place() -> None:
    assert layout.project_key("clinic", "log", unique=True) == "clinic.log"
    assert layout.project_key("clinic", "p1", unique=True) == "p1"
    assert layout.project_key("clinic", "7", unique=False) == "clinic.7"


def test_a_pointer_key_gives_back_its_project_and_task() -> None:
    key = layout.pointer_key("p1", "t1")
    assert key == "p1/tasks/t1/current.json"
    assert layout.task_of_pointer(key) == ("p1", "t1")
    assert layout.task_of_pointer("p1/tasks/t1/revisions/x.json") is None
    assert layout.task_of_pointer("p1/tasks.json") is None
