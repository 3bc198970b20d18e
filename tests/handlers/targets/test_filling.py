"""Templates: no value leaves the place that it was given."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.targets.filling import fill_header, fill_json, fill_text, fill_url
from tests.handlers.targets.peers import TRIGGER

FIELDS = TRIGGER.fields()


@given(st.text())
def test_in_a_json_string_a_value_is_that_text_whatever_it_holds(value: str) -> None:
    filled = fill_json('{"a": "<$reason>", "b": "\\"${reason}"}', {**FIELDS, "reason": value})
    assert json.loads(filled) == {"a": f"<{value}>", "b": f'"{value}'}


@given(st.text())
def test_outside_of_a_string_a_text_becomes_one(value: str) -> None:
    assert json.loads(fill_json('{"a": $reason}', {**FIELDS, "reason": value})) == {"a": value}


def test_outside_of_a_string_the_event_is_an_object_and_counts_are_numbers() -> None:
    filled = json.loads(fill_json('{"event": $event, "n": [$tasks, $log_size]}', FIELDS))
    assert filled == {"event": TRIGGER.event(), "n": [640, 12345]}


def test_in_a_string_the_event_is_its_json_as_text() -> None:
    filled = json.loads(fill_json('{"event": "$event"}', FIELDS))
    assert json.loads(filled["event"]) == TRIGGER.event()


def test_a_quote_that_is_escaped_does_not_end_a_string() -> None:
    filled = fill_json('{"a": "\\\\\\" $tasks \\\\", "b": $tasks}', FIELDS)
    assert json.loads(filled) == {"a": '\\" 640 \\', "b": 640}


def test_two_dollars_are_one() -> None:
    assert json.loads(fill_json('"$$key costs 5$$"', FIELDS)) == "$key costs 5$"
    assert fill_text("$$$key", FIELDS) == f"${TRIGGER.key}"


@pytest.mark.parametrize("template", ["", "$event,", '{"a": "$key}', "{a: $key}", "[" * 100_000])
def test_what_is_not_json_once_it_is_filled_in_is_a_mistake(template: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        fill_json(template, FIELDS)


@given(st.text(st.characters(codec="utf-8")))
def test_in_a_url_a_value_stays_in_its_segment_or_parameter(value: str) -> None:
    url = fill_url("https://h/a/$reason/b?c=$reason&d=1", {**FIELDS, "reason": value})
    parts = urlsplit(url)
    assert (parts.hostname, parts.fragment) == ("h", "")
    assert [unquote(one) for one in parts.path.split("/")] == ["", "a", value, "b"]
    assert parse_qs(parts.query, keep_blank_values=True) == {"c": [value], "d": ["1"]}


@given(st.text())
def test_a_header_stays_one_line(value: str) -> None:
    filled = fill_header("x $reason", {**FIELDS, "reason": value})
    assert filled.isprintable()
    assert len(filled.splitlines()) == 1


def test_a_header_that_needs_no_change_is_as_it_was_written() -> None:
    assert fill_header("train; key=$key", FIELDS) == f"train; key={TRIGGER.key}"
