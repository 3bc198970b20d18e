"""Floods of what is refused: who must wait, who never does, and what is written about it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import ip_network

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from consumer.crowd import Crowd
from consumer.errors import Transient
from consumer.limits import Failures, Sample
from consumer.receive import INLINE_BYTES, SMALL_BYTES
from tests.consumer.receive_house import TOKEN, House, Make, houses, until
from tests.fakes_clock import Seconds

PROXIES = (ip_network("127.0.0.0/8"),)


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    async with houses() as made:
        yield made


async def bad(house: House, *, sender: str = "", **headers: str) -> int:
    forwarded = {"x_forwarded_for": sender} if sender else {}
    return (await house.post(x_token="wrong", **forwarded, **headers))[0]


async def good(house: House, sender: str = "") -> int:
    forwarded = {"x_forwarded_for": sender} if sender else {}
    return (await house.post(**forwarded))[0]


async def test_an_address_over_its_budget_gets_429_and_when_to_come_again(make: Make) -> None:
    house = await make(failures=Failures(3, 100, Seconds()))
    assert [await bad(house) for _ in range(5)] == [401, 401, 401, 429, 429]
    status, answer, headers = await house.post(x_token="wrong")
    assert (status, answer["error"], headers["Retry-After"]) == (429, "flood-address", "20")
    assert house.refusals("flood-address") == 3


async def test_a_flood_of_large_bodies_is_refused_before_they_are_read(make: Make) -> None:
    house = await make(failures=Failures(1, 100, Seconds()))
    await bad(house)
    head = (
        b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 99999\r\n\r\n"
    )
    assert (await house.raw(head, until_closed=False)).startswith(b"HTTP/1.1 429")


async def test_who_floods_us_does_not_keep_out_a_platform_behind_the_same_proxy(
    make: Make,
) -> None:
    """Nothing good has come through it yet, as after each start."""
    house = await make(failures=Failures(2, 2, Seconds()))
    assert [await bad(house) for _ in range(4)] == [401, 401, 429, 429]
    assert await good(house) == 202


async def test_a_large_body_of_unknown_length_is_not_read_to_its_end_in_a_flood(
    make: Make,
) -> None:
    house = await make(failures=Failures(1, 100, Seconds()))
    await bad(house)
    head = b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    assert (await house.raw(head + 3 * part, until_closed=False)).startswith(b"HTTP/1.1 429")


async def test_a_good_request_is_taken_from_an_address_within_its_budget_and_ever_after(
    make: Make,
) -> None:
    house = await make(failures=Failures(3, 100, Seconds()))
    assert [await bad(house), await bad(house), await good(house)] == [401, 401, 202]
    assert {await bad(house) for _ in range(20)} == {401}
    assert await good(house) == 202


async def test_behind_a_trusted_proxy_each_sender_has_a_budget_of_his_own(make: Make) -> None:
    house = await make(failures=Failures(2, 100, Seconds()), trusted_proxies=PROXIES)
    for _ in range(3):
        await bad(house, sender="203.0.113.1")
    assert await bad(house, sender="203.0.113.1") == 429
    assert await good(house, sender="203.0.113.2") == 202


async def test_what_a_sender_says_of_himself_gives_him_no_budget_of_his_own(make: Make) -> None:
    house = await make(failures=Failures(2, 100, Seconds()), trusted_proxies=PROXIES)
    statuses = [await bad(house, sender=f"10.0.0.{n}, 203.0.113.1") for n in range(4)]
    assert statuses == [401, 401, 429, 429]


async def test_without_trusted_proxies_nobody_picks_his_own_address(make: Make) -> None:
    house = await make(failures=Failures(2, 100, Seconds()))
    assert [await bad(house, sender=f"203.0.113.{n}") for n in range(4)] == [401, 401, 429, 429]


async def test_a_proxy_that_nobody_listed_carries_good_and_bad_alike(make: Make) -> None:
    house = await make(failures=Failures(2, 2, Seconds()))
    assert await good(house, "203.0.113.1") == 202
    assert {await bad(house, sender="203.0.113.9") for _ in range(9)} == {401}
    assert await good(house, "203.0.113.1") == 202


async def test_one_network_of_ipv6_is_one_sender(make: Make) -> None:
    house = await make(failures=Failures(2, 100, Seconds()), trusted_proxies=PROXIES)
    statuses = [await bad(house, sender=f"2001:db8:0:1::{n}") for n in range(4)]
    assert statuses == [401, 401, 429, 429]
    assert await bad(house, sender="2001:db8:0:2::1") == 401


async def test_many_addresses_use_up_their_source_but_not_who_is_known(make: Make) -> None:
    house = await make(failures=Failures(100, 5, Seconds()), trusted_proxies=PROXIES)
    assert await good(house, "198.51.100.1") == 202
    statuses = [await bad(house, sender=f"203.0.113.{n}") for n in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    assert await good(house, "198.51.100.1") == 202
    assert await good(house, "198.51.100.2") == 202
    large = json.dumps(["x" * (SMALL_BYTES + 1)]).encode()
    assert (await house.post(large, x_forwarded_for="198.51.100.3"))[0] == 429


async def test_an_address_with_a_port_is_that_address(make: Make) -> None:
    house = await make(trusted_proxies=PROXIES)
    with capture_logs() as lines:
        await bad(house, sender="203.0.113.1:4711")
        await bad(house, sender="[2001:db8::1]:4711")
    assert [line["remote"] for line in lines] == ["203.0.113.1", "2001:db8::1"]


async def test_no_text_of_a_sender_stands_in_a_log_line(make: Make) -> None:
    house = await make(trusted_proxies=PROXIES)
    with capture_logs() as lines:
        await bad(house, sender="fe80::1%mark-one")
        await bad(house, sender="mark-two")
        await house.post(path="/hooks/mark-three?x=mark-four", x_mark_five="mark-six")
        await house.post(b'"mark-seven')
        await house.raw(b"GET /mark-eight HTTP/mark-nine\r\n\r\n")
    assert len(lines) == 5
    assert "mark" not in repr(lines)


async def test_what_is_no_request_counts_as_well(make: Make) -> None:
    house = await make(failures=Failures(3, 100, Seconds()))
    for _ in range(3):
        assert (await house.raw(b"nonsense\r\n\r\n")).split()[1] == b"400"
    assert await bad(house) == 429
    assert house.refusals("request-malformed", "unknown") == 3


async def test_a_503_is_nobodys_fault(make: Make) -> None:
    house = await make(failures=Failures(2, 100, Seconds()))
    for _ in range(5):
        assert (await house.post(b'"crash"'))[0] == 503
    assert await bad(house) == 401


async def test_a_flood_writes_few_log_lines_and_each_refusal_is_counted(make: Make) -> None:
    now = Seconds()
    house = await make(failures=Failures(10**6, 10**6, now), lines=Sample(5, now))
    with capture_logs() as lines:
        for _ in range(50):
            await bad(house)
        now.at += 1
        await bad(house)
    assert len(lines) == 6
    assert lines[-1]["left_out"] == 45
    assert house.refusals("bad-token") == 51


async def test_who_asks_whether_to_send_and_goes_leaves_no_trace_of_our_code_in_the_log(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """What aiohttp logs by itself is under no limit."""
    house = await make()
    asks = (
        b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
    )
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(asks * 9)  # more than may be asked ahead: the connection is ended at once
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
    assert await good(house) == 202
    assert house.refusals("connection-broken", "unknown") == 5
    assert [record.name for record in caplog.records if record.exc_info] == []


async def test_bodies_that_never_end_make_no_good_webhook_wait(make: Make) -> None:
    house = await make(crowd=Crowd(100, 1 << 20))
    head = b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    dripping = []
    for _ in range(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(head + bytes(60_000))
        dripping.append((reader, writer))
    await until(lambda: house.refusals("memory-crowded") >= 10)
    assert await good(house) == 202
    lines = [asyncio.create_task(reader.readline()) for reader, _ in dripping]
    done, waiting = await asyncio.wait(lines, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert {task.result()[:12] for task in done} == {b"HTTP/1.1 503"}
    for task in waiting:
        task.cancel()
    for _, writer in dripping:
        writer.close()


@pytest.mark.parametrize("turns", range(8))
async def test_who_is_let_go_before_his_body_is_looked_at_is_no_defect_of_ours(
    make: Make, turns: int
) -> None:
    """However many turns of the loop lie between another's arrival and what he asks."""
    crowd = Crowd(1)
    house = await make(crowd=crowd)
    one, other = socket.create_connection(("127.0.0.1", house.port)), socket.socket()
    await until(lambda: len(crowd) == 1)
    other.connect(("127.0.0.1", house.port))
    for _ in range(turns):
        await asyncio.sleep(0)
    one.send(b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[")
    for _ in range(20):
        await asyncio.sleep(0)
    for each in (one, other):
        each.close()
    assert await good(house) == 202
    assert house.refusals("internal-error") == 0


async def test_a_repeated_request_is_answered_alike_and_queued_once(make: Make) -> None:
    house = await make()
    first = await house.post(b'["now:t1"]')
    again = await house.post(b'["now:t1"]')
    assert (first[:2], again[:2]) == ((202, {"accepted": 1}), (202, {"accepted": 1}))
    assert len(house.queue.puts) == 1


async def test_a_repeated_request_is_queued_again_once_the_queue_may_have_lost_it(
    make: Make,
) -> None:
    house = await make()
    assert (await house.post(b'["now:t1"]'))[0] == 202
    house.queue.failing = Transient("queue-unroutable")
    assert (await house.post(b'["now:t1"]'))[0] == 503
    house.queue.failing = None
    assert (await house.post(b'["now:t1"]'))[0] == 202
    assert len(house.queue.messages("export")) == 2


async def test_what_could_not_be_queued_is_queued_when_it_comes_again(make: Make) -> None:
    house = await make()
    house.queue.failing = Transient("queue-unavailable")
    assert (await house.post(b'["now:t1"]'))[0] == 503
    house.queue.failing = None
    assert (await house.post(b'["now:t1"]'))[0] == 202
    assert [message.task for message in house.queue.messages("export")] == ["now:t1"]


async def test_a_large_body_is_understood_beside_the_loop(make: Make) -> None:
    house = await make()
    tasks = [f"task-{n}-{'x' * 50}" for n in range(1000)]
    body = json.dumps(tasks).encode()
    assert len(body) > INLINE_BYTES
    assert (await house.post(body))[:2] == (202, {"accepted": 1000})
    assert [message.task for message in house.queue.messages("export")] == tasks
    assert TOKEN not in repr(house.queue.puts)
