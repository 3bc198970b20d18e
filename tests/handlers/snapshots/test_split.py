"""The parts of a data set: stable, as large as wanted, and never parting a patient."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import Permanent
from handlers.snapshots.split import LOOKED_AT, Split

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
PATIENT = r"^(\w+)-"
KNOWN = ["train", "validation", "train", "test", "train", "train", "train", "validation", "test",
         "train", "train", "validation"]  # fmt: skip


def test_the_parts_are_as_large_as_wanted() -> None:
    split = Split(SHARES, b"key")
    counts = Counter(split.part_of("p", f"task-{n}", "") for n in range(20_000))
    for part, share in SHARES.items():
        # Five standard deviations of a binomial count.
        allowed = 5 * (20_000 * share * (1 - share)) ** 0.5
        assert abs(counts[part] - 20_000 * share) < allowed, counts


@given(
    patients=st.lists(st.from_regex(r"\A\w{1,10}\Z"), min_size=1, max_size=5),
    key=st.binary(min_size=1, max_size=40),
)
def test_tasks_of_one_patient_never_part(patients: list[str], key: bytes) -> None:
    split = Split(SHARES, key, PATIENT)
    for patient in patients:
        parts = {
            split.part_of(project, f"task-{n}", f"{patient}-scan{n}")
            for n in range(20)
            for project in ("p", "q")
        }
        assert len(parts) == 1


def test_without_a_patient_in_its_name_each_task_stands_for_itself() -> None:
    split = Split(SHARES, b"key", PATIENT)
    parts = {split.part_of("p", f"task-{n}", "no patient") for n in range(100)}
    assert parts == set(SHARES)


def test_equal_tasks_of_two_projects_are_two_tasks() -> None:
    split = Split({"a": 0.5, "b": 0.5}, b"key")
    pairs = {(split.part_of("p", str(n), ""), split.part_of("q", str(n), "")) for n in range(100)}
    assert len(pairs) == 4


def test_a_task_stays_where_it_is_whatever_order_the_shares_are_written_in() -> None:
    one = Split(SHARES, b"key")
    other = Split(dict(reversed(SHARES.items())), b"key")
    assert all(one.part_of("p", str(n), "") == other.part_of("p", str(n), "") for n in range(500))


def test_another_key_parts_otherwise() -> None:
    one, other = Split(SHARES, b"key"), Split(SHARES, b"another")
    assert any(one.part_of("p", str(n), "") != other.part_of("p", str(n), "") for n in range(100))
    assert one.settings.key_id != other.settings.key_id
    assert "key" not in one.settings.key_id


def test_the_parts_of_known_tasks_never_change() -> None:
    """What was trained on must not become test data with another version."""
    split = Split(SHARES, b"key", PATIENT)
    found = [split.part_of("p", f"task-{n}", f"patient{n}-a") for n in range(12)]
    assert found == KNOWN


def test_no_more_of_a_name_is_looked_at_than_its_limit() -> None:
    split = Split({"a": 0.5, "b": 0.5}, b"key", r"(\d+)$")
    far = {split.part_of("p", "t", "x" * LOOKED_AT + str(n)) for n in range(50)}
    near = {split.part_of("p", "t", "x" * (LOOKED_AT - 2) + str(10 + n)) for n in range(50)}
    assert (len(far), len(near)) == (1, 2)


def test_a_part_with_no_share_gets_nothing() -> None:
    split = Split({"train": 1.0, "test": 0.0}, b"key")
    assert {split.part_of("p", str(n), "") for n in range(200)} == {"train"}


@pytest.mark.parametrize(
    ("shares", "patient"),
    [
        ({"a": 0.5}, ""),
        ({"a": 1.5, "b": -0.5}, ""),
        ({"a": 0.0}, ""),
        ({"a": 1.0}, "("),
        ({"a": 1.0}, "x"),
        ({"a": 1.0}, "(x)(y)"),
    ],
)
def test_a_split_that_is_none_is_refused(shares: dict[str, float], patient: str) -> None:
    with pytest.raises(Permanent) as raised:
        Split(shares, b"key", patient)
    assert raised.value.reason == "bad-split"
