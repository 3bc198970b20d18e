"""The platform's own clock, and how long it wants to be left alone."""

from __future__ import annotations

import pytest

from consumer.errors import Transient
from consumer.platforms.headers import clock_of, http_date, wait_s
from tests.faults.platform_peers import KINDS, OUR_NOW, peer

kinds = pytest.mark.parametrize("kind", KINDS)

GARBLED = [
    "", "soon", "0", "2026-01-05T09:00:00Z", "Mon, 32 Jan 2026 09:00:00 GMT",
    "Mon, 05 Jan 2026 09:00:00", "Mon, 05 Jan 2026 09:00:00 +0100", "Mon, 05 Jan 0026 09:00:00 GMT",
    "Mon, 05 Foo 2026 09:00:00 GMT", "Mon, 05 Jan 2026 24:00:00 GMT", "Mon, 05 Jan 2026 09:00 GMT",
    "Mon, 05 Jan 2026 09:00:00 GMT, Mon, 05 Jan 2026 09:00:00 GMT", "x" * 8000,
    "Mon, ٠٥ Jan 2026 09:00:00 GMT",
]  # fmt: skip


def test_a_date_is_told_as_a_timestamp() -> None:
    told = clock_of({"Date": "Mon, 05 Jan 2026 09:08:07 GMT"})
    assert told == "2026-01-05T09:08:07.000000Z"


def test_a_leap_second_is_no_later_than_it_was() -> None:
    told = clock_of({"Date": "Sat, 31 Dec 2016 23:59:60 GMT"})
    assert told == "2016-12-31T23:59:59.000000Z"


@pytest.mark.parametrize("text", GARBLED)
def test_a_garbled_date_is_no_time(text: str) -> None:
    with pytest.raises(Transient) as raised:
        clock_of({"Date": text})
    assert raised.value.reason == "platform-clock"
    with pytest.raises(Transient):
        clock_of({})


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("Mon, 05 Jan 2026 09:00:30 GMT", 30.0),
        ("Mon, 05 Jan 2026 08:00:00 GMT", 0.0),
        ("Mon, 05 Jan 2099 09:00:00 GMT", 3600.0),
        ("17", 17.0),
        ("9" * 5000, 3600.0),
        ("soon", None),
        ("-3", None),
    ],
)
def test_a_wait_until_a_date_is_counted_by_the_platform_s_clock(
    until: str, seconds: float | None
) -> None:
    headers = {"Date": "Mon, 05 Jan 2026 09:00:00 GMT", "Retry-After": until}
    assert wait_s(headers) == seconds


def test_a_wait_until_a_date_by_no_clock_is_counted_by_ours() -> None:
    assert wait_s({"Retry-After": "Mon, 05 Jan 2009 09:00:30 GMT", "Date": "?"}) == 0.0
    assert http_date("?") is None


@kinds
async def test_now_is_the_platform_s_time_whatever_ours_is(kind: str) -> None:
    async with peer(kind) as platform:
        platform.simulated.told_date = "Tue, 01 Jan 2030 00:00:07 GMT"
        assert await platform.platform.now() == "2030-01-01T00:00:07.000000Z"
        platform.simulated.told_date = "Wed, 01 Jan 1975 00:00:07 GMT"
        assert await platform.platform.now() == "1975-01-01T00:00:07.000000Z"
        platform.simulated.told_date = None
        assert not (await platform.platform.now()).startswith(f"{OUR_NOW.year}-")


@kinds
async def test_now_is_never_later_than_what_happens_next(kind: str) -> None:
    async with peer(kind) as platform:
        for _ in range(3):
            now = await platform.platform.now()
            task = platform.create()
            assert now <= ((await platform.snapshot(task)).active_at or "")


@kinds
@pytest.mark.parametrize("told", ["", "yesterday", "Mon, 05 Jan 2026 09:00:00"])
async def test_a_platform_that_does_not_say_what_time_it_is_is_an_error(
    kind: str, told: str
) -> None:
    async with peer(kind) as platform:
        platform.simulated.told_date = told
        with pytest.raises(Transient) as raised:
            await platform.platform.now()
        assert raised.value.reason == "platform-clock"
        assert await platform.snapshot(platform.create())  # which needs no clock
