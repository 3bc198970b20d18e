"""Server-sent events as the WHATWG's standard has them, whatever pieces they come in."""

from __future__ import annotations

import collections
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.client import Event, EventParser, StreamMalformed


def parsed(*pieces: bytes) -> list[Event]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def by_the_standard(stream: bytes) -> list[Event]:
    """The standard's algorithm, line by line over the whole text (HTML, 9.2.6)."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    found, data, type_, id_, last = [], "", "", "", ""
    for line in lines:
        if line == "":
            moved, last = id_ != last, id_
            if data:
                found.append(Event(last, type_ or "message", data[:-1]))
            elif moved:
                found.append(Event(last, "", None))
            data, type_ = "", ""
            continue
        if line[0] == ":":
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if name == "data":
            data += value + "\n"
        elif name == "event":
            type_ = value
        elif name == "id" and "\0" not in value:
            id_ = value
    return found


LINES = st.sampled_from(
    ["data", "data:", "data: x", "data:  y", "id: 7", "id:8", "id", "id: 1\0", "event: added", ":c",
     "retry: 10", "other: z", "", "", "data: \u00e9\u2028", "data: \ufeff", "\ufeffdata: q"]
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\r", "\r\n"])
STREAMS = st.builds(
    lambda bom, parts: (bom + "".join(line + end for line, end in parts)).encode(),
    st.sampled_from(["", "\ufeff"]),
    st.lists(st.tuples(LINES, ENDS), max_size=30),
)


@given(STREAMS | st.binary(max_size=60), st.lists(st.integers(0, 600), max_size=20))
def test_wherever_it_is_cut_a_stream_is_what_the_standard_says(
    stream: bytes, cuts: list[int]
) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    assert parsed(*pieces) == by_the_standard(stream)


@given(STREAMS)
def test_byte_by_byte_it_is_the_same(stream: bytes) -> None:
    assert parsed(*(bytes([one]) for one in stream)) == parsed(stream)


def test_several_lines_of_data_are_one_text() -> None:
    assert parsed(b"data: a\ndata:\ndata:b\n\n") == [Event("", "message", "a\n\nb")]


def test_an_event_that_is_not_complete_is_none_and_moves_nothing() -> None:
    parser = EventParser()
    assert not list(parser.feed(b"id: 5\ndata: half"))
    assert parser.last_id == ""


def test_a_block_with_an_id_only_moves_the_place_and_dispatches_nothing() -> None:
    assert parsed(b": still here\nid: 9\n\n") == [Event("9", "", None)]


def test_an_id_stays_until_another_comes() -> None:
    assert [one.id for one in parsed(b"id: 1\ndata: a\n\ndata: b\n\n")] == ["1", "1"]


@pytest.mark.parametrize(
    "flood", [b"data: " + b"x" * 200, b"x" * 200, b"data: xxxxxxxx\n" * 20, b":" * 200 + b"\n"]
)
def test_lines_and_events_have_a_limit(flood: bytes) -> None:
    parser = EventParser(max_bytes=100)
    pieces = (flood[start : start + 7] for start in range(0, len(flood), 7))
    with pytest.raises(StreamMalformed, match="more than 100 bytes"):
        collections.deque((list(parser.feed(piece)) for piece in pieces), maxlen=0)


def test_the_limit_is_of_one_event_not_of_the_stream() -> None:
    parser = EventParser(max_bytes=100)
    assert (
        len([one for _ in range(50) for one in parser.feed(b"data: " + b"x" * 90 + b"\n\n")]) == 50
    )
