"""What outsiders write reaches pointers, manifests and the log short, printable and of its type."""

from __future__ import annotations

import copy
import json
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.demo.redbrick import SeriesSpec, SimulatedRedBrick
from consumer.errors import Permanent, Transient
from consumer.model import Label, Mask, Series, TaskKey, TaskSnapshot, canonical, decode, encode
from consumer.platforms.labelbox import EXPORT_PARAMS
from consumer.platforms.labelbox_rows import snapshot_of
from consumer.platforms.texts import MAX_TEXT, checked, short, sound, time_text, without_queries
from tests.consumer.platforms.redbrick_peer import answer
from tests.samples.labelbox import samples

HALF = chr(0xD83E)  # of a surrogate pair: what cutting an emoji leaves
HOSTILE: list[Any] = [
    "x" * 70_000, "a\nb\x00c", HALF, "\u202egnp.exe", 5, 10**30, True, ["x"], [], {"x": 1},
    None, "",
]  # fmt: skip


@given(st.text(max_size=400))
@example("x" * 70_000)
@example(HALF * 300)
def test_a_short_text_is_printable_and_the_same_again(text: str) -> None:
    made = short(text)
    assert made is None if not text else made is not None
    if made is not None:
        assert made.isprintable()
        assert len(made) <= MAX_TEXT
        assert short(made) == made


def test_what_is_short_and_printable_stays() -> None:
    assert short("Review_1 \u00e4 \U0001f9b4") == "Review_1 \u00e4 \U0001f9b4"


def test_two_long_texts_stay_two() -> None:
    assert short("x" * 1000 + "1") != short("x" * 1000 + "2")


def test_no_text_is_none_and_another_type_is_an_error() -> None:
    assert short(None) is short("") is None
    with pytest.raises(TypeError):
        short(5)


@given(st.text())
def test_a_sound_text_is_itself(text: str) -> None:
    assert sound(text) == text


def test_half_an_emoji_becomes_a_mark() -> None:
    assert sound(f"study {HALF}") == "study \ufffd"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "see https://s3.example/a.dcm?X-Sig=secret and ask",
            "see https://s3.example/a.dcm and ask",
        ),
        ("<a href='HTTPS://s3.example/?sig=secret'>", "<a href='HTTPS://s3.example/'>"),
        ("s3://b/a?secret, gs://b/a?secret#secret", "s3://b/a gs://b/a"),
        ("is it https://s3.example/a or b?", "is it https://s3.example/a or b?"),
        ("why? because://", "why? because://"),
    ],
)
def test_every_url_in_a_text_loses_its_query(text: str, left: str) -> None:
    assert without_queries(text) == left


@pytest.mark.parametrize("text", ["a" * 200_000 + "://", "ab://" * 50_000, "ab://?" * 50_000])
def test_no_text_makes_the_search_for_urls_slow(text: str) -> None:
    began = time.process_time()
    without_queries(text)
    assert time.process_time() - began < 2


def test_a_time_is_told_in_utc() -> None:
    assert time_text(datetime(2026, 1, 2, 3)) == "2026-01-02T03:00:00.000000Z"


@pytest.mark.parametrize("year", [1, 68, 999, 1899])
def test_a_time_that_would_not_sort_is_none(year: int) -> None:
    with pytest.raises(ValueError, match="before"):
        time_text(datetime(year, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 5}, {"name": HALF}, {"ground_truth": "yes"}, {"stage": ["END"]},
        {"labels": (Label(id="l", version=HALF),)},
        {"labels": (Label(id="l", version="1", series=(Series(name=None, masks=(
            Mask(reference="r", kind="png", feature=7),)),)),)},  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_task_of_other_types_than_it_declares_is_found(changes: Any) -> None:
    good = TaskSnapshot(source="s", project="p", task="t", name="n", stage="END", ground_truth=True)
    assert checked(good) is good
    with pytest.raises(ValueError):  # noqa: PT011  # of several texts
        checked(msgspec.structs.replace(good, **changes))


# whole answers


def _fits(seen: TaskSnapshot) -> bool:
    """Whether whatever takes from it can be stored and logged."""
    small = msgspec.structs.replace(seen, document={}, taxonomy={})
    for item in seen.history:
        assert len(canonical(item)) < 4096
    assert seen.stage is None or len(seen.stage) <= MAX_TEXT
    canonical([seen.name, seen.stage, [[s.name for s in one.series] for one in seen.labels]])
    return decode(encode(small), TaskSnapshot) == small


async def test_no_event_of_redbricks_can_be_too_long_for_the_log() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study")
    simulator.assign(task_id, "ben")
    simulator.label(task_id)
    simulator.comment(task_id, "look")
    simulator.approve(task_id)
    events = simulator.task(task_id).events
    good = copy.deepcopy(events)
    places = [
        (number, *path) for number, event in enumerate(good) for path in _paths(event) if path
    ]
    for place in places:
        for hostile in HOSTILE[:4]:
            events[:] = copy.deepcopy(good)
            target: Any = events
            for step in place[:-1]:
                target = target[step]
            target[place[-1]] = hostile
            got = await answer(simulator, task_id)
            assert isinstance(got, Transient | Permanent) or _fits(got), place


@pytest.mark.parametrize("hostile", HOSTILE[:8], ids=lambda value: repr(value)[:20])
async def test_a_task_of_any_name_can_be_stored(hostile: Any) -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task(hostile, [SeriesSpec(name=hostile), SeriesSpec(name=hostile)])
    simulator.label(task_id)
    got = await answer(simulator, task_id)
    if isinstance(hostile, str):
        assert isinstance(got, TaskSnapshot)
        assert _fits(got)
        assert got.document["name"] == hostile  # as it was given
    else:
        assert isinstance(got, Transient)
        assert got.reason == "platform-answer-malformed"


@pytest.mark.parametrize("hostile", [None, "", 5, []])
async def test_a_task_that_stands_at_no_stage_is_malformed_and_not_retracted(hostile: Any) -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study")
    simulator.task(task_id).stage = hostile
    got = await answer(simulator, task_id)
    assert isinstance(got, Transient)
    assert got.reason == "platform-answer-malformed"


@pytest.mark.parametrize("name", list(samples()))
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda value: repr(value)[:20])
def test_no_value_in_a_data_row_can_be_too_long_for_the_log(name: str, hostile: Any) -> None:
    good = samples()[name].current
    (project,) = good["projects"]
    key = TaskKey(source="lb", project=project, task=good["data_row"]["id"])
    for place in _paths(good):
        row = copy.deepcopy(good)
        target: Any = row
        for step in place[:-1]:
            target = target[step]
        target[place[-1]] = hostile
        try:
            seen = snapshot_of(row, key, EXPORT_PARAMS)
        except Permanent as error:
            assert error.reason == "row-unreadable"  # noqa: PT017
        else:
            assert _fits(seen), place


@pytest.mark.parametrize("name", list(samples()))
def test_no_name_in_a_data_row_can_be_too_long_for_the_log(name: str) -> None:
    good = samples()[name].current
    (project,) = good["projects"]
    key = TaskKey(source="lb", project=project, task=good["data_row"]["id"])
    names = {step for path in _paths(good) for step in path if isinstance(step, str)}
    for given_name in sorted(names - {project}):
        for hostile in ("x" * 70_000, HALF, "a\nb"):
            text = json.dumps(good).replace(json.dumps(given_name) + ":", json.dumps(hostile) + ":")
            try:
                seen = snapshot_of(json.loads(text), key, EXPORT_PARAMS)
            except Permanent as error:
                assert error.reason == "row-unreadable"  # noqa: PT017
            else:
                assert _fits(seen), given_name


def _paths(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Of every leaf and every inner value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    if not isinstance(value, dict | list):
        return [at]
    found = [at] if at else []
    for step, one in inner:
        found += _paths(one, (*at, step)) if isinstance(one, dict | list) else [(*at, step)]
    return found
