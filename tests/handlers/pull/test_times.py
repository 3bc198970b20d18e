"""Dates as people write them: UTC if unsaid, and an end includes what it names."""

from __future__ import annotations

import pytest

from handlers.pull.times import moment


@pytest.mark.parametrize(
    ("text", "start", "last"),
    [
        ("2022-10-04", "2022-10-04T00:00:00.000000Z", "2022-10-04T23:59:59.999999Z"),
        ("2022-10-04 12:30:00", "2022-10-04T12:30:00.000000Z", "2022-10-04T12:30:00.999999Z"),
        ("2022-10-04T12:30", "2022-10-04T12:30:00.000000Z", "2022-10-04T12:30:59.999999Z"),
        ("2022-10-04T12", "2022-10-04T12:00:00.000000Z", "2022-10-04T12:59:59.999999Z"),
        ("2022-10-04T12:30:00Z", "2022-10-04T12:30:00.000000Z", "2022-10-04T12:30:00.999999Z"),
        ("2022-10-04T12:30:00.25Z", "2022-10-04T12:30:00.250000Z", "2022-10-04T12:30:00.250000Z"),
        ("2023-05-23T14:30:00+0530", "2023-05-23T09:00:00.000000Z", "2023-05-23T09:00:00.999999Z"),
        ("2023-05-23T14:30:00-05:30", "2023-05-23T20:00:00.000000Z", "2023-05-23T20:00:00.999999Z"),
        (" 2022-10-04 ", "2022-10-04T00:00:00.000000Z", "2022-10-04T23:59:59.999999Z"),
    ],
)
def test_a_moment_is_understood(text: str, start: str, last: str) -> None:
    assert moment(text, end=False) == start
    assert moment(text, end=True) == last


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2022-13-01", "04.10.2022", "2022-10-04 25:00:00",
     "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "2" * 10_000, "2022-10-04\x00"],
)  # fmt: skip
def test_what_is_no_date_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="is no date: write YYYY-MM-DD"):
        moment(text, end=False)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(ValueError, match="no date") as raised:
        moment("2" * 10_000, end=True)
    assert len(str(raised.value)) < 200
