"""Which tasks a pull is of, at the edges of every filter."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.pull.options import Options, mistakes, spoken
from handlers.pull.select import Facts, select, stages
from handlers.pull.times import moment

DAY = "2026-03-01T12:00:00.000000Z"


def facts(**changes: Any) -> Facts:
    told = {"place": "p/tasks/t/", "version": "1", "source": "s", "task": "t", "name": "n",
            "manifest": "m", "active_at": DAY, "labels": ("l",), "created": (DAY,)}  # fmt: skip
    return Facts(**{**told, **changes})


def chosen(task: Facts, **options: Any) -> bool:
    return bool(select([task], Options(**options)).chosen)


def test_without_options_every_task_with_a_revision_is_chosen() -> None:
    assert chosen(facts())
    assert not chosen(facts(manifest=None))


def test_the_ground_truth_is_what_the_pointer_says() -> None:
    assert chosen(facts(ground_truth=True), ground_truth=True)
    assert not chosen(facts(stage="END"), ground_truth=True)


@pytest.mark.parametrize(("at", "wanted"), [
    ("Review_1", True), ("review_1", True), ("Review_10", False), ("Review", False), (None, False),
])  # fmt: skip
def test_a_stage_is_exact_but_for_case(at: str | None, wanted: bool) -> None:
    assert chosen(facts(stage=at), stage="REVIEW_1") is wanted


@pytest.mark.parametrize(("since", "wanted"), [
    (DAY, True), ("2026-03-01T12:00:00.000001Z", False), ("2026-03-01T11:59:59.999999Z", True),
])  # fmt: skip
def test_the_beginning_is_included(since: str, wanted: bool) -> None:
    assert chosen(facts(), since=since) is wanted


@pytest.mark.parametrize(("until", "wanted"), [
    (DAY, True), ("2026-03-01T11:59:59.999999Z", False), ("2026-03-01T12:00:00.000001Z", True),
])  # fmt: skip
def test_the_end_is_included(until: str, wanted: bool) -> None:
    assert chosen(facts(), until=until) is wanted


def test_a_date_as_the_end_includes_its_whole_day() -> None:
    late = facts(active_at="2026-03-01T23:59:59.999999Z")
    assert chosen(late, until=moment("2026-03-01", end=True))
    assert not chosen(late, until=moment("2026-02-28", end=True))


def test_the_filters_are_joined_by_and() -> None:
    task = facts(created=("2026-01-01T00:00:00.000000Z",))
    assert not chosen(task, since=DAY, label_since=DAY)
    assert chosen(task, since=DAY, label_until=DAY)


def test_one_label_must_be_within_both_ends() -> None:
    task = facts(labels=("a", "b"), created=("2026-01-01T0", "2026-05-01T0"))
    assert not chosen(task, label_since="2026-02-01T0", label_until="2026-03-01T0")
    assert chosen(task, label_since="2026-04-01T0", label_until="2026-06-01T0")


def test_a_time_that_nobody_knows_leaves_the_task_out_and_says_so() -> None:
    task = facts(active_at=None)
    found = select([task], Options(since=DAY))
    assert (found.chosen, found.undated) == ([], [task])
    assert select([task], Options(label_since=DAY)).chosen == [task]


def test_a_task_that_is_left_out_anyway_is_not_called_undated() -> None:
    task = facts(active_at=None)
    assert select([task], Options(since=DAY, ground_truth=True)).undated == []
    assert select([task], Options(since=DAY, label_since="2027")).undated == []


def test_a_label_without_a_time_does_not_hide_one_that_has_it() -> None:
    task = facts(labels=("a", "b"), created=(None, DAY))
    assert chosen(task, label_since=DAY)


def test_a_training_set_is_ground_truth_unless_a_stage_is_named() -> None:
    draft = facts(stage="Label")
    assert not chosen(draft, layout="nnunet")
    assert chosen(draft, layout="nnunet", stage="Label")


def test_a_deleted_tasks_stage_is_no_stage() -> None:
    assert stages([facts(stage="A"), facts(stage="B", deleted=True), facts()]) == ["A"]


def test_a_beginning_after_its_end_is_a_mistake() -> None:
    assert len(mistakes(Options(since="2", until="1", label_since="2", label_until="1"))) == 2
    assert mistakes(Options(since="1", until="1")) == []


def test_a_layout_for_training_has_its_own_format() -> None:
    assert mistakes(Options(layout="nnunet", format="png"))
    assert not mistakes(Options(layout="nnunet", format="nifti"))


def test_options_are_spoken_as_they_are_typed() -> None:
    options = Options(ground_truth=True, stage="A", label_since=DAY)
    assert spoken(options) == f"--ground-truth --stage A --label-created-since {DAY}"
