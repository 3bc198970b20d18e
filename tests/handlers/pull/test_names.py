"""No name leaves the folder, meets another, or means something to a file system."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.errors import Permanent
from handlers import layout
from handlers.pull.names import checked, clashing, distinct, folded, folders
from handlers.pull.select import Facts

HOSTILE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", ".", "..", "../../etc/passwd", "/etc", "a/b", "a\\b", "C:", "con", "CON", "nul.txt",
         "COM1", "lpt9.nii.gz", "study", "Study", "STUDY", "stud\u00fd", "study\u0301", "a.", "a ",
         "~", ".groundwire-pull", "tasks.json", "\x00", "\ud800", "x" * 300, "stra\u00dfe",
         "STRASSE", "K", "\u212a"]
    ),
)  # fmt: skip


def tasks(*names: str) -> list[Facts]:
    return [facts(f"t{number}", name) for number, name in enumerate(names)]


def facts(task: str, name: str, **changes: Any) -> Facts:
    place = f"p/tasks/{layout.safe_name(task)}/"
    return Facts(place=place, version="1", source="s", task=task, name=name, **changes)


@given(st.lists(HOSTILE, max_size=12))
@example(["study", "STUDY", "con", "CON"])
def test_every_task_has_a_safe_folder_of_its_own(names: list[str]) -> None:
    made = list(folders(tasks(*names), by="name").values())
    assert len({unicodedata.normalize("NFD", one).casefold() for one in made}) == len(names)
    for one in made:
        assert one == checked(one)
        assert one.partition(".")[0].casefold() not in {"con", "nul", "com1", "lpt9"}
        assert not one.startswith(".")


@given(st.lists(HOSTILE, max_size=8, unique=True), st.lists(HOSTILE, max_size=8, unique=True))
def test_every_file_of_a_task_has_a_path_of_its_own(labels: list[str], series: list[str]) -> None:
    paths = [
        ("segmentations", "s", layout.safe_name(label), f"{layout.safe_name(one)}.nii.gz")
        for label in labels
        for one in series
    ]
    made = distinct(paths)
    assert len({folded("/".join(path)) for path in made}) == len(paths)
    for path in made:
        assert all(checked(part) for part in path)
        assert path[-1].endswith(".nii.gz")


def test_a_plain_name_is_itself() -> None:
    assert list(folders(tasks("study01", "CT 7 (late)"), by="name").values()) == [
        "study01", "CT 7 (late)"
    ]  # fmt: skip


def test_a_task_whose_name_the_lake_keeps_out_of_paths_goes_by_its_id() -> None:
    there = [facts("t1", "DOE JANE", nameless=True), facts("t2", "study")]
    assert list(folders(there, by="name").values()) == ["t1", "study"]


def test_of_tasks_with_one_name_none_has_it_bare() -> None:
    made = folders(tasks("study", "Study", "other"), by="name").values()
    assert [one[:6] for one in made] == ["study~", "Study~", "other"]


def test_names_hang_neither_on_order_nor_on_other_tasks() -> None:
    there = tasks("study", "study", "other")
    assert folders(there, by="name") == folders(there[::-1], by="name")
    assert folders(there, by="name").items() >= folders(there[:2], by="name").items()


def test_by_id_no_name_is_seen() -> None:
    assert list(folders([facts("id-7", "Jane Doe")], by="id").values()) == ["id-7"]


def test_series_that_differ_in_case_are_two_files() -> None:
    made = distinct([("s", "CT.nii.gz"), ("s", "ct.nii.gz"), ("s", "mr.nii.gz")])
    assert made[2] == ("s", "mr.nii.gz")
    assert len({path[1].casefold() for path in made}) == 3
    assert all(path[1].endswith(".nii.gz") for path in made)


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "a\\b", "a\x00", "a:b", "x" * 256, "a."])
def test_a_manifest_that_names_no_plain_path_is_refused(part: str) -> None:
    with pytest.raises(Permanent) as raised:
        distinct([("segmentations", "s", part)])
    assert raised.value.reason == "path-unsafe"


def test_a_file_in_the_way_of_a_folder_is_found() -> None:
    taken = {folded("a/b")}
    assert clashing(["a/c", "A/B/c"], taken.__contains__) == "A/B/c"
    assert clashing(["a/b", "a/c"], taken.__contains__) is None
