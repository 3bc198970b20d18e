"""The signed webhook, as the stock Standard Webhooks library receives it."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from consumer.errors import GroundwireError, Permanent, Transient
from handlers.targets.call import MAX_ANSWER_BYTES, Caller
from handlers.targets.trigger import Fired
from handlers.targets.webhook import WebhookTarget
from tests.handlers.targets.peers import TRIGGER, a_peer, always, in_turn

KEY, OLD_KEY = bytes(range(32)), bytes(range(100, 124))


def text_of(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def a_webhook(url: str, *keys: bytes, ahead_s: float = 0.0) -> WebhookTarget:
    return WebhookTarget(
        url, keys=keys or (KEY,), timeout_s=10, clock=lambda: time.time() + ahead_s
    )


async def test_the_stock_library_verifies_it_and_reads_the_event() -> None:
    async with a_peer(always(204)) as peer:
        target = a_webhook(peer.url)
        assert await target.fire(TRIGGER) == Fired()
        await target.close()
    (asked,) = peer.asked
    assert Webhook(text_of(KEY)).verify(asked.body, asked.headers) == TRIGGER.event()
    assert asked.method == "POST"
    assert asked.headers["content-type"] == "application/cloudevents+json; charset=utf-8"


async def test_a_retry_has_the_same_id_and_body_and_verifies_anew() -> None:
    async with a_peer(in_turn(always(503), always(200))) as peer:
        first, second = a_webhook(peer.url), a_webhook(peer.url, ahead_s=200)
        with pytest.raises(Transient):
            await first.fire(TRIGGER)
        await second.fire(TRIGGER)
        await first.close()
        await second.close()
    one, two = peer.asked
    assert one.headers["webhook-id"] == two.headers["webhook-id"] == TRIGGER.key
    assert one.body == two.body
    assert int(two.headers["webhook-timestamp"]) - int(one.headers["webhook-timestamp"]) >= 200
    for asked in peer.asked:
        Webhook(text_of(KEY)).verify(asked.body, asked.headers)


async def test_both_secrets_sign_while_receivers_change_over() -> None:
    async with a_peer(always(200)) as peer:
        target = a_webhook(peer.url, KEY, OLD_KEY)
        await target.fire(TRIGGER)
        await target.close()
    (asked,) = peer.asked
    for key in (KEY, OLD_KEY):
        Webhook(text_of(key)).verify(asked.body, asked.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(text_of(bytes(32))).verify(asked.body, asked.headers)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "body"])
async def test_nothing_that_is_signed_can_be_exchanged(name: str) -> None:
    async with a_peer(always(200)) as peer:
        target = a_webhook(peer.url)
        await target.fire(TRIGGER)
        await target.close()
    (asked,) = peer.asked
    body, headers = asked.body, asked.headers
    if name == "body":
        body = body.replace(b"640", b"641")
    else:
        headers = {**headers, name: headers[name][:-1] + ("0" if headers[name][-1] != "0" else "1")}
    with pytest.raises(WebhookVerificationError):
        Webhook(text_of(KEY)).verify(body, headers)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_means_that_it_began(status: int) -> None:
    async with a_peer(always(status)) as peer:
        target = a_webhook(peer.url)
        assert await target.fire(TRIGGER) == Fired()
        await target.close()


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (301, Permanent, "target-redirects"),
        (307, Permanent, "target-redirects"),
        (400, Permanent, "target-rejected"),
        (401, Permanent, "target-refused"),
        (403, Permanent, "target-refused"),
        (404, Permanent, "target-missing"),
        (409, Permanent, "target-rejected"),
        (410, Permanent, "target-missing"),
        (408, Transient, "target-failed"),
        (429, Transient, "target-rate-limited"),
        (500, Transient, "target-failed"),
        (502, Transient, "target-failed"),
        (504, Transient, "target-failed"),
    ],
)
async def test_who_must_act_is_told_by_the_status(
    status: int, kind: type[GroundwireError], reason: str
) -> None:
    async with a_peer(always(status, text="Doe, John said no")) as peer:
        target = a_webhook(f"{peer.url}/hook?token=s3cret")
        with pytest.raises(kind) as raised:
            await target.fire(TRIGGER)
        await target.close()
    assert raised.value.reason == reason
    assert str(status) in raised.value.message
    assert not {"s3cret", "Doe"} & set(raised.value.message.replace("=", " ").split())
    assert "127.0.0.1" in raised.value.message


async def test_a_redirect_is_not_followed() -> None:
    async with a_peer(always(200)) as other, a_peer(always(308, Location=other.url)) as peer:
        target = a_webhook(peer.url)
        with pytest.raises(Permanent):
            await target.fire(TRIGGER)
        await target.close()
    assert other.asked == []


@pytest.mark.parametrize(
    ("given", "after_s"),
    [("7", 7.0), ("999999", 3600.0), ("9" * 30, 3600.0), ("-1", None), ("soon", None)],
)
async def test_it_waits_as_long_as_it_is_asked_to(given: str, after_s: float | None) -> None:
    async with a_peer(always(503, Retry_After=given)) as peer:
        target = a_webhook(peer.url)
        with pytest.raises(Transient) as raised:
            await target.fire(TRIGGER)
        await target.close()
    assert raised.value.after_s == after_s


async def test_an_answer_is_read_only_so_far() -> None:
    async with a_peer(always(200, text="x" * (MAX_ANSWER_BYTES * 50))) as peer:
        target = a_webhook(peer.url)
        assert await target.fire(TRIGGER) == Fired()
        await target.close()
        caller = Caller(timeout_s=10)
        answer = await caller.ask("POST", peer.url, headers={})
        await caller.close()
    assert len(answer.body) == MAX_ANSWER_BYTES


async def test_what_is_no_address_is_for_a_person_and_is_not_repeated() -> None:
    target = a_webhook("http://exa mple:99999/s3cret")
    with pytest.raises(Permanent) as raised:
        await target.fire(TRIGGER)
    await target.close()
    assert "s3cret" not in raised.value.message


def test_there_is_no_webhook_without_a_key() -> None:
    with pytest.raises(ValueError, match="key"):
        WebhookTarget("https://example.org", keys=(), timeout_s=1)


def test_it_does_not_show_its_keys() -> None:
    assert text_of(KEY)[6:20] not in repr(a_webhook("https://example.org"))
    assert repr(KEY) not in repr(a_webhook("https://example.org"))
