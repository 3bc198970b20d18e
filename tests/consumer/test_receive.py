"""The receiver over a real socket: what each request gets, and that a 202 means durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from consumer.errors import Permanent, Transient
from consumer.gather import Gatherer
from consumer.receive import Limits
from tests.consumer.receive_house import EXPORT, TOKEN, House, Make, event, houses, until
from tests.fakes_queue import FakeQueue


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    async with houses() as made:
        yield made


@pytest_asyncio.fixture
async def house(make: Make) -> House:
    return await make()


async def test_a_verified_webhook_is_in_every_lane_before_its_202(house: House) -> None:
    status, answer, _ = await house.post(b'["t1", "t2"]')
    assert (status, answer) == (202, {"accepted": 2})
    assert house.queue.messages("export") == [event("t1"), event("t2")]
    assert house.queue.messages("audit") == [event("t1"), event("t2")]


async def test_no_202_leaves_before_the_queue_has_confirmed(house: House) -> None:
    house.queue.holding.clear()
    asked = asyncio.create_task(house.post())
    await until(lambda: house.queue.entering == 1)
    done, _ = await asyncio.wait({asked}, timeout=0.1)
    assert not done
    house.queue.holding.set()
    assert (await asked)[0] == 202


async def test_a_webhook_about_no_task_is_accepted_and_nothing_is_queued(house: House) -> None:
    status, answer, _ = await house.post(b"[]")
    assert (status, answer) == (202, {"accepted": 0})
    assert house.queue.puts == []


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "\u00e9\u00fc", "a" * 5000])
async def test_a_wrong_token_gets_401_and_nothing_is_queued(house: House, token: str) -> None:
    status, answer, _ = await house.post(x_token=token)
    assert (status, answer["error"]) == (401, "bad-token")
    assert house.queue.puts == []
    assert house.refusals("bad-token") == 1


async def test_a_refusal_is_one_log_line_without_secret_and_query(house: House) -> None:
    with capture_logs() as lines:
        status, _, _ = await house.post(path=f"/hooks/lab?token={TOKEN}x", x_token="")
    assert status == 401
    assert [(line["source"], line["reason"]) for line in lines] == [("lab", "bad-token")]
    assert TOKEN not in repr(lines)


async def test_a_token_in_the_url_is_enough(house: House) -> None:
    status, _, _ = await house.post(path=f"/hooks/lab?token={TOKEN}", x_token="")
    assert status == 202


async def test_a_token_sent_twice_is_no_token(house: House) -> None:
    status, _, _ = await house.post(path=f"/hooks/lab?token={TOKEN}&token=x", x_token="")
    assert status == 401


async def test_a_header_sent_twice_is_joined_so_that_it_matches_nothing(house: House) -> None:
    head = f"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nX-Token: {TOKEN}\r\nx-token: {TOKEN}\r\n"
    answer = await house.raw(head.encode() + b"Connection: close\r\nContent-Length: 2\r\n\r\n[]")
    assert answer.startswith(b"HTTP/1.1 401")


async def test_an_unknown_source_gets_404_and_becomes_no_label(house: House) -> None:
    status, answer, _ = await house.post(path="/hooks/other")
    assert (status, answer["error"]) == (404, "unknown-source")
    assert house.refusals("unknown-source", "unknown") == 1
    assert b"other" not in house.metrics.render().replace(b'reason="other"', b"")


@pytest.mark.parametrize("path", ["/", "/hooks", "/hooks/", "/hooks/lab/more", "/metrics"])
async def test_nothing_else_is_here(house: House, path: str) -> None:
    assert (await house.post(path=path))[0] == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_another_method_gets_405(house: House, method: str) -> None:
    url = f"http://127.0.0.1:{house.port}/hooks/lab"
    async with house.http.request(method, url) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"


async def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(make: Make) -> None:
    house = await make(limits=Limits(body_bytes=100))
    assert (await house.post(b'["%s"]' % (b"x" * 96)))[0] == 202
    assert (await house.post(b'["%s"]' % (b"x" * 97)))[0] == 413


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(house: House) -> None:
    head = b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    answer = await house.raw(head, until_closed=False)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in answer  # what follows is no next request


async def test_a_chunked_body_over_the_limit_is_refused(make: Make) -> None:
    house = await make(limits=Limits(body_bytes=100))
    head = b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await house.raw(head, b"65\r\n" + b"x" * 101 + b"\r\n", until_closed=False)
    assert answer.startswith(b"HTTP/1.1 413")
    assert house.queue.puts == []


@pytest.mark.parametrize(
    "encoding", ["gzip", "deflate", "br", "identity, gzip", "zstd", "nonsense"]
)
async def test_a_compressed_body_gets_415_before_it_is_sent(house: House, encoding: str) -> None:
    head = (
        f"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nContent-Encoding: {encoding}\r\n"
        "Content-Length: 100000\r\n\r\n"
    )
    answer = await house.raw(head.encode(), until_closed=False)
    assert answer.startswith(b"HTTP/1.1 415")


async def test_the_identity_encoding_is_none(house: House) -> None:
    assert (await house.post(content_encoding="identity"))[0] == 202


async def test_what_is_refused_by_its_head_is_never_told_to_continue(house: House) -> None:
    head = (
        b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 99999999\r\n\r\n"
    )
    answer = await house.raw(head, until_closed=False)
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_connection_whose_expectation_is_refused_ends(house: House) -> None:
    head = b"POST /hooks/other HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n"
    assert (await house.raw(head)).startswith(b"HTTP/1.1 404")  # `raw` reads until it is closed


async def test_who_asks_whether_to_continue_is_told_so(house: House) -> None:
    head = (
        f"POST /hooks/lab?token={TOKEN} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        "Connection: close\r\nContent-Length: 6\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 100")
    writer.write(b'["t1"]')
    assert b"202 Accepted" in await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_another_expectation_gets_417(house: House) -> None:
    head = b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nExpect: money\r\nContent-Length: 2\r\n\r\n"
    assert (await house.raw(head, until_closed=False)).startswith(b"HTTP/1.1 417")


async def test_what_cannot_be_understood_gets_422_with_a_short_reason(house: House) -> None:
    status, answer, _ = await house.post(b"{not json")
    assert status == 422
    assert answer == {"error": "not-json", "message": "the body is not JSON"}


async def test_a_slow_body_gets_408(make: Make) -> None:
    house = await make(limits=Limits(body_timeout_s=0.1))
    head = b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    answer = await house.raw(head, b"[")
    assert answer.startswith(b"HTTP/1.1 408")
    assert house.refusals("body-timeout") == 1


async def test_a_body_that_breaks_off_is_no_webhook(house: House) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    head = f"POST /hooks/lab?token={TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + b'["t1"]')
    await writer.drain()
    writer.close()
    await until(lambda: house.refusals("body-broken") == 1)
    assert house.queue.puts == []


async def test_a_chunk_that_is_none_is_no_webhook(house: House) -> None:
    head = (
        f"POST /hooks/lab?token={TOKEN} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = await house.raw(head.encode(), b"zz\r\n", until_closed=False)
    assert answer.split()[1] == b"400"
    assert house.queue.puts == []


@pytest.mark.parametrize(
    "begun", [b"", b"POST /hooks/lab HT", b"POST / HTTP/1.1\r\nHost: x\r\nA: "]
)
async def test_a_connection_that_asks_nothing_in_time_is_closed(make: Make, begun: bytes) -> None:
    house = await make(header_timeout_s=0.1)
    assert await house.raw(begun) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST /hooks/lab?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /hooks/lab HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"POST /hooks/lab HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
        b"POST /hooks/lab HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n[]",
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_head_beyond_the_limits_or_ambiguous_gets_400(house: House, head: bytes) -> None:
    assert (await house.raw(head, until_closed=False)).split()[1] == b"400"
    assert house.queue.puts == []


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (
            b"POST /hooks/lab?token=\xc3\xa9\xff" + TOKEN.encode() + b" HTTP/1.1\r\n\r\n",
            "malformed",
        ),
        (b"P\x00ST /hooks/lab?token=" + TOKEN.encode() + b" HTTP/1.1\r\n\r\n", "malformed"),
        (b"POST /hooks/lab HTTP/1.1\r\nx token: " + TOKEN.encode() + b"\r\n\r\n", "malformed"),
        (b"POST /hooks/lab?token=" + TOKEN.encode() * 900 + b" HTTP/1.1\r\n\r\n", "too-long"),
    ],
)
async def test_what_is_no_request_is_one_log_line_and_repeated_to_nobody(
    house: House, head: bytes, reason: str
) -> None:
    with capture_logs() as lines:
        answer = await house.raw(head)
    assert answer.split()[1] == b"400"
    assert [(line["event"], line["reason"]) for line in lines] == [("refused", f"request-{reason}")]
    assert TOKEN not in answer.decode() + repr(lines)


async def test_a_queue_that_fails_gets_503_and_when_to_try_again(house: House) -> None:
    house.queue.failing = Transient("lane-missing", "lane export is missing", after_s=7)
    status, answer, headers = await house.post()
    assert (status, headers["Retry-After"]) == (503, "7")
    assert answer == {"error": "lane-missing", "message": "try again later"}


async def test_a_queue_that_must_be_mended_gets_503_too(house: House) -> None:
    house.queue.failing = Permanent("queue-mismatch", "the queue is not ours")
    status, _, headers = await house.post()
    assert (status, headers["Retry-After"]) == (503, "5")


async def test_a_queue_that_is_too_slow_gets_503(make: Make) -> None:
    house = await make(put_timeout_s=0.1)
    house.queue.holding.clear()
    status, answer, headers = await house.post()
    assert (status, answer["error"]) == (503, "queue-timeout")
    assert "Retry-After" in headers


async def test_a_defect_of_ours_gets_503_so_that_the_sender_keeps_it(house: House) -> None:
    status, answer, _ = await house.post(b'"crash"')
    assert (status, answer["error"]) == (503, "internal-error")


async def test_requests_that_come_together_are_put_together() -> None:
    queue = FakeQueue([EXPORT])
    await queue.open()
    queue.holding.clear()
    gatherer = Gatherer(queue)
    first = asyncio.create_task(gatherer.put([event("first")]))
    await until(lambda: queue.entering == 1)
    rest = [asyncio.create_task(gatherer.put([event(str(n))])) for n in range(20)]
    await until(lambda: queue.entering == 2)
    queue.holding.set()
    await asyncio.gather(first, *rest)
    assert [len(put) for put in queue.puts] == [1, 20]


async def test_many_webhooks_at_once_are_each_kept(house: House) -> None:
    answers = await asyncio.gather(*(house.post(b'["t%d"]' % n) for n in range(50)))
    assert {status for status, _, _ in answers} == {202}
    kept = {message.id for message in house.queue.messages("export")}
    assert kept == {f"id-t{n}" for n in range(50)}


async def test_what_nobody_waits_for_any_longer_is_not_put(make: Make) -> None:
    queue = FakeQueue([EXPORT])
    await queue.open()
    queue.holding.clear()
    gatherer = Gatherer(queue, at_once=1)
    first = asyncio.create_task(gatherer.put([event("a")]))
    await until(lambda: queue.entering == 1)
    second = asyncio.create_task(gatherer.put([event("b")]))
    await asyncio.wait({second}, timeout=0.05)
    second.cancel()
    queue.holding.set()
    await first
    await gatherer.put([event("c")])
    assert [m.id for put in queue.puts for m in put] == ["id-a", "id-c"]


async def test_too_many_waiting_events_are_refused_at_once() -> None:
    queue = FakeQueue([EXPORT])
    with pytest.raises(Transient) as caught:
        await Gatherer(queue, most_waiting=3).put([event(str(n)) for n in range(4)])
    assert caught.value.reason == "queue-overloaded"


async def test_the_sender_behind_trusted_proxies_is_the_last_that_is_none_of_them(
    make: Make,
) -> None:
    trusted = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))
    house = await make(trusted_proxies=trusted)
    with capture_logs() as lines:
        await house.post(x_token="no", x_forwarded_for="1.1.1.1, 203.0.113.9, 10.1.2.3")
    assert lines[0]["remote"] == "203.0.113.9"


async def test_nobody_else_is_believed_where_he_comes_from(house: House) -> None:
    with capture_logs() as lines:
        await house.post(x_token="no", x_forwarded_for="203.0.113.9")
    assert lines[0]["remote"] == "127.0.0.1"


async def test_the_time_of_the_last_webhook_is_a_metric(house: House) -> None:
    await house.post()
    sample = house.metrics.registry.get_sample_value
    assert (sample("groundwire_events_accepted_total", {"source": "lab"}) or 0) == 1
    assert (sample("groundwire_last_webhook_timestamp_seconds", {"source": "lab"}) or 0) > 1e9
