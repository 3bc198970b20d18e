"""A request of one's own, with GitHub and Argo Events as their APIs have it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from consumer.errors import Permanent, Transient
from handlers.targets.http import MAX_BODY_BYTES, HttpTarget
from handlers.targets.trigger import Fired
from tests.handlers.targets.peers import TRIGGER, Answer, Asked, a_peer, always, another, in_turn

TOKEN = "Bearer github_pat_s3cret"
SUCCESS = (200, 201, 202, 204)


def a_request(url: str, **kwargs: Any) -> HttpTarget:
    plain: dict[str, Any] = {
        "method": "POST",
        "headers": {},
        "secret_headers": {},
        "body": "$event",
        "success": SUCCESS,
        "timeout_s": 10,
    }
    return HttpTarget(url, **{**plain, **kwargs})


async def fired(target: HttpTarget, **fields: Any) -> Fired:
    try:
        return await target.fire(another(**fields))
    finally:
        await target.close()


def github(*, inputs: frozenset[str], seen: list[dict[str, str]]) -> Answer:
    """Checks what GitHub's "Create a workflow dispatch event" does, and says 204."""

    async def answer(asked: Asked) -> web.Response:
        if asked.headers.get("authorization") != TOKEN:
            return web.Response(status=401)
        if not asked.headers.get("user-agent"):
            return web.Response(status=403)
        if asked.path != "/repos/acme/segmenter/actions/workflows/train.yml/dispatches":
            return web.Response(status=404)
        body = asked.json()
        given = body.get("inputs", {})
        good = set(body) <= {"ref", "inputs"} and isinstance(body.get("ref"), str)
        good = good and len(given) <= 25 and set(given) <= inputs
        good = good and all(isinstance(value, str) for value in given.values())
        if not good or len(json.dumps(given)) > 65_535:
            return web.Response(status=422)
        seen.append(given)
        return web.Response(status=204)

    return answer


GITHUB_BODY = """
{"ref": "main",
 "inputs": {"key": "$key", "snapshot": "$snapshot_name", "tasks": "$tasks", "event": "$event"}}
"""


def a_dispatch(url: str, **kwargs: Any) -> HttpTarget:
    return a_request(
        f"{url}/repos/acme/segmenter/actions/workflows/train.yml/dispatches",
        **{
            "headers": {
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            "secret_headers": {"Authorization": TOKEN},
            "body": GITHUB_BODY,
            "success": (200, 204),
            **kwargs,
        },
    )


async def test_github_dispatches_a_workflow_whose_inputs_hold_the_key() -> None:
    seen: list[dict[str, str]] = []
    inputs = frozenset({"key", "snapshot", "tasks", "event"})
    async with a_peer(github(inputs=inputs, seen=seen)) as peer:
        assert await fired(a_dispatch(peer.url)) == Fired()
    assert seen[0]["key"] == TRIGGER.key
    assert seen[0]["tasks"] == "640"
    assert json.loads(seen[0]["event"]) == TRIGGER.event()


async def test_github_refuses_an_input_that_the_workflow_has_not() -> None:
    async with a_peer(github(inputs=frozenset({"key"}), seen=[])) as peer:
        with pytest.raises(Permanent) as raised:
            await fired(a_dispatch(peer.url))
    assert raised.value.reason == "target-rejected"


async def test_github_s_secondary_rate_limit_is_waited_for() -> None:
    async with a_peer(always(403, Retry_After="60")) as peer:
        with pytest.raises(Transient) as raised:
            await fired(a_dispatch(peer.url))
    assert (raised.value.reason, raised.value.after_s) == ("target-rate-limited", 60.0)


async def test_a_token_is_told_to_nobody_else() -> None:
    async with a_peer(always(401)) as peer:
        target = a_dispatch(f"{peer.url}")
        with pytest.raises(Permanent) as raised:
            await fired(target)
    assert peer.asked[0].headers["authorization"] == TOKEN
    assert "s3cret" not in f"{raised.value!r} {raised.value.message} {target!r}"


def argo(events: dict[str, Any]) -> Answer:
    """An Argo Events webhook with an ``authSecret``, and a sensor that names what it makes after
    the key, so that it makes it once."""

    async def answer(asked: Asked) -> web.Response:
        if asked.path != "/groundwire" or asked.method != "POST":
            return web.Response(status=404 if asked.path != "/groundwire" else 400)
        if asked.headers.get("authorization") != "Bearer argo-s3cret":
            return web.Response(status=401)
        body = asked.json()
        events.setdefault(f"train-{body['data']['key']}", body)
        return web.Response(text="success")

    return answer


async def test_argo_events_takes_the_event_and_makes_one_workflow_of_it() -> None:
    events: dict[str, Any] = {}
    async with a_peer(argo(events)) as peer:
        for _ in range(2):
            target = a_request(
                f"{peer.url}/groundwire",
                headers={"Content-Type": "application/cloudevents+json"},
                secret_headers={"Authorization": "Bearer argo-s3cret"},
            )
            assert await fired(target) == Fired()
    assert events == {f"train-{TRIGGER.key}": TRIGGER.event()}
    assert peer.asked[0].body == peer.asked[1].body


async def test_the_body_is_json_unless_it_is_said_otherwise() -> None:
    async with a_peer(always(200)) as peer:
        await fired(a_request(peer.url, body='{"why": "$reason"}'), reason='a "quiet" hour')
    assert peer.asked[0].headers["content-type"] == "application/json"
    assert peer.asked[0].json() == {"why": 'a "quiet" hour'}


async def test_a_form_s_values_are_percent_encoded() -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with a_peer(always(200)) as peer:
        target = a_request(peer.url, headers=form, body="why=$reason&key=$key")
        await fired(target, reason="a&b=c")
    assert peer.asked[0].body == f"why=a%26b%3Dc&key={TRIGGER.key}".encode()


async def test_a_plain_body_holds_the_values_as_they_are() -> None:
    async with a_peer(always(200)) as peer:
        target = a_request(peer.url, headers={"content-type": "text/plain"}, body='"$reason')
        await fired(target, reason='"')
    assert peer.asked[0].body == b'""'


async def test_url_and_headers_are_filled_in() -> None:
    async with a_peer(always(200)) as peer:
        target = a_request(
            f"{peer.url}/runs/$policy?root=$log_root",
            method="PUT",
            headers={"Idempotency-Key": "$key", "X-Why": "$reason"},
        )
        await fired(target, policy="a b/c", reason="one\r\nX-Evil: two")
    (asked,) = peer.asked
    assert (asked.method, asked.path) == ("PUT", "/runs/a%20b%2Fc?root=cm9vdC1oYXNo%2F%2B%3D%3D")
    assert asked.headers["idempotency-key"] == TRIGGER.key
    assert asked.headers["x-why"] == "one  X-Evil: two"
    assert "x-evil" not in asked.headers


@pytest.mark.parametrize(("status", "already"), [(202, False), (409, True)])
async def test_only_the_named_answers_mean_that_it_began(status: int, already: bool) -> None:
    async with a_peer(always(status)) as peer:
        target = a_request(peer.url, success=(202, 409))
        assert await fired(target) == Fired(already=already)


async def test_another_2xx_than_the_named_ones_is_for_a_person() -> None:
    async with a_peer(always(200)) as peer:
        with pytest.raises(Permanent) as raised:
            await fired(a_request(peer.url, success=(204,)))
    assert "200" in raised.value.message


async def test_what_failed_is_asked_again_with_the_same_body() -> None:
    async with a_peer(in_turn(always(500), always(202))) as peer:
        target = a_request(peer.url)
        with pytest.raises(Transient):
            await target.fire(TRIGGER)
        await fired(target)
    assert peer.asked[0].body == peer.asked[1].body == TRIGGER.body()


async def test_a_body_that_grew_too_large_is_not_sent() -> None:
    async with a_peer(always(200)) as peer:
        target = a_request(peer.url, body='"' + "$reason" * 300 + '"')
        with pytest.raises(Permanent) as raised:
            await fired(target, reason="x" * (MAX_BODY_BYTES // 300 + 1))
    assert raised.value.reason == "target-request"
    assert peer.asked == []


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ({"body": "{'key': $key}"}, "not JSON"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "control character"),
        ({"secret_headers": {"X-A": "a\nb"}}, "control character"),
        ({"headers": {"authorization": "a"}, "secret_headers": {"Authorization": "b"}}, "twice"),
        ({"headers": {"Content-Length": "0"}}, "not to be set"),
    ],
)
def test_what_can_make_no_request_is_found_before_it_is_needed(
    mistake: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        a_request("https://example.org", **mistake)


def test_no_value_chooses_the_host() -> None:
    with pytest.raises(ValueError, match="host"):
        a_request("https://$policy.example.org/")
